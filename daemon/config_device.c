/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Device rules: a [Device] section is one rule, which says for whom, for which functions, and what.
 * The first that matches wins, in the order of the files and of the lines in them.
 */

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config_file.h"
#include "config_table.h"

/* ── a rule is complete ────────────────────────────────────────────────────────────────────── */

static int rule_add(struct config_file *file)
{
	struct config *config = file->config;
	size_t n = config->broker.n_device_rules;
	struct broker_device_rule *rules;

	if (n == CONFIG_DEVICE_RULES_MAX)
		return config_file_error(file, "more than %d device rules",
					 CONFIG_DEVICE_RULES_MAX);
	rules = reallocarray(config->device_rules, n + 1, sizeof(*rules));
	if (!rules)
		return -ENOMEM;
	config->device_rules = rules;
	rules[n] = file->device;
	snprintf(rules[n].where, sizeof(rules[n].where), "%.80s:%d", file->path, file->device_line);
	config->broker.n_device_rules = n + 1;
	config->broker.device_rules = rules;
	return 0;
}

/* What was to be filled in there must not open everything to everybody. */
int config_device_end(struct config_file *file)
{
	const struct broker_device_rule *rule = &file->device;

	if (!file->device_line || file->bad_section == file->section_started)
		return 0;
	if (!rule->by_name && !rule->passed_descriptor)
		return config_file_error(file,
					 "[Device] that names no FunctionId=, PciAddress=, Id= or "
					 "PassedDescriptor=yes; FunctionId=* is any function");
	if (rule->deny && (rule->passed_descriptor || rule->relaxed))
		return config_file_error(file,
					 "[Device] with Allow=no that grants PassedDescriptor= or "
					 "RelaxedTranslation=");
	return rule_add(file);
}

/* ── values ────────────────────────────────────────────────────────────────────────────────── */

/* Lists add to what a line before said. Each word goes to add(). */
static int words_parse(struct config_file *file, const char *key, const char *value, size_t *n,
		       int (*add)(struct config_file *file, char *word))
{
	char copy[1024], *save = NULL;
	size_t before = *n;
	int status = 0;

	if (strlen(value) >= sizeof(copy))
		return config_file_error(file, "%s=: more than %zu characters", key,
					 sizeof(copy) - 1);
	strcpy(copy, value);
	for (char *word = strtok_r(copy, " \t,", &save); word && !status;
	     word = strtok_r(NULL, " \t,", &save)) {
		if (*n == BROKER_RULE_PATTERNS_MAX)
			return config_file_error(file, "%s=: more than %d values", key,
						 BROKER_RULE_PATTERNS_MAX);
		status = add(file, word);
		++*n;
	}
	if (!status && *n == before)
		return config_file_error(file, "%s=: names nothing; * is any", key);
	return status;
}

static int tenant_add(struct config_file *file, char *word)
{
	struct broker_device_rule *rule = &file->device;

	rule->tenants[rule->n_tenants] = config_text_keep(file->config, word);
	return rule->tenants[rule->n_tenants] ? 0 : -ENOMEM;
}

/* The next number, decimal or 0x…, of at most 32 bits; false: there is none. */
static bool id_parse(char **at, uint32_t *ret)
{
	unsigned long long value;
	char *end;

	if (!isdigit((unsigned char)**at))
		return false;
	errno = 0;
	value = strtoull(*at, &end, (*at)[0] == '0' && ((*at)[1] | 0x20) == 'x' ? 16 : 10);
	if (errno || value > UINT32_MAX)
		return false;
	*at = end;
	*ret = (uint32_t)value;
	return true;
}

static int fid_add(struct config_file *file, char *word)
{
	struct broker_device_rule *rule = &file->device;
	uint32_t first, last;
	char *at = word;

	if (!id_parse(&at, &first))
		goto bad;
	last = first;
	if (*at == '-' && (at++, !id_parse(&at, &last)))
		goto bad;
	if (*at)
		goto bad;
	if (last < first)
		return config_file_error(file, "FunctionId=: '%.64s' ends before it begins", word);
	rule->fids[rule->n_fids].first = first;
	rule->fids[rule->n_fids].last = last;
	return 0;
bad:
	return config_file_error(file,
				 "FunctionId=: '%.64s' is not a number of at most 32 bits, or a "
				 "range like 0x10-0x1f",
				 word);
}

/* A glob that cannot fit any address is a mistake: "3b:00.*" lacks the domain. */
static bool address_glob_is_good(const char *glob)
{
	size_t domain = strcspn(glob, ":");

	if (glob[strspn(glob, "0123456789abcdef:.*?[]-!")])
		return false;
	return memchr(glob, '*', domain) || memchr(glob, '[', domain) ||
	       (glob[domain] == ':' && domain >= 4);
}

static int address_add(struct config_file *file, char *word)
{
	struct setting setting = {.type = SETTING_PCI_ADDRESS};
	struct broker_device_rule *rule = &file->device;
	char error[128], address[16];
	const char *kept = word;

	for (char *at = word; *at; at++)
		*at = (char)tolower((unsigned char)*at);
	if (!strpbrk(word, "*?[")) {
		if (setting_parse(&setting, word, address, NULL, error, sizeof(error)))
			return config_file_error(file, "PciAddress=: %s", error);
		kept = address;
	} else if (!address_glob_is_good(word)) {
		return config_file_error(file,
					 "PciAddress=: no PCI address fits '%.64s'; a glob is like "
					 "0000:3b:00.*",
					 word);
	}
	rule->addresses[rule->n_addresses] = config_text_keep(file->config, kept);
	return rule->addresses[rule->n_addresses] ? 0 : -ENOMEM;
}

/* Up to 4 hex digits, or "*", which is to be all of it. */
static bool id_half_parse(const char *text, bool *ret_any, uint16_t *ret)
{
	size_t digits = strspn(text, "0123456789abcdefABCDEF");

	*ret_any = !strcmp(text, "*");
	if (*ret_any)
		return true;
	*ret = (uint16_t)strtoul(text, NULL, 16);
	return digits && digits <= 4 && !text[digits];
}

static int device_id_add(struct config_file *file, char *word)
{
	struct broker_device_rule *rule = &file->device;
	struct broker_device_id *id = &rule->ids[rule->n_ids];
	char copy[16];
	char *colon;

	snprintf(copy, sizeof(copy), "%s", word);
	colon = strchr(copy, ':');
	if (colon)
		*colon = '\0';
	*id = (struct broker_device_id){0};
	if (colon && strlen(word) < sizeof(copy) &&
	    id_half_parse(copy, &id->any_vendor, &id->vendor) &&
	    id_half_parse(colon + 1, &id->any_device, &id->device))
		return 0;
	return config_file_error(file,
				 "Id=: '%.64s' is not a vendor and a device id in hex, like "
				 "8086:1572 or 1af4:*",
				 word);
}

/* None named is a mistake and not "any". */
static int users_parse(struct config_file *file, const char *value)
{
	struct setting setting = {.type = SETTING_USERS};
	struct broker_device_rule *rule = &file->device;
	uid_t users[CONFIG_IDS_MAX];
	char error[256];
	size_t n = 0;

	if (!strcmp(value, "*")) {
		rule->n_users = 0;
		return 0;
	}
	if (setting_parse(&setting, value, users, &n, error, sizeof(error)))
		return config_file_error(file, "User=: %s", error);
	if (!n)
		return config_file_error(file, "User=: names nobody; * is any user");
	if (rule->n_users + n > BROKER_RULE_USERS_MAX)
		return config_file_error(file, "User=: more than %d users", BROKER_RULE_USERS_MAX);
	memcpy(&rule->users[rule->n_users], users, n * sizeof(users[0]));
	rule->n_users += n;
	return 0;
}

static int bool_parse(struct config_file *file, const char *key, const char *value, bool *ret)
{
	struct setting setting = {.type = SETTING_BOOL};
	char error[128];

	if (setting_parse(&setting, value, ret, NULL, error, sizeof(error)))
		return config_file_error(file, "%s=: %s", key, error);
	return 0;
}

/* ── keys ──────────────────────────────────────────────────────────────────────────────────── */

/* A list of which "*" alone is the same as none named. */
static int list_key(struct config_file *file, const char *key, const char *value, size_t *n,
		    int (*add)(struct config_file *file, char *word))
{
	if (strcmp(value, "*"))
		return words_parse(file, key, value, n, add);
	*n = 0;
	return 0;
}

/* Whoever knows [Match] may look for its keys here. */
static int key_unknown(struct config_file *file, const char *key)
{
	static const char *const elsewhere[] = {"Group", "Unit", "Slice", "CGroup"};
	const char *names[16], *suggestion;

	for (size_t i = 0; i < sizeof(elsewhere) / sizeof(elsewhere[0]); i++)
		if (!strcmp(key, elsewhere[i]))
			return config_file_error(file,
						 "%s= is a key of [Match] in quota.d, which makes "
						 "tenants; name these here with Tenant=",
						 key);
	for (size_t i = 0; i < n_device_rule_keys; i++)
		names[i] = device_rule_keys[i].name;
	suggestion = setting_suggest(key, names, n_device_rule_keys);
	if (suggestion)
		return config_file_error(file, "unknown key '%.64s'; did you mean %s?", key,
					 suggestion);
	return config_file_error(file, "unknown key '%.64s'", key);
}

static int allow_parse(struct config_file *file, const char *value)
{
	bool allow;
	int status = bool_parse(file, "Allow", value, &allow);

	if (!status)
		file->device.deny = !allow;
	return status;
}

/* Keys that name functions. 1: it is none of them. */
static int function_key(struct config_file *file, const char *key, const char *value)
{
	struct broker_device_rule *rule = &file->device;
	int status = 1;

	if (!strcmp(key, "FunctionId"))
		status = list_key(file, key, value, &rule->n_fids, fid_add);
	else if (!strcmp(key, "PciAddress"))
		status = list_key(file, key, value, &rule->n_addresses, address_add);
	else if (!strcmp(key, "Id"))
		status = list_key(file, key, value, &rule->n_ids, device_id_add);
	if (!status)
		rule->by_name = true;
	return status;
}

static int key_apply(struct config_file *file, const char *key, const char *value)
{
	struct broker_device_rule *rule = &file->device;
	int status = function_key(file, key, value);

	if (status <= 0)
		return status;
	if (!strcmp(key, "Tenant"))
		return list_key(file, key, value, &rule->n_tenants, tenant_add);
	if (!strcmp(key, "User"))
		return users_parse(file, value);
	if (!strcmp(key, "Allow"))
		return allow_parse(file, value);
	if (!strcmp(key, "PassedDescriptor"))
		return bool_parse(file, key, value, &rule->passed_descriptor);
	if (!strcmp(key, "RelaxedTranslation"))
		return bool_parse(file, key, value, &rule->relaxed);
	return key_unknown(file, key);
}

int config_device_key(struct config_file *file, const char *section, const char *key,
		      const char *value)
{
	int ended = 0, line = file->line, status;

	(void)section;
	if (file->section_started != file->section_serial) {
		file->line = file->device_line;
		ended = config_device_end(file);
		file->line = line;
		if (ended)
			file->bad_section = file->section_started;
		memset(&file->device, 0, sizeof(file->device));
		file->device_line = line;
		file->section_started = file->section_serial;
	}
	status = key_apply(file, key, value);
	return status ? status : ended;
}
