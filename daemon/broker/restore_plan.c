/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/restore_plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/parent.h"
#include "state/fd_store.h"
#include "state/record.h"

/* More than any limit allows; a file that says so is no file of ours. */
#define RECORDS_MAX (UINT64_C(1) << 22)
#define PAGE_BYTES  UINT64_C(4096)
/* The kernel gives the lowest id that is free. */
#define IDS_MAX (1u << 18)
/* They are counted, so that many there never were; and the next one is above all that are. */
#define SESSION_IDS_MAX (UINT64_C(1) << 48)
#define FILES_MAX       16384u /* they are looked for one by one; each is a stored descriptor */

struct reading {
	struct restore_plan *plan;
	char *why; /* RESTORE_WHY_BYTES */
	bool has_guest;
};

static int bad(struct reading *reading, const char *record, size_t at, const char *what)
{
	snprintf(reading->why, RESTORE_WHY_BYTES, "%s record %zu: %s", record, at, what);
	return -EBADMSG;
}

/* ── reading ──────────────────────────────────────────────────────────────────────────────── */

/* Room for one more element, zeroed. */
static int grow(void **array, size_t *n, size_t bytes, void **ret)
{
	if (*n >= RECORDS_MAX)
		return -ENOMEM;
	/* Twice as much each time that the number is a power of two. */
	if (!(*n & (*n - 1))) {
		void *larger = reallocarray(*array, *n ? *n * 2 : 1, bytes);

		if (!larger)
			return -ENOMEM;
		*array = larger;
	}
	*ret = (uint8_t *)*array + *n * bytes;
	memset(*ret, 0, bytes);
	++*n;
	return 0;
}

static int keep(void **array, size_t *n, const struct record *record, size_t bytes)
{
	void *element;
	int status = grow(array, n, bytes, &element);

	if (!status)
		record_get(record, element, bytes);
	return status;
}

static int keep_answer(struct restore_plan *plan, const struct record *record)
{
	struct restore_answer *answer;
	int status =
		grow((void **)&plan->answers, &plan->n_answers, sizeof(*answer), (void **)&answer);

	if (status)
		return status;
	record_get(record, &answer->record, sizeof(answer->record));
	answer->bytes = record->tail;
	answer->n_bytes = record->tail_bytes;
	return 0;
}

#define KEEP(name) keep((void **)&plan->name, &plan->n_##name, record, sizeof(*plan->name))

static int read_one(struct reading *reading, const struct record *record)
{
	struct restore_plan *plan = reading->plan;

	switch ((enum guest_record_type)record->type) {
	case RECORD_GUEST:
		if (reading->has_guest)
			return bad(reading, "guest", 1, "there is one already");
		reading->has_guest = true;
		record_get(record, &plan->guest, sizeof(plan->guest));
		return 0;
	case RECORD_LABEL:
		return KEEP(labels);
	case RECORD_SESSION:
		return KEEP(sessions);
	case RECORD_FILE:
		return KEEP(files);
	case RECORD_REGION:
		return KEEP(regions);
	case RECORD_DEVICE:
		return KEEP(devices);
	case RECORD_NESTED:
		return KEEP(nested);
	case RECORD_LEFTOVER:
		return KEEP(leftovers);
	case RECORD_ANSWER:
		return keep_answer(plan, record);
	case RECORD_RING:
		return KEEP(rings);
	}
	if (!(record->flags & RECORD_MUST_KNOW))
		return 0;
	snprintf(reading->why, RESTORE_WHY_BYTES,
		 "a record of type %u, which this version does not know and must", record->type);
	return -EBADMSG;
}

static int read_all(struct reading *reading, const void *bytes, size_t n)
{
	struct record_reader reader = {.bytes = bytes, .n = n};
	struct record record;
	int status;

	while ((status = record_next(&reader, &record)) == 1) {
		status = read_one(reading, &record);
		if (status)
			return status;
	}
	if (status == -EBADMSG)
		snprintf(reading->why, RESTORE_WHY_BYTES, "no record at byte %zu of %zu", reader.at,
			 n);
	return status;
}

/* ── checking ─────────────────────────────────────────────────────────────────────────────── */

static bool is_text(const char *text, size_t bytes)
{
	return memchr(text, 0, bytes);
}

static int check_guest(struct reading *reading)
{
	const struct record_guest *guest = &reading->plan->guest;

	if (!reading->has_guest)
		return bad(reading, "guest", 0, "there is none");
	/* One that a successor was taking down had none any more. */
	if (!guest->handle && guest->stage != RECORD_GOING)
		return bad(reading, "guest", 1, "no handle");
	if (!is_text(guest->name, sizeof(guest->name)) ||
	    !is_text(guest->tenant_name, sizeof(guest->tenant_name)) ||
	    !is_text(guest->rule_name, sizeof(guest->rule_name)))
		return bad(reading, "guest", 1, "a text without an end");
	if (guest->n_page_tables > PARENT_PAGE_TABLES_MAX)
		return bad(reading, "guest", 1, "too many page tables");
	if (guest->event_slots < 1 || guest->event_slots > BROKER_EVENTS_MAX)
		return bad(reading, "guest", 1, "event slots");
	if (guest->stage != RECORD_LIVE && guest->stage != RECORD_GOING)
		return bad(reading, "guest", 1, "stage");
	if (!guest->parent_made)
		return bad(reading, "guest", 1, "no parent");
	if (guest->highest_id > IDS_MAX)
		return bad(reading, "guest", 1, "highest id");
	if (guest->creator > SESSION_IDS_MAX)
		return bad(reading, "guest", 1, "creator");
	return reading->plan->n_labels > BROKER_LABELS_MAX ? bad(reading, "label", 9, "too many")
							   : 0;
}

static int check_labels(struct reading *reading)
{
	for (size_t i = 0; i < reading->plan->n_labels; i++)
		if (!is_text(reading->plan->labels[i].key, RECORD_NAME_BYTES) ||
		    !is_text(reading->plan->labels[i].value, RECORD_NAME_BYTES))
			return bad(reading, "label", i, "a text without an end");
	return 0;
}

struct record_session *restore_plan_session(const struct restore_plan *plan, uint64_t id)
{
	for (size_t i = 0; i < plan->n_sessions; i++)
		if (plan->sessions[i].id == id)
			return &plan->sessions[i];
	return NULL;
}

/* What nobody has is found nowhere. */
static const struct record_session *find_secret(const struct restore_plan *plan,
						const uint8_t secret[RECORD_SECRET_BYTES])
{
	static const uint8_t none[RECORD_SECRET_BYTES];

	for (size_t i = 0; i < plan->n_sessions; i++)
		if (memcmp(secret, none, sizeof(none)) &&
		    !memcmp(plan->sessions[i].secret, secret, sizeof(none)))
			return &plan->sessions[i];
	return NULL;
}

static int check_session(struct reading *reading, size_t i)
{
	const struct record_session *session = &reading->plan->sessions[i];

	if (!session->id || session->id > SESSION_IDS_MAX)
		return bad(reading, "session", i, "id");
	if (restore_plan_session(reading->plan, session->id) != session)
		return bad(reading, "session", i, "its id is another one's");
	if (find_secret(reading->plan, session->secret) != session)
		return bad(reading, "session", i, "its secret is another one's, or none");
	if (!is_text(session->name, sizeof(session->name)) ||
	    !is_text(session->tenant_name, sizeof(session->tenant_name)) ||
	    !is_text(session->rule_name, sizeof(session->rule_name)))
		return bad(reading, "session", i, "a text without an end");
	if (session->n_devices > RECORD_DEVICES)
		return bad(reading, "session", i, "too many devices");
	if (session->listener > FD_NAME_INDICES_MAX)
		return bad(reading, "session", i, "listening socket");
	if (session->pid < 0)
		return bad(reading, "session", i, "process number");
	if (session->has_delegation && session->rights >> (GUEST_RIGHT_ANY + 1))
		return bad(reading, "session", i, "rights that nobody can give");
	return 0;
}

/* Its guest keeps it, and a delegation keeps its guest. */
static bool is_delegations(const struct record_session *creator)
{
	return creator && creator->has_delegation;
}

static int check_sessions(struct reading *reading)
{
	int status = 0;

	if (reading->plan->n_sessions > DELEGATIONS_OF_GUEST_MAX + 2)
		return bad(reading, "session", reading->plan->n_sessions, "too many");
	for (size_t i = 0; !status && i < reading->plan->n_sessions; i++)
		status = check_session(reading, i);
	/* Of one that goes nobody needs to be there. */
	if (!status && reading->plan->guest.stage == RECORD_LIVE &&
	    !restore_plan_session(reading->plan, reading->plan->guest.home))
		return bad(reading, "guest", 1, "nobody holds it");
	if (!status &&
	    is_delegations(restore_plan_session(reading->plan, reading->plan->guest.creator)))
		return bad(reading, "guest", 1, "made by whom it was delegated to");
	return status;
}

static const struct record_file *find_file(const struct restore_plan *plan, uint64_t handle)
{
	for (size_t i = 0; i < plan->n_files; i++)
		if (plan->files[i].handle == handle)
			return &plan->files[i];
	return NULL;
}

static int check_files(struct reading *reading)
{
	if (reading->plan->n_files > FILES_MAX)
		return bad(reading, "file", reading->plan->n_files, "too many");
	for (size_t i = 0; i < reading->plan->n_files; i++) {
		const struct record_file *file = &reading->plan->files[i];

		if (!file->handle || find_file(reading->plan, file->handle) != file)
			return bad(reading, "file", i, "handle");
		if (!file->length_bytes || file->length_bytes % PAGE_BYTES ||
		    file->length_bytes > SIZE_MAX / 2)
			return bad(reading, "file", i, "length");
		if (file->page_bytes < PAGE_BYTES || file->page_bytes & (file->page_bytes - 1))
			return bad(reading, "file", i, "page size");
		if (file->index >= FD_NAME_INDICES_MAX)
			return bad(reading, "file", i, "index");
	}
	return 0;
}

static int check_region(struct reading *reading, size_t i)
{
	const struct record_region *region = &reading->plan->regions[i];
	const struct record_file *file = find_file(reading->plan, region->file);
	uint64_t end;

	if (!file)
		return bad(reading, "region", i, "no such file");
	if (!region->length || (region->length | region->offset | region->gpa) % PAGE_BYTES)
		return bad(reading, "region", i, "not of whole pages");
	if (__builtin_add_overflow(region->offset, region->length, &end) ||
	    end > file->length_bytes)
		return bad(reading, "region", i, "beyond its file");
	if (__builtin_add_overflow(region->gpa, region->length, &end))
		return bad(reading, "region", i, "beyond the address space");
	if (region->area_bytes < PAGE_BYTES || region->area_bytes & (region->area_bytes - 1))
		return bad(reading, "region", i, "size of its areas");
	if (region->granule &&
	    (region->granule < PAGE_BYTES || region->granule & (region->granule - 1) ||
	     (region->gpa | region->offset | region->length) % region->granule))
		return bad(reading, "region", i, "granule");
	if (region->writable && !file->writable)
		return bad(reading, "region", i, "writable, its file is not");
	if (region->stage > RECORD_GOING)
		return bad(reading, "region", i, "stage");
	return 0;
}

static int compare_regions(const void *a, const void *b)
{
	const struct record_region *left = a, *right = b;

	if (left->stage != right->stage)
		return left->stage < right->stage ? -1 : 1;
	return left->gpa < right->gpa ? -1 : left->gpa > right->gpa;
}

/* What is there, and what comes back there. Both are sorted: live ones first. */
static int check_coming_back(struct reading *reading)
{
	const struct record_region *regions = reading->plan->regions;
	size_t n = reading->plan->n_regions, live = 0, going = 0;

	while (going < n && regions[going].stage != RECORD_GOING)
		going++;
	for (; going < n; going++) {
		while (live < n && regions[live].stage == RECORD_LIVE &&
		       regions[live].gpa + regions[live].length <= regions[going].gpa)
			live++;
		if (live < n && regions[live].stage == RECORD_LIVE &&
		    regions[live].gpa < regions[going].gpa + regions[going].length)
			return bad(reading, "region", going, "overlaps what is there");
	}
	return 0;
}

static int check_regions(struct reading *reading)
{
	struct restore_plan *plan = reading->plan;
	int status = 0;

	if (plan->n_regions)
		qsort(plan->regions, plan->n_regions, sizeof(*plan->regions), compare_regions);
	for (size_t i = 0; !status && i < plan->n_regions; i++) {
		status = check_region(reading, i);
		if (!status && i && plan->regions[i].stage == plan->regions[i - 1].stage &&
		    plan->regions[i].gpa < plan->regions[i - 1].gpa + plan->regions[i - 1].length)
			status = bad(reading, "region", i, "overlaps another");
	}
	return status ? status : check_coming_back(reading);
}

static const struct record_device *find_device(const struct restore_plan *plan, uint64_t handle)
{
	for (size_t i = 0; i < plan->n_devices; i++)
		if (plan->devices[i].handle == handle)
			return &plan->devices[i];
	return NULL;
}

static const struct record_nested *find_nested(const struct restore_plan *plan, uint64_t handle)
{
	for (size_t i = 0; i < plan->n_nested; i++)
		if (plan->nested[i].handle == handle)
			return &plan->nested[i];
	return NULL;
}

static int check_devices(struct reading *reading)
{
	const struct restore_plan *plan = reading->plan;

	for (size_t i = 0; i < plan->n_devices; i++) {
		const struct record_device *device = &plan->devices[i];
		const struct record_nested *nested;

		if (!device->handle || find_device(plan, device->handle) != device)
			return bad(reading, "device", i, "handle");
		if (!is_text(device->pci_address, sizeof(device->pci_address)))
			return bad(reading, "device", i, "address");
		if (device->index >= FD_NAME_INDICES_MAX)
			return bad(reading, "device", i, "index");
		if (device->attachment > ATTACHMENT_NESTED || device->stage > RECORD_BINDING ||
		    device->stage == RECORD_MAKING)
			return bad(reading, "device", i, "attachment or stage");
		if (device->bound && !device->kernel_id)
			return bad(reading, "device", i, "bound as nothing");
		if (!device->bound && device->attachment != ATTACHMENT_BLOCKED)
			return bad(reading, "device", i, "attached, and not bound");
		if (device->attachment != ATTACHMENT_NESTED)
			continue;
		nested = find_nested(plan, device->attached);
		if (!nested || nested->device != device->handle)
			return bad(reading, "device", i, "what it is attached to");
	}
	return 0;
}

static int check_nested(struct reading *reading)
{
	const struct restore_plan *plan = reading->plan;

	for (size_t i = 0; i < plan->n_nested; i++) {
		const struct record_nested *nested = &plan->nested[i];

		if (!nested->handle || find_nested(plan, nested->handle) != nested)
			return bad(reading, "nested domain", i, "handle");
		if (!find_device(plan, nested->device))
			return bad(reading, "nested domain", i, "no such device");
		if (nested->format > NESTED_MANAGED || nested->stage > RECORD_GOING)
			return bad(reading, "nested domain", i, "format or stage");
		if (nested->first > nested->last || nested->first % PAGE_BYTES ||
		    (nested->last + 1) % PAGE_BYTES)
			return bad(reading, "nested domain", i, "window");
		if (nested->format == NESTED_RELAXED)
			continue;
		if (!nested->leaves_max || nested->leaves_max > UINT64_C(1) << 40 ||
		    !nested->tables_max || nested->tables_max > UINT32_C(1) << 24)
			return bad(reading, "nested domain", i, "limits");
		if (nested->mappings_reserved > UINT64_C(1) << 40 ||
		    nested->table_bytes_reserved > UINT64_C(1) << 40)
			return bad(reading, "nested domain", i, "reservation");
	}
	return 0;
}

static int check_ids(struct reading *reading)
{
	const char *what = "";
	int status = restore_plan_check_ids(reading->plan, &what);

	return status == -EBADMSG ? bad(reading, "guest", 1, what) : status;
}

static int check_answers(struct reading *reading)
{
	for (size_t i = 0; i < reading->plan->n_answers; i++)
		if (reading->plan->answers[i].n_bytes > ANSWER_BYTES_MAX)
			return bad(reading, "answer", i, "longer than any");
	return 0;
}

static int check_all(struct reading *reading)
{
	int status = check_guest(reading);

	if (!status)
		status = check_labels(reading);
	if (!status)
		status = check_sessions(reading);
	if (!status)
		status = check_files(reading);
	if (!status)
		status = check_regions(reading);
	if (!status)
		status = check_devices(reading);
	if (!status)
		status = check_nested(reading);
	if (!status)
		status = check_ids(reading);
	return status ? status : check_answers(reading);
}

int restore_plan_read(struct restore_plan *ret, const void *bytes, size_t n,
		      char ret_why[RESTORE_WHY_BYTES])
{
	struct reading reading = {.plan = ret, .why = ret_why};
	int status;

	*ret = (struct restore_plan){0};
	snprintf(ret_why, RESTORE_WHY_BYTES, "no memory");
	status = read_all(&reading, bytes, n);
	if (!status)
		status = check_all(&reading);
	if (status)
		restore_plan_clear(ret);
	return status;
}

static void renumber(uint64_t *id, uint64_t from, uint64_t to)
{
	if (*id == from)
		*id = to;
}

void restore_plan_renumber(struct restore_plan *plan, uint64_t from, uint64_t to)
{
	renumber(&plan->guest.creator, from, to);
	renumber(&plan->guest.home, from, to);
	for (size_t i = 0; i < plan->n_sessions; i++) {
		renumber(&plan->sessions[i].id, from, to);
		renumber(&plan->sessions[i].delegator, from, to);
	}
	for (size_t i = 0; i < plan->n_answers; i++)
		renumber(&plan->answers[i].record.session, from, to);
	for (size_t i = 0; i < plan->n_rings; i++)
		renumber(&plan->rings[i].session, from, to);
}

void restore_plan_clear(struct restore_plan *plan)
{
	free(plan->labels);
	free(plan->sessions);
	free(plan->files);
	free(plan->regions);
	free(plan->devices);
	free(plan->nested);
	free(plan->leftovers);
	free(plan->answers);
	free(plan->rings);
	*plan = (struct restore_plan){0};
}
