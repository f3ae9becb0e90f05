/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* All metrics in one answer, for those who would rather not open a socket of the network. */

#include <errno.h>
#include <stdlib.h>

#include "iommubroker/v1/admin.pb-c.h"
#include "rpc/call.h"
#include "rpc/handler.h"
#include "rpc/metrics_gather.h"

int handle_get_metrics(struct call *call)
{
	Iommubroker__V1__GetMetricsResponse response = IOMMUBROKER__V1__GET_METRICS_RESPONSE__INIT;
	size_t n;
	int status = metrics_gather(call->dispatcher, &response.text, &n);

	if (status)
		return refuse_errno(&call->refusal, ENOMEM, "putting the metrics together");
	status = call_answer(call, &response.base);
	free(response.text);
	return status;
}
