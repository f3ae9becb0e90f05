/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A configuration as an operator sees it: each value that holds, where it comes from, and what only
 * another start of the daemon would bring into effect.
 *
 * Two configurations take part: the one that the daemon started with, by which it keeps what is
 * read at start only, and the one that was read last, by which all else goes.
 */

#include <string.h>

#include "config.h"
#include "config_table.h"

static size_t ids_count(const struct config *config, enum setting_type type)
{
	return type == SETTING_USERS ? config->rpc.n_client_uids : config->rpc.n_client_gids;
}

/* Names of users stay names, and what is a part of the host's memory is told as both. */
static void value_text(const struct config *config, size_t i, char *text, size_t text_bytes)
{
	const struct setting *setting = &config_settings[i];
	const char *written =
		config->origins[i].file ? config->origins[i].value : setting->default_text;
	char value[64];

	if (setting->type == SETTING_USERS || setting->type == SETTING_GROUPS) {
		if (strlen(written))
			snprintf(text, text_bytes, "%s", written);
		else
			setting_format(setting, (const char *)config + setting->offset,
				       ids_count(config, setting->type), text, text_bytes);
	} else if (strchr(written, '%')) {
		setting_format(setting, (const char *)config + setting->offset, 0, value,
			       sizeof(value));
		snprintf(text, text_bytes, "%.128s (%s)", written, value);
	} else {
		setting_format(setting, (const char *)config + setting->offset, 0, text,
			       text_bytes);
	}
}

static void setting_show(const struct config *running, const struct config *read, size_t i,
			 struct operator_setting *ret)
{
	const struct setting *setting = &config_settings[i];
	const struct config *holds = setting->at_start ? running : read;
	const struct config_entry *origin = &holds->origins[i];

	snprintf(ret->section, sizeof(ret->section), "%s", setting->section);
	ret->key = setting->name;
	ret->default_value = setting->default_text;
	ret->at_start = setting->at_start;
	value_text(holds, i, ret->value, sizeof(ret->value));
	if (origin->file)
		snprintf(ret->from, sizeof(ret->from), "%.360s:%d", origin->file, origin->line);
	if (!setting->at_start)
		return;
	value_text(read, i, ret->pending, sizeof(ret->pending));
	if (!strcmp(ret->pending, ret->value))
		ret->pending[0] = '\0';
}

static const char *rule_default(const struct config_entry *entry)
{
	for (size_t i = 0; i < n_emulated_settings && entry->kind == CONFIG_MAIN; i++)
		if (!strcmp(emulated_settings[i].name, entry->key))
			return emulated_settings[i].default_text;
	for (size_t i = 0; i < n_device_rule_keys && entry->kind == CONFIG_DEVICE; i++)
		if (!strcmp(device_rule_keys[i].name, entry->key))
			return device_rule_keys[i].default_text;
	return "";
}

static void entry_show(const struct config_entry *entry, bool pending, struct operator_setting *ret)
{
	if (entry->kind == CONFIG_MAIN)
		snprintf(ret->section, sizeof(ret->section), "%s", entry->section_name);
	else if (entry->kind == CONFIG_QUOTA)
		snprintf(ret->section, sizeof(ret->section), "%s [%s]", entry->title,
			 entry->section_name);
	else
		snprintf(ret->section, sizeof(ret->section), "%s [%s] %u", entry->title,
			 entry->section_name, entry->section);
	ret->key = entry->key;
	ret->default_value = rule_default(entry);
	ret->at_start = entry->kind == CONFIG_MAIN;
	snprintf(pending ? ret->pending : ret->value, sizeof(ret->value), "%s", entry->value);
	snprintf(ret->from, sizeof(ret->from), "%.360s:%d", entry->file, entry->line);
}

static bool functions_differ(const struct config *running, const struct config *read)
{
	return running->n_emulated != read->n_emulated ||
	       memcmp(running->emulated, read->emulated,
		      running->n_emulated * sizeof(running->emulated[0]));
}

/* The entry at that place of: the functions of the emulated backend that the daemon started with,
 * others that were read since, and the rules. NULL: it is none to be shown there. */
static const struct config_entry *entry_at(const struct config *running, const struct config *read,
					   size_t i, bool *ret_pending)
{
	const struct config_entry *entry;
	bool is_function;

	*ret_pending = false;
	if (i < running->n_entries)
		return running->entries[i].kind == CONFIG_MAIN ? &running->entries[i] : NULL;
	i -= running->n_entries;
	*ret_pending = i < read->n_entries;
	entry = &read->entries[i % read->n_entries];
	is_function = entry->kind == CONFIG_MAIN;
	if (*ret_pending)
		return is_function && functions_differ(running, read) ? entry : NULL;
	return is_function ? NULL : entry;
}

bool config_show_next(const struct config *running, const struct config *read, size_t *at,
		      struct operator_setting *ret)
{
	const size_t n = n_config_settings + running->n_entries + 2 * read->n_entries;
	const struct config_entry *entry = NULL;
	bool pending;

	memset(ret, 0, sizeof(*ret));
	if (*at < n_config_settings) {
		setting_show(running, read, (*at)++, ret);
		return true;
	}
	while (!entry && *at < n)
		entry = entry_at(running, read, (*at)++ - n_config_settings, &pending);
	if (entry)
		entry_show(entry, pending, ret);
	return entry;
}

void config_print_pending(FILE *out, const struct config *running, const struct config *read)
{
	struct operator_setting setting;

	for (size_t i = 0; i < n_config_settings; i++) {
		memset(&setting, 0, sizeof(setting));
		setting_show(running, read, i, &setting);
		if (setting.pending[0])
			fprintf(out, "[%s] %s= takes effect at the next start\n", setting.section,
				setting.key);
	}
	if (functions_differ(running, read))
		fputs("[EmulatedFunction] sections take effect at the next start\n", out);
}
