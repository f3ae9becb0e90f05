/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The records of a guest, made of any bytes: they are refused with a reason, or what is made of
 * them keeps all that the rest of the daemon relies on, and reads the same when it is written
 * again.
 *
 * Input: a guest's content, in this machine's byte order. Any bytes also say how words of a content
 * that is made here, and of their own if it is one, are changed: to what a neighbour is rather than
 * to anything, which is refused sooner.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "broker/device.h"
#include "broker/restore_plan.h"
#include "state/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool good)
{
	if (!good)
		abort();
}

/* ── what is relied on ─────────────────────────────────────────────────────────────────────── */

static void texts_end(const struct restore_plan *plan)
{
	require(memchr(plan->guest.name, 0, RECORD_NAME_BYTES));
	require(memchr(plan->guest.tenant_name, 0, RECORD_NAME_BYTES));
	for (size_t i = 0; i < plan->n_labels; i++) {
		require(memchr(plan->labels[i].key, 0, RECORD_NAME_BYTES));
		require(memchr(plan->labels[i].value, 0, RECORD_NAME_BYTES));
	}
	for (size_t i = 0; i < plan->n_sessions; i++) {
		require(memchr(plan->sessions[i].name, 0, RECORD_NAME_BYTES));
		require(plan->sessions[i].n_devices <= RECORD_DEVICES);
		require(plan->sessions[i].pid >= 0);
	}
	for (size_t i = 0; i < plan->n_devices; i++)
		require(memchr(plan->devices[i].pci_address, 0, 16));
}

static const struct record_file *file_of(const struct restore_plan *plan, uint64_t handle)
{
	for (size_t i = 0; i < plan->n_files; i++)
		if (plan->files[i].handle == handle)
			return &plan->files[i];
	return NULL;
}

/* All that is there, or comes back there: no page of the guest's is shown twice. */
static void regions_lie_well(const struct restore_plan *plan)
{
	for (size_t i = 0; i < plan->n_regions; i++) {
		const struct record_region *a = &plan->regions[i];
		const struct record_file *file = file_of(plan, a->file);

		require(file && a->length && a->length <= file->length_bytes &&
			a->offset <= file->length_bytes - a->length);
		require(a->gpa + a->length > a->gpa && (!a->writable || file->writable));
		for (size_t j = 0; j < i; j++) {
			const struct record_region *b = &plan->regions[j];

			if (a->stage != RECORD_MAKING && b->stage != RECORD_MAKING)
				require(a->gpa >= b->gpa + b->length ||
					b->gpa >= a->gpa + a->length);
		}
	}
}

static void devices_fit(const struct restore_plan *plan)
{
	for (size_t i = 0; i < plan->n_devices; i++) {
		const struct record_device *device = &plan->devices[i];
		size_t at = 0;

		require(!device->bound || device->kernel_id);
		require(device->bound || device->attachment == ATTACHMENT_BLOCKED);
		require(device->kernel_id <= plan->guest.highest_id);
		if (device->attachment != ATTACHMENT_NESTED)
			continue;
		while (at < plan->n_nested && plan->nested[at].handle != device->attached)
			at++;
		require(at < plan->n_nested && plan->nested[at].device == device->handle);
	}
}

static void guest_is_held(const struct restore_plan *plan)
{
	const struct record_session *creator = restore_plan_session(plan, plan->guest.creator);

	require(plan->guest.stage == RECORD_GOING || restore_plan_session(plan, plan->guest.home));
	require(plan->guest.stage == RECORD_GOING || !creator || !creator->has_delegation);
}

/* ── and once more ─────────────────────────────────────────────────────────────────────────── */

#define PUT_ALL(type, name)                         \
	for (size_t i = 0; i < plan->n_##name; i++) \
	record_put(writer, type, RECORD_MUST_KNOW, &plan->name[i], sizeof(plan->name[i]), NULL, 0)

static void plan_write(const struct restore_plan *plan, struct record_writer *writer)
{
	record_put(writer, RECORD_GUEST, 0, &plan->guest, sizeof(plan->guest), NULL, 0);
	PUT_ALL(RECORD_LABEL, labels);
	PUT_ALL(RECORD_SESSION, sessions);
	PUT_ALL(RECORD_FILE, files);
	PUT_ALL(RECORD_REGION, regions);
	PUT_ALL(RECORD_DEVICE, devices);
	PUT_ALL(RECORD_NESTED, nested);
	PUT_ALL(RECORD_LEFTOVER, leftovers);
	PUT_ALL(RECORD_RING, rings);
	for (size_t i = 0; i < plan->n_answers; i++)
		record_put(writer, RECORD_ANSWER, 0, &plan->answers[i].record,
			   sizeof(plan->answers[i].record), plan->answers[i].bytes,
			   (uint32_t)plan->answers[i].n_bytes);
}

static void read_again(const struct restore_plan *plan)
{
	struct record_writer first = {0}, second = {0};
	char why[RESTORE_WHY_BYTES];
	struct restore_plan again;

	plan_write(plan, &first);
	require(!restore_plan_read(&again, first.bytes, first.n, why));
	plan_write(&again, &second);
	require(first.n == second.n && !memcmp(first.bytes, second.bytes, first.n));
	restore_plan_clear(&again);
	record_writer_free(&first);
	record_writer_free(&second);
}

/* false: they are refused. */
static bool content_try(const uint8_t *data, size_t size)
{
	char why[RESTORE_WHY_BYTES] = "";
	struct restore_plan plan;

	if (restore_plan_read(&plan, data, size, why)) {
		require(memchr(why, 0, sizeof(why)) && why[0]);
		require(memchr(plan.guest.name, 0, RECORD_NAME_BYTES));
		require(!plan.n_sessions && !plan.n_regions && !plan.regions);
		return false;
	}
	texts_end(&plan);
	regions_lie_well(&plan);
	devices_fit(&plan);
	guest_is_held(&plan);
	read_again(&plan);
	restore_plan_clear(&plan);
	return true;
}

/* ── a content that is good ────────────────────────────────────────────────────────────────── */

#define PUT(type, record) \
	record_put(writer, type, RECORD_MUST_KNOW, &(record), sizeof(record), NULL, 0)

static void put_sessions(struct record_writer *writer)
{
	struct record_session owner = {.id = 1, .secret = {1}, .name = "owner", .pid = 7};
	struct record_session other = {.id = 2, .secret = {2}, .delegator = 1, .delegation = 9};

	other.has_delegation = true;
	other.n_devices = 1;
	other.devices[0] = 21;
	PUT(RECORD_SESSION, owner);
	PUT(RECORD_SESSION, other);
}

static void put_memory(struct record_writer *writer)
{
	const struct record_file files[] = {
		{.handle = 11, .length_bytes = 1 << 20, .page_bytes = 4096, .writable = 1},
		{.handle = 12, .length_bytes = 1 << 16, .page_bytes = 4096, .index = 1},
	};
	struct record_region region = {
		.file = 11, .length = 1 << 16, .area_bytes = 4096, .writable = 1};

	for (size_t i = 0; i < 2; i++)
		PUT(RECORD_FILE, files[i]);
	for (uint8_t stage = RECORD_LIVE; stage <= RECORD_GOING; stage++) {
		region.stage = stage;
		PUT(RECORD_REGION, region);
		region.gpa += 1 << 16;
		PUT(RECORD_REGION, region);
		region.gpa += 1 << 16;
	}
	region.file = 12;
	region.writable = 0;
	region.stage = RECORD_LIVE;
	PUT(RECORD_REGION, region);
}

static void put_devices(struct record_writer *writer)
{
	const struct record_device devices[] = {
		{.handle = 21,
		 .kernel_id = 3,
		 .pci_address = "0000:00:01.0",
		 .bound = 1,
		 .attachment = ATTACHMENT_NESTED,
		 .attached = 31},
		{.handle = 22,
		 .kernel_id = 4,
		 .pci_address = "0000:00:02.0",
		 .bound = 1,
		 .index = 1,
		 .attachment = ATTACHMENT_PARENT,
		 .has_page_table = 1,
		 .page_table = 2},
		{.handle = 23, .pci_address = "0000:00:03.0", .index = 2},
	};
	const struct record_nested nested = {.handle = 31,
					     .device = 21,
					     .last = (1 << 20) - 1,
					     .leaves_max = 256,
					     .tables_max = 4,
					     .ioas = 5,
					     .page_table = 6,
					     .format = 1};
	const struct record_leftover leftover = {.ioas = 7, .page_table = 8, .has_page_table = 1};
	const struct record_answer answer = {.session = 1, .request_id = 5};
	const struct record_ring ring = {.handle = 41, .session = 1, .lanes = 2, .entries = 16};

	for (size_t i = 0; i < 3; i++)
		PUT(RECORD_DEVICE, devices[i]);
	PUT(RECORD_NESTED, nested);
	PUT(RECORD_LEFTOVER, leftover);
	PUT(RECORD_ANSWER, answer);
	PUT(RECORD_RING, ring);
}

static const struct record_writer *content_made(void)
{
	static struct record_writer made;
	struct record_writer *writer = &made;
	struct record_guest guest = {.handle = 1,
				     .name = "guest",
				     .creator = 1,
				     .home = 1,
				     .event_slots = 4,
				     .parent_ioas = 1,
				     .n_page_tables = 1,
				     .page_tables = {2},
				     .highest_id = 8,
				     .parent_made = 1,
				     .pinned = 1};
	const struct record_label label = {"key", "value"};

	if (made.n)
		return &made;
	PUT(RECORD_GUEST, guest);
	PUT(RECORD_LABEL, label);
	put_sessions(writer);
	put_memory(writer);
	put_devices(writer);
	require(!made.failed && content_try(made.bytes, made.n));
	return &made;
}

/* ── changed in words ──────────────────────────────────────────────────────────────────────── */

#define ROUNDS 24

static uint64_t next(uint64_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random >> 8;
}

/* Of 4 or 8 bytes: to nothing, all, a little more or less, or what another one is. */
static void word_change(uint8_t *bytes, size_t n, uint64_t *random)
{
	const size_t width = next(random) % 2 ? 8 : 4;
	const size_t at = next(random) % (n / width) * width;
	const size_t from = next(random) % (n / width) * width;
	const uint64_t way = next(random) % 8;
	const uint64_t add[] = {1, UINT64_MAX, 4096, -UINT64_C(4096)};
	uint64_t wide;
	uint32_t half;

	if (way < 2) {
		memset(bytes + at, way ? 0xff : 0, width);
	} else if (way < 4) {
		memmove(bytes + at, bytes + from, width);
	} else if (width == 8) {
		memcpy(&wide, bytes + at, width);
		wide += add[way - 4];
		memcpy(bytes + at, &wide, width);
	} else {
		memcpy(&half, bytes + at, width);
		half += (uint32_t)add[way - 4];
		memcpy(bytes + at, &half, width);
	}
}

/* What is taken stays, so that changes add up. */
static void words_change(const uint8_t *content, size_t n, uint64_t random)
{
	uint8_t *good = malloc(n), *bytes = malloc(n);

	require(good && bytes && n >= 8);
	memcpy(good, content, n);
	for (int i = 0; i < ROUNDS; i++) {
		memcpy(bytes, good, n);
		for (uint64_t changes = 1 + next(&random) % 2; changes--;)
			word_change(bytes, n, &random);
		if (content_try(bytes, n))
			memcpy(good, bytes, n);
	}
	free(good);
	free(bytes);
}

/* FNV-1a; never 0. */
static uint64_t hash_of(const uint8_t *data, size_t size)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
	return hash | 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct record_writer *made = content_made();
	uint64_t random = hash_of(data, size);

	if (content_try(data, size) && size >= 8)
		words_change(data, size, random);
	words_change(made->bytes, made->n, random);
	return 0;
}
