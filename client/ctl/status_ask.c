/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* GetStatus as one answer, of however many pages of tenants it is made. */

#include <stdlib.h>
#include <string.h>

#include "ctl/status_ask.h"

typedef Iommubroker__V1__GetStatusResponse Status;

struct pages {
	Status *all; /* of the first page, with what is added to it; NULL before */
};

/* A message is its caller's only for as long as it is handed out. */
static Status *copy_of(const ProtobufCMessage *message)
{
	size_t n = protobuf_c_message_get_packed_size(message);
	uint8_t *bytes = malloc(n + 1);
	Status *copy;

	if (bytes == NULL)
		abort();
	protobuf_c_message_pack(message, bytes);
	copy = iommubroker__v1__get_status_response__unpack(NULL, n, bytes);
	free(bytes);
	if (copy == NULL)
		abort();
	return copy;
}

/* The host comes with each page. */
static void add_page(Status *all, Status *consume_page)
{
	size_t n = consume_page->n_usage > 0 ? consume_page->n_usage - 1 : 0;
	Iommubroker__V1__GetUsageResponse **usage =
		reallocarray(all->usage, all->n_usage + n + 1, sizeof(*usage));

	if (usage == NULL)
		abort();
	for (size_t i = 0; i < n; i++)
		usage[all->n_usage + i] = consume_page->usage[1 + i];
	all->usage = usage;
	all->n_usage += n;
	all->usage_more = consume_page->usage_more;
	consume_page->n_usage = n > 0 ? 1 : consume_page->n_usage;
	iommubroker__v1__get_status_response__free_unpacked(consume_page, NULL);
}

static bool take_page(void *user_data, const ProtobufCMessage *message)
{
	struct pages *pages = user_data;
	Status *page = copy_of(message);

	if (pages->all == NULL)
		pages->all = page;
	else
		add_page(pages->all, page);
	return true;
}

/* A page that brings no name after the last one would never end. */
static bool next_page(const struct pages *pages, Iommubroker__V1__GetStatusRequest *request)
{
	const char *last;

	if (pages->all == NULL || !pages->all->usage_more || pages->all->n_usage < 2)
		return false;
	last = pages->all->usage[pages->all->n_usage - 1]->tenant;
	if (strcmp(last, request->usage_after) <= 0)
		return false;
	request->usage_after = (char *)last;
	return true;
}

void status_ask(struct rpc *rpc, rpc_message_fn function, void *user_data,
		struct rpc_status *ret_status)
{
	Iommubroker__V1__GetStatusRequest request = IOMMUBROKER__V1__GET_STATUS_REQUEST__INIT;
	struct pages pages = {0};

	do {
		rpc_call(rpc, "GetStatus", &request.base,
			 &iommubroker__v1__get_status_response__descriptor, take_page, &pages,
			 ret_status);
	} while (ret_status->code == 0 && next_page(&pages, &request));
	if (ret_status->code == 0 && pages.all != NULL)
		function(user_data, &pages.all->base);
	if (pages.all != NULL)
		iommubroker__v1__get_status_response__free_unpacked(pages.all, NULL);
}
