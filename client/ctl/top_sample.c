/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A sample: totals and tenants from GetStatus, guests from ShowGuest, and from ShowQuota what was
 * refused by rates and to each guest. A daemon that has no ShowQuota is shown without those.
 */

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl/status_ask.h"
#include "ctl/top.h"
#include "iommubroker/v1/admin.pb-c.h"

#define RPC_UNIMPLEMENTED 12
#define RPC_NOT_FOUND     5

typedef Iommubroker__V1__GetUsageResponse Usage;
typedef Iommubroker__V1__GetStatusResponse Status;
typedef Iommubroker__V1__GuestDescription Guest;
typedef Iommubroker__V1__ShowQuotaResponse Account;

static struct top_row *add_row(struct top_sample *sample, const char *name, const char *tenant)
{
	struct top_row *rows =
		reallocarray(sample->rows, sample->n_rows + 1, sizeof(sample->rows[0]));
	struct top_row *row;

	if (rows == NULL)
		abort();
	sample->rows = rows;
	row = &rows[sample->n_rows++];
	*row = (struct top_row){.name = strdup(name), .tenant = strdup(tenant)};
	row->tenant_index = sample->n_rows - 1;
	if (row->name == NULL || row->tenant == NULL)
		abort();
	return row;
}

static int compare_name(const void *a, const void *b)
{
	return strcmp(((const struct top_row *)a)->name, ((const struct top_row *)b)->name);
}

static struct top_row *find_tenant(struct top_sample *sample, const char *tenant)
{
	const struct top_row key = {.name = (char *)tenant};
	struct top_row *row = sample->n_sorted > 0 ? bsearch(&key, sample->rows, sample->n_sorted,
							     sizeof(sample->rows[0]), compare_name)
						   : NULL;

	if (row != NULL)
		return row;
	for (size_t i = sample->n_sorted; i < sample->n_rows; i++)
		if (!sample->rows[i].is_guest && strcmp(sample->rows[i].name, tenant) == 0)
			return &sample->rows[i];
	return NULL;
}

static struct top_row *find_guest(struct top_sample *sample, uint64_t guest)
{
	for (size_t i = 0; i < sample->n_rows; i++)
		if (sample->rows[i].is_guest && sample->rows[i].guest == guest)
			return &sample->rows[i];
	return NULL;
}

static void take_tenant(struct top_sample *sample, const Usage *usage)
{
	struct top_row *row = add_row(sample, usage->tenant, usage->tenant);

	row->calls = usage->calls;
	row->pinned_max = UINT64_MAX;
	for (size_t i = 0; i < usage->n_usage; i++) {
		const Iommubroker__V1__GetUsageResponse__Usage *one = usage->usage[i];

		row->refused += one->events;
		if (strcmp(one->resource, "pinned_bytes") == 0) {
			row->pinned_bytes = one->current;
			row->pinned_max = one->max;
		}
	}
}

static bool take_status(void *user_data, const ProtobufCMessage *message)
{
	const Status *status = (const void *)message;
	struct top_sample *sample = user_data;

	sample->version = strdup(status->info != NULL ? status->info->version : "");
	sample->backend = strdup(status->info != NULL ? status->info->backend : "");
	sample->uptime_seconds = status->uptime_seconds;
	sample->calls = status->calls;
	sample->refused = status->refusals;
	sample->pinned_bytes = status->pinned_bytes;
	sample->pinned_max = UINT64_MAX;
	sample->mappings = status->mappings_installed;
	sample->connections = status->connections;
	sample->sessions = status->sessions;
	sample->guests = status->guests;
	sample->devices = status->devices;
	for (size_t i = 0; status->n_usage > 0 && i < status->usage[0]->n_usage; i++)
		if (strcmp(status->usage[0]->usage[i]->resource, "pinned_bytes") == 0)
			sample->pinned_max = status->usage[0]->usage[i]->max;
	for (size_t i = 1; i < status->n_usage; i++)
		take_tenant(sample, status->usage[i]);
	if (sample->n_rows > 0)
		qsort(sample->rows, sample->n_rows, sizeof(sample->rows[0]), compare_name);
	sample->n_sorted = sample->n_rows;
	for (size_t i = 0; i < sample->n_rows; i++)
		sample->rows[i].tenant_index = i;
	return true;
}

static bool take_guest(void *user_data, const ProtobufCMessage *message)
{
	const Guest *guest = ((const Iommubroker__V1__ShowGuestResponse *)message)->description;
	struct top_sample *sample = user_data;
	struct top_row *row, *tenant;

	if (guest == NULL)
		return true;
	if (find_tenant(sample, guest->tenant) == NULL)
		add_row(sample, guest->tenant, guest->tenant)->pinned_max = UINT64_MAX;
	row = add_row(sample, guest->name, guest->tenant);
	tenant = find_tenant(sample, guest->tenant);
	row->is_guest = true;
	row->tenant_index = (size_t)(tenant - sample->rows);
	row->guest = guest->guest;
	row->pinned_bytes = guest->pinned ? guest->region_bytes : 0;
	row->devices = (uint32_t)guest->n_devices;
	row->nested = (uint32_t)guest->n_nested;
	for (size_t i = 0; i < guest->n_nested; i++) {
		row->mappings += guest->nested[i]->live_leaves;
		row->refreshes += guest->nested[i]->refreshes;
	}
	tenant->n_guests++;
	tenant->devices += row->devices;
	tenant->nested += row->nested;
	tenant->mappings += row->mappings;
	tenant->refreshes += row->refreshes;
	sample->refreshes += row->refreshes;
	return true;
}

static bool take_account(void *user_data, const ProtobufCMessage *message)
{
	const Account *account = (const void *)message;
	struct top_sample *sample = user_data;
	struct top_row *row = account->guest != 0 ? find_guest(sample, account->guest)
						  : find_tenant(sample, account->tenant);

	if (row == NULL || (account->guest == 0 && strcmp(account->level, "tenant") != 0))
		return true;
	row->refused = 0;
	for (size_t i = 0; i < account->n_limits; i++)
		row->refused += account->limits[i]->events;
	for (size_t i = 0; i < account->n_rates; i++)
		row->refused += account->rates[i]->refused;
	return true;
}

static void ask_quota_of(struct rpc *rpc, struct top_sample *sample, char *tenant,
			 struct rpc_status *ret)
{
	Iommubroker__V1__ShowQuotaRequest request = IOMMUBROKER__V1__SHOW_QUOTA_REQUEST__INIT;

	request.tenant = tenant;
	rpc_call(rpc, "ShowQuota", &request.base, &iommubroker__v1__show_quota_response__descriptor,
		 take_account, sample, ret);
	/* It is not there any more. */
	if (ret->code == RPC_NOT_FOUND)
		ret->code = 0;
}

/* Of all tenants at once, and again of each that has guests, which come with it. */
static void ask_quota(struct rpc *rpc, struct top_sample *sample, struct rpc_status *ret)
{
	char all[] = "";

	ask_quota_of(rpc, sample, all, ret);
	for (size_t i = 0; i < sample->n_rows && ret->code == 0; i++) {
		if (sample->rows[i].n_guests == 0)
			continue;
		ask_quota_of(rpc, sample, sample->rows[i].name, ret);
	}
	if (ret->code == RPC_UNIMPLEMENTED)
		ret->code = 0;
}

void top_sample_take(struct rpc *rpc, struct top_sample **ret, struct rpc_status *ret_status)
{
	Iommubroker__V1__ShowGuestRequest show = IOMMUBROKER__V1__SHOW_GUEST_REQUEST__INIT;
	struct top_sample *sample = calloc(1, sizeof(*sample));
	struct timespec now;

	if (sample == NULL)
		abort();
	clock_gettime(CLOCK_MONOTONIC, &now);
	sample->time_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	*ret = sample;
	status_ask(rpc, take_status, sample, ret_status);
	if (ret_status->code == 0)
		rpc_call(rpc, "ShowGuest", &show.base,
			 &iommubroker__v1__show_guest_response__descriptor, take_guest, sample,
			 ret_status);
	if (ret_status->code == 0)
		ask_quota(rpc, sample, ret_status);
	top_sample_index(sample);
}

struct top_sample *top_sample_free(struct top_sample *sample)
{
	if (sample == NULL)
		return NULL;
	for (size_t i = 0; i < sample->n_rows; i++) {
		free(sample->rows[i].name);
		free(sample->rows[i].tenant);
	}
	free(sample->rows);
	free(sample->by_name);
	free(sample->version);
	free(sample->backend);
	free(sample);
	return NULL;
}
