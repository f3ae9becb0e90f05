/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Each command of iommubrokerctl: what it asks, what it prints, its exit status. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "ctl/command_table.h"
#include "ctl/exit_status.h"
#include "fake_admin.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "iommubroker/v1/admin.pb-c.h"

static int setup(void **state)
{
	fake_admin_reset();
	return 0;
}

static void expect(const char *command_line, int status, const char *out)
{
	struct run run = fake_admin_run(command_line);

	if (run.status != status || strstr(run.out, out) == NULL)
		fail_msg("%s: status %d, '%s', '%s'", command_line, run.status, run.out, run.err);
}

static void expect_asked(const char *command_line, const char *request)
{
	struct run run = fake_admin_run(command_line);

	if (strstr(run.requests, request) == NULL)
		fail_msg("%s asked %s", command_line, run.requests);
}

/* What it prints with --json, parsed; to be freed. */
static json_t *expect_json(const char *command_line, int status)
{
	struct run run = fake_admin_run(command_line);
	json_t *json = json_loads(run.out, 0, NULL);

	if (run.status != status || json == NULL)
		fail_msg("%s: status %d, '%s', '%s'", command_line, run.status, run.out, run.err);
	return json;
}

/* ── usage ────────────────────────────────────────────────────────────────────────────────── */

static void test_usage(void **state)
{
	static const char *const wrong[] = {
		"",
		"nothing",
		"config",
		"config nothing",
		"check-fit",
		"check-fit --tenant t",
		"status x",
		"explain a",
		"explain a b c --fid 1",
		"explain a 1",
		"explain a 1 --fid 1 --nested 1",
		"explain a x --fid 1",
		"explain a 1 --fid 4294967296",
		"explain a 1 --nested 0",
		"status --fid 1",
		"--fid 1 status",
		"quota --tenant",
		"quota explain",
		"quota explain a --pid 1",
		"quota explain --user a --unit b",
		"check-fit --pinned 1.5G",
		"check-fit --guests -1",
		"revoke guest",
		"revoke region 1",
		"drain --timeout 1",
		"drain --wait --cancel",
		"names",
		"names devices",
		"--json=1 status",
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct run run = fake_admin_run(wrong[i]);

		if (run.status != EXIT_BAD_USAGE || run.out[0] != '\0' || run.requests[0] != '\0' ||
		    strncmp(run.err, "iommubrokerctl: ", 16) != 0)
			fail_msg("'%s': status %d, '%s', asked '%s'", wrong[i], run.status, run.err,
				 run.requests);
	}
}

/* Of which lines it makes others, of at most 79 columns. */
static void expect_words(const char *command_line, const char *text)
{
	struct run run = fake_admin_run(command_line);
	const char *line, *end;
	char *rest, *copy = strdup(text);
	const char *at = run.out;

	assert_int_equal(run.status, 0);
	for (line = run.out; *line != '\0'; line = end + 1) {
		end = strchr(line, '\n');
		assert_non_null(end);
		if (end - line > 79)
			fail_msg("%s: %.*s", command_line, (int)(end - line), line);
	}
	for (char *word = strtok_r(copy, " \n", &rest); word != NULL;
	     word = strtok_r(NULL, " \n", &rest)) {
		at = strstr(at, word);
		if (at == NULL)
			fail_msg("%s: no '%s' in its place", command_line, word);
	}
	free(copy);
}

static void test_groups(void **state)
{
	struct run run = fake_admin_run("config");

	assert_string_equal(run.err, "iommubrokerctl: config takes check or show or reload; see "
				     "iommubrokerctl --help\n");
	expect("config --help", 0, "  config check        read the configuration, tell mistakes\n");
	expect("--help config", 0, "  config show");
	run = fake_admin_run("config --help");
	assert_null(strstr(run.out, "doctor"));
}

static void test_help(void **state)
{
	char command_line[100], line[64];

	for (size_t i = 0; i < COMMANDS_N; i++) {
		assert_non_null(command_table[i].name);
		expect("--help", 0, command_table[i].summary);
		snprintf(command_line, sizeof(command_line), "%s --help", command_table[i].name);
		expect_words(command_line, command_table[i].text);
		/* before the name it says the same */
		snprintf(command_line, sizeof(command_line), "--help %s", command_table[i].name);
		expect_words(command_line, command_table[i].text);
		assert_true(strlen(command_table[i].summary) <= 50);
	}
	expect("-h", 0, "usage:");
	expect("--version", 0, "iommubrokerctl ");
#define X(name, value, text)                                      \
	snprintf(line, sizeof(line), "  %d  %.50s", value, text); \
	expect("--help", 0, line);
	EXIT_STATUSES(X)
#undef X
}

/* ── errors ───────────────────────────────────────────────────────────────────────────────── */

static void test_no_daemon(void **state)
{
	static const char *const commands[] = {
		"status",
		"list",
		"show",
		"top",
		"monitor",
		"dump",
		"quota",
		"quota explain u",
		"check-fit --guests 1",
		"config show",
		"reload",
		"config reload",
		"revoke guest a",
		"drain",
		"metrics",
		"names guests",
		"explain a 1 --fid 1",
	};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		char with_json[64];
		struct run run = fake_admin_run(commands[i]);
		json_t *json;

		if (run.status != EXIT_NO_DAEMON || run.out[0] != '\0' ||
		    strstr(run.err, "no daemon answers at /run/iommubroker-admin/admin.sock") ==
			    NULL)
			fail_msg("%s: status %d, '%s'", commands[i], run.status, run.err);
		snprintf(with_json, sizeof(with_json), "--json %s", commands[i]);
		run = fake_admin_run(with_json);
		assert_int_equal(run.status, EXIT_NO_DAEMON);
		json = json_loads(run.err, 0, NULL);
		assert_non_null(json);
		assert_string_equal(
			json_string_value(json_object_get(json_object_get(json, "error"), "code")),
			"UNAVAILABLE");
		json_decref(json);
	}
}

static void lay_refusal(const char *method)
{
	Google__Rpc__ErrorInfo__MetadataEntry entry = GOOGLE__RPC__ERROR_INFO__METADATA_ENTRY__INIT;
	Google__Rpc__ErrorInfo__MetadataEntry *entries[] = {&entry};
	Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
	Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
	Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
	Google__Protobuf__Any *details[] = {&any};
	uint8_t bytes[256];

	entry.key = (char *)"limit";
	entry.value = (char *)"7";
	info.reason = (char *)"QUOTA";
	info.n_metadata = 1;
	info.metadata = entries;
	any.type_url = (char *)"type.googleapis.com/google.rpc.ErrorInfo";
	any.value.data = bytes;
	any.value.len = google__rpc__error_info__pack(&info, bytes);
	status.n_details = 1;
	status.details = details;
	fake_admin_refuse(method, 8, "too much \x1b[31m", &status.base);
}

static void test_refusal(void **state)
{
	struct run run;
	json_t *json, *error;

	lay_refusal("ListAll");
	run = fake_admin_run("list");
	assert_int_equal(run.status, EXIT_REFUSED);
	assert_string_equal(run.err, "iommubrokerctl: too much \\x1b[31m\n");
	run = fake_admin_run("list --json");
	assert_int_equal(run.status, EXIT_REFUSED);
	json = json_loads(run.err, 0, NULL);
	error = json_object_get(json, "error");
	assert_int_equal(json_integer_value(json_object_get(error, "exit_status")), 1);
	assert_string_equal(json_string_value(json_object_get(error, "code")),
			    "RESOURCE_EXHAUSTED");
	assert_string_equal(json_string_value(json_object_get(error, "reason")), "QUOTA");
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(error, "metadata"), "limit")),
		"7");
	json_decref(json);
}

/* ── quota, check-fit ─────────────────────────────────────────────────────────────────────── */

static void lay_quota(void)
{
	Iommubroker__V1__ShowQuotaResponse account = IOMMUBROKER__V1__SHOW_QUOTA_RESPONSE__INIT;
	Iommubroker__V1__ShowQuotaResponse__Limit limit =
		IOMMUBROKER__V1__SHOW_QUOTA_RESPONSE__LIMIT__INIT;
	Iommubroker__V1__ShowQuotaResponse__Rate rate =
		IOMMUBROKER__V1__SHOW_QUOTA_RESPONSE__RATE__INIT;
	Iommubroker__V1__ShowQuotaResponse__Limit *limits[] = {&limit};
	Iommubroker__V1__ShowQuotaResponse__Rate *rates[] = {&rate};

	limit.resource = (char *)"pinned_bytes";
	limit.current = UINT64_C(3) << 30;
	limit.high = UINT64_C(1) << 30;
	limit.max = UINT64_C(2) << 30;
	limit.peak = UINT64_C(4) << 30;
	limit.events = 17;
	limit.events_high = 5;
	limit.over = true;
	limit.rule = (char *)"quota.d/50-a.conf:4";
	rate.resource = (char *)"requests";
	rate.per_second = 500;
	rate.burst = UINT64_MAX;
	rate.delayed = 11;
	rate.refused = 12;
	account.level = (char *)"tenant";
	account.tenant = (char *)"a\x1b";
	account.rule = (char *)"50-a";
	account.stranger = true;
	account.n_limits = account.n_rates = 1;
	account.limits = limits;
	account.rates = rates;
	fake_admin_answer("ShowQuota", &account.base);
}

/* The page after a name: the host, as on each, and one tenant. */
static void lay_page(uint32_t call, const char *tenant, bool more)
{
	Iommubroker__V1__GetStatusResponse status = IOMMUBROKER__V1__GET_STATUS_RESPONSE__INIT;
	Iommubroker__V1__GetUsageResponse host = IOMMUBROKER__V1__GET_USAGE_RESPONSE__INIT;
	Iommubroker__V1__GetUsageResponse one = IOMMUBROKER__V1__GET_USAGE_RESPONSE__INIT;
	Iommubroker__V1__GetUsageResponse *usage[] = {&host, &one};

	host.tenant = (char *)"host";
	one.tenant = (char *)tenant;
	status.n_usage = 2;
	status.usage = usage;
	status.usage_more = more;
	fake_admin_answer_from("GetStatus", call, &status.base);
}

/* All pages are one answer. */
static void test_pages(void **state)
{
	json_t *json, *usage;
	struct run run;

	lay_page(1, "a", true);
	lay_page(2, "b", true);
	lay_page(3, "c", false);
	json = expect_json("status --json", 0);
	usage = json_object_get(json, "usage");
	assert_int_equal(json_array_size(usage), 4);
	assert_string_equal(json_string_value(json_object_get(json_array_get(usage, 3), "tenant")),
			    "c");
	json_decref(json);
	run = fake_admin_run("status");
	assert_string_equal(run.requests, "GetStatus {\"usage_after\":\"\"}\n"
					  "GetStatus {\"usage_after\":\"a\"}\n"
					  "GetStatus {\"usage_after\":\"b\"}\n");
	expect("names tenants", 0, "a\nb\nc\n");
	/* One that says that there is more and has no more does not hold us up. */
	lay_page(3, "b", true);
	expect("names tenants", 0, "b\n");
}

static void test_status_of_the_store(void **state)
{
	Iommubroker__V1__GetStatusResponse status = IOMMUBROKER__V1__GET_STATUS_RESPONSE__INIT;
	Iommubroker__V1__GetStatusResponse__Takeover takeover =
		IOMMUBROKER__V1__GET_STATUS_RESPONSE__TAKEOVER__INIT;

	fake_admin_answer("GetStatus", &status.base);
	expect("status", 0, "stored       nothing: guests end with the daemon\n");
	fake_admin_reset();
	status.stored_descriptors = 12;
	status.stored_descriptors_max = 4096;
	fake_admin_answer("GetStatus", &status.base);
	expect("status", 0, "stored       12 of 4096 descriptors\n");
	fake_admin_reset();
	takeover.guests = 3;
	takeover.released = 1;
	takeover.nanoseconds = 42999999;
	status.takeover = &takeover;
	fake_admin_answer("GetStatus", &status.base);
	expect("status", 0, "taken over   3 guests in 42 ms, 1 released\n");
}

static void test_quota(void **state)
{
	json_t *json;

	lay_quota();
	expect("quota", 0, "tenant a\\x1b by rule 50-a (no rule is for it any more)\n");
	expect("quota", 0,
	       "  pinned_bytes       3 GiB     1 GiB     2 GiB     4 GiB     17 OVER\n"
	       "                 quota.d/50-a.conf:4\n");
	expect("quota", 0, "rose above high 5 times");
	expect("quota", 0, "  requests             500      none        11        12\n");
	expect_asked("quota", "ShowQuota {\"tenant\":\"\"}");
	expect_asked("quota --tenant prod", "ShowQuota {\"tenant\":\"prod\"}");
	json = expect_json("quota --json", 0);
	assert_int_equal(json_array_size(json), 1);
	json_decref(json);
}

static void test_quota_explain(void **state)
{
	Iommubroker__V1__ExplainQuotaResponse__Considered considered =
		IOMMUBROKER__V1__EXPLAIN_QUOTA_RESPONSE__CONSIDERED__INIT;
	Iommubroker__V1__ExplainQuotaResponse__Considered *all[] = {&considered};
	Iommubroker__V1__ExplainQuotaResponse response =
		IOMMUBROKER__V1__EXPLAIN_QUOTA_RESPONSE__INIT;

	response.reason = (char *)"no rule is for it";
	considered.rule = (char *)"50-a";
	considered.why = (char *)"User= is 7, the client is 8";
	response.n_considered = 1;
	response.considered = all;
	fake_admin_answer("ExplainQuota", &response.base);
	expect("quota explain 12", EXIT_REFUSED, "not served: no rule is for it");
	expect("quota explain 12", EXIT_REFUSED,
	       "50-a                     User= is 7, the client is 8");
	json_decref(expect_json("--json quota explain 12", EXIT_REFUSED));
	expect_asked("quota explain 12", "{\"pid\":12,\"unit\":\"\",\"user\":\"\"}");
	expect_asked("quota explain qemu", "{\"pid\":0,\"unit\":\"\",\"user\":\"qemu\"}");
	expect_asked("quota explain a.scope", "{\"pid\":0,\"unit\":\"a.scope\",\"user\":\"\"}");
	expect_asked("quota explain --user 12", "{\"pid\":0,\"unit\":\"\",\"user\":\"12\"}");
	expect_asked("quota explain --unit x", "{\"pid\":0,\"unit\":\"x\",\"user\":\"\"}");
	expect_asked("quota explain --pid 3", "{\"pid\":3,\"unit\":\"\",\"user\":\"\"}");
	fake_admin_reset();
	response.served = response.manager = true;
	response.tenant = (char *)"prod";
	fake_admin_answer("ExplainQuota", &response.base);
	expect("quota explain 12", 0, "tenant   prod, a manager\n");
}

static void test_check_fit(void **state)
{
	Iommubroker__V1__CheckFitResponse__Missing missing =
		IOMMUBROKER__V1__CHECK_FIT_RESPONSE__MISSING__INIT;
	Iommubroker__V1__CheckFitResponse__Missing *all[] = {&missing};
	Iommubroker__V1__CheckFitResponse response = IOMMUBROKER__V1__CHECK_FIT_RESPONSE__INIT;

	missing.resource = (char *)"pinned_bytes";
	missing.limit = UINT64_C(64) << 30;
	missing.used = UINT64_C(50) << 30;
	missing.requested = UINT64_C(16) << 30;
	missing.missing = UINT64_C(2) << 30;
	missing.rule = (char *)"quota.d/50-a.conf:4";
	response.n_missing = 1;
	response.missing = all;
	fake_admin_answer("CheckTenantFit", &response.base);
	expect("check-fit --pinned 16G", EXIT_REFUSED,
	       "it does not fit\npinned_bytes: 2 GiB missing, for 50 GiB of 64 GiB are used and "
	       "16 GiB wanted; quota.d/50-a.conf:4\n");
	json_decref(expect_json("check-fit --guests 1 --json", EXIT_REFUSED));
	expect_asked(
		"check-fit --tenant t --guests 1 --pinned 16G --files 8 --regions 2 --devices 3 "
		"--nested 4 --mappings 5 --rings 6 --ring-lanes 7 --ring-entries 8",
		"CheckTenantFit "
		"{\"fit\":{\"devices\":3,\"guests\":1,\"mappings\":5,\"memory_files\":8,"
		"\"nested_domains\":4,\"pinned_bytes\":17179869184,\"regions\":2,"
		"\"ring_entries\":8,\"ring_lanes\":7,"
		"\"update_rings\":6},\"tenant\":\"t\"}");
	fake_admin_reset();
	response.fits = true;
	response.n_missing = 0;
	fake_admin_answer("CheckTenantFit", &response.base);
	expect("check-fit --guests 1", 0, "it fits\n");
}

/* ── configuration ────────────────────────────────────────────────────────────────────────── */

static void lay_setting(const char *section, const char *key, const char *value, const char *from,
			const char *pending)
{
	Iommubroker__V1__ShowConfigurationResponse setting =
		IOMMUBROKER__V1__SHOW_CONFIGURATION_RESPONSE__INIT;

	setting.section = (char *)section;
	setting.key = (char *)key;
	setting.value = (char *)value;
	setting.from = (char *)from;
	setting.pending = (char *)pending;
	fake_admin_answer("ShowConfiguration", &setting.base);
}

static void test_config(void **state)
{
	Iommubroker__V1__ConfigureResponse response = IOMMUBROKER__V1__CONFIGURE_RESPONSE__INIT;
	json_t *json;

	lay_setting("Limits", "GuestsMax", "7", "/etc/x.conf:3", "");
	lay_setting("Limits", "DevicesMax", "9", "", "");
	lay_setting("Service", "WorkerThreadsMax", "4", "", "5");
	expect("config show", 0,
	       "[Limits]\nGuestsMax=7                                  # /etc/x.conf:3\n"
	       "DevicesMax=9                                 # default\n\n[Service]\n");
	expect("config show", 0, "# at the next start: 5\n");
	json = expect_json("config show --changed --json", 0);
	assert_int_equal(json_array_size(json), 2);
	json_decref(json);
	fake_admin_answer("Configure", &response.base);
	expect("config check", 0, "no mistakes in any file\n");
	expect_asked("config check", "Configure {\"check_only\":true,\"tell_all\":true}");
	expect_asked("config reload", "Configure {\"check_only\":false,\"tell_all\":true}");
	expect_asked("reload", "Configure {\"check_only\":false,\"tell_all\":true}");
}

static void test_mistakes(void **state)
{
	Iommubroker__V1__ConfigureResponse response = IOMMUBROKER__V1__CONFIGURE_RESPONSE__INIT;
	char *mistakes[] = {(char *)"a.conf:1: one\x1b", (char *)"b.conf:2: two"};
	struct run run;
	json_t *json;

	response.n_mistakes = 2;
	response.mistakes = mistakes;
	fake_admin_answer("Configure", &response.base);
	run = fake_admin_run("config check");
	assert_int_equal(run.status, EXIT_REFUSED);
	assert_string_equal(run.out, "");
	assert_string_equal(run.err, "a.conf:1: one\\x1b\nb.conf:2: two\n");
	run = fake_admin_run("reload");
	assert_int_equal(run.status, EXIT_REFUSED);
	assert_string_equal(run.err, "a.conf:1: one\\x1b\nb.conf:2: two\n"
				     "everything is kept as it was\n");
	run = fake_admin_run("reload --json");
	assert_int_equal(run.status, EXIT_REFUSED);
	json = json_loads(run.err, 0, NULL);
	assert_int_equal(
		json_array_size(json_object_get(json_object_get(json, "error"), "mistakes")), 2);
	json_decref(json);
}

/* What held before is compared with what holds after. */
static void test_reload_changes(void **state)
{
	Iommubroker__V1__ConfigureResponse response = IOMMUBROKER__V1__CONFIGURE_RESPONSE__INIT;
	Iommubroker__V1__ShowConfigurationResponse now =
		IOMMUBROKER__V1__SHOW_CONFIGURATION_RESPONSE__INIT;

	fake_admin_answer("Configure", &response.base);
	lay_setting("Limits", "GuestsMax", "7", "/etc/x.conf:3", "");
	expect("reload", 0, "holds from now on\nnothing that holds now has changed\n");
	now.section = (char *)"Limits";
	now.key = (char *)"GuestsMax";
	now.value = (char *)"9";
	now.from = (char *)"/etc/x.conf:3";
	fake_admin_answer_from("ShowConfiguration", 2, &now.base);
	expect("reload", 0, "[Limits] GuestsMax is 9 and was 7 # /etc/x.conf:3\n");
	now.section = (char *)"quota.d/50-a.conf [Quota]";
	fake_admin_answer_from("ShowConfiguration", 2, &now.base);
	expect("reload", 0,
	       "quota.d/50-a.conf [Quota] GuestsMax is 9 and is new # /etc/x.conf:3\n");
	fake_admin_reset();
	fake_admin_answer("Configure", &response.base);
	lay_setting("Limits", "GuestsMax", "7", "/etc/x.conf:3", "");
	fake_admin_answer_from("ShowConfiguration", 2, &now.base);
	expect("reload", 0, "[Limits] GuestsMax is gone and was 7\n");
}

/* Without a daemon the program is run in its place: its status and output are the answer. */
static void test_config_offline(void **state)
{
	expect("config check --daemon /bin/echo", 0, "--check-config\n");
	expect("config check --config-dir /x --daemon /bin/echo", 0,
	       "--check-config --config-dir /x\n");
	assert_string_equal(fake_admin_run("config check --daemon /bin/echo").requests, "");
	expect("config check --daemon /bin/false", 1, "");
	expect("config check --daemon /nonexistent", EXIT_NO_DAEMON, "");
}

/* ── revoke, drain ────────────────────────────────────────────────────────────────────────── */

static void test_revoke(void **state)
{
	char *lines[] = {(char *)"device 0000:00:01.0 of guest \x1b"};
	Iommubroker__V1__RevokeResponse response = IOMMUBROKER__V1__REVOKE_RESPONSE__INIT;

	response.n_revoked = 1;
	response.revoked = lines;
	fake_admin_answer("Revoke", &response.base);
	expect("revoke guest web", 0, "device 0000:00:01.0 of guest \\x1b\n");
	expect_asked("revoke guest web --reason why", "{\"device\":\"\",\"guest\":\"web\","
						      "\"reason\":\"why\",\"tenant\":\"\"}");
	expect_asked("revoke tenant t", "\"guest\":\"\",\"reason\":\"\",\"tenant\":\"t\"");
	expect_asked("revoke device fid:1f", "{\"device\":\"fid:1f\",\"guest\":\"\"");
	json_decref(expect_json("--json revoke guest web", 0));
}

static void lay_drain(uint32_t call, bool draining, uint32_t guests)
{
	Iommubroker__V1__DrainResponse response = IOMMUBROKER__V1__DRAIN_RESPONSE__INIT;

	response.draining = draining;
	response.guests = guests;
	response.sessions = 1;
	fake_admin_answer_from("Drain", call, &response.base);
}

static void test_drain(void **state)
{
	json_t *json;

	lay_drain(1, true, 2);
	expect("drain", 0, "nothing new is accepted; 2 guests and 1 sessions are left\n");
	expect("drain --wait --timeout 0", EXIT_REFUSED, "2 guests");
	lay_drain(3, true, 0);
	expect("drain --wait", 0, "nothing new is accepted; 0 guests");
	json = expect_json("drain --wait --json", 0);
	assert_int_equal(json_integer_value(json_object_get(json, "guests")), 0);
	json_decref(json);
	fake_admin_reset();
	lay_drain(1, false, 2);
	expect("drain --cancel", 0, "new guests are accepted; 2 guests");
	expect_asked("drain --cancel", "Drain {\"cancel\":true}");
}

/* ── metrics, monitor, names ──────────────────────────────────────────────────────────────── */

static void test_metrics(void **state)
{
	Iommubroker__V1__GetMetricsResponse response = IOMMUBROKER__V1__GET_METRICS_RESPONSE__INIT;
	json_t *json;

	response.text = (char *)"# TYPE a counter\na_total 1\n# EOF\n";
	fake_admin_answer("GetMetrics", &response.base);
	assert_string_equal(fake_admin_run("metrics").out, response.text);
	json = expect_json("metrics --json", 0);
	assert_string_equal(json_string_value(json_object_get(json, "text")), response.text);
	json_decref(json);
}

static void lay_event(const char *kind, const char *text, uint64_t lost)
{
	Iommubroker__V1__MonitorEvent event = IOMMUBROKER__V1__MONITOR_EVENT__INIT;

	event.kind = (char *)kind;
	event.text = (char *)text;
	event.lost = lost;
	if (lost == 0) {
		event.tenant = (char *)"prod";
		event.guest_name = (char *)"we\nb";
		event.guest = 10;
		event.pid = 4;
	}
	fake_admin_answer("Monitor", &event.base);
}

static void test_monitor(void **state)
{
	struct run run;

	lay_event("refusal", "too \x1b much", 0);
	lay_event("lost", "", 12);
	lay_event("refusal", "third", 0);
	expect("monitor", 0,
	       "refusal          tenant=prod guest=000000000000000a\n"
	       "    name=we\\x0ab pid=4 uid=0 too \\x1b much\n");
	expect("monitor", 0, "lost             12 events\n");
	expect("monitor", 0, "third");
	run = fake_admin_run("monitor --count 2");
	assert_int_equal(run.status, 0);
	assert_null(strstr(run.out, "third"));
	run = fake_admin_run("monitor --count 2 --json");
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.out, "}\n{"));
	assert_string_equal(fake_admin_run("monitor --count 0").requests, "");
}

static void test_names(void **state)
{
	Iommubroker__V1__ListAllResponse__Guest guests[4] = {
		IOMMUBROKER__V1__LIST_ALL_RESPONSE__GUEST__INIT,
		IOMMUBROKER__V1__LIST_ALL_RESPONSE__GUEST__INIT,
		IOMMUBROKER__V1__LIST_ALL_RESPONSE__GUEST__INIT,
		IOMMUBROKER__V1__LIST_ALL_RESPONSE__GUEST__INIT,
	};
	const char *names[] = {"web-1", "$(reboot)", "-rf", "a b"};
	Iommubroker__V1__ListAllResponse list = IOMMUBROKER__V1__LIST_ALL_RESPONSE__INIT;
	Iommubroker__V1__ListAllResponse__Guest *all[4];

	for (size_t i = 0; i < 4; i++) {
		guests[i].guest = i + 1;
		guests[i].name = (char *)names[i];
		all[i] = &guests[i];
	}
	list.n_guests = 4;
	list.guests = all;
	fake_admin_answer("ListAll", &list.base);
	assert_string_equal(fake_admin_run("names guests").out,
			    "0000000000000001\nweb-1\n0000000000000002\n0000000000000003\n"
			    "0000000000000004\n");
	expect("list", 0, "0000000000000002 $(reboot)      ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_usage, setup),
		cmocka_unit_test_setup(test_groups, setup),
		cmocka_unit_test_setup(test_help, setup),
		cmocka_unit_test_setup(test_no_daemon, setup),
		cmocka_unit_test_setup(test_refusal, setup),
		cmocka_unit_test_setup(test_pages, setup),
		cmocka_unit_test_setup(test_status_of_the_store, setup),
		cmocka_unit_test_setup(test_quota, setup),
		cmocka_unit_test_setup(test_quota_explain, setup),
		cmocka_unit_test_setup(test_check_fit, setup),
		cmocka_unit_test_setup(test_config, setup),
		cmocka_unit_test_setup(test_mistakes, setup),
		cmocka_unit_test_setup(test_reload_changes, setup),
		cmocka_unit_test_setup(test_config_offline, setup),
		cmocka_unit_test_setup(test_revoke, setup),
		cmocka_unit_test_setup(test_drain, setup),
		cmocka_unit_test_setup(test_metrics, setup),
		cmocka_unit_test_setup(test_monitor, setup),
		cmocka_unit_test_setup(test_names, setup),
	};

	return cmocka_run_group_tests_name("ctl_command", tests, NULL, NULL);
}
