/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/handler.h"

#include "rpc/call.h"

int handle_show_quota(struct call *call)
{
	return refuse_unimplemented(&call->refusal, "ADMIN", "not yet");
}

int prepare_explain_quota(struct call *call)
{
	return refuse_unimplemented(&call->refusal, "ADMIN", "not yet");
}

int handle_explain_quota(struct call *call)
{
	return refuse_unimplemented(&call->refusal, "ADMIN", "not yet");
}

int handle_check_tenant_fit(struct call *call)
{
	return refuse_unimplemented(&call->refusal, "ADMIN", "not yet");
}
