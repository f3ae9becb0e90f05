/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Any sequence of table writes and operations in front of the shadow, with limits, failures and
 * steps: only memory is mapped, nothing is overwritten, and the books agree after each operation.
 *
 * Input: commands of 12 bytes: what (low 4 bits: see command()), an argument of 3 bytes, a value of
 * 8 bytes, little-endian.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "s390_guest.h"
#include "util/guest_read.h"

#define COMMAND_BYTES 12
#define COMMANDS_MAX  120
#define MEMORY_BYTES  0x20000u
#define FRAMES        UINT64_C(0x400000)
#define INVALID_WORD  (S390_PAGE_INVALID | S390_UPPER_INVALID)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
	struct guest guest;
	struct record record;
	struct shadow *shadow;
	struct shadow_op suspended;
	bool has_suspended;
};

static uint64_t little(const uint8_t *bytes, size_t n)
{
	uint64_t value = 0;

	for (size_t i = n; i-- > 0;)
		value = value << 8 | bytes[i];
	return value;
}

static void check(struct fuzz *fuzz)
{
	struct shadow_stats stats;

	shadow_stats(fuzz->shadow, &stats);
	if (fuzz->record.violations)
		abort();
	/* A cut that is owed shows in the record only. */
	if (!fuzz->record.fail_cut_first && (stats.leaves_installed != fuzz->record.installed ||
					     !record_aliases_match(&fuzz->record)))
		abort();
}

/* The cut that may be owed is paid, and failures end. */
static void heal(struct fuzz *fuzz)
{
	struct shadow_op op;

	fuzz->record.fail_map_first = fuzz->record.fail_cut_first = 0;
	shadow_op_range(&op, SHADOW_OP_DROP, 1, 0);
	while (shadow_step(fuzz->shadow, fuzz->guest.view, &op, 0))
		;
	if (op.result.verdict != SHADOW_DONE)
		abort();
}

static void operate(struct fuzz *fuzz, struct shadow_op op, uint32_t argument)
{
	unsigned int budget = argument >> 16;

	if (budget & 0x80 && !fuzz->has_suspended) {
		fuzz->has_suspended = shadow_step(fuzz->shadow, fuzz->guest.view, &op, budget);
		fuzz->suspended = op;
		return;
	}
	while (shadow_step(fuzz->shadow, fuzz->guest.view, &op, budget))
		;
}

static void resume(struct fuzz *fuzz)
{
	while (fuzz->has_suspended)
		fuzz->has_suspended =
			shadow_step(fuzz->shadow, fuzz->guest.view, &fuzz->suspended, 3);
}

static void region_toggle(struct fuzz *fuzz, uint64_t value)
{
	struct guest_region *region = &fuzz->guest.regions[2];

	if (region->present && shadow_drop_frames(fuzz->shadow, fuzz->guest.view, region->gpa,
						  region->gpa + region->bytes - 1))
		return;
	region->present = !region->present;
	region->writable = value & 1;
	guest_publish(&fuzz->guest);
}

static void window(struct fuzz *fuzz, uint32_t argument, uint64_t value)
{
	struct s390_anchor anchor = {
		.iota = S390_IOTA_TABLES | (value & 0x0001c204),
		.pba = (uint64_t)(argument & 0xff) << 16,
		.pal = (UINT64_C(1) << (argument >> 8 & 63)) - 1,
	};

	anchor.pal |= ~S390_PAGE_FRAME;
	if (anchor.pba > anchor.pal)
		anchor.pba = 0;
	if (argument & 0x800000)
		shadow_set_managed(fuzz->shadow, anchor.pba, anchor.pal);
	else
		shadow_set_anchor(fuzz->shadow, argument & 0x400000 ? NULL : &anchor);
}

static void range_op(struct fuzz *fuzz, enum shadow_op_kind kind, uint32_t argument, uint64_t value)
{
	struct shadow_op op;
	uint64_t first = (value & 0xffffffffff) << 12;
	uint64_t last = (first + ((uint64_t)(argument & 0xffff) << 12)) | 0xfff;

	shadow_op_range(&op, kind, first, last);
	op.gpa = value >> 40 << 12;
	op.writable = value & 1;
	operate(fuzz, op, argument);
}

static void refresh(struct fuzz *fuzz, uint32_t argument, uint64_t value)
{
	struct shadow_op op;

	shadow_op_refresh(&op, value, (uint64_t)(argument & 0xffff) << 10);
	operate(fuzz, op, argument);
}

static void fail_calls(struct fuzz *fuzz, uint32_t argument, uint64_t value)
{
	static const int errors[] = {ENOSPC, ENOMEM, EIO, ENOENT, EEXIST, EPERM, EINVAL, EFAULT};

	fuzz->record.fail_map_first = fuzz->record.maps + 1 + (argument & 7);
	fuzz->record.fail_map_n = argument >> 3 & 7;
	fuzz->record.map_errno = errors[value & 7];
	fuzz->record.fail_cut_first = fuzz->record.cuts + 1 + (argument >> 8 & 7);
	fuzz->record.fail_cut_n = argument >> 11 & 7;
}

static void command(struct fuzz *fuzz, unsigned int what, uint32_t argument, uint64_t value)
{
	switch (what) {
	case 8:
		refresh(fuzz, argument, value);
		break;
	case 9:
		range_op(fuzz, SHADOW_OP_RECONCILE, argument, value);
		break;
	case 10:
		range_op(fuzz, value & 1 ? SHADOW_OP_SWEEP : SHADOW_OP_DROP, argument, value);
		break;
	case 11:
		range_op(fuzz, SHADOW_OP_MANAGED_MAP, argument, value);
		break;
	case 12:
		range_op(fuzz, SHADOW_OP_MANAGED_UNMAP, argument, value);
		break;
	case 13:
		window(fuzz, argument, value);
		break;
	case 14:
		region_toggle(fuzz, value);
		break;
	case 15:
		if (value & 8)
			resume(fuzz);
		else
			fail_calls(fuzz, argument, value);
		break;
	default: /* table writes are what there is most of */
		guest_put(&fuzz->guest, (uint64_t)argument * 8 % MEMORY_BYTES, 0, value);
		break;
	}
}

static void fuzz_run(struct fuzz *fuzz, const uint8_t *data, size_t size)
{
	for (unsigned int n = 0; size >= COMMAND_BYTES && n < COMMANDS_MAX; n++) {
		command(fuzz, data[0] & 15, (uint32_t)little(data + 1, 3), little(data + 4, 8));
		check(fuzz);
		data += COMMAND_BYTES;
		size -= COMMAND_BYTES;
	}
	heal(fuzz);
	resume(fuzz);
	check(fuzz);
}

/* The memory stays from run to run, what is in it does not. */
static void fuzz_begin(struct fuzz *fuzz)
{
	static uint64_t invalid[MEMORY_BYTES / 2 / sizeof(uint64_t)];
	struct guest *guest = &fuzz->guest;

	if (!guest->view) {
		guest_add_region(guest, 0, MEMORY_BYTES / 2, true);
		guest_add_region(guest, MEMORY_BYTES / 2, MEMORY_BYTES / 2, false);
		guest_add_region(guest, FRAMES, S390_SEGMENT_BYTES, true);
		for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++)
			invalid[i] = htobe64(INVALID_WORD);
	}
	memcpy(guest->regions[0].host, invalid, sizeof(invalid));
	memcpy(guest->regions[1].host, invalid, sizeof(invalid));
	guest->regions[2].present = guest->regions[2].writable = true;
	for (size_t i = 0; i < guest->n_regions; i++)
		for (uint64_t n = 0; n < guest->regions[i].bytes / S390_PAGE_BYTES; n++)
			guest->regions[i].aliases[n] = 0;
	guest_publish(guest);
	record_init(&fuzz->record, guest);
	fuzz->record.allow_overlap = true;
	fuzz->has_suspended = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct shadow_limits limits = {.leaves_max = 700, .tables_max = 8};
	static uint64_t storage[8 * 4096] __attribute__((aligned(4096)));
	static struct fuzz fuzz;
	uint64_t bytes = shadow_storage_bytes(&limits);

	if (guest_read_init() < 0 || bytes > sizeof(storage))
		return 0;
	memset(storage, 0, bytes);
	fuzz_begin(&fuzz);
	if (shadow_new(&fuzz.shadow, &record_ops, &fuzz.record, &limits, storage) < 0)
		abort();
	fuzz_run(&fuzz, data, size);
	shadow_free(fuzz.shadow, fuzz.guest.view);
	record_deinit(&fuzz.record);
	return 0;
}
