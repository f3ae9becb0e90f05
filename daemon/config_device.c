/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Device rules: a [Device] section names users and functions; each pair becomes one rule of the
 * broker. The first rule that matches wins, in the order of the files and of the lines in them.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config_file.h"
#include "config_table.h"

static int rule_add(struct config_file *file, const struct broker_device_rule *rule)
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
	rules[n] = *rule;
	snprintf(rules[n].where, sizeof(rules[n].where), "%.80s:%d", file->path, file->device.line);
	config->broker.n_device_rules = n + 1;
	config->broker.device_rules = rules;
	return 0;
}

static int user_rules_add(struct config_file *file, struct broker_device_rule *rule)
{
	const struct device_section *device = &file->device;
	int status = 0;

	if (device->any_function || (!device->n_fids && !device->n_addresses)) {
		rule->any_function = device->any_function;
		return rule_add(file, rule);
	}
	for (size_t i = 0; i < device->n_fids && !status; i++) {
		rule->by_fid = true;
		rule->fid = device->fids[i];
		status = rule_add(file, rule);
	}
	rule->by_fid = false;
	for (size_t i = 0; i < device->n_addresses && !status; i++) {
		memcpy(rule->pci_address, device->addresses[i], sizeof(rule->pci_address));
		status = rule_add(file, rule);
	}
	return status;
}

int config_device_end(struct config_file *file)
{
	const struct device_section *device = &file->device;
	struct broker_device_rule rule = {
		.passed_descriptor = device->passed_descriptor,
		.relaxed = device->relaxed,
	};
	int status = 0;

	if (!device->line || file->bad_section == file->section_started)
		return 0;
	if (!device->any_function && !device->n_fids && !device->n_addresses &&
	    !device->passed_descriptor)
		return config_file_error(
			file,
			"[Device] that names no FunctionId=, PciAddress= or PassedDescriptor=yes");
	if (device->any_user || !device->n_users) {
		rule.any_user = true;
		return user_rules_add(file, &rule);
	}
	for (size_t i = 0; i < device->n_users && !status; i++) {
		rule.uid = device->users[i];
		status = user_rules_add(file, &rule);
	}
	return status;
}

static int fids_parse(struct config_file *file, const char *value)
{
	struct setting setting = {.type = SETTING_HEX64, .max = UINT32_MAX};
	struct device_section *device = &file->device;
	char copy[512], *save = NULL, error[128];
	uint64_t fid;

	snprintf(copy, sizeof(copy), "%s", value);
	for (char *word = strtok_r(copy, " \t,", &save); word;
	     word = strtok_r(NULL, " \t,", &save)) {
		if (device->n_fids == CONFIG_IDS_MAX)
			return config_file_error(file, "FunctionId=: more than %d", CONFIG_IDS_MAX);
		if (setting_parse(&setting, word, &fid, NULL, error, sizeof(error)))
			return config_file_error(file, "FunctionId=: %s", error);
		device->fids[device->n_fids++] = (uint32_t)fid;
	}
	return 0;
}

static int addresses_parse(struct config_file *file, const char *value)
{
	struct setting setting = {.type = SETTING_PCI_ADDRESS};
	struct device_section *device = &file->device;
	char copy[512], *save = NULL, error[128];

	snprintf(copy, sizeof(copy), "%s", value);
	for (char *word = strtok_r(copy, " \t,", &save); word;
	     word = strtok_r(NULL, " \t,", &save)) {
		if (device->n_addresses == CONFIG_IDS_MAX)
			return config_file_error(file, "PciAddress=: more than %d", CONFIG_IDS_MAX);
		if (setting_parse(&setting, word, device->addresses[device->n_addresses], NULL,
				  error, sizeof(error)))
			return config_file_error(file, "PciAddress=: %s", error);
		device->n_addresses++;
	}
	return 0;
}

static int typed_parse(struct config_file *file, enum setting_type type, const char *key,
		       const char *value, void *target, size_t *n_target)
{
	struct setting setting = {.type = type};
	char error[256];

	if (setting_parse(&setting, value, target, n_target, error, sizeof(error)))
		return config_file_error(file, "%s=: %s", key, error);
	return 0;
}

/* None named is a mistake and not "any": whatever was to be filled in there must not open the
 * function to everybody. */
static int users_parse(struct config_file *file, const char *value)
{
	struct device_section *device = &file->device;
	int status = 0;

	device->any_user = !strcmp(value, "*");
	if (!device->any_user)
		status = typed_parse(file, SETTING_USERS, "User", value, device->users,
				     &device->n_users);
	if (!status && !device->any_user && !device->n_users)
		return config_file_error(file, "User=: names nobody; * is any user");
	return status;
}

static int key_apply(struct config_file *file, const char *key, const char *value)
{
	struct device_section *device = &file->device;
	const char *names[8];

	if (!strcmp(key, "User"))
		return users_parse(file, value);
	if (!strcmp(key, "FunctionId")) {
		device->any_function = !strcmp(value, "*");
		return device->any_function ? 0 : fids_parse(file, value);
	}
	if (!strcmp(key, "PciAddress"))
		return addresses_parse(file, value);
	if (!strcmp(key, "PassedDescriptor"))
		return typed_parse(file, SETTING_BOOL, key, value, &device->passed_descriptor,
				   NULL);
	if (!strcmp(key, "RelaxedTranslation"))
		return typed_parse(file, SETTING_BOOL, key, value, &device->relaxed, NULL);
	for (size_t i = 0; i < n_device_rule_keys; i++)
		names[i] = device_rule_keys[i].name;
	if (setting_suggest(key, names, n_device_rule_keys))
		return config_file_error(file, "unknown key '%.64s'; did you mean %s?", key,
					 setting_suggest(key, names, n_device_rule_keys));
	return config_file_error(file, "unknown key '%.64s'", key);
}

int config_device_key(struct config_file *file, const char *section, const char *key,
		      const char *value)
{
	int ended = 0, line = file->line, status;

	(void)section;
	if (file->section_started != file->section_serial) {
		file->line = file->device.line;
		ended = config_device_end(file);
		file->line = line;
		if (ended)
			file->bad_section = file->section_started;
		memset(&file->device, 0, sizeof(file->device));
		file->device.line = file->line;
		file->section_started = file->section_serial;
	}
	status = key_apply(file, key, value);
	return status ? status : ended;
}
