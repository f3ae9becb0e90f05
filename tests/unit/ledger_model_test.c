/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ledger against a model that is too simple to be wrong: it knows the charges that are held,
 * one by one, and for each account the numbers that follow from them.
 *
 * After each of a million random operations every number of every account is the model's, and no
 * charge that was made is above a limit that stood when it was made. Then the same ledger under
 * several threads, where only sums can be known, and those are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "broker/ledger.h"

#define OPERATIONS 1200000 /* LEDGER_MODEL_OPERATIONS= is another number */
#define ACCOUNTS   20
#define CHARGES    256
#define DEPTH      4

static uint64_t seed = 0x2545f4914f6cdd1dull;

static uint64_t random_of(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 0x2545f4914f6cdd1dull;
}

static uint64_t pick(uint64_t n)
{
	return (random_of(&seed) >> 11) % n;
}

/* Mostly small, so that limits are met from both sides; now and then as large as it goes. */
static uint64_t pick_amount(void)
{
	static const uint64_t large[] = {UINT64_MAX, UINT64_MAX - 1, 1ull << 63, 1ull << 32};

	return pick(500) ? pick(12) : large[pick(4)];
}

static uint64_t pick_limit(void)
{
	static const uint64_t large[] = {UINT64_MAX, UINT64_MAX - 1, 1ull << 63, 0};

	return pick(6) ? pick(60) : large[pick(4)];
}

/* ── the model ─────────────────────────────────────────────────────────────────────────────── */

struct number {
	uint64_t max, high, current, peak, events, events_high;
	bool above;
	char rule[LIMIT_WHERE_MAX];
};

struct model_account {
	bool used;
	int parent; /* -1: none */
	unsigned int children;
	struct number numbers[LEDGER_RESOURCES];
	struct ledger_account real;
};

struct charge {
	int account; /* -1: none */
	struct ledger_amounts amounts;
};

static struct ledger ledger;
static struct model_account accounts[ACCOUNTS];
static struct charge charges[CHARGES];
static uint64_t told, expected_told;

static void on_high(void *context, struct ledger_account *account, const struct quota_high *high)
{
	(void)context;
	assert_true(high->used > high->high);
	assert_non_null(account);
	told++;
}

static int depth_of(int account)
{
	int depth = 0;

	for (; account >= 0; account = accounts[account].parent)
		depth++;
	return depth;
}

static void account_begin(int i, int parent)
{
	struct model_account *account = &accounts[i];

	memset(account, 0, sizeof(*account));
	account->used = true;
	account->parent = parent;
	if (parent >= 0)
		accounts[parent].children++;
	for (int r = 0; r < LEDGER_RESOURCES; r++)
		account->numbers[r].max = account->numbers[r].high = UINT64_MAX;
	ledger_account_init(&account->real, parent < 0 ? NULL : &accounts[parent].real,
			    parent < 0 ? LIMIT_HOST : LIMIT_GUEST, "tenant");
}

/* Which level and resource the model refuses at: the nearest level first. */
static bool model_refuses(int account, const struct ledger_amounts *amounts, int *ret_account,
			  int *ret_resource)
{
	for (; account >= 0; account = accounts[account].parent) {
		for (int r = 0; r < LEDGER_RESOURCES; r++) {
			const struct number *number = &accounts[account].numbers[r];
			unsigned __int128 after =
				(unsigned __int128)number->current + amounts->amount[r];

			/* Nothing more is nothing too much, above a lowered limit too. */
			if (!amounts->amount[r] || after <= number->max)
				continue;
			*ret_account = account;
			*ret_resource = r;
			return true;
		}
	}
	return false;
}

static void number_raise(struct number *number, uint64_t amount)
{
	if (!amount)
		return;
	number->current += amount;
	number->peak = number->peak > number->current ? number->peak : number->current;
	if (number->current <= number->high || number->above)
		return;
	number->above = true;
	number->events_high++;
	expected_told++;
}

static void model_charge(int account, const struct ledger_amounts *amounts)
{
	for (; account >= 0; account = accounts[account].parent)
		for (int r = 0; r < LEDGER_RESOURCES; r++)
			number_raise(&accounts[account].numbers[r], amounts->amount[r]);
}

static void number_rearm(struct number *number)
{
	number->above = number->above && number->current > number->high;
}

static void model_refund(int account, const struct ledger_amounts *amounts)
{
	for (; account >= 0; account = accounts[account].parent) {
		for (int r = 0; r < LEDGER_RESOURCES; r++) {
			accounts[account].numbers[r].current -= amounts->amount[r];
			number_rearm(&accounts[account].numbers[r]);
		}
	}
}

static void account_compare(const struct model_account *account)
{
	struct usage usage[LEDGER_RESOURCES];
	char where[LEDGER_RESOURCES][LIMIT_WHERE_MAX];

	ledger_usage_where(&ledger, &account->real, usage, where);
	for (int r = 0; r < LEDGER_RESOURCES; r++) {
		const struct number *number = &account->numbers[r];

		if (usage[r].current == number->current && usage[r].max == number->max &&
		    usage[r].high == number->high && usage[r].peak == number->peak &&
		    usage[r].events == number->events &&
		    usage[r].events_high == number->events_high &&
		    usage[r].over == (number->current > number->max) &&
		    !strcmp(where[r], number->rule))
			continue;
		fail_msg("account %td, %s: current %llu, %llu; peak %llu, %llu; events %llu, %llu; "
			 "high %llu, %llu; rule '%s', '%s'",
			 account - accounts, ledger_resource_name((enum ledger_resource)r),
			 (unsigned long long)usage[r].current, (unsigned long long)number->current,
			 (unsigned long long)usage[r].peak, (unsigned long long)number->peak,
			 (unsigned long long)usage[r].events, (unsigned long long)number->events,
			 (unsigned long long)usage[r].events_high,
			 (unsigned long long)number->events_high, where[r], number->rule);
	}
}

static void compare(void)
{
	for (int i = 0; i < ACCOUNTS; i++)
		if (accounts[i].used)
			account_compare(&accounts[i]);
	assert_int_equal(told, expected_told);
}

/* The running sums themselves, from the list of what is held. */
static void compare_with_charges(void)
{
	uint64_t sums[ACCOUNTS][LEDGER_RESOURCES] = {{0}};

	for (int i = 0; i < CHARGES; i++)
		for (int at = charges[i].account; at >= 0; at = accounts[at].parent)
			for (int r = 0; r < LEDGER_RESOURCES; r++)
				sums[at][r] += charges[i].amounts.amount[r];
	for (int i = 0; i < ACCOUNTS; i++)
		for (int r = 0; accounts[i].used && r < LEDGER_RESOURCES; r++)
			assert_int_equal(accounts[i].numbers[r].current, sums[i][r]);
}

/* ── operations ────────────────────────────────────────────────────────────────────────────── */

static int pick_account(void)
{
	int i;

	do
		i = (int)pick(ACCOUNTS);
	while (!accounts[i].used);
	return i;
}

static void check_refusal(int status, int account, int resource,
			  const struct ledger_amounts *amounts, const struct refusal *refusal)
{
	const struct number *number = &accounts[account].numbers[resource];

	assert_int_equal(status, REFUSED);
	assert_int_equal(refusal->kind, REFUSAL_QUOTA);
	assert_string_equal(refusal->resource,
			    ledger_resource_name((enum ledger_resource)resource));
	assert_int_equal(refusal->limit, number->max);
	assert_int_equal(refusal->used, number->current);
	assert_int_equal(refusal->requested, amounts->amount[resource]);
	assert_string_equal(refusal->rule, number->rule);
	assert_string_equal(refusal->tenant, "tenant");
}

/* Before it counts: that no level is above its limit. */
static void check_within(int account, const struct ledger_amounts *amounts)
{
	struct usage usage[LEDGER_RESOURCES];

	for (; account >= 0; account = accounts[account].parent) {
		ledger_usage(&ledger, &accounts[account].real, usage);
		for (int r = 0; r < LEDGER_RESOURCES; r++)
			if (amounts->amount[r])
				assert_true(usage[r].current <= usage[r].max);
	}
}

static uint64_t model_room(int account, int resource)
{
	uint64_t room = UINT64_MAX;

	for (; account >= 0; account = accounts[account].parent) {
		const struct number *number = &accounts[account].numbers[resource];
		uint64_t here = number->max > number->current ? number->max - number->current : 0;

		room = here < room ? here : room;
	}
	return room;
}

static uint64_t charged, refused;

/* Each answers whether there was something to do. */
static bool do_charge(bool one)
{
	struct charge *charge = &charges[pick(CHARGES)];
	int account = pick_account(), resource = (int)pick(LEDGER_RESOURCES), full = -1, of = 0;
	struct ledger_amounts amounts = {0};
	struct refusal refusal;
	int status;

	if (charge->account >= 0)
		return false;
	amounts.amount[resource] = pick_amount();
	for (uint64_t n = one ? 0 : pick(4); n; n--)
		amounts.amount[pick(LEDGER_RESOURCES)] = pick_amount();
	assert_int_equal(
		ledger_room(&ledger, &accounts[account].real, (enum ledger_resource)resource),
		model_room(account, resource));
	status = one ? ledger_charge_one(&ledger, &accounts[account].real,
					 (enum ledger_resource)resource, amounts.amount[resource],
					 &refusal)
		     : ledger_charge(&ledger, &accounts[account].real, &amounts, &refusal);
	if (model_refuses(account, &amounts, &full, &of)) {
		check_refusal(status, full, of, &amounts, &refusal);
		accounts[full].numbers[of].events++;
		refused++;
		return true;
	}
	assert_int_equal(status, 0);
	check_within(account, &amounts);
	model_charge(account, &amounts);
	*charge = (struct charge){account, amounts};
	charged++;
	return true;
}

/* All of it, or a part. */
static void refund(struct charge *charge, bool all)
{
	struct ledger_amounts amounts = charge->amounts;
	bool left = false;

	for (int r = 0; r < LEDGER_RESOURCES; r++) {
		if (!all && amounts.amount[r])
			amounts.amount[r] = pick(amounts.amount[r]);
		charge->amounts.amount[r] -= amounts.amount[r];
		left |= charge->amounts.amount[r] != 0;
	}
	ledger_refund(&ledger, &accounts[charge->account].real, &amounts);
	model_refund(charge->account, &amounts);
	if (!left)
		charge->account = -1;
}

static bool do_refund(void)
{
	struct charge *charge = &charges[pick(CHARGES)];

	if (charge->account < 0)
		return false;
	refund(charge, pick(4));
	return true;
}

static bool do_set_limits(void)
{
	struct model_account *account = &accounts[pick_account()];
	struct ledger_limits limits;
	char rules[LEDGER_RESOURCES][24];

	ledger_limits_init(&limits);
	for (int r = 0; r < LEDGER_RESOURCES; r++) {
		struct number *number = &account->numbers[r];
		uint64_t max = pick(3) ? UINT64_MAX : pick_limit();
		uint64_t high = pick(3) ? UINT64_MAX : pick_limit();

		snprintf(rules[r], sizeof(rules[r]), "file:%u", (unsigned int)pick(10000));
		ledger_limits_tighten(&limits, (enum ledger_resource)r, max, rules[r]);
		ledger_limits_tighten_high(&limits, (enum ledger_resource)r, high, rules[r]);
		number->max = max;
		number->high = high;
		snprintf(number->rule, sizeof(number->rule), "%.23s",
			 max == UINT64_MAX ? "" : rules[r]);
		number_rearm(number);
	}
	ledger_account_set_limits(&ledger, &account->real, &limits);
	return true;
}

static bool do_new_account(void)
{
	int i = (int)pick(ACCOUNTS), parent = pick_account();

	if (accounts[i].used || depth_of(parent) == DEPTH)
		return false;
	account_begin(i, parent);
	return true;
}

/* An account ends empty, as guests, sessions and tenants do. */
static bool do_end_account(void)
{
	int i = pick_account();

	if (accounts[i].children || accounts[i].parent < 0)
		return false;
	for (int c = 0; c < CHARGES; c++)
		if (charges[c].account == i)
			refund(&charges[c], true);
	for (int r = 0; r < LEDGER_RESOURCES; r++)
		assert_int_equal(accounts[i].numbers[r].current, 0);
	account_compare(&accounts[i]);
	accounts[accounts[i].parent].children--;
	accounts[i].used = false;
	return true;
}

static bool step(void)
{
	uint64_t what = pick(1000);

	if (what < 350)
		return do_charge(true);
	if (what < 600)
		return do_charge(false);
	if (what < 950)
		return do_refund();
	if (what < 980)
		return do_set_limits();
	return what < 992 ? do_new_account() : do_end_account();
}

static unsigned long operations_wanted(void)
{
	const char *text = getenv("LEDGER_MODEL_OPERATIONS");

	return text ? strtoul(text, NULL, 0) : OPERATIONS;
}

static void test_model(void **state)
{
	unsigned long n = operations_wanted();

	(void)state;
	ledger_init(&ledger);
	ledger.tell_high = on_high;
	for (int i = 0; i < CHARGES; i++)
		charges[i].account = -1;
	account_begin(0, -1);
	for (unsigned long i = 0; i < n; i++) {
		while (!step())
			;
		compare();
		if (i % 1024 == 0)
			compare_with_charges();
	}
	print_message("%lu operations: %llu charged, %llu refused, %llu told\n", n,
		      (unsigned long long)charged, (unsigned long long)refused,
		      (unsigned long long)told);
	/* Or the numbers above say nothing. */
	assert_true(charged > n / 20 && refused > n / 20 && told > n / 1000);
	for (int i = 0; i < CHARGES; i++)
		if (charges[i].account >= 0)
			refund(&charges[i], true);
	compare();
	compare_with_charges();
	ledger_deinit(&ledger);
}

/* ── several threads ───────────────────────────────────────────────────────────────────────── */

#define THREADS      4
#define TENANTS      2
#define HOST_MAX     40
#define TENANT_MAX   25
#define LEAF_MAX     16
#define HOST_HIGH    30
#define THREAD_STEPS 100000

struct shared {
	struct ledger ledger;
	struct ledger_account host, tenants[TENANTS], leaves[THREADS];
	_Atomic uint64_t told, events;
	atomic_uint running;
};

struct worker {
	struct shared *shared;
	struct ledger_account *account;
	uint64_t seed;
	struct ledger_amounts held;
	unsigned long steps;
	bool over;
};

static void count_high(void *context, struct ledger_account *account, const struct quota_high *high)
{
	struct shared *shared = context;

	(void)account;
	(void)high;
	atomic_fetch_add(&shared->told, 1);
}

static void limit_all(struct shared *shared, struct ledger_account *account, uint64_t max,
		      uint64_t high)
{
	struct ledger_limits limits;

	ledger_limits_init(&limits);
	for (int r = 0; r < LEDGER_RESOURCES; r++) {
		ledger_limits_tighten(&limits, (enum ledger_resource)r, max, "rule");
		ledger_limits_tighten_high(&limits, (enum ledger_resource)r, high, "high");
	}
	ledger_account_set_limits(&shared->ledger, account, &limits);
}

/* At no moment is any level above a limit that never changes. */
static void worker_look(struct worker *worker)
{
	struct usage usage[LEDGER_RESOURCES];

	for (const struct ledger_account *at = worker->account; at; at = at->parent) {
		ledger_usage(&worker->shared->ledger, at, usage);
		for (int r = 0; r < LEDGER_RESOURCES; r++)
			worker->over |= usage[r].current > usage[r].max ||
					usage[r].peak > usage[r].max ||
					usage[r].peak < usage[r].current;
	}
}

static void worker_step(struct worker *worker)
{
	struct ledger *of = &worker->shared->ledger;
	enum ledger_resource r =
		(enum ledger_resource)((random_of(&worker->seed) >> 20) % LEDGER_RESOURCES);
	uint64_t amount = 1 + (random_of(&worker->seed) >> 20) % 8;
	struct refusal refusal;

	if (worker->held.amount[r] >= amount && random_of(&worker->seed) >> 63) {
		ledger_refund_one(of, worker->account, r, amount);
		worker->held.amount[r] -= amount;
	} else if (!ledger_charge_one(of, worker->account, r, amount, &refusal)) {
		worker->held.amount[r] += amount;
	} else {
		atomic_fetch_add(&worker->shared->events, 1);
	}
}

static void *worker_run(void *context)
{
	struct worker *worker = context;

	for (unsigned long i = 0; i < worker->steps; i++) {
		worker_step(worker);
		if (i % 16 == 0)
			worker_look(worker);
	}
	atomic_fetch_sub(&worker->shared->running, 1);
	return NULL;
}

/* One whose own limit goes up and down meanwhile, as a reload does. */
static void *limiter_run(void *context)
{
	struct shared *shared = context;
	uint64_t max = 0;

	while (atomic_load(&shared->running))
		limit_all(shared, &shared->leaves[0], max++ % LEAF_MAX, UINT64_MAX);
	return NULL;
}

static void check_sums(struct shared *shared, const struct worker *workers)
{
	struct usage host[LEDGER_RESOURCES], usage[LEDGER_RESOURCES];
	uint64_t events = 0, highs = 0;

	ledger_usage(&shared->ledger, &shared->host, host);
	for (int r = 0; r < LEDGER_RESOURCES; r++) {
		uint64_t held = 0;

		for (int i = 0; i < THREADS; i++)
			held += workers[i].held.amount[r];
		assert_int_equal(host[r].current, held);
		events += host[r].events;
		highs += host[r].events_high;
	}
	for (int i = 0; i < TENANTS + THREADS; i++) {
		ledger_usage(&shared->ledger,
			     i < TENANTS ? &shared->tenants[i] : &shared->leaves[i - TENANTS],
			     usage);
		for (int r = 0; r < LEDGER_RESOURCES; r++) {
			events += usage[r].events;
			highs += usage[r].events_high;
			if (i >= TENANTS)
				assert_int_equal(usage[r].current,
						 workers[i - TENANTS].held.amount[r]);
		}
	}
	assert_int_equal(events, shared->events);
	assert_int_equal(highs, shared->told);
	assert_true(events && highs);
}

static void shared_init(struct shared *shared)
{
	memset(shared, 0, sizeof(*shared));
	ledger_init(&shared->ledger);
	shared->ledger.tell_high = count_high;
	shared->ledger.context = shared;
	ledger_account_init(&shared->host, NULL, LIMIT_HOST, "host");
	limit_all(shared, &shared->host, HOST_MAX, HOST_HIGH);
	for (int i = 0; i < TENANTS; i++) {
		ledger_account_init(&shared->tenants[i], &shared->host, LIMIT_TENANT, "tenant");
		limit_all(shared, &shared->tenants[i], TENANT_MAX, UINT64_MAX);
	}
	for (int i = 0; i < THREADS; i++) {
		ledger_account_init(&shared->leaves[i], &shared->tenants[i % TENANTS], LIMIT_GUEST,
				    "tenant");
		limit_all(shared, &shared->leaves[i], LEAF_MAX, UINT64_MAX);
	}
	atomic_init(&shared->running, THREADS);
}

static void run_threads(bool limits_change)
{
	static struct shared shared;
	struct worker workers[THREADS] = {0};
	pthread_t threads[THREADS], limiter;
	unsigned long steps = operations_wanted() / (OPERATIONS / THREAD_STEPS);

	shared_init(&shared);
	for (int i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){
			.shared = &shared,
			.account = &shared.leaves[i],
			.seed = seed + (uint64_t)i * 2 + 1,
			.steps = steps,
		};
		assert_int_equal(pthread_create(&threads[i], NULL, worker_run, &workers[i]), 0);
	}
	if (limits_change)
		assert_int_equal(pthread_create(&limiter, NULL, limiter_run, &shared), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	if (limits_change)
		pthread_join(limiter, NULL);
	for (int i = 0; i < THREADS; i++)
		if (!limits_change)
			assert_false(workers[i].over);
	check_sums(&shared, workers);
	for (int i = 0; i < THREADS; i++)
		ledger_refund(&shared.ledger, workers[i].account, &workers[i].held);
	memset(workers, 0, sizeof(workers));
	check_sums(&shared, workers);
	ledger_deinit(&shared.ledger);
}

static void test_threads(void **state)
{
	(void)state;
	run_threads(false);
}

static void test_threads_and_reloads(void **state)
{
	(void)state;
	run_threads(true);
}

/* Another seed may be given. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_threads_and_reloads),
	};

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0) | 1;
	printf("seed %#llx\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
