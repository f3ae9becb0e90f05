/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random calls of several guests, of which many fail: by random limits that change meanwhile, by
 * calls of the backend and by allocations that fail at random points. After each one the ledger is
 * what is held, at every level, and at the end nothing is left.
 */
#include "broker_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend_tap.h"
#include "broker_invariant.h"
#include "memory_fault.h"

#define OPERATIONS 40000 /* LEDGER_RANDOM_OPERATIONS= is another number */
#define GUESTS     4
#define HELD       5 /* of a kind, of one guest */
#define FILE_PAGES 32
#define GPA_STEP   (1ull << 30)
#define IDLE       2 /* there was nothing to do */
#define WINDOW     (DMA_BASE + 16 * MIB - 1)

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t pick(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed * 0x2545f4914f6cdd1dull >> 33) % n;
}

/* ── faults ────────────────────────────────────────────────────────────────────────────────── */

static struct {
	unsigned int countdown; /* 0: none */
	int error;
} backend_fault;

static int backend_fails(const char *call, const void *object)
{
	(void)call;
	(void)object;
	return backend_fault.countdown && !--backend_fault.countdown ? backend_fault.error : 0;
}

static void faults_arm(void)
{
	static const int errors[] = {ENOMEM, EBUSY, EIO, EINVAL};

	backend_fault.error = errors[pick(4)];
	backend_fault.countdown = pick(3) ? 0 : 1 + (unsigned int)pick(12);
	memory_fault_countdown = pick(3) ? 0 : 1 + (unsigned int)pick(10);
}

static void faults_disarm(void)
{
	backend_fault.countdown = 0;
	memory_fault_countdown = 0;
}

/* ── what a guest holds, as far as its VMM was told ────────────────────────────────────────── */

struct guest_held {
	uint64_t guest; /* 0: none */
	uint64_t files[HELD], devices[HELD], nested[HELD];
};

static struct fixture f;
static struct guest_held guests[GUESTS];
static int file_fd;
static unsigned int done, refused;

static uint64_t pick_of(const uint64_t held[HELD])
{
	return held[pick(HELD)];
}

static uint64_t *pick_free(uint64_t held[HELD])
{
	uint64_t *place = &held[pick(HELD)];

	return *place ? NULL : place;
}

static void forget(uint64_t held[HELD], uint64_t handle)
{
	for (unsigned int i = 0; i < HELD; i++)
		if (held[i] == handle)
			held[i] = 0;
}

static int do_guest(struct guest_held *g)
{
	int status;

	if (!g->guest)
		return guest_make(&f, &g->guest);
	if (pick(6))
		return IDLE;
	status = guest_destroy(f.broker, f.session, g->guest, &f.refusal);
	if (!status)
		memset(g, 0, sizeof(*g));
	return status;
}

static int do_add_file(struct guest_held *g)
{
	struct memory_file_added added;
	uint64_t *place = pick_free(g->files);
	int status, fd;

	if (!place)
		return IDLE;
	fd = fcntl(file_fd, F_DUPFD_CLOEXEC, 0);
	status = memory_file_add(f.broker, f.session, g->guest, fd, true, &added, &f.refusal);
	if (!status)
		*place = added.memory_file;
	return status;
}

static int do_remove_file(struct guest_held *g)
{
	uint64_t file = pick_of(g->files);
	int status;

	if (!file)
		return IDLE;
	status = memory_file_remove(f.broker, f.session, g->guest, file, &f.refusal);
	if (!status)
		forget(g->files, file);
	return status;
}

static struct memory_update_request update_request;

static int do_update(struct guest_held *g)
{
	struct memory_update_request *request = &update_request;
	uint64_t file = pick_of(g->files);
	struct memory_updated updated;

	request->n_unmap = pick(3);
	request->n_map = file ? pick(3) : 0;
	for (size_t i = 0; i < request->n_unmap; i++) {
		request->unmap[i].first = pick(8) * GPA_STEP;
		request->unmap[i].last = request->unmap[i].first + (1 + pick(3)) * GPA_STEP - 1;
	}
	for (size_t i = 0; i < request->n_map; i++)
		request->map[i] = (struct memory_map_entry){
			.memory_file = file,
			.offset = pick(4) * PAGE,
			.gpa = pick(8) * GPA_STEP,
			.length = (1 + pick(8)) * PAGE,
			.granule = pick(3) ? 0 : PAGE,
			.writable = pick(2),
		};
	return memory_update(f.broker, f.session, g->guest, request, NULL, &updated, &f.refusal);
}

static int do_open(struct guest_held *g)
{
	const struct device_open_request request = {
		.consume_fd = -1,
		.address = {.by_fid = true, .fid = 1 + (uint32_t)pick(8)},
	};
	uint64_t *place = pick_free(g->devices);
	int status, fd;

	if (!place)
		return IDLE;
	status = device_open(f.broker, f.session, g->guest, &request, place, &fd, &f.refusal);
	if (!status)
		close(fd);
	else
		*place = 0;
	return status;
}

static int do_bind(struct guest_held *g)
{
	struct device_description description;
	uint64_t device = pick_of(g->devices);

	return device ? device_bind(f.broker, f.session, device, NULL, NULL, &description,
				    &f.refusal)
		      : IDLE;
}

/* What a VMM must assume: domains may have gone with their device. */
static void find_nested(struct guest_held *g)
{
	struct guest_description *description;

	if (guest_describe(f.broker, f.session, g->guest, &description, &f.refusal))
		return;
	memset(g->nested, 0, sizeof(g->nested));
	for (size_t i = 0; i < description->n_nested && i < HELD; i++)
		g->nested[i] = description->nested[i].nested;
	guest_description_free(description);
}

static int do_close(struct guest_held *g)
{
	uint64_t device = pick_of(g->devices);
	bool held;
	int status;

	if (!device)
		return IDLE;
	status = device_close(f.broker, f.session, device, &held, &f.refusal);
	if (status)
		return status;
	forget(g->devices, device);
	find_nested(g);
	return 0;
}

static int do_nested(struct guest_held *g)
{
	const struct nested_create_request request = {
		.device = pick_of(g->devices),
		.attach = pick(2),
		.format = NESTED_MANAGED,
		.first = DMA_BASE,
		.last = WINDOW,
		.mappings_max = pick(2000),
	};
	uint64_t *place = pick_free(g->nested);
	struct nested_created created = {0};
	int status;

	if (!place || !request.device)
		return IDLE;
	status = nested_create(f.broker, f.session, &request, &created, &f.refusal);
	*place = status ? 0 : created.nested;
	return status ? status : created.verdict == VERDICT_DONE ? 0 : REFUSED;
}

static int do_attach(struct guest_held *g)
{
	uint64_t device = pick_of(g->devices), nested = pick_of(g->nested);
	enum attachment to = (enum attachment)pick(4);
	struct range_result walk;

	if (!device || (to == ATTACHMENT_NESTED && !nested))
		return IDLE;
	return device_attach(f.broker, f.session, device, to, to == ATTACHMENT_NESTED ? nested : 0,
			     &walk, &f.refusal);
}

static int do_entries(struct guest_held *g)
{
	const struct nested_entry entry = {
		.iova = DMA_BASE + pick(32) * PAGE,
		.length = (1 + pick(4)) * PAGE,
		.gpa = pick(8) * GPA_STEP,
		.map = pick(4),
	};
	uint64_t nested = pick_of(g->nested);
	struct range_result result;
	size_t n;

	return nested ? nested_update(f.broker, f.session, nested, &entry, 1, &result, &n,
				      &f.refusal)
		      : IDLE;
}

static int do_destroy_nested(struct guest_held *g)
{
	uint64_t nested = pick_of(g->nested), dropped;
	int status;

	if (!nested)
		return IDLE;
	status = nested_destroy(f.broker, f.session, nested, &dropped, &f.refusal);
	if (!status)
		forget(g->nested, nested);
	return status;
}

static int do_reset(struct guest_held *g)
{
	uint32_t destroyed;
	int status =
		pick(4) ? 0 : guest_reset(f.broker, f.session, g->guest, &destroyed, &f.refusal);

	find_nested(g);
	return status;
}

/* ── limits that change ────────────────────────────────────────────────────────────────────── */

static void do_reload(void)
{
	static const struct {
		enum ledger_resource resource;
		uint64_t most; /* of a guest */
	} tried[] = {
		{LEDGER_PINNED_BYTES, 16 * PAGE},
		{LEDGER_REGIONS, 12},
		{LEDGER_MEMORY_FILES, 5},
		{LEDGER_DEVICES, 4},
		{LEDGER_NESTED, 4},
		{LEDGER_MAPPINGS, 5000},
		{LEDGER_TABLE_BYTES, 16 << 20},
		{LEDGER_GUESTS, 4},
	};
	struct broker_settings settings = settings_default();

	settings.nested_mappings_default = 256;
	for (size_t i = 0; i < sizeof(tried) / sizeof(tried[0]); i++)
		for (int level = LIMIT_HOST; level <= LIMIT_GUEST; level++)
			if (pick(2))
				limit_set(&settings, (enum limit_level)level, tried[i].resource,
					  1 + pick(tried[i].most *
						   (level == LIMIT_GUEST ? 1 : GUESTS)));
	faults_disarm();
	assert_int_equal(broker_set_settings(f.broker, &settings, NULL, NULL), 0);
}

/* ── the walk ──────────────────────────────────────────────────────────────────────────────── */

static int (*const operations[])(struct guest_held *g) = {
	do_guest,  do_add_file, do_add_file, do_remove_file,    do_update, do_update, do_update,
	do_open,   do_open,     do_bind,     do_bind,           do_close,  do_nested, do_nested,
	do_attach, do_entries,  do_entries,  do_destroy_nested, do_reset,
};

static bool step(void)
{
	struct guest_held *g = &guests[pick(GUESTS)];
	size_t which = pick(sizeof(operations) / sizeof(operations[0]));
	int status;

	if (!pick(60))
		do_reload();
	faults_arm();
	status = operations[g->guest ? which : 0](g);
	faults_disarm();
	if (status < 0)
		fail_msg("operation %zu: %d: the daemon is broken", which, status);
	assert_ledger_is_held(f.broker);
	if (status == IDLE)
		return false;
	if (status)
		refused++;
	else
		done++;
	return true;
}

static void test_random(void **state)
{
	const char *text = getenv("LEDGER_RANDOM_OPERATIONS");
	unsigned long n = text ? strtoul(text, NULL, 0) : OPERATIONS;
	struct broker_settings settings = settings_default();
	size_t descriptors;

	(void)state;
	fixture_init(&f, &settings);
	backend_tap(f.backend, backend_fails);
	file_fd = memfd_filled(FILE_PAGES * PAGE, NULL);
	descriptors = descriptors_open();
	for (unsigned long i = 0; i < n; i++)
		while (!step())
			;
	for (unsigned int i = 0; i < GUESTS; i++)
		if (guests[i].guest)
			assert_done(&f, guest_destroy(f.broker, f.session, guests[i].guest,
						      &f.refusal));
	print_message("%u done, %u refused\n", done, refused);
	assert_ledger_empty(&f);
	assert_int_equal(descriptors_open(), descriptors);
	assert_true(done > n / 10 && refused > n / 10);
	close(file_fd);
	fixture_deinit(&f);
}

/* Another seed may be given. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0) | 1;
	printf("seed %#llx\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
