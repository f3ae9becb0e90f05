/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which files make a configuration, all their mistakes at once, and how it is shown. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <ftw.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config_fixture.h"
#include "config_table.h"

/* ── all of them at once ───────────────────────────────────────────────────────────────────── */

/* Every mistake of the table, each in a file of its own: all are told, and of each only itself. */
static void test_all_mistakes_are_told_in_one_go(void **state)
{
	static const struct {
		const char *file, *text;
		size_t n;
		const char *errors[4];
	} files[] = {
		{"iommubrokerd.conf",
		 "[Limts]\nSessionsMax=1\nGuestsMax=2\n[Limits]\nSessionsMax=x\n  2 3\n"
		 "SessionsMax=5\n",
		 3,
		 {"iommubrokerd.conf:1: unknown section 'Limts'; did you mean Limits?",
		  "iommubrokerd.conf:5: [Limits] SessionsMax=: 'x' is not a number",
		  "iommubrokerd.conf:6: neither [Section], Key=value nor a comment"}},
		{"iommubrokerd.conf.d/a.conf",
		 "SessionsMax=1\n[Limits\nSessionsMax=2\n",
		 2,
		 {"a.conf:1: a key before any [Section]",
		  "a.conf:2: neither [Section], Key=value nor a comment"}},
		{"quota.d/10-a.conf",
		 "[Match]\nUsr=*\n[Quota]\nGuestsMax=-1\n",
		 2,
		 {"10-a.conf:2: unknown key 'Usr'", "10-a.conf:4: GuestsMax=: '-1'"}},
		{"quota.d/20-b.conf",
		 "[Quota]\nGuestsMax=1\n",
		 1,
		 {"20-b.conf: [Match] names nobody"}},
		{"device.d/a.conf",
		 "[Device]\nFunctionId=x\n[Device]\nUser=0\n[Device]\nFunctionId=1\n",
		 2,
		 {"a.conf:2: FunctionId=: 'x'", "a.conf:4: [Device] that names no"}},
	};
	struct config *config;
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		file_write(files[i].file, files[i].text);
	assert_int_equal(load(&config), -EINVAL);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		for (size_t j = 0; j < files[i].n; j++, n++)
			if (!strstr(config->mistakes[n], files[i].errors[j]))
				fail_msg("'%s' should say '%s'", config->mistakes[n],
					 files[i].errors[j]);
	assert_int_equal(config->n_mistakes, n);
	config_free(config);
}

static void test_more_mistakes_are_counted(void **state)
{
	char text[4096] = "[Limits]\n", *told = NULL;
	struct config *config;
	size_t bytes;
	FILE *out;

	(void)state;
	for (size_t i = 0; i < CONFIG_MISTAKES_MAX + 3; i++)
		strcat(text, "SessionsMax=x\n");
	file_write("iommubrokerd.conf", text);
	assert_int_equal(load(&config), -EINVAL);
	assert_int_equal(config->n_mistakes, CONFIG_MISTAKES_MAX + 3);
	out = open_memstream(&told, &bytes);
	assert_non_null(out);
	config_print_mistakes(out, config, -EINVAL);
	fclose(out);
	assert_non_null(strstr(told, ":65: [Limits] SessionsMax="));
	assert_null(strstr(told, ":66: "));
	assert_non_null(strstr(told, "\nand 3 more\n"));
	free(told);
	config_free(config);
}

/* ── precedence ────────────────────────────────────────────────────────────────────────────── */

static struct config *load_three(int want)
{
	char paths[3][128];
	const char *const folders[] = {paths[0], paths[1], paths[2]};
	struct config *config = NULL;
	int status;

	snprintf(paths[0], sizeof(paths[0]), "%s/etc", folder);
	snprintf(paths[1], sizeof(paths[1]), "%s/run", folder);
	snprintf(paths[2], sizeof(paths[2]), "%s/lib", folder);
	status = config_load(&config, folders, 3);
	if (status != want)
		fail_msg("%s", config_error(config, status));
	return config;
}

static uint64_t limit_of(const struct config *config, size_t rule)
{
	return config->broker.tenant_rules[rule].limits[LIMIT_TENANT].max[LEDGER_GUESTS].max;
}

/* By the name of the file, in every folder, and what is empty or /dev/null hides what is below. */
static void test_folders_in_order_of_precedence(void **state)
{
	static const char *const tops[] = {"etc", "run", "lib"};
	struct config *config;
	char name[64], text[96];

	(void)state;
	for (int i = 0; i < 3; i++) {
		folder_make(tops[i]);
		snprintf(name, sizeof(name), "%s/quota.d", tops[i]);
		folder_make(name);
		snprintf(name, sizeof(name), "%s/quota.d/50-all.conf", tops[i]);
		snprintf(text, sizeof(text), "[Match]\nUser=*\n[Quota]\nGuestsMax=%d\n", 1 + i);
		file_write(name, text);
		snprintf(name, sizeof(name), "%s/iommubrokerd.conf", tops[i]);
		snprintf(text, sizeof(text), "[Limits]\nSessionsMax=%d\n", 11 + i);
		file_write(name, text);
	}
	file_write("lib/quota.d/40-low.conf", "[Match]\nUser=0\n[Quota]\nGuestsMax=9\n");
	config = load_three(0);
	assert_int_equal(config->broker.n_tenant_rules, 2);
	assert_string_equal(config->broker.tenant_rules[0].name, "low");
	assert_int_equal(limit_of(config, 1), 1);
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_SESSIONS].max, 11);
	config_free(config);

	file_remove("etc/quota.d/50-all.conf");
	file_remove("etc/iommubrokerd.conf");
	config = load_three(0);
	assert_int_equal(limit_of(config, 1), 2);
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_SESSIONS].max, 12);
	config_free(config);

	link_make("etc/quota.d/50-all.conf", "/dev/null");
	file_write("etc/quota.d/40-low.conf", "");
	link_make("etc/iommubrokerd.conf", "/dev/null");
	config = load_three(0);
	assert_int_equal(config->broker.n_tenant_rules, 0);
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_SESSIONS].max, 2048);
	config_free(config);
}

static void test_drop_ins_of_a_rule(void **state)
{
	struct config *config;

	(void)state;
	folder_make("etc");
	folder_make("run");
	folder_make("lib");
	folder_make("etc/quota.d");
	folder_make("lib/quota.d");
	file_write("lib/quota.d/50-a.conf",
		   "[Match]\nUser=7\n[Quota]\nGuestsMax=1\nDevicesMax=4\n");
	file_write("lib/quota.d/50-a.conf.d/20-x.conf", "[Quota]\nGuestsMax=2\n");
	file_write("etc/quota.d/50-a.conf.d/10-y.conf", "[Match]\nUser=8\n[Quota]\nGuestsMax=3\n");
	config = load_three(0);
	assert_int_equal(config->broker.n_tenant_rules, 1);
	assert_int_equal(limit_of(config, 0), 2);
	assert_int_equal(config->broker.tenant_rules[0].match.n[TENANT_USER], 2);
	config_free(config);

	file_write("etc/quota.d/50-a.conf.d/20-x.conf", "");
	config = load_three(0);
	assert_int_equal(limit_of(config, 0), 3);
	config_free(config);

	/* A mask hides the rule with all that adds to it. */
	link_make("etc/quota.d/50-a.conf", "/dev/null");
	config = load_three(0);
	assert_int_equal(config->broker.n_tenant_rules, 0);
	config_free(config);

	file_write("etc/quota.d/60-b.conf.d/x.conf", "[Quota]\nGuestsMax=3\n");
	config = load_three(-EINVAL);
	assert_non_null(
		strstr(config->mistakes[0], "60-b.conf.d: there is no 60-b.conf to add to"));
	assert_int_equal(config->n_mistakes, 1);
	config_free(config);
}

/* ── odd files ─────────────────────────────────────────────────────────────────────────────── */

static void test_what_editors_make(void **state)
{
	struct config *config;

	(void)state;
	file_write("iommubrokerd.conf", "\xef\xbb\xbf[Limits]\r\n\r\n  SessionsMax = 7 \r\n"
					"GuestsMax: 9 ; nine\r\n# end");
	file_write("iommubrokerd.conf.d/a.conf", "[Memory]\nPinSliceSize=1M");
	file_write("iommubrokerd.conf.d/a.conf~", "nonsense");
	file_write("iommubrokerd.conf.d/.a.conf", "nonsense");
	config = load_good();
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_SESSIONS].max, 7);
	assert_int_equal(config->broker.limits[LIMIT_HOST].max[LEDGER_GUESTS].max, 9);
	assert_int_equal(config->broker.pin_slice_bytes, 1 << 20);
	config_free(config);
}

static void test_what_is_no_file(void **state)
{
	static const char *const told[] = {
		"/10-a.conf: is a folder, not a file",
		"/20-b.conf: cannot be read: Too many levels of symbolic links",
		"/30-c.conf: cannot be read: No such file or directory",
		"/40-d.conf: is neither a file nor a link to /dev/null",
		"/50-e.conf: is neither a file nor a link to /dev/null",
		"/60-f.conf: has more than 1048576 bytes",
	};
	struct config *config;
	char path[128];

	(void)state;
	folder_make("quota.d");
	folder_make("quota.d/10-a.conf");
	link_make("quota.d/20-b.conf", "20-b.conf");
	link_make("quota.d/30-c.conf", "nothing");
	snprintf(path, sizeof(path), "%s/quota.d/40-d.conf", folder);
	assert_int_equal(mkfifo(path, 0600), 0);
	link_make("quota.d/50-e.conf", "/dev/zero");
	file_write("quota.d/60-f.conf", "");
	snprintf(path, sizeof(path), "%s/quota.d/60-f.conf", folder);
	assert_int_equal(truncate(path, (1 << 20) + 1), 0);
	assert_int_equal(load(&config), -EINVAL);
	for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++)
		if (!strstr(config->mistakes[i], told[i]))
			fail_msg("'%s' should say '%s'", config->mistakes[i], told[i]);
	assert_int_equal(config->n_mistakes, sizeof(told) / sizeof(told[0]));
	config_free(config);

	assert_int_equal(nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	file_write("quota.d", "");
	file_write("device.d", "");
	assert_int_equal(load(&config), -EINVAL);
	assert_int_equal(config->n_mistakes, 2);
	assert_non_null(strstr(config->mistakes[0], "/quota.d: cannot be read: Not a directory"));
	assert_non_null(strstr(config->mistakes[config->n_mistakes - 1],
			       "/device.d: cannot be read: Not a directory"));
	config_free(config);
}

static void test_zero_bytes(void **state)
{
	char path[128];
	struct config *config;
	FILE *file;

	(void)state;
	snprintf(path, sizeof(path), "%s/iommubrokerd.conf", folder);
	file = fopen(path, "we");
	assert_non_null(file);
	fwrite("[Limits]\nSessions\0Max=1\n", 1, 24, file);
	fclose(file);
	assert_int_equal(load(&config), -EINVAL);
	assert_int_equal(config->n_mistakes, 1);
	assert_non_null(strstr(config->mistakes[0], ":2: a zero byte"));
	config_free(config);
}

/* ── shown as it is read ───────────────────────────────────────────────────────────────────── */

/* Room for the value of any type, and as many numbers as a list has. */
union value {
	uint64_t number;
	uint32_t ids[CONFIG_IDS_MAX];
	char text[16];
};

static size_t value_bytes(enum setting_type type, size_t n)
{
	switch (type) {
	case SETTING_USERS:
	case SETTING_GROUPS:
		return n * sizeof(uint32_t);
	case SETTING_BOOL:
		return sizeof(bool);
	case SETTING_HEX16:
		return sizeof(uint16_t);
	case SETTING_COUNT32:
	case SETTING_MILLISECONDS:
	case SETTING_CHOICE:
	case SETTING_DESIGNATIONS:
		return sizeof(uint32_t);
	case SETTING_PCI_ADDRESS:
		return 13;
	default:
		return sizeof(uint64_t);
	}
}

static void assert_reads_back(const struct setting *setting, const union value *value, size_t n)
{
	union value read = {0};
	bool list = setting->type == SETTING_USERS || setting->type == SETTING_GROUPS;
	char text[1024], error[256] = "";
	size_t n_read = n;

	setting_format(setting, value, n, text, sizeof(text));
	if (setting_parse(setting, text, &read, list ? &n_read : NULL, error, sizeof(error)))
		fail_msg("%s: '%s' of our own writing: %s", setting->name, text, error);
	assert_int_equal(n_read, n);
	if (memcmp(&read, value, value_bytes(setting->type, n)))
		fail_msg("%s: '%s' is read as another value", setting->name, text);
}

static uint64_t random_next(void)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Within the setting's bounds, of every size, and often a whole number of some unit. */
static uint64_t number_make(const struct setting *setting, uint64_t widest)
{
	uint64_t max = setting->max ? setting->max : widest;
	uint64_t value = random_next() >> random_next() % 64;

	if (random_next() % 2)
		value = value >> random_next() % 64 << 10 * (random_next() % 6);
	if (random_next() % 8 == 0)
		value = max;
	return value < setting->min ? setting->min : value > max ? max : value;
}

static size_t value_make(const struct setting *setting, union value *ret)
{
	size_t n = 0;

	*ret = (union value){0};
	switch (setting->type) {
	case SETTING_USERS:
	case SETTING_GROUPS:
		for (n = 0; n < random_next() % (CONFIG_IDS_MAX + 1); n++)
			ret->ids[n] = (uint32_t)(random_next() % UINT32_MAX);
		return n;
	case SETTING_BOOL:
		*(bool *)ret = random_next() % 2;
		return 0;
	case SETTING_CHOICE:
		while (setting->choices[n])
			n++;
		ret->ids[0] = (uint32_t)(random_next() % n);
		return 0;
	case SETTING_DESIGNATIONS:
		ret->ids[0] = (uint32_t)(1 + random_next() % 15);
		return 0;
	case SETTING_HEX16:
		*(uint16_t *)ret = (uint16_t)random_next();
		return 0;
	case SETTING_COUNT32:
	case SETTING_MILLISECONDS:
		ret->ids[0] = (uint32_t)number_make(setting, UINT32_MAX);
		return 0;
	case SETTING_PCI_ADDRESS:
		snprintf(ret->text, sizeof(ret->text), "%04x:%02x:%02x.%x",
			 (unsigned int)random_next() & 0xffff, (unsigned int)random_next() & 0xff,
			 (unsigned int)random_next() & 0x1f, (unsigned int)random_next() & 7);
		return 0;
	default:
		ret->number = number_make(setting, UINT64_MAX);
		return 0;
	}
}

static void test_values_are_written_as_they_are_read(void **state)
{
	union value value;
	size_t n;

	(void)state;
	for (size_t i = 0; i < n_config_settings + n_emulated_settings; i++) {
		const struct setting *setting = i < n_config_settings
							? &config_settings[i]
							: &emulated_settings[i - n_config_settings];

		for (int turn = 0; turn < 500; turn++) {
			n = value_make(setting, &value);
			assert_reads_back(setting, &value, n);
		}
	}
}

static bool row_find(const struct config *running, const struct config *read, const char *section,
		     const char *key, struct operator_setting *ret)
{
	size_t at = 0;

	while (config_show_next(running, read, &at, ret))
		if (!strcmp(ret->section, section) && !strcmp(ret->key, key))
			return true;
	return false;
}

/* What is read at start only is shown as it runs, with what is to come; all else as it was read. */
static void test_shown_with_where_it_comes_from(void **state)
{
	struct config *running = load_good(), *read;
	struct operator_setting row;
	char from[128];

	(void)state;
	assert_true(n_config_settings <= CONFIG_SETTINGS_MAX);
	file_write("iommubrokerd.conf",
		   "[Limits]\nPinnedMemoryMax=50%\nSessionsMax=3\nSessionsMax=4\n"
		   "[Clients]\nUsers=root\n[Service]\nWorkerThreadsMax=5\n"
		   "[EmulatedFunction]\nFunctionId=9\nPciAddress=0000:00:09.0\n");
	file_write("quota.d/50-a.conf", "[Match]\nUser=root\n[Quota]\nGuestsMax=1\nGuestsMax=2\n");
	read = load_good();
	assert_true(row_find(running, read, "Limits", "SessionsMax", &row));
	assert_string_equal(row.value, "4");
	snprintf(from, sizeof(from), "%s/iommubrokerd.conf:4", folder);
	assert_string_equal(row.from, from);
	assert_true(row_find(running, read, "Limits", "PinnedMemoryMax", &row));
	assert_non_null(strstr(row.value, "50% ("));
	assert_true(row_find(running, read, "Clients", "Users", &row));
	assert_string_equal(row.value, "root");
	assert_true(row_find(running, read, "Service", "WorkerThreadsMax", &row));
	assert_string_equal(row.value, "32");
	assert_string_equal(row.pending, "5");
	assert_string_equal(row.from, "");
	assert_true(row_find(running, read, "EmulatedFunction", "FunctionId", &row));
	assert_string_equal(row.value, "");
	assert_string_equal(row.pending, "9");
	assert_true(row_find(running, read, "quota.d/50-a.conf [Quota]", "GuestsMax", &row));
	assert_string_equal(row.value, "2");
	assert_true(row_find(running, read, "quota.d/50-a.conf [Match]", "User", &row));
	assert_true(row_find(read, read, "EmulatedFunction", "FunctionId", &row));
	assert_string_equal(row.value, "9");
	assert_string_equal(row.pending, "");
	config_free(running);
	config_free(read);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_all_mistakes_are_told_in_one_go, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_more_mistakes_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_folders_in_order_of_precedence, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_drop_ins_of_a_rule, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_editors_make, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_no_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_zero_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_values_are_written_as_they_are_read, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_shown_with_where_it_comes_from, setup,
						teardown),
	};

	return cmocka_run_group_tests_name("config_files", tests, NULL, NULL);
}
