/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/handler.h"

#include "rpc/call.h"

int handle_show_configuration(struct call *call)
{
	return refuse_unimplemented(&call->refusal, "ADMIN", "not yet");
}
