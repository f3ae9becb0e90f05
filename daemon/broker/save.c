/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing a guest down, and giving its descriptors into the service manager's keeping.
 *
 * A guest's records are written as a whole, after every call that changed it and before that call
 * is answered; and before whatever the kernel cannot be asked about afterwards: what takes
 * something away, and what changes the memory map. Refreshes write nothing here: what they change
 * lives in the state file.
 */
#include "broker/save.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/answer.h"
#include "broker/delegation.h"
#include "broker/device.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/memory_file.h"
#include "broker/nested.h"
#include "broker/ring.h"
#include "broker/root.h"
#include "util/crash_point.h"
#include "util/fd.h"
#include "util/log.h"
#include "util/process.h"

_Static_assert(RECORD_NAME_BYTES == BROKER_NAME_MAX, "names are written as they are");
_Static_assert(STATE_FILE_NAME_BYTES == BROKER_NAME_MAX, "and state files called");
_Static_assert(RECORD_SECRET_BYTES == BROKER_SECRET_BYTES, "secrets, too");
_Static_assert(RECORD_PAGE_TABLES == PARENT_PAGE_TABLES_MAX, "and page tables");
_Static_assert(RECORD_DEVICES == DELEGATION_DEVICES_MAX, "and lists of devices");
_Static_assert(RECORD_RULE_BYTES == TENANT_RULE_NAME_MAX, "and names of rules");

/* ── numbers and names ─────────────────────────────────────────────────────────────────────── */

static int number_take(struct broker *broker, uint32_t *ret)
{
	uint32_t number = 0;

	pthread_mutex_lock(&broker->lock);
	while (number < FD_NAME_GUESTS_MAX && broker->numbers[number / 8] >> number % 8 & 1)
		number++;
	if (number < FD_NAME_GUESTS_MAX)
		broker->numbers[number / 8] |= (uint8_t)(1u << number % 8);
	pthread_mutex_unlock(&broker->lock);
	if (number == FD_NAME_GUESTS_MAX)
		return -ENOSPC;
	*ret = number;
	return 0;
}

void save_number_claim(struct broker *broker, uint32_t number)
{
	pthread_mutex_lock(&broker->lock);
	broker->numbers[number / 8] |= (uint8_t)(1u << number % 8);
	pthread_mutex_unlock(&broker->lock);
}

void save_number_put(struct broker *broker, uint32_t number)
{
	pthread_mutex_lock(&broker->lock);
	broker->numbers[number / 8] &= (uint8_t) ~(1u << number % 8);
	pthread_mutex_unlock(&broker->lock);
}

static struct fd_name name_of(const struct guest *guest, enum fd_kind kind, uint32_t index)
{
	return (struct fd_name){.guest = guest->kept.number, .kind = kind, .index = index};
}

static bool keeps(const struct guest *guest)
{
	return fd_store_keeps(guest->broker->store);
}

static int refuse_store(int error, struct refusal *refusal)
{
	if (error == -ENOSPC)
		return refuse(refusal, REFUSAL_HOST_RESOURCES, "DESCRIPTOR_STORE_FULL",
			      "the service manager's descriptor store is full "
			      "(DescriptorStoreMax=): nothing can be promised that would not "
			      "outlive the daemon");
	if (error == -ENOTUNIQ)
		return refuse_field(
			refusal, "descriptor",
			"the daemon has this open file already, and cannot open it once "
			"more to keep it: give it a descriptor of another open()");
	return refuse_errno(refusal, -error, "storing a descriptor with the service manager");
}

int save_fd(struct guest *guest, enum fd_kind kind, uint32_t index, int fd, struct refusal *refusal)
{
	const struct fd_name name = name_of(guest, kind, index);
	int error;

	if (!keeps(guest))
		return 0;
	error = fd_store_push(guest->broker->store, &name, fd);
	if (error)
		return refuse_store(error, refusal);
	guest->kept.pushed = true;
	return 0;
}

void save_forget_fd(struct guest *guest, enum fd_kind kind, uint32_t index)
{
	const struct fd_name name = name_of(guest, kind, index);

	if (keeps(guest))
		fd_store_remove(guest->broker->store, &name);
}

void save_barrier(struct guest *guest)
{
	int error;

	guest->kept.pushed = false;
	if (!keeps(guest))
		return;
	error = fd_store_barrier(guest->broker->store);
	if (error)
		log_error("guest %s: the service manager does not say that it stored what it was "
			  "given: %s",
			  guest->name, strerror(-error));
}

void save_note_id(struct guest *guest, uint32_t id)
{
	if (id > guest->kept.highest_id)
		guest->kept.highest_id = id;
}

/* ── life ──────────────────────────────────────────────────────────────────────────────────── */

int save_begin(struct guest *guest, struct refusal *refusal)
{
	struct guest_kept *kept = &guest->kept;
	int error = number_take(guest->broker, &kept->number);

	kept->numbered = !error;
	if (!error)
		error = state_file_new(&kept->state, guest->name);
	if (error)
		return refuse_errno(refusal, -error, "the guest's state file");
	if (save_fd(guest, FD_STATE, 0, state_file_fd(kept->state), refusal))
		return REFUSED;
	CRASH_POINT(STATE_STORED);
	if (save_fd(guest, FD_CONTEXT, 0, broker_ops(guest->broker)->context_fd(guest->context),
		    refusal))
		return REFUSED;
	CRASH_POINT(CONTEXT_STORED);
	return 0;
}

void save_end(struct guest *guest)
{
	struct guest_kept *kept = &guest->kept;

	rings_forget(guest, true);
	listeners_forget(guest, true);
	if (kept->numbered) {
		save_forget_fd(guest, FD_CONTEXT, 0);
		save_forget_fd(guest, FD_STATE, 0);
		save_number_put(guest->broker, kept->number);
	}
	kept->numbered = false;
	kept->state = state_file_free(kept->state);
	record_writer_free(&kept->writer);
	kept->answers = answers_free(kept->answers);
}

/* ── descriptors ───────────────────────────────────────────────────────────────────────────── */

static bool file_index_used(const struct guest *guest, uint32_t index)
{
	const struct memory_file *file;

	DL_FOREACH (guest->files, file)
		if (file->index == index)
			return true;
	return false;
}

static bool device_index_used(const struct guest *guest, uint32_t index)
{
	const struct device *device;

	DL_FOREACH (guest->devices, device)
		if (device->index == index)
			return true;
	return false;
}

/* The manager keeps one descriptor of an open file, and a client may give its own twice, also to
 * two guests: so an open file of ours is kept, if we may open it. */
static void file_reopen(struct memory_file *file)
{
	int fd = keeps(file->object.guest) ? fd_reopen(file->fd) : -1;

	if (fd < 0)
		return;
	fd_close(file->fd);
	file->fd = fd;
}

/* Limits of both are far below what names can tell; the lists are short. */
int save_memory_file(struct memory_file *file, struct refusal *refusal)
{
	struct guest *guest = file->object.guest;

	file->index = 0;
	while (file_index_used(guest, file->index))
		file->index++;
	if (file->index >= FD_NAME_INDICES_MAX)
		return refuse_store(-ENOSPC, refusal);
	file_reopen(file);
	return save_fd(guest, FD_MEMORY, file->index, file->fd, refusal);
}

int save_device(struct device *device, struct refusal *refusal)
{
	struct guest *guest = device->object.guest;

	device->index = 0;
	while (device_index_used(guest, device->index))
		device->index++;
	if (device->index >= FD_NAME_INDICES_MAX)
		return refuse_store(-ENOSPC, refusal);
	return save_fd(guest, FD_DEVICE, device->index,
		       broker_ops(guest->broker)->device_fd(device->backend), refusal);
}

void save_forget_memory_file(struct memory_file *file)
{
	save_forget_fd(file->object.guest, FD_MEMORY, file->index);
}

void save_forget_device(struct device *device)
{
	save_forget_fd(device->object.guest, FD_DEVICE, device->index);
}

/* ── records ───────────────────────────────────────────────────────────────────────────────── */

#define PUT(writer, type, record) \
	record_put(writer, type, RECORD_MUST_KNOW, record, sizeof(*(record)), NULL, 0)

/* With the broker's lock held. */
static void fill_tenant(const struct tenant *tenant, char ret_rule[RECORD_RULE_BYTES],
			uint32_t *ret_uid)
{
	if (!tenant)
		return;
	memcpy(ret_rule, tenant->rule_name, RECORD_RULE_BYTES);
	*ret_uid = tenant->uid;
}

static void put_guest(struct guest *guest)
{
	struct broker *broker = guest->broker;
	struct record_guest record = {
		.handle = guest->object.handle,
		.pinned_bytes_max = guest->asked.pinned_bytes_max,
		.mappings_max = guest->asked.mappings_max,
		.event_slots = guest->event_slots,
		.parent_ioas = guest->parent.ioas,
		.n_page_tables = (uint32_t)guest->parent.n_page_tables,
		.highest_id = guest->kept.highest_id,
		.has_uuid = guest->has_uuid,
		.on_behalf = guest->on_behalf,
		.parent_made = guest->parent.made,
		.pinned = guest->pinned,
		.stage = guest->object.stage,
		.creator = guest->session->id,
		.number = guest->kept.number + 1,
	};

	memcpy(record.secret, guest->secret, sizeof(record.secret));
	memcpy(record.uuid, guest->uuid, sizeof(record.uuid));
	memcpy(record.name, guest->name, sizeof(record.name));
	memcpy(record.tenant_name, guest->tenant_name, sizeof(record.tenant_name));
	memcpy(record.page_tables, guest->parent.page_tables, sizeof(record.page_tables));
	pthread_mutex_lock(&broker->lock);
	record.home = guest->home ? guest->home->id : 0;
	record.handover_ns = guest->handover.deadline_ns;
	record.handover_blocks = guest->handover.blocks;
	fill_tenant(guest->tenant, record.rule_name, &record.tenant_uid);
	pthread_mutex_lock(&guest->lock);
	record.pid = guest->pid;
	record.uid = guest->uid;
	record.has_owner = true;
	record.owner_pid = guest->owner_pid;
	record.owner_uid = guest->owner_uid;
	pthread_mutex_unlock(&guest->lock);
	pthread_mutex_unlock(&broker->lock);
	PUT(&guest->kept.writer, RECORD_GUEST, &record);
}

static void put_labels(struct guest *guest)
{
	for (size_t i = 0; i < guest->n_labels; i++) {
		struct record_label record;

		memcpy(record.key, guest->labels[i].key, sizeof(record.key));
		memcpy(record.value, guest->labels[i].value, sizeof(record.value));
		PUT(&guest->kept.writer, RECORD_LABEL, &record);
	}
}

#define SESSIONS_MAX (DELEGATIONS_OF_GUEST_MAX + 2)

/* Who held it until it began to wait may be none of the others any more. */
static bool home_is_missing(const struct guest *guest, struct session *const *sessions, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (sessions[i] == guest->home)
			return false;
	return guest->home && n < SESSIONS_MAX;
}

/* Who created it, who holds it, and whom it was delegated to: each once, with references. */
static size_t sessions_of(struct guest *guest, struct session *ret[SESSIONS_MAX])
{
	const struct delegation *delegation;
	size_t n = 0;

	pthread_mutex_lock(&guest->broker->lock);
	if (!guest->session->ended)
		ret[n++] = session_ref(guest->session);
	DL_FOREACH (guest->delegations, delegation)
		if (n < SESSIONS_MAX && !delegation->session->ended)
			ret[n++] = session_ref(delegation->session);
	if (home_is_missing(guest, ret, n))
		ret[n++] = session_ref(guest->home);
	pthread_mutex_unlock(&guest->broker->lock);
	return n;
}

/* A number that was read while its process lived is its own. */
static uint64_t start_ticks_of(struct session *session)
{
	uint64_t ticks = atomic_load(&session->start_ticks);

	if (ticks || session->pidfd < 0)
		return ticks;
	if (!process_start_ticks(session->pid, &ticks) || !process_lives(session->pidfd))
		return 0;
	atomic_store(&session->start_ticks, ticks);
	return ticks;
}

static void fill_delegation(const struct delegation *delegation, struct record_session *record)
{
	record->has_delegation = true;
	record->delegation = delegation->handle;
	record->delegator = delegation->delegator;
	record->pinned_bytes_max = delegation->pinned_bytes_max;
	record->mappings_max = delegation->mappings_max;
	record->n_devices = (uint32_t)delegation->n_devices;
	memcpy(record->devices, delegation->devices, sizeof(record->devices));
	if (delegation->listener >= 0 && !delegation->unwritten)
		record->listener = delegation->listener_index + 1;
}

static void put_session(struct guest *guest, struct session *session)
{
	struct record_session record = {
		.id = session->id,
		.start_ticks = start_ticks_of(session),
		.rights = session->rights,
	};

	memcpy(record.secret, session->secret, sizeof(record.secret));
	memcpy(record.name, session->name, sizeof(record.name));
	memcpy(record.tenant_name, session->tenant_name, sizeof(record.tenant_name));
	if (session->delegation)
		fill_delegation(session->delegation, &record);
	pthread_mutex_lock(&session->broker->lock);
	record.pid = session->pidfd < 0 ? 0 : session->pid;
	record.uid = session->uid;
	record.closed = session->closed;
	fill_tenant(session->tenant, record.rule_name, &record.tenant_uid);
	pthread_mutex_unlock(&session->broker->lock);
	PUT(&guest->kept.writer, RECORD_SESSION, &record);
}

static void put_sessions(struct guest *guest)
{
	struct session *sessions[SESSIONS_MAX];
	size_t n = sessions_of(guest, sessions);

	listeners_judge(guest);
	for (size_t i = 0; i < n; i++) {
		put_session(guest, sessions[i]);
		session_unref(sessions[i]);
	}
}

static void put_files(struct guest *guest)
{
	const struct memory_file *file;

	DL_FOREACH (guest->files, file) {
		const struct record_file record = {
			.handle = file->object.handle,
			.length_bytes = file->length_bytes,
			.page_bytes = file->page_bytes,
			.index = file->index,
			.writable = file->writable,
			.huge = file->huge,
			.stage = file->object.stage,
			.inode = memory_file_inode(file->fd),
		};

		PUT(&guest->kept.writer, RECORD_FILE, &record);
	}
}

static void put_regions(struct guest *guest, const struct region_list *regions,
			enum record_stage stage)
{
	for (size_t i = 0; i < regions->n; i++) {
		const struct region *region = &regions->items[i];
		const struct record_region record = {
			.file = region->file->object.handle,
			.offset = region->offset,
			.gpa = region->gpa,
			.length = region->length,
			.granule = region->granule,
			.area_bytes = region->area_bytes,
			.writable = region->writable,
			.stage = (uint8_t)stage,
		};

		PUT(&guest->kept.writer, RECORD_REGION, &record);
	}
}

static void put_memory(struct guest *guest)
{
	const struct guest_kept *kept = &guest->kept;

	if (!kept->stay) {
		put_regions(guest, &guest->regions, RECORD_LIVE);
		return;
	}
	put_regions(guest, kept->stay, RECORD_LIVE);
	put_regions(guest, kept->go, RECORD_GOING);
	put_regions(guest, kept->come, RECORD_MAKING);
}

static struct record_relaxed record_relaxed(const struct relaxed *relaxed)
{
	return (struct record_relaxed){
		.ioas = relaxed->domain.ioas,
		.page_table = relaxed->domain.page_table,
		.base = relaxed->base,
		.first = relaxed->first,
		.last = relaxed->last,
		.made = relaxed->domain.made,
		.filled = relaxed->filled,
	};
}

/* What a refresh's failure does to a device meanwhile, blocking it, the successor finds out. */
static void put_device(struct guest *guest, struct device *device)
{
	struct record_device record = {
		.handle = device->object.handle,
		.index = device->index,
		.kernel_id = device->kernel_id,
		.fid = device->info.fid,
		.has_fid = device->info.has_fid,
		.passed = device->passed,
		.stage = device->object.stage,
		.relaxed = record_relaxed(&device->relaxed),
	};

	memcpy(record.pci_address, device->info.pci_address, sizeof(record.pci_address));
	pthread_mutex_lock(&device->call_lock);
	record.page_table = device->page_table;
	record.has_page_table = device->has_page_table;
	pthread_mutex_unlock(&device->call_lock);
	pthread_mutex_lock(&guest->lock);
	record.relaxed_granted = device->relaxed_granted;
	record.bound = device->bound;
	record.attachment = (uint8_t)device->attachment;
	record.attached = device->attached ? device->attached->object.handle : 0;
	pthread_mutex_unlock(&guest->lock);
	PUT(&guest->kept.writer, RECORD_DEVICE, &record);
}

/* With its lane held: a refresh that finds that it cannot cut empties the domain. */
static struct record_nested record_nested(const struct nested *nested)
{
	const struct nested_backing *backing = &nested->backing;

	return (struct record_nested){
		.handle = nested->object.handle,
		.device = nested->device_handle,
		.iota = backing->anchor.iota,
		.first = backing->anchor.pba,
		.last = backing->anchor.pal,
		.mappings_reserved = backing->mappings_reserved,
		.table_bytes_reserved = backing->table_bytes_reserved,
		.leaves_max = backing->limits.leaves_max,
		.tables_max = backing->limits.tables_max,
		.extent_offset = backing->storage.offset,
		.extent_bytes = backing->storage.bytes,
		.index = nested->index,
		.ioas = backing->domain.ioas,
		.page_table = backing->domain.page_table,
		.format = (uint8_t)backing->format,
		.broken = nested->broken,
		.stage = nested->object.stage,
		.relaxed = record_relaxed(&backing->relaxed),
	};
}

static void put_nested(struct guest *guest, struct nested *nested)
{
	struct record_nested record;

	nested_lane_enter(nested);
	record = record_nested(nested);
	nested_lane_leave(nested);
	PUT(&guest->kept.writer, RECORD_NESTED, &record);
}

static void put_devices(struct guest *guest)
{
	struct device *device;
	struct nested *nested;

	DL_FOREACH (guest->devices, device)
		put_device(guest, device);
	DL_FOREACH (guest->nested, nested)
		put_nested(guest, nested);
	domain_put_leftovers(guest);
}

static void put_answers(struct guest *guest)
{
	answers_put(guest->kept.answers, &guest->kept.writer);
}

/* A guest that is not made yet, or not any more, has nothing to tell. */
int save_guest(struct guest *guest, struct refusal *refusal)
{
	struct guest_kept *kept = &guest->kept;
	int error;

	if (!keeps(guest) || !kept->state || kept->going)
		return 0;
	record_writer_clear(&kept->writer);
	put_guest(guest);
	put_labels(guest);
	put_sessions(guest);
	put_files(guest);
	put_memory(guest);
	put_devices(guest);
	rings_put(guest);
	put_answers(guest);
	error = kept->writer.failed
			? -ENOMEM
			: state_file_commit(kept->state, kept->writer.bytes, kept->writer.n);
	if (error)
		return refuse_errno(refusal, -error, "writing the guest's state down");
	rings_forget(guest, false);
	listeners_forget(guest, false);
	kept->going = guest->object.stage == RECORD_GOING;
	return 0;
}

void save_now(struct guest *guest)
{
	struct refusal refusal;

	if (save_guest(guest, &refusal))
		log_error("guest %s: %s", guest->name, refusal.message);
}

static bool later_run(struct pool_job *job)
{
	struct guest *guest = (struct guest *)((char *)job - offsetof(struct guest, kept.later));

	atomic_store(&guest->kept.queued, false);
	save_now(guest);
	guest_unref(guest);
	return false;
}

void save_later(struct guest *guest)
{
	if (!keeps(guest) || atomic_exchange(&guest->kept.queued, true))
		return;
	guest_ref(guest);
	guest->kept.later = (struct pool_job){
		.run = later_run,
		.lane = guest->lane,
	};
	pool_submit(guest->broker->pool, &guest->kept.later);
}

/* ── after a call ──────────────────────────────────────────────────────────────────────────── */

struct guest *broker_guest_of(struct broker *broker, struct session *session, uint64_t handle)
{
	struct object *object = handle_find_any(broker, session, handle);
	struct guest *guest;

	if (!object)
		return NULL;
	guest = guest_ref(object->guest);
	object_unref(object);
	return guest;
}

static void settle(struct guest *guest, struct session *session, const struct broker_answer *answer)
{
	CRASH_POINT(SETTLE);
	if (answer && !guest->down)
		answers_add(&guest->kept.answers, session->id, answer);
	if (!guest->down)
		save_now(guest);
	CRASH_POINT(SETTLE_WRITTEN);
	if (!guest->down)
		domain_settle(guest);
	if (guest->kept.pushed)
		save_barrier(guest);
	CRASH_POINT(SETTLE_STORED);
}

void broker_settle(struct guest *consume_guest, struct session *session,
		   const struct broker_answer *answer, bool holds_lane)
{
	struct guest *guest = consume_guest;
	struct pool *pool = guest->broker->pool;

	if (keeps(guest)) {
		if (!holds_lane)
			pool_lane_enter(guest->lane);
		settle(guest, session, answer);
		if (!holds_lane)
			pool_lane_leave(pool, guest->lane);
	}
	guest_unref(guest);
}

void broker_answers(struct broker *broker, struct session *session, uint64_t handle,
		    void (*each)(void *context, const struct broker_answer *answer), void *context)
{
	struct guest *guest = broker_guest_of(broker, session, handle);

	if (!guest)
		return;
	answers_each(guest->kept.answers, session->id, each, context);
	guest_unref(guest);
}
