/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Taking over the guests of a process before this one.
 *
 * For each guest: its records are read and checked as a whole (restore_plan.c); then everything
 * that they name is built again over the stored descriptors, as it is, while the guest's devices go
 * on with their DMA; then what was under way is resolved, what no record names is destroyed, and
 * every nested domain is brought in line with the guest's tables in place. A guest of which
 * something cannot be taken over is taken down in good order, and said so; the others do not
 * notice.
 *
 * Nobody calls yet while this runs, so lanes are free; what asks for one is given it all the same.
 */
#include "broker/broker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/backend_call.h"
#include "broker/delegation.h"
#include "broker/device.h"
#include "broker/domain.h"
#include "broker/guest.h"
#include "broker/memory.h"
#include "broker/memory_file.h"
#include "broker/nested.h"
#include "broker/restore_plan.h"
#include "broker/root.h"
#include "util/clock.h"
#include "util/crash_point.h"
#include "util/fd.h"
#include "util/log.h"

#define IDS_BEYOND  64u   /* of objects that the kernel made after the last record */
#define IDS_UNKNOWN 4096u /* where no record can be read */

struct restoring {
	struct broker *broker;
	uint32_t number;
	struct stored_fd *fds; /* of this guest; -1: taken */
	size_t n_fds;
	struct state_file *state; /* until the guest has it */
	struct restore_plan plan;
	struct guest *guest;
	bool promised; /* somebody was told that it is there */
	struct region_list live, going, making;
	bool owned; /* live and going are the guest's */
	struct refusal refusal;
	char why[RESTORE_WHY_BYTES + 64];
};

/* ── descriptors ───────────────────────────────────────────────────────────────────────────── */

/* The caller's, or -1. */
static int fd_take(struct restoring *r, enum fd_kind kind, uint32_t index)
{
	for (size_t i = 0; i < r->n_fds; i++) {
		struct stored_fd *stored = &r->fds[i];
		int fd = stored->fd;

		if (stored->name.kind != kind || stored->name.index != index || fd < 0)
			continue;
		stored->fd = -1;
		return fd;
	}
	return -1;
}

/* What nobody took is stored no more. */
static void fds_drop(struct restoring *r)
{
	for (size_t i = 0; i < r->n_fds; i++) {
		if (r->fds[i].fd < 0)
			continue;
		fd_store_remove(r->broker->store, &r->fds[i].name);
		r->fds[i].fd = fd_close(r->fds[i].fd);
	}
}

static int fail(struct restoring *r, const char *what)
{
	snprintf(r->why, sizeof(r->why), "%s", what);
	return -EBADMSG;
}

static int fail_refused(struct restoring *r, const char *what)
{
	snprintf(r->why, sizeof(r->why), "%s: %.160s", what, r->refusal.message);
	return -EBADMSG;
}

static int fail_missing(struct restoring *r, const char *what, uint32_t index)
{
	snprintf(r->why, sizeof(r->why), "the descriptor of %s %u is not in the store", what,
		 index);
	return -EBADMSG;
}

/* ── the file ──────────────────────────────────────────────────────────────────────────────── */

static int state_read(struct restoring *r)
{
	const char *why = "";
	const void *content;
	size_t n;
	int fd = fd_take(r, FD_STATE, 0), status;

	if (fd < 0)
		return fail_missing(r, "the state file", 0);
	status = state_file_adopt(&r->state, fd, &why);
	if (status)
		return fail(r, status == -EBADMSG ? why : strerror(-status));
	content = state_file_content(r->state, &n);
	r->promised = content;
	if (!content)
		return fail(r, "it was still being made");
	return restore_plan_read(&r->plan, content, n, r->why);
}

/* ── sessions and the guest itself ─────────────────────────────────────────────────────────── */

static struct session *session_known(struct broker *broker, uint64_t id)
{
	struct session *session;

	DL_FOREACH (broker->sessions, session)
		if (session->id == id)
			return session_ref(session);
	return NULL;
}

/* The same session can be in the files of several guests. With a reference. */
static struct session *session_get(struct restoring *r, const struct record_session *record)
{
	struct broker *broker = r->broker;
	struct session *session;
	struct tenant *tenant;
	bool lives = true;

	pthread_mutex_lock(&broker->lock);
	session = session_known(broker, record->id);
	if (!session) {
		tenant = tenant_restore(broker, record->tenant_name, record->rule_name,
					record->tenant_uid);
		session = tenant ? session_restore(broker, record, tenant, &lives) : NULL;
		if (session)
			session->gone = !lives || record->closed;
		else if (tenant)
			tenant_put(broker, tenant);
	}
	pthread_mutex_unlock(&broker->lock);
	return session;
}

/* Of a guest whose creator has ended: what its objects refer to. */
static struct session *session_ended(struct restoring *r)
{
	const struct record_guest *guest = &r->plan.guest;
	struct record_session record = {.id = guest->creator};
	struct session *session;

	memcpy(record.tenant_name, guest->tenant_name, sizeof(record.tenant_name));
	pthread_mutex_lock(&r->broker->lock);
	session = session_restore(r->broker, &record, NULL, NULL);
	pthread_mutex_unlock(&r->broker->lock);
	return session;
}

static struct tenant *tenant_get_back(struct restoring *r)
{
	const struct record_guest *guest = &r->plan.guest;
	struct tenant *tenant;

	pthread_mutex_lock(&r->broker->lock);
	tenant = tenant_restore(r->broker, guest->tenant_name, guest->rule_name, guest->tenant_uid);
	pthread_mutex_unlock(&r->broker->lock);
	return tenant;
}

/* An ended session's guests are charged to their tenant. */
static void adopt_account(struct session *creator, struct tenant *tenant)
{
	if (creator->ended)
		creator->account.parent = &tenant->account;
}

static int guest_build_with(struct restoring *r, struct session *creator, struct session *home)
{
	struct tenant *tenant = creator && home ? tenant_get_back(r) : NULL;

	if (!tenant)
		return fail(r, "no memory");
	adopt_account(creator, tenant);
	r->guest = guest_restore(r->broker, &r->plan.guest, creator, home, tenant);
	return r->guest ? 0 : fail(r, "no memory");
}

static void guest_add_labels(struct restoring *r)
{
	struct guest *guest = r->guest;

	guest->n_labels = r->plan.n_labels;
	for (size_t i = 0; i < guest->n_labels; i++) {
		memcpy(guest->labels[i].key, r->plan.labels[i].key, BROKER_NAME_MAX);
		memcpy(guest->labels[i].value, r->plan.labels[i].value, BROKER_NAME_MAX);
	}
}

static void guest_take_state(struct restoring *r)
{
	struct guest_kept *kept = &r->guest->kept;

	kept->number = r->number;
	kept->numbered = true;
	kept->state = r->state;
	kept->highest_id = r->plan.guest.highest_id;
	r->state = NULL;
	event_ring_keep(r->guest->events, state_word(kept->state, GUEST_WORD_EVENTS));
	for (size_t i = 0; i < r->plan.n_answers; i++) {
		const struct restore_answer *answer = &r->plan.answers[i];
		struct broker_answer plain = {
			.request_id = answer->record.request_id,
			.method = answer->record.method,
			.code = answer->record.code,
			.bytes = answer->bytes,
			.n_bytes = answer->n_bytes,
		};

		memcpy(plain.digest, answer->record.digest, sizeof(plain.digest));
		answers_add(&kept->answers, answer->record.session, &plain);
	}
}

static int delegations_build(struct restoring *r)
{
	int status = 0;

	for (size_t i = 0; !status && i < r->plan.n_sessions; i++) {
		const struct record_session *record = &r->plan.sessions[i];
		struct session *session;

		if (!record->has_delegation || record->closed)
			continue;
		session = session_get(r, record);
		if (!session)
			return fail(r, "no memory");
		pthread_mutex_lock(&r->broker->lock);
		if (!session->delegation)
			status = delegation_restore(r->guest, session, record);
		pthread_mutex_unlock(&r->broker->lock);
		session_unref(session);
	}
	return status ? fail(r, "no memory") : 0;
}

static int guest_build(struct restoring *r)
{
	const struct record_guest *guest = &r->plan.guest;
	const struct record_session *record = restore_plan_session(&r->plan, guest->creator);
	struct session *creator = record ? session_get(r, record) : session_ended(r), *home;
	int status;

	record = restore_plan_session(&r->plan, guest->home);
	home = record ? session_get(r, record) : session_ref(creator);
	status = guest_build_with(r, creator, home);
	session_unref(creator);
	session_unref(home);
	if (status)
		return status;
	guest_add_labels(r);
	guest_take_state(r);
	return delegations_build(r);
}

/* ── what it has ───────────────────────────────────────────────────────────────────────────── */

static int context_build(struct restoring *r)
{
	const struct record_guest *record = &r->plan.guest;
	struct guest *guest = r->guest;
	int fd = fd_take(r, FD_CONTEXT, 0), error;

	if (fd < 0 && record->stage == RECORD_GOING)
		return 0; /* all of it has gone */
	if (fd < 0)
		return fail_missing(r, "the context", 0);
	error = broker_ops(r->broker)->context_adopt(r->broker->backend, fd, &guest->context);
	if (error)
		return fail(r, strerror(error));
	guest->parent.made = true;
	guest->parent.ioas = record->parent_ioas;
	guest->parent.n_page_tables = record->n_page_tables;
	memcpy(guest->parent.page_tables, record->page_tables, sizeof(record->page_tables));
	guest->pinned = record->pinned;
	CRASH_POINT(RESTORE_ADOPTED);
	return 0;
}

static int files_build(struct restoring *r)
{
	for (size_t i = 0; i < r->plan.n_files; i++) {
		const struct record_file *record = &r->plan.files[i];
		int fd = fd_take(r, FD_MEMORY, record->index);

		if (fd < 0 && r->plan.guest.stage == RECORD_GOING)
			continue;
		if (fd < 0)
			return fail_missing(r, "memory file", record->index);
		if (memory_file_restore(r->guest, record, fd, &r->refusal))
			return fail_refused(r, "memory file");
	}
	return 0;
}

static struct memory_file *file_of(const struct restoring *r, uint64_t handle)
{
	struct memory_file *file;

	DL_FOREACH (r->guest->files, file)
		if (file->object.handle == handle)
			break;
	return file;
}

static int region_build(struct restoring *r, const struct record_region *record)
{
	struct region region = {
		.file = file_of(r, record->file),
		.offset = record->offset,
		.gpa = record->gpa,
		.length = record->length,
		.granule = record->granule,
		.area_bytes = record->area_bytes,
		.writable = record->writable,
	};
	struct region_list *list = record->stage == RECORD_LIVE    ? &r->live
				   : record->stage == RECORD_GOING ? &r->going
								   : &r->making;

	if (!region.file)
		return r->plan.guest.stage == RECORD_GOING ? 0 : fail(r, "a region without file");
	if (region.area_bytes > r->broker->slice_bytes)
		return fail(r, "a region whose areas are larger than a slice");
	if (record->stage != RECORD_MAKING) {
		region.counters = frame_counters_new(region.length);
		if (!region.counters)
			return fail(r, "no memory");
	}
	if (!region_list_push(list, &region))
		return 0;
	frame_counters_put(region.counters);
	return fail(r, "no memory");
}

/* Live and going ones are charged: those that go come back. */
static void regions_charge(struct restoring *r)
{
	struct ledger_amounts amounts = {0};

	amounts.amount[LEDGER_PINNED_BYTES] =
		region_list_bytes(&r->live) + region_list_bytes(&r->going);
	amounts.amount[LEDGER_REGIONS] = region_list_cost(&r->live) + region_list_cost(&r->going);
	ledger_take_over(&r->broker->ledger, &r->guest->account, &amounts);
}

/* From here on they are the guest's, and go with it. */
static int regions_own(struct restoring *r)
{
	struct guest *guest = r->guest;
	struct region_list all = {0};
	int error = 0;

	for (size_t i = 0; !error && i < r->live.n; i++)
		error = region_list_push(&all, &r->live.items[i]);
	for (size_t i = 0; !error && i < r->going.n; i++)
		error = region_list_push(&all, &r->going.items[i]);
	if (error) {
		region_list_clear(&all);
		return fail(r, "no memory");
	}
	region_list_sort(&all);
	guest->regions = all;
	for (size_t i = 0; i < guest->regions.n; i++)
		guest->regions.items[i].file->n_regions++;
	regions_charge(r);
	r->owned = true;
	return 0;
}

static int regions_build(struct restoring *r)
{
	struct memory_view *view;
	int status = 0;

	for (size_t i = 0; !status && i < r->plan.n_regions; i++)
		status = region_build(r, &r->plan.regions[i]);
	if (!status)
		status = regions_own(r);
	if (status)
		return status;
	view = memory_view_of(&r->guest->regions);
	if (!view)
		return fail(r, "no memory");
	free(memory_publish(r->guest, view));
	return 0;
}

static bool id_is_recorded(const struct restoring *r, uint32_t id)
{
	const struct restore_plan *plan = &r->plan;

	for (size_t i = 0; i < plan->n_devices; i++)
		if (plan->devices[i].kernel_id == id && plan->devices[i].stage != RECORD_BINDING)
			return true;
	return false;
}

/* Bound by a process that died before it could say so: the one id of a device that no record has.
 */
static uint32_t id_of_binding(const struct restoring *r)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);

	for (uint32_t id = 1; id <= r->plan.guest.highest_id + IDS_BEYOND; id++) {
		bool is_device = false;

		if (!id_is_recorded(r, id) &&
		    !ops->context_has_device(r->guest->context, id, &is_device) && is_device)
			return id;
	}
	return 0;
}

static uint32_t id_of(const struct restoring *r, const struct record_device *record)
{
	if (record->stage == RECORD_BINDING && !record->bound)
		return id_of_binding(r);
	return record->kernel_id;
}

static int device_build(struct restoring *r, const struct record_device *record)
{
	int fd = fd_take(r, FD_DEVICE, record->index);

	if (fd < 0 && (record->stage == RECORD_GOING || r->plan.guest.stage == RECORD_GOING))
		return 0; /* that far it had come */
	if (fd < 0)
		return fail_missing(r, "device", record->index);
	if (device_restore(r->guest, record, fd, id_of(r, record), &r->refusal))
		return fail_refused(r, record->pci_address);
	return 0;
}

static struct device *device_of(const struct restoring *r, uint64_t handle)
{
	struct device *device;

	DL_FOREACH (r->guest->devices, device)
		if (device->object.handle == handle)
			break;
	return device;
}

static struct nested *nested_of(const struct restoring *r, uint64_t handle)
{
	struct nested *nested;

	DL_FOREACH (r->guest->nested, nested)
		if (nested->object.handle == handle)
			break;
	return nested;
}

static int nested_build(struct restoring *r, const struct record_nested *record)
{
	struct device *device = device_of(r, record->device);

	if (!device) /* it was closed: what is left goes with what no record names */
		return 0;
	if (nested_restore(device, record, guest_view(r->guest), &r->refusal))
		return fail_refused(r, "nested domain");
	return 0;
}

static int devices_build(struct restoring *r)
{
	int status = 0;

	for (size_t i = 0; !status && i < r->plan.n_devices; i++) {
		const struct record_device *record = &r->plan.devices[i];
		struct device *device;

		status = device_build(r, record);
		device = device_of(r, record->handle);
		if (!status && device &&
		    relaxed_take_over(&device->relaxed, &record->relaxed, &r->refusal))
			status = fail_refused(r, "relaxed mapping");
	}
	for (size_t i = 0; !status && i < r->plan.n_nested; i++)
		status = nested_build(r, &r->plan.nested[i]);
	for (size_t i = 0; !status && i < r->plan.n_leftovers; i++) {
		const struct record_leftover *record = &r->plan.leftovers[i];

		status = domain_restore_leftover(r->guest, record->ioas, record->page_table,
						 record->has_page_table, &r->refusal);
	}
	return status;
}

/* ── attached as recorded ──────────────────────────────────────────────────────────────────── */

static bool page_table_of(const struct device *device, const struct record_device *record,
			  const struct nested *nested, uint32_t *ret)
{
	switch ((enum attachment)record->attachment) {
	case ATTACHMENT_PARENT:
		*ret = record->page_table;
		return true;
	case ATTACHMENT_RELAXED:
		*ret = device->relaxed.domain.page_table;
		return device->relaxed.domain.made;
	case ATTACHMENT_NESTED:
		*ret = nested ? nested_backing_page_table(&nested->backing) : 0;
		return nested && !nested->broken;
	case ATTACHMENT_BLOCKED:
		break;
	}
	return false;
}

/* To attach it where it is attached does nothing, and to detach what is not, neither. */
static void device_settle(struct restoring *r, const struct record_device *record)
{
	struct device *device = device_of(r, record->handle);
	struct nested *nested = nested_of(r, record->attached);
	uint32_t page_table;

	if (!device || !device->bound)
		return;
	if (record->attachment == ATTACHMENT_BLOCKED) {
		device_block(device, false);
	} else if (!page_table_of(device, record, nested, &page_table) ||
		   device_backend_attach(device, page_table)) {
		log_warning("guest '%s': function %s cannot be attached as it was: it is blocked",
			    r->guest->name, device->info.pci_address);
		device_block_broken(device, record->attached);
	} else {
		device_set_attachment(device, record->attachment,
				      record->attachment == ATTACHMENT_NESTED ? nested : NULL);
	}
}

/* ── what was under way ────────────────────────────────────────────────────────────────────── */

static void unmap_all(struct guest *guest, const struct region_list *regions)
{
	for (size_t i = 0; i < regions->n; i++)
		parent_unmap(guest, &regions->items[i]);
}

/* The first device's bind: nothing of it is promised. */
static void settle_pins(struct restoring *r)
{
	bool binding = false;

	for (size_t i = 0; i < r->plan.n_devices; i++)
		binding |= r->plan.devices[i].stage == RECORD_BINDING;
	if (binding && !r->guest->pinned)
		unmap_all(r->guest, &r->guest->regions);
}

/* Everything that shows memory of which nobody knows whether it is there. */
static void memory_hide(struct restoring *r, const struct memory_view *kept)
{
	struct nested *nested;

	DL_FOREACH (r->guest->nested, nested) {
		nested_lane_enter(nested);
		nested_drop_memory(nested, guest_view(r->guest), kept);
		nested_publish_stats(nested);
		nested_lane_leave(nested);
	}
}

static void relaxed_each(struct restoring *r, const struct region_list *regions,
			 void (*each)(struct guest *guest, struct device *device,
				      struct relaxed *relaxed, struct nested *nested,
				      const struct region *region))
{
	struct guest *guest = r->guest;
	struct device *device;
	struct nested *nested;

	for (size_t i = 0; i < regions->n; i++) {
		DL_FOREACH (guest->devices, device)
			if (device->relaxed.domain.made)
				each(guest, device, &device->relaxed, NULL, &regions->items[i]);
		DL_FOREACH (guest->nested, nested)
			if (nested->backing.relaxed.domain.made)
				each(guest, nested->device, &nested->backing.relaxed, nested,
				     &regions->items[i]);
	}
}

static void relaxed_lost(struct guest *guest, struct device *device, struct relaxed *relaxed,
			 struct nested *nested)
{
	device_block_broken(device, nested ? nested->object.handle : 0);
	relaxed_free(guest, relaxed);
	if (nested)
		nested->broken = true;
}

static void relaxed_hide(struct guest *guest, struct device *device, struct relaxed *relaxed,
			 struct nested *nested, const struct region *region)
{
	if (!relaxed_remove(guest, relaxed, region))
		relaxed_lost(guest, device, relaxed, nested);
}

static void relaxed_show(struct guest *guest, struct device *device, struct relaxed *relaxed,
			 struct nested *nested, const struct region *region)
{
	if (relaxed->domain.made && relaxed_complete(guest, relaxed, region))
		relaxed_lost(guest, device, relaxed, nested);
}

static void region_lose(struct restoring *r, const struct region *lost)
{
	struct guest *guest = r->guest;
	struct ledger_amounts amounts = {0};
	const struct event event = {
		.kind = EVENT_MEMORY_LOST,
		.guest = guest->object.handle,
		.gpa = lost->gpa,
	};
	struct region_list one = {.n = 1, .items = (struct region *)lost};
	size_t i = 0;

	while (guest->regions.items[i].gpa != lost->gpa)
		i++;
	amounts.amount[LEDGER_PINNED_BYTES] = lost->length;
	amounts.amount[LEDGER_REGIONS] = region_list_cost(&one);
	lost->file->n_regions--;
	frame_counters_put(guest->regions.items[i].counters);
	memmove(&guest->regions.items[i], &guest->regions.items[i + 1],
		(--guest->regions.n - i) * sizeof(guest->regions.items[0]));
	ledger_refund(&guest->broker->ledger, &guest->account, &amounts);
	event_post(guest->events, &event);
}

/* An update of the memory map that was not answered is undone. */
static int settle_memory(struct restoring *r)
{
	struct guest *guest = r->guest;
	struct memory_view *kept, *all;

	if (!r->going.n && !r->making.n)
		return 0;
	kept = memory_view_of(&r->live);
	if (!kept)
		return fail(r, "no memory");
	memory_hide(r, kept);
	free(kept);
	relaxed_each(r, &r->making, relaxed_hide);
	relaxed_each(r, &r->going, relaxed_hide);
	/* What came was mapped only when what goes was gone. */
	unmap_all(guest, &r->making);
	unmap_all(guest, &r->going);
	for (size_t i = 0; i < r->going.n; i++) {
		struct pin_progress progress = {.total_bytes = r->going.items[i].length};

		if (parent_map(guest, &r->going.items[i], &progress, &r->refusal))
			region_lose(r, &r->going.items[i]);
	}
	all = memory_view_of(&guest->regions);
	if (!all)
		return fail(r, "no memory");
	free(memory_publish(guest, all));
	return 0;
}

/* Also those of which a fill or a change of the memory map was cut short. */
static void settle_relaxed(struct restoring *r)
{
	relaxed_each(r, &r->guest->regions, relaxed_show);
}

static void settle_going(struct restoring *r)
{
	struct device *device, *next_device;
	struct nested *nested, *next;

	DL_FOREACH_SAFE(r->guest->nested, nested, next)
	{
		if (nested->object.stage == RECORD_GOING)
			nested_drop(nested);
	}
	DL_FOREACH_SAFE(r->guest->devices, device, next_device)
	{
		if (device->object.stage == RECORD_GOING)
			device_take_down(device, NULL);
	}
}

/* ── what no record names ──────────────────────────────────────────────────────────────────── */

static bool domain_has(const struct domain *domain, uint32_t id)
{
	return domain->made && (domain->ioas == id || domain->page_table == id);
}

static bool id_is_ours(const struct restoring *r, uint32_t id)
{
	const struct guest *guest = r->guest;
	const struct device *device;
	const struct nested *nested;

	if (guest->parent.ioas == id)
		return true;
	for (size_t i = 0; i < guest->parent.n_page_tables; i++)
		if (guest->parent.page_tables[i] == id)
			return true;
	for (size_t i = 0; i < r->plan.n_leftovers; i++)
		if (r->plan.leftovers[i].ioas == id || r->plan.leftovers[i].page_table == id)
			return true;
	DL_FOREACH (guest->devices, device)
		if (device->kernel_id == id || domain_has(&device->relaxed.domain, id))
			return true;
	DL_FOREACH (guest->nested, nested)
		if (domain_has(&nested->backing.domain, id) ||
		    domain_has(&nested->backing.relaxed.domain, id))
			return true;
	return false;
}

/* Page tables are made after what they are over; one more pass for what was still in use. */
static void sweep(struct restoring *r)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);

	for (int pass = 0; pass < 2; pass++)
		for (uint32_t id = r->plan.guest.highest_id + IDS_BEYOND; id; id--)
			if (!id_is_ours(r, id))
				ops->destroy(r->guest->context, id);
}

/* ── in line ───────────────────────────────────────────────────────────────────────────────── */

static void reconcile(struct restoring *r)
{
	struct range_result walk;
	struct nested *nested;

	DL_FOREACH (r->guest->nested, nested)
		nested_reconcile(nested, &walk);
}

static int guest_announce(struct restoring *r)
{
	struct guest *guest = r->guest;
	const struct event event = {
		.kind = EVENT_RESUMED,
		.guest = r->plan.guest.handle,
	};

	if (handle_publish_as(r->broker, &guest->object, r->plan.guest.handle, &r->refusal))
		return fail(r, "its handle is another guest's");
	pthread_mutex_lock(&r->broker->lock);
	guest_set_limits(guest);
	pthread_mutex_unlock(&r->broker->lock);
	event_post(guest->events, &event);
	return 0;
}

static int settle(struct restoring *r)
{
	int status;

	for (size_t i = 0; i < r->plan.n_devices; i++)
		device_settle(r, &r->plan.devices[i]);
	CRASH_POINT(RESTORE_DEVICES);
	settle_pins(r);
	status = settle_memory(r);
	if (status)
		return status;
	settle_relaxed(r);
	settle_going(r);
	CRASH_POINT(RESTORE_SETTLED);
	sweep(r);
	CRASH_POINT(RESTORE_SWEPT);
	reconcile(r);
	CRASH_POINT(RESTORE_RECONCILED);
	/* Where the kernel counts by process, it is ours now; where not, nothing is wrong. */
	broker_ops(r->broker)->context_change_process(r->guest->context);
	status = guest_announce(r);
	if (!status && save_guest(r->guest, &r->refusal))
		status = fail_refused(r, "writing it down");
	CRASH_POINT(RESTORE_DONE);
	return status;
}

static int build(struct restoring *r)
{
	int status = state_read(r);

	if (!status)
		status = guest_build(r);
	if (!status)
		status = context_build(r);
	if (status || !r->guest->context)
		return status;
	status = files_build(r);
	if (!status)
		status = regions_build(r);
	return status ? status : devices_build(r);
}

/* ── one that cannot be taken over ─────────────────────────────────────────────────────────── */

static void stop_device(struct restoring *r, struct iommu_context *context, int consume_fd)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);
	const struct iommu_device_address unknown = {.by_fid = true};
	struct iommu_device *device;
	bool is_device;
	int fd;

	for (uint32_t id = 1; context && id < IDS_UNKNOWN; id++) {
		if (ops->context_has_device(context, id, &is_device) || !is_device)
			continue;
		fd = fd_duplicate(consume_fd);
		if (fd < 0 ||
		    ops->device_adopt(r->broker->backend, fd, &unknown, context, id, &device))
			continue;
		ops->device_stop(device);
		ops->detach(device);
		ops->device_close(device);
		break;
	}
	fd_close(consume_fd);
}

/* Without records: every device of which there is a descriptor is stopped and blocked, then all
 * that the kernel has goes. */
static void release_context(struct restoring *r)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);
	struct iommu_context *context = NULL;
	int fd = fd_take(r, FD_CONTEXT, 0);
	uint64_t unmapped;

	if (fd >= 0 && ops->context_adopt(r->broker->backend, fd, &context))
		context = NULL;
	for (size_t i = 0; i < r->n_fds; i++)
		if (r->fds[i].name.kind == FD_DEVICE && r->fds[i].fd >= 0)
			stop_device(r, context, fd_duplicate(r->fds[i].fd));
	for (int pass = 0; context && pass < 2; pass++)
		for (uint32_t id = IDS_UNKNOWN; id; id--)
			if (ops->destroy(context, id))
				ops->unmap(context, id, 0, UINT64_MAX, &unmapped);
	if (context)
		ops->context_free(context);
}

/* What it has of devices that are not taken over yet. */
static void stop_rest(struct restoring *r)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);
	const struct iommu_device_address unknown = {.by_fid = true};

	for (size_t i = 0; i < r->plan.n_devices; i++) {
		const struct record_device *record = &r->plan.devices[i];
		int fd = fd_take(r, FD_DEVICE, record->index);
		struct iommu_device *device;
		uint32_t id = id_of(r, record);

		if (fd < 0 || ops->device_adopt(r->broker->backend, fd, &unknown,
						id ? r->guest->context : NULL, id, &device))
			continue;
		ops->device_stop(device);
		ops->detach(device);
		ops->device_close(device);
	}
}

static void names_forget(struct restoring *r)
{
	for (size_t i = 0; i < r->n_fds; i++)
		fd_store_remove(r->broker->store, &r->fds[i].name);
}

static void release(struct restoring *r, int status)
{
	/* One that was being taken down anyway, and one that its client was not told of, are
	 * nobody's loss. */
	if (status && r->promised && r->plan.guest.stage == RECORD_LIVE)
		log_as(LOG_LEVEL_ERROR, LOG_MESSAGE_NOT_RESTORED,
		       "guest %u '%s' of the process before this one is not taken over but "
		       "released: %s",
		       r->number, r->plan.guest.name, r->why);
	if (r->guest && r->guest->context)
		stop_rest(r);
	if (r->guest) {
		guest_ref(r->guest);
		guest_take_down(r->guest);
		r->guest = NULL;
	}
	release_context(r);
	names_forget(r);
	state_file_free(r->state);
}

/* ── all ───────────────────────────────────────────────────────────────────────────────────── */

static void regions_clear(struct restoring *r)
{
	for (size_t i = 0; !r->owned && i < r->live.n; i++)
		frame_counters_put(r->live.items[i].counters);
	for (size_t i = 0; !r->owned && i < r->going.n; i++)
		frame_counters_put(r->going.items[i].counters);
	region_list_clear(&r->live);
	region_list_clear(&r->going);
	region_list_clear(&r->making);
}

static void restore_one(struct restoring *r, struct restore_report *report)
{
	int status = build(r);

	if (!status && r->plan.guest.stage == RECORD_LIVE)
		status = settle(r);
	if (status || r->plan.guest.stage == RECORD_GOING) {
		release(r, status);
		report->released += status && r->promised;
	} else {
		struct nested *nested;

		report->guests++;
		report->regions += r->guest->regions.n;
		DL_FOREACH (r->guest->nested, nested)
			report->mappings += nested->stats.leaves;
	}
	fds_drop(r);
	regions_clear(r);
	restore_plan_clear(&r->plan);
}

static int compare_fds(const void *a, const void *b)
{
	const struct stored_fd *left = a, *right = b;

	return left->name.guest < right->name.guest ? -1 : left->name.guest > right->name.guest;
}

static void number_claim(struct broker *broker, uint32_t number)
{
	broker->numbers[number / 8] |= (uint8_t)(1u << number % 8);
}

/* Their processes ended, or they did, while nobody looked. */
static void sessions_end(struct broker *broker)
{
	struct session *session = NULL;

	do {
		session_unref(session);
		pthread_mutex_lock(&broker->lock);
		DL_FOREACH (broker->sessions, session)
			if (session->gone && !session->closed)
				break;
		if (session)
			session_ref(session);
		pthread_mutex_unlock(&broker->lock);
		if (session)
			session_close(session, NULL, NULL);
	} while (session);
}

int broker_restore(struct broker *broker, struct stored_fd *consume, size_t n,
		   struct restore_report *ret)
{
	uint64_t begun_ns = clock_monotonic_ns();
	struct restore_report report = {0};

	if (n)
		qsort(consume, n, sizeof(*consume), compare_fds);
	for (size_t first = 0, end; first < n; first = end) {
		struct restoring r = {
			.broker = broker,
			.number = consume[first].name.guest,
			.fds = &consume[first],
		};

		for (end = first; end < n && consume[end].name.guest == r.number; end++)
			;
		r.n_fds = end - first;
		number_claim(broker, r.number);
		restore_one(&r, &report);
	}
	sessions_end(broker);
	report.ns = clock_monotonic_ns() - begun_ns;
	*ret = report;
	return 0;
}
