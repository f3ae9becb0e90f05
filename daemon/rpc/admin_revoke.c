/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/handler.h"

#include "rpc/call.h"

int prepare_revoke(struct call *call)
{
	return refuse_unimplemented(&call->refusal, "ADMIN", "not yet");
}

int handle_revoke(struct call *call)
{
	return refuse_unimplemented(&call->refusal, "ADMIN", "not yet");
}

int handle_drain(struct call *call)
{
	return refuse_unimplemented(&call->refusal, "ADMIN", "not yet");
}
