/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CheckFit says what the real calls would: for random limits at every level, random use and random
 * requests, it fits if and only if making all of it succeeds; and what is said to be missing is it
 * exactly: with each limit raised by that much all of it can be made, with any of them raised by
 * one less it cannot.
 */
#include "broker_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/tenant_rule.h"

#define TRIALS     600
#define GUESTS     3
#define OBJECTS    4 /* of a kind, of all guests */
#define WINDOW     UINT64_MAX
#define PLACE_STEP (1ull << 32)

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t pick(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed * 0x2545f4914f6cdd1dull >> 33) % n;
}

static int file_fd;

/* ── making all of it ──────────────────────────────────────────────────────────────────────── */

struct maker {
	struct fixture f;
	uint64_t guests[GUESTS], files[GUESTS], devices[GUESTS];
	uint32_t functions; /* opened */
};

/* What guest i of n gets of an amount. */
static uint64_t share(uint64_t amount, uint64_t n, uint64_t i)
{
	return amount / n + (i < amount % n);
}

static int make_memory(struct maker *m, const struct fit_request *want, uint64_t n, uint64_t i)
{
	uint64_t regions = share(want->regions, n, i);
	uint64_t pages = share(want->pinned_bytes / PAGE, n, i);
	int status = 0;

	m->f.guest = m->guests[i];
	for (uint64_t r = 0; r < regions && !status; r++)
		status = memory_map_one(&m->f, m->files[i], 0, r * PLACE_STEP,
					share(pages, regions, r) * PAGE, true);
	return status;
}

static int make_files(struct maker *m, const struct fit_request *want, uint64_t n, uint64_t i)
{
	struct memory_file_added added;
	int status = 0;

	for (uint64_t k = share(want->memory_files, n, i); k && !status; k--) {
		status = memory_file_add(m->f.broker, m->f.session, m->guests[i],
					 fcntl(file_fd, F_DUPFD_CLOEXEC, 0), true, &added,
					 &m->f.refusal);
		m->files[i] = added.memory_file;
	}
	return status;
}

static int make_devices(struct maker *m, const struct fit_request *want, uint64_t n, uint64_t i)
{
	struct device_description description;
	int status = 0, fd;

	for (uint64_t k = share(want->devices, n, i); k && !status; k--) {
		const struct device_open_request request = {
			.consume_fd = -1,
			.address = {.by_fid = true, .fid = ++m->functions},
		};

		status = device_open(m->f.broker, m->f.session, m->guests[i], &request,
				     &m->devices[i], &fd, &m->f.refusal);
		if (!status) {
			close(fd);
			status = device_bind(m->f.broker, m->f.session, m->devices[i], NULL, NULL,
					     &description, &m->f.refusal);
		}
	}
	return status;
}

/* Domain j of all is guest j % n's. */
static int make_nested(struct maker *m, const struct fit_request *want, uint64_t n)
{
	for (uint64_t j = 0; j < want->nested_domains; j++) {
		const struct nested_create_request request = {
			.device = m->devices[j % n],
			.format = NESTED_MANAGED,
			.first = DMA_BASE,
			.last = DMA_LAST,
			.mappings_max = share(want->mappings, want->nested_domains, j),
		};
		struct nested_created created = {0};

		assert_done(&m->f, nested_create(m->f.broker, m->f.session, &request, &created,
						 &m->f.refusal));
		if (created.verdict != VERDICT_DONE) {
			assert_int_equal(created.verdict, VERDICT_RESOURCES);
			return REFUSED;
		}
	}
	return 0;
}

static int make_all(struct maker *m, const struct fit_request *want)
{
	uint64_t n = want->guests;
	int status = 0;

	for (uint64_t i = 0; i < n && !status; i++)
		status = guest_make(&m->f, &m->guests[i]);
	for (uint64_t i = 0; i < n && !status; i++)
		status = make_files(m, want, n, i);
	for (uint64_t i = 0; i < n && !status; i++)
		status = make_memory(m, want, n, i);
	for (uint64_t i = 0; i < n && !status; i++)
		status = make_devices(m, want, n, i);
	return status ? status : make_nested(m, want, n);
}

/* ── what is asked, and the limits ─────────────────────────────────────────────────────────── */

/* What cannot be had one without the other is asked for together. */
static struct fit_request pick_request(void)
{
	struct fit_request want = {.guests = 1 + pick(GUESTS)};

	want.memory_files = want.guests * (1 + pick(2)) + pick(2);
	want.regions = want.guests * (1 + pick(2)) + pick(OBJECTS);
	want.pinned_bytes = (want.regions * 2 + pick(30)) * PAGE;
	want.devices = want.guests + pick(OBJECTS);
	want.nested_domains = pick(2 * OBJECTS);
	want.mappings = want.nested_domains && pick(3) ? want.nested_domains + pick(4000) : 0;
	return want;
}

/* Around what one guest, or all, will need; or none. */
static uint64_t pick_limit(uint64_t amount)
{
	return pick(3) ? UINT64_MAX : amount / 2 + pick(amount + 2);
}

struct limits {
	uint64_t max[LIMIT_LEVELS][LEDGER_RESOURCES];
};

static const struct {
	enum ledger_resource resource;
	uint64_t typical; /* of a guest */
} tried[] = {
	{LEDGER_PINNED_BYTES, 12 * PAGE},
	{LEDGER_REGIONS, 3},
	{LEDGER_MEMORY_FILES, 2},
	{LEDGER_DEVICES, 2},
	{LEDGER_NESTED, 3},
	{LEDGER_MAPPINGS, 3000},
	{LEDGER_TABLE_BYTES, 12 << 20},
	{LEDGER_EVENT_SLOTS, 64},
	{LEDGER_GUESTS, 1},
};

static void pick_limits(struct limits *ret)
{
	memset(ret, 0xff, sizeof(*ret));
	for (size_t i = 0; i < sizeof(tried) / sizeof(tried[0]); i++)
		for (int level = 0; level < LIMIT_LEVELS; level++)
			if (level != LIMIT_SESSION && !pick(3))
				ret->max[level][tried[i].resource] = pick_limit(
					tried[i].typical * (level == LIMIT_GUEST ? 1 : GUESTS));
	if (!pick(3))
		ret->max[LIMIT_SESSION][LEDGER_GUESTS] = pick(GUESTS + 2);
	ret->max[LIMIT_GUEST][LEDGER_GUESTS] = UINT64_MAX;
	ret->max[LIMIT_GUEST][LEDGER_EVENT_SLOTS] = 16 + pick(100);
}

static void settings_fill(struct broker_settings *ret, const struct limits *limits)
{
	*ret = settings_default();
	memset(ret->limits, 0, sizeof(ret->limits));
	ret->nested_mappings_default = 1000;
	for (int level = 0; level < LIMIT_LEVELS; level++)
		for (int r = 0; r < LEDGER_RESOURCES; r++)
			if (limits->max[level][r] != UINT64_MAX)
				limit_set(ret, (enum limit_level)level, (enum ledger_resource)r,
					  limits->max[level][r]);
}

/* ── trials ────────────────────────────────────────────────────────────────────────────────── */

/* Another user's guest, or another session's of the same one. */
static void use_some(struct maker *m, const struct fit_request *used, uid_t uid)
{
	struct session *own = m->f.session;

	if (!used->guests)
		return;
	m->f.peer.uid = uid;
	m->f.session = session_make(&m->f);
	m->f.peer.uid = getuid();
	make_all(m, used); /* as far as it goes */
	session_unref(m->f.session);
	m->f.session = own;
}

static struct fit_request pick_use(void)
{
	struct fit_request used = {.guests = pick(2)};

	if (!used.guests)
		return used;
	used.memory_files = used.regions = 1;
	used.pinned_bytes = (1 + pick(4)) * PAGE;
	return used;
}

struct trial {
	struct fit_request want, used;
	uid_t user;
	struct limits limits;
};

static void maker_init(struct maker *m, const struct trial *trial)
{
	static const struct limits none;
	struct broker_settings settings;
	struct limits open = none;

	memset(&open, 0xff, sizeof(open));
	memset(m, 0, sizeof(*m));
	settings_fill(&settings, &open);
	fixture_init(&m->f, &settings);
	use_some(m, &trial->used, trial->user);
	settings_fill(&settings, &trial->limits);
	assert_int_equal(broker_set_settings(m->f.broker, &settings, NULL, NULL), 0);
}

/* Whether all of it can be made under these limits; what CheckFit says before goes to ret. */
static bool fits_really(const struct trial *trial, struct fit_missing *ret, size_t *ret_n)
{
	struct maker m;
	int status;

	maker_init(&m, trial);
	assert_done(&m.f,
		    check_fit(m.f.broker, m.f.session, &trial->want, ret, ret_n, &m.f.refusal));
	status = make_all(&m, &trial->want);
	if (status && *ret_n == 0)
		print_message("refused: %s\n", m.f.refusal.message);
	fixture_deinit(&m.f);
	return !status;
}

static void trial_print(const struct trial *trial, const struct fit_missing *missing, size_t n)
{
	const struct fit_request *w = &trial->want;

	print_message("guests %d, pages %d, regions %d, files %d, devices %d, nested %d, "
		      "mappings %d\n",
		      (int)w->guests, (int)(w->pinned_bytes / PAGE), (int)w->regions,
		      (int)w->memory_files, (int)w->devices, (int)w->nested_domains,
		      (int)w->mappings);
	for (size_t i = 0; i < n; i++)
		print_message("%s %s: limit %llu, used %llu, requested %llu, missing %llu\n",
			      limit_level_name(missing[i].level),
			      ledger_resource_name(missing[i].resource),
			      (unsigned long long)missing[i].limit,
			      (unsigned long long)missing[i].used,
			      (unsigned long long)missing[i].requested,
			      (unsigned long long)missing[i].missing);
}

static void check_missing(const struct trial *trial, const struct fit_missing *missing, size_t n)
{
	struct fit_missing after[FIT_MISSING_MAX];
	struct trial raised = *trial;
	size_t n_after;

	for (size_t i = 0; i < n; i++)
		raised.limits.max[missing[i].level][missing[i].resource] =
			missing[i].limit + missing[i].missing;
	if (!fits_really(&raised, after, &n_after) || n_after) {
		trial_print(trial, missing, n);
		trial_print(&raised, after, n_after);
		fail_msg("with all that was missing it does not fit");
	}
	for (size_t i = 0; i < n; i++) {
		uint64_t *max = &raised.limits.max[missing[i].level][missing[i].resource];

		(*max)--;
		assert_false(fits_really(&raised, after, &n_after));
		assert_int_equal(n_after, 1);
		assert_int_equal(after[0].missing, 1);
		assert_int_equal(after[0].level, missing[i].level);
		assert_int_equal(after[0].resource, missing[i].resource);
		(*max)++;
	}
}

static void test_as_the_real_calls(void **state)
{
	const char *text = getenv("FIT_TRIALS");
	unsigned long trials = text ? strtoul(text, NULL, 0) : TRIALS, fit = 0, exact = 0;

	(void)state;
	file_fd = memfd_filled(64 * PAGE, NULL);
	for (unsigned long i = 0; i < trials; i++) {
		struct fit_missing missing[FIT_MISSING_MAX];
		struct trial trial = {.want = pick_request(), .used = pick_use()};
		bool fits;
		size_t n;

		trial.user = getuid() + (uid_t)pick(2);
		pick_limits(&trial.limits);
		fits = fits_really(&trial, missing, &n);
		fit += fits;
		if (fits != !n) {
			trial_print(&trial, missing, n);
			fail_msg("trial %lu: %s, but CheckFit says otherwise", i,
				 fits ? "it fits" : "it does not fit");
		}
		if (n && i % 4 == 0) {
			check_missing(&trial, missing, n);
			exact++;
		}
	}
	close(file_fd);
	print_message("%lu trials: %lu fit, of %lu the missing was tried\n", trials, fit, exact);
	assert_true(fit > trials / 20 && trials - fit > trials / 20 && exact > trials / 50);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_the_real_calls)};

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0) | 1;
	printf("seed %#llx\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
