/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every limit that the configuration has, at every level, by the table that its keys are made from:
 * N fit, one more is refused and told with all its numbers and the very line that says N, one is
 * given back, one more fits. A new row of the table is tried by itself; a new resource without a
 * way to use one more of it fails here.
 */
#include "broker_fixture.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/session.h"
#include "broker/tenant_rule.h"
#include "config.h"
#include "config_table.h"
#include "s390/shadow.h"

#define N        3
#define TAKES    8
#define MAPPINGS 16 /* of a nested domain */
#define WINDOW   (DMA_BASE + MIB - 1)
#define PLACE    (1ull << 40) /* where pages are mapped */

struct rig {
	struct fixture f;
	struct tenant *tenant; /* what clients hold is charged to it */
	uint64_t device;
	struct session *sessions[TAKES];
	uint64_t objects[TAKES];
	enum ledger_resource resource;
};

/* How one more of a resource is used, really, and given back. */
struct way {
	enum { NEEDS_NOTHING, NEEDS_GUEST, NEEDS_FILE, NEEDS_DEVICE } needs;
	uint64_t unit;
	uint64_t base; /* used before the first one */
	bool verdict;  /* the guest is told by a verdict */
	int (*take)(struct rig *rig, unsigned int i);
	void (*give)(struct rig *rig, unsigned int i);
};

/* ── ways ──────────────────────────────────────────────────────────────────────────────────── */

static int take_page(struct rig *rig, unsigned int i)
{
	return memory_map_one(&rig->f, rig->f.memory_file, 0, PLACE + 2 * i * PAGE, PAGE, true);
}

static void give_page(struct rig *rig, unsigned int i)
{
	uint64_t gpa = PLACE + 2 * i * PAGE;

	assert_done(&rig->f, memory_unmap_one(&rig->f, gpa, gpa + PAGE - 1));
}

static int take_file(struct rig *rig, unsigned int i)
{
	struct memory_file_added added;
	int status = memory_file_add(rig->f.broker, rig->f.session, rig->f.guest,
				     memfd_filled(PAGE, NULL), true, &added, &rig->f.refusal);

	if (!status)
		rig->objects[i] = added.memory_file;
	return status;
}

static void give_file(struct rig *rig, unsigned int i)
{
	assert_done(&rig->f, memory_file_remove(rig->f.broker, rig->f.session, rig->f.guest,
						rig->objects[i], &rig->f.refusal));
}

static int take_guest(struct rig *rig, unsigned int i)
{
	return guest_make(&rig->f, &rig->objects[i]);
}

static void give_guest(struct rig *rig, unsigned int i)
{
	assert_done(&rig->f,
		    guest_destroy(rig->f.broker, rig->f.session, rig->objects[i], &rig->f.refusal));
}

static int take_device(struct rig *rig, unsigned int i)
{
	const struct device_open_request request = {
		.consume_fd = -1,
		.address = {.by_fid = true, .fid = 1 + i},
	};
	int fd = -1;
	int status = device_open(rig->f.broker, rig->f.session, rig->f.guest, &request,
				 &rig->objects[i], &fd, &rig->f.refusal);

	if (!status)
		close(fd);
	return status;
}

static void give_device(struct rig *rig, unsigned int i)
{
	bool held;

	assert_done(&rig->f, device_close(rig->f.broker, rig->f.session, rig->objects[i], &held,
					  &rig->f.refusal));
}

static int take_nested(struct rig *rig, unsigned int i)
{
	const struct nested_create_request request = {
		.device = rig->device,
		.format = NESTED_MANAGED,
		.first = DMA_BASE,
		.last = WINDOW,
		.mappings_max = MAPPINGS,
	};
	struct nested_created created = {0};

	assert_done(&rig->f, nested_create(rig->f.broker, rig->f.session, &request, &created,
					   &rig->f.refusal));
	rig->objects[i] = created.nested;
	if (created.verdict == VERDICT_DONE)
		return 0;
	assert_int_equal(created.verdict, VERDICT_RESOURCES);
	return REFUSED;
}

static void give_nested(struct rig *rig, unsigned int i)
{
	uint64_t dropped;

	assert_done(&rig->f, nested_destroy(rig->f.broker, rig->f.session, rig->objects[i],
					    &dropped, &rig->f.refusal));
}

static int session_take(struct rig *rig, struct session **ret)
{
	const struct tenant_identity identity = {.uid = rig->f.peer.uid};
	struct peer peer = rig->f.peer;

	peer.identity = &identity;
	return session_new(ret, rig->f.broker, &peer, "", rig->f.secret, &rig->f.refusal);
}

static int take_session(struct rig *rig, unsigned int i)
{
	return session_take(rig, &rig->sessions[i]);
}

static void give_session(struct rig *rig, unsigned int i)
{
	session_close(rig->sessions[i], NULL, NULL);
	rig->sessions[i] = session_unref(rig->sessions[i]);
}

static void ring_ended(void *context)
{
	(void)context;
}

static int take_ring(struct rig *rig, unsigned int i)
{
	const struct ring_claim claim = {.guest = rig->f.guest, .bytes = PAGE, .end = ring_ended};

	return ring_claim(rig->f.broker, rig->f.session, &claim, &rig->objects[i], &rig->f.refusal);
}

static void give_ring(struct rig *rig, unsigned int i)
{
	assert_done(&rig->f,
		    ring_release(rig->f.broker, rig->f.session, rig->objects[i], &rig->f.refusal));
}

/* As rpc/ does for its clients. */
static int take_charge(struct rig *rig, unsigned int i)
{
	(void)i;
	return broker_charge(rig->f.broker, rig->tenant, rig->resource, 1, &rig->f.refusal);
}

static void give_charge(struct rig *rig, unsigned int i)
{
	(void)i;
	broker_refund(rig->f.broker, rig->tenant, rig->resource, 1);
}

#define QUEUE 16 /* events */

static struct way way_of(enum ledger_resource resource)
{
	const struct shadow_limits limits = {.leaves_max = MAPPINGS, .tables_max = 3};
	const struct way ways[LEDGER_RESOURCES] = {
		[LEDGER_PINNED_BYTES] = {NEEDS_FILE, PAGE, 0, false, take_page, give_page},
		[LEDGER_REGIONS] = {NEEDS_FILE, 1, 0, false, take_page, give_page},
		[LEDGER_MEMORY_FILES] = {NEEDS_GUEST, 1, 0, false, take_file, give_file},
		[LEDGER_GUESTS] = {NEEDS_NOTHING, 1, 0, false, take_guest, give_guest},
		[LEDGER_EVENT_SLOTS] = {NEEDS_NOTHING, QUEUE, 0, false, take_guest, give_guest},
		[LEDGER_DEVICES] = {NEEDS_GUEST, 1, 0, false, take_device, give_device},
		[LEDGER_RINGS] = {NEEDS_GUEST, 1, 0, false, take_ring, give_ring},
		[LEDGER_NESTED] = {NEEDS_DEVICE, 1, 0, true, take_nested, give_nested},
		[LEDGER_MAPPINGS] = {NEEDS_DEVICE, MAPPINGS, 0, true, take_nested, give_nested},
		[LEDGER_TABLE_BYTES] = {NEEDS_DEVICE, shadow_storage_bytes(&limits), 0, true,
					take_nested, give_nested},
		[LEDGER_SESSIONS] = {NEEDS_NOTHING, 1, 1, false, take_session, give_session},
		[LEDGER_WATCHES] = {NEEDS_NOTHING, 1, 0, false, take_charge, give_charge},
		[LEDGER_CONNECTIONS] = {NEEDS_NOTHING, 1, 0, false, take_charge, give_charge},
		[LEDGER_CALLS] = {NEEDS_NOTHING, 1, 0, false, take_charge, give_charge},
		[LEDGER_DESCRIPTORS] = {NEEDS_NOTHING, 1, 0, false, take_charge, give_charge},
		[LEDGER_QUEUED_BYTES] = {NEEDS_NOTHING, 1, 0, false, take_charge, give_charge},
	};

	if (!ways[resource].take)
		fail_msg("%s: how is one more of it used?", ledger_resource_name(resource));
	return ways[resource];
}

/* ── a configuration with one limit ────────────────────────────────────────────────────────── */

static char folder[64];

static int remove_entry(const char *path, const struct stat *status, int flag, struct FTW *walk)
{
	(void)status;
	(void)flag;
	(void)walk;
	return remove(path);
}

static int setup(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/limit-test-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void file_write(const char *name, const char *text)
{
	char path[256], *slash;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	slash = strrchr(path, '/');
	*slash = 0;
	mkdir(path, 0700);
	*slash = '/';
	file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static struct config *load(void)
{
	const char *const folders[] = {folder};
	struct config *config = NULL;
	int status = config_load(&config, folders, 1);

	if (status)
		fail_msg("%s", config_error(config, status));
	config->broker.open_devices = true;
	config->broker.require_seals = BROKER_SEALS_OFF;
	return config;
}

/* A limit as the test finds it in a table. */
struct row {
	const char *key;
	bool in_rule; /* of a file of quota.d */
	enum limit_level level;
	enum ledger_resource resource;
	char where[128]; /* end of it */
};

#define MATCH "[Match]\nUser=*\n[Quota]\n"

static struct config *load_row(struct row *row, uint64_t max)
{
	char text[256];

	snprintf(text, sizeof(text), "[Limits]\n%s=%llu\n%s",
		 row->in_rule ? "RegionsPerGuestMax" : row->key,
		 row->in_rule ? 4096ull : (unsigned long long)max,
		 !strcmp(row->key, "EventQueueSize") ? "" : "EventQueueSize=16\n");
	file_write("iommubrokerd.conf", text);
	snprintf(text, sizeof(text), MATCH "%s=%llu\n", row->in_rule ? row->key : "GuestsMax",
		 row->in_rule ? (unsigned long long)max : 1000ull);
	file_write("quota.d/50-all.conf", text);
	snprintf(row->where, sizeof(row->where), "%s",
		 row->in_rule ? "/quota.d/50-all.conf:4" : "/iommubrokerd.conf:2");
	return load();
}

/* ── the rig ───────────────────────────────────────────────────────────────────────────────── */

static void rig_init(struct rig *rig, const struct config *config, const struct way *way,
		     enum ledger_resource resource)
{
	const struct tenant_identity identity = {.uid = getuid()};
	struct device_description description;
	struct peer peer;

	memset(rig, 0, sizeof(*rig));
	rig->resource = resource;
	fixture_init_broker(&rig->f, &config->broker);
	assert_done(&rig->f, session_take(rig, &rig->f.session));
	peer = rig->f.peer;
	peer.identity = &identity;
	assert_done(&rig->f,
		    broker_tenant_find(&rig->tenant, rig->f.broker, &peer, &rig->f.refusal));
	if (way->needs != NEEDS_NOTHING)
		assert_done(&rig->f, guest_make(&rig->f, &rig->f.guest));
	if (way->needs == NEEDS_FILE) {
		rig->f.memory_fd = memfd_filled(MEMORY_BYTES, &rig->f.memory);
		rig->f.memory_file = file_add(&rig->f, rig->f.memory_fd, true);
	}
	if (way->needs != NEEDS_DEVICE)
		return;
	assert_done(&rig->f, take_device(rig, 0));
	rig->device = rig->objects[0];
	assert_done(&rig->f, device_bind(rig->f.broker, rig->f.session, rig->device, NULL, NULL,
					 &description, &rig->f.refusal));
}

static void rig_deinit(struct rig *rig)
{
	for (unsigned int i = 0; i < TAKES; i++)
		if (rig->sessions[i])
			give_session(rig, i);
	broker_tenant_unref(rig->f.broker, rig->tenant);
	fixture_deinit(&rig->f);
}

/* ── N, N + 1, back, N + 1 ─────────────────────────────────────────────────────────────────── */

static struct usage usage_at(struct rig *rig, const struct row *row)
{
	const char *tenant = row->level == LIMIT_GUEST ? "all" : NULL;
	struct quota_report *reports;
	struct usage usage = {0};
	bool found = false;
	size_t n;

	assert_done(&rig->f, quota_list(rig->f.broker, tenant, &reports, &n, &rig->f.refusal));
	for (size_t i = 0; i < n && !found; i++) {
		found = reports[i].level == row->level;
		usage = reports[i].usage[row->resource];
		if (found && !strstr(reports[i].where[row->resource], row->where))
			fail_msg("%s: stands at '%s'?", row->key, reports[i].where[row->resource]);
	}
	free(reports);
	assert_true(found);
	return usage;
}

static void check_told(struct rig *rig, const struct row *row, const struct way *way)
{
	const struct refusal *refusal = &rig->f.refusal;

	if (row->level != LIMIT_SESSION) {
		const struct usage usage = usage_at(rig, row);

		assert_int_equal(usage.events, 1);
		assert_int_equal(usage.current, N * way->unit);
		assert_int_equal(usage.max, N * way->unit);
		assert_false(usage.over);
	}
	if (way->verdict)
		return;
	assert_int_equal(refusal->kind, REFUSAL_QUOTA);
	assert_string_equal(refusal->resource, ledger_resource_name(row->resource));
	assert_int_equal(refusal->limit, N * way->unit);
	assert_int_equal(refusal->used, N * way->unit);
	assert_int_equal(refusal->requested, way->unit);
	assert_string_equal(refusal->tenant, "all");
	if (!strstr(refusal->rule, row->where))
		fail_msg("%s: '%s' should be told", row->key, refusal->rule);
}

static void check_row(struct row *row)
{
	const struct way way = way_of(row->resource);
	struct config *config = load_row(row, N * way.unit);
	struct rig rig;
	unsigned int n = (unsigned int)(N - way.base);

	print_message("%s%s\n", row->in_rule ? "[Quota] " : "[Limits] ", row->key);
	rig_init(&rig, config, &way, row->resource);
	for (unsigned int i = 0; i < n; i++)
		assert_done(&rig.f, way.take(&rig, i));
	assert_int_equal(way.take(&rig, n), REFUSED);
	check_told(&rig, row, &way);
	way.give(&rig, 1);
	assert_done(&rig.f, way.take(&rig, 1));
	assert_int_equal(way.take(&rig, n), REFUSED);
	for (unsigned int i = 0; i < n; i++)
		way.give(&rig, i);
	if (row->level != LIMIT_SESSION)
		assert_int_equal(usage_at(&rig, row).current, way.base * way.unit);
	rig_deinit(&rig);
	config_free(config);
}

/* ── the tables ────────────────────────────────────────────────────────────────────────────── */

/* From where a setting's limit lies in the configuration. */
static void row_of_setting(const struct setting *setting, struct row *ret, bool *ret_high)
{
	size_t at = setting->offset - offsetof(struct config, broker.limits);
	size_t in_level = at % sizeof(struct limit_set);

	*ret_high = in_level >= offsetof(struct limit_set, high);
	*ret = (struct row){
		.key = setting->name,
		.level = (enum limit_level)(at / sizeof(struct limit_set)),
		.resource = (enum ledger_resource)(in_level % offsetof(struct limit_set, high) /
						   sizeof(struct limit_setting)),
	};
}

/* The size of a queue is no limit that something runs into: see test_event_queue. */
static bool is_size(const struct row *row)
{
	return row->level == LIMIT_GUEST && row->resource == LEDGER_EVENT_SLOTS;
}

static void test_settings(void **state)
{
	unsigned int tried = 0;

	(void)state;
	for (size_t i = 0; i < n_config_settings; i++) {
		struct row row;
		bool high;

		if (!config_settings[i].limit || config_settings[i].type == SETTING_RATE)
			continue;
		row_of_setting(&config_settings[i], &row, &high);
		if (high || is_size(&row))
			continue;
		check_row(&row);
		tried++;
	}
	assert_true(tried >= 2 * LEDGER_RESOURCES);
}

static void test_rules(void **state)
{
	unsigned int tried = 0;

	(void)state;
	for (size_t i = 0; i < n_quota_rule_keys; i++) {
		const struct quota_key *key = &quota_rule_keys[i];
		struct row row = {
			.key = key->key.name,
			.in_rule = true,
			.level = key->level,
			.resource = key->resource,
		};

		if (key->high || key->is_rate || is_size(&row))
			continue;
		check_row(&row);
		tried++;
	}
	assert_true(tried >= LEDGER_RESOURCES);
}

static void test_event_queue(void **state)
{
	struct row row = {.key = "EventQueueSize", .level = LIMIT_HOST};
	const struct way way = way_of(LEDGER_GUESTS);
	struct config *config = load_row(&row, 40);
	struct rig rig;

	(void)state;
	rig_init(&rig, config, &way, LEDGER_GUESTS);
	assert_done(&rig.f, way.take(&rig, 0));
	assert_int_equal(host_usage(&rig.f, LEDGER_EVENT_SLOTS).current, 40);
	way.give(&rig, 0);
	assert_int_equal(host_usage(&rig.f, LEDGER_EVENT_SLOTS).current, 0);
	rig_deinit(&rig);
	config_free(config);
}

/* ── soft limits ───────────────────────────────────────────────────────────────────────────── */

static unsigned int n_told;
static struct quota_high last;

static void tell(void *context, const struct quota_high *high)
{
	(void)context;
	n_told++;
	last = *high;
}

static void on_wake(void *context)
{
	(void)context;
}

static void check_event(struct rig *rig, struct event_watch *watch, const struct row *row)
{
	struct event event;

	assert_int_equal(event_watch_next(watch, &event), 1);
	assert_int_equal(event.kind, EVENT_QUOTA_HIGH);
	assert_int_equal(event.guest, rig->f.guest);
	assert_int_equal(event.resource, LEDGER_PINNED_BYTES);
	assert_int_equal(event.level, row->level);
	assert_int_equal(event.used, (N + 1) * PAGE);
	assert_int_equal(event.high, N * PAGE);
}

/* Told when it rises above, once; again when it did so again. */
static void check_high(struct row *row)
{
	const struct way way = way_of(row->resource);
	struct config *config = load_row(row, N * way.unit);
	struct event_watch *watch;
	struct event event;
	struct rig rig;

	n_told = 0;
	rig_init(&rig, config, &way, row->resource);
	broker_on_quota_high(rig.f.broker, tell, NULL);
	assert_done(&rig.f, event_watch_new(&watch, rig.f.broker, rig.f.session, rig.f.guest, 0,
					    on_wake, NULL, &rig.f.refusal));
	for (unsigned int i = 0; i < N; i++)
		assert_done(&rig.f, way.take(&rig, i));
	assert_int_equal(n_told, 0);
	for (unsigned int i = N; i < N + 3; i++)
		assert_done(&rig.f, way.take(&rig, i));
	assert_int_equal(n_told, 1);
	assert_int_equal(last.level, row->level);
	assert_int_equal(last.guest, rig.f.guest);
	assert_non_null(strstr(last.rule, row->where));
	check_event(&rig, watch, row);
	for (unsigned int i = 0; i < N; i++)
		way.give(&rig, i);
	assert_done(&rig.f, way.take(&rig, 0));
	assert_int_equal(n_told, 2);
	check_event(&rig, watch, row);
	assert_int_equal(event_watch_next(watch, &event), 0);
	event_watch_free(watch);
	rig_deinit(&rig);
	config_free(config);
}

static void test_high(void **state)
{
	unsigned int tried = 0;

	(void)state;
	for (size_t i = 0; i < n_config_settings; i++) {
		struct row row;
		bool high;

		if (!config_settings[i].limit || config_settings[i].type == SETTING_RATE)
			continue;
		row_of_setting(&config_settings[i], &row, &high);
		if (!high)
			continue;
		check_high(&row);
		tried++;
	}
	for (size_t i = 0; i < n_quota_rule_keys; i++) {
		const struct quota_key *key = &quota_rule_keys[i];
		struct row row = {key->key.name, true, key->level, key->resource, ""};

		if (!key->high)
			continue;
		check_high(&row);
		tried++;
	}
	assert_true(tried >= 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_settings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rules, setup, teardown),
		cmocka_unit_test_setup_teardown(test_event_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(test_high, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
