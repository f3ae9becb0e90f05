/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Snapshots of guests, for their owners and for operators. Under the guest's lock, off its lane. */
#include "broker/describe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/delegation.h"
#include "broker/device.h"
#include "broker/guest.h"
#include "broker/memory_file.h"
#include "broker/nested.h"
#include "broker/root.h"

/* *_locked: with the guest's lock held. */

static void summary_fill_locked(const struct guest *guest, struct guest_summary *ret)
{
	const struct nested *nested;

	*ret = (struct guest_summary){
		.guest = guest->object.handle,
		.has_uuid = guest->has_uuid,
		.pid = guest->pid,
		.uid = guest->uid,
		.region_bytes = region_list_bytes(&guest->regions),
		.pinned = guest->pinned,
		.devices = (uint32_t)guest->n_devices,
		.nested_domains = (uint32_t)guest->n_nested,
	};
	memcpy(ret->uuid, guest->uuid, sizeof(ret->uuid));
	memcpy(ret->name, guest->name, sizeof(ret->name));
	memcpy(ret->tenant, guest->tenant_name, sizeof(ret->tenant));
	DL_FOREACH (guest->nested, nested)
		ret->live_leaves += nested->stats.leaves;
}

static void device_fill_locked(const struct device *device, struct device_description *ret)
{
	const struct guest *guest = device->object.guest;

	*ret = (struct device_description){
		.device = device->object.handle,
		.bound = device->bound,
		.attachment = device->attachment,
		.nested = device->attached ? device->attached->object.handle : 0,
		.relaxed_granted = device->relaxed_granted,
		.passed = device->passed,
		.mappings_budget =
			ledger_room(&guest->broker->ledger, &guest->account, LEDGER_MAPPINGS),
		.info = device->info,
		.n_iova_ranges = device->n_iova_ranges,
	};
	ret->info.designations = device_designations(device);
	memcpy(ret->iova_ranges, device->iova_ranges, sizeof(ret->iova_ranges));
}

/* There may be many rules: without a lock. */
static void device_fill_rule(const struct guest *guest, struct device_description *device)
{
	const struct device_client client = device_client(guest);
	struct policy *policy = policy_get(guest->broker);
	struct device_judgement judgement;

	device_judge(&policy->settings, &client, device->passed, &device->info, &judgement);
	if (judgement.kind == DEVICE_ALLOWED)
		memcpy(device->rule, judgement.where, sizeof(device->rule));
	policy_unref(policy);
}

void device_fill_description(struct device *device, struct device_description *ret)
{
	struct guest *guest = device->object.guest;

	pthread_mutex_lock(&guest->lock);
	device_fill_locked(device, ret);
	pthread_mutex_unlock(&guest->lock);
	device_fill_rule(guest, ret);
}

int device_describe(struct broker *broker, struct session *session, uint64_t handle,
		    struct device_description *ret, struct refusal *refusal)
{
	struct device *device = device_find(broker, session, handle, refusal);

	if (!device)
		return REFUSED;
	device_fill_description(device, ret);
	device_unref(device);
	return 0;
}

static void nested_fill_locked(const struct nested *nested, struct nested_description *ret)
{
	const struct nested_backing *backing = &nested->backing;

	*ret = (struct nested_description){
		.nested = nested->object.handle,
		.index = nested->index,
		.device = nested->device->object.handle,
		.format = backing->format,
		.iota = backing->anchor.iota,
		.first = backing->anchor.pba,
		.last = backing->anchor.pal,
		.attached = nested->attached,
		.live_leaves = nested->stats.leaves,
		.kept_tables = nested->stats.tables,
		.kept_bytes = nested->stats.bytes,
		.mappings_reserved = backing->mappings_reserved,
		.refreshes = nested->stats.refreshes,
		.backend_maps = nested->stats.maps,
		.backend_unmaps = nested->stats.cuts,
	};
}

static void region_fill(const struct region *region, struct region_description *ret)
{
	*ret = (struct region_description){
		.memory_file = region->file->object.handle,
		.offset = region->offset,
		.gpa = region->gpa,
		.length_bytes = region->length,
		.granule_bytes = region->granule,
		.writable = region->writable,
	};
}

static void file_fill(const struct memory_file *file, struct memory_file_description *ret)
{
	*ret = (struct memory_file_description){
		.memory_file = file->object.handle,
		.length_bytes = file->length_bytes,
		.page_bytes = file->page_bytes,
		.writable = file->writable,
		.huge_pages = file->huge,
	};
}

static bool description_alloc_locked(const struct guest *guest, struct guest_description *d)
{
	/* One more of each, so that none asks for 0 bytes. */
	d->memory_files = calloc(guest->n_files + 1, sizeof(*d->memory_files));
	d->regions = calloc(guest->regions.n + 1, sizeof(*d->regions));
	d->devices = calloc(guest->n_devices + 1, sizeof(*d->devices));
	d->nested = calloc(guest->n_nested + 1, sizeof(*d->nested));
	return d->memory_files && d->regions && d->devices && d->nested;
}

/* delegation: only what it is for; or NULL. Counts and reservations are the guest's as a whole. */
static void description_fill_locked(const struct guest *guest, const struct delegation *delegation,
				    struct guest_description *d)
{
	const struct memory_file *file;
	const struct device *device;
	const struct nested *nested;

	summary_fill_locked(guest, &d->summary);
	d->n_labels = guest->n_labels;
	memcpy(d->labels, guest->labels, sizeof(d->labels));
	DL_FOREACH (guest->files, file)
		file_fill(file, &d->memory_files[d->n_memory_files++]);
	for (size_t i = 0; i < guest->regions.n; i++)
		region_fill(&guest->regions.items[i], &d->regions[d->n_regions++]);
	DL_FOREACH (guest->devices, device)
		if (delegation_names_device(delegation, device->object.handle))
			device_fill_locked(device, &d->devices[d->n_devices++]);
	DL_FOREACH (guest->nested, nested) {
		if (delegation_names_device(delegation, nested->device_handle))
			nested_fill_locked(nested, &d->nested[d->n_nested++]);
		d->mappings_reserved += nested->backing.mappings_reserved;
	}
}

int guest_describe(struct broker *broker, struct session *session, uint64_t handle,
		   struct guest_description **ret, struct refusal *refusal)
{
	struct guest_description *description = calloc(1, sizeof(*description));
	struct guest *guest = guest_find(broker, session, handle, refusal);
	bool filled = false;

	if (guest && description) {
		pthread_mutex_lock(&guest->lock);
		filled = description_alloc_locked(guest, description);
		if (filled)
			description_fill_locked(guest, session ? session->delegation : NULL,
						description);
		pthread_mutex_unlock(&guest->lock);
	}
	for (size_t i = 0; filled && i < description->n_devices; i++)
		device_fill_rule(guest, &description->devices[i]);
	if (filled)
		*ret = description;
	else
		guest_description_free(description);
	if (guest && !filled)
		refuse_errno(refusal, ENOMEM, "describing the guest");
	guest_unref(guest);
	return filled ? 0 : REFUSED;
}

struct guest_description *guest_description_free(struct guest_description *description)
{
	if (!description)
		return NULL;
	free(description->memory_files);
	free(description->regions);
	free(description->devices);
	free(description->nested);
	free(description);
	return NULL;
}

static void session_list_guests(struct session *session, struct guest_summary *ret, size_t n,
				size_t *count)
{
	struct guest *guest;

	DL_FOREACH2(session->guests, guest, session_next)
	{
		if (*count < n) {
			pthread_mutex_lock(&guest->lock);
			summary_fill_locked(guest, &ret[*count]);
			pthread_mutex_unlock(&guest->lock);
		}
		++*count;
	}
}

/* The one that it was given, while that lives. */
static void delegation_list_guest(struct session *session, struct guest_summary *ret, size_t n,
				  size_t *count)
{
	struct guest *guest = session->delegation->guest;

	if (session->closed || !guest->object.listed)
		return;
	if (n) {
		pthread_mutex_lock(&guest->lock);
		summary_fill_locked(guest, ret);
		pthread_mutex_unlock(&guest->lock);
	}
	++*count;
}

int guest_list(struct broker *broker, struct session *session, struct guest_summary *ret, size_t n,
	       size_t *ret_n, struct refusal *refusal)
{
	size_t count = 0;
	struct session *any;

	pthread_mutex_lock(&broker->lock);
	if (session && session->delegation) {
		delegation_list_guest(session, ret, n, &count);
	} else if (session) {
		session_list_guests(session, ret, n, &count);
	} else {
		DL_FOREACH (broker->sessions, any)
			session_list_guests(any, ret, n, &count);
	}
	pthread_mutex_unlock(&broker->lock);
	*ret_n = count;
	return 0;
}

static void status_add_session(const struct session *session, struct broker_status *ret)
{
	struct guest_summary summary;
	struct guest *guest;

	DL_FOREACH2(session->guests, guest, session_next)
	{
		pthread_mutex_lock(&guest->lock);
		summary_fill_locked(guest, &summary);
		pthread_mutex_unlock(&guest->lock);
		ret->guests++;
		ret->devices += summary.devices;
		ret->nested_domains += summary.nested_domains;
		ret->mappings_installed += summary.live_leaves;
	}
}

void broker_status(struct broker *broker, struct broker_status *ret)
{
	struct usage host[LEDGER_RESOURCES];
	struct session *session;

	*ret = (struct broker_status){0};
	pthread_mutex_lock(&broker->lock);
	ret->sessions = broker->n_sessions;
	DL_FOREACH (broker->sessions, session)
		status_add_session(session, ret);
	pthread_mutex_unlock(&broker->lock);
	ledger_usage(&broker->ledger, &broker->host, host);
	ret->pinned_bytes = host[LEDGER_PINNED_BYTES].current;
	ret->mappings_reserved = host[LEDGER_MAPPINGS].current;
}
