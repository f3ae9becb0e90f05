/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is remembered of how a configuration was read: mistakes, and where each value comes from. */

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "config_file.h"
#include "config_table.h"

const char *config_text_keep(struct config *config, const char *text)
{
	size_t bytes = strlen(text) + 1;
	struct config_text *kept = malloc(sizeof(*kept) + bytes);

	if (!kept)
		return NULL;
	kept->next = config->texts;
	config->texts = kept;
	return memcpy(kept->text, text, bytes);
}

/* ── mistakes ──────────────────────────────────────────────────────────────────────────────── */

/* Texts of files are shown to people and sent in messages. */
static void printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

static int mistake_add(struct config *config, const char *format, va_list args)
{
	char *text = config->mistakes[config->n_mistakes];

	if (config->n_mistakes++ < CONFIG_MISTAKES_MAX) {
		vsnprintf(text, CONFIG_MISTAKE_BYTES, format, args);
		printable(text);
	}
	return -EINVAL;
}

int config_mistake(struct config *config, const char *format, ...)
{
	va_list args;
	int status;

	va_start(args, format);
	status = mistake_add(config, format, args);
	va_end(args);
	return status;
}

int config_file_error(struct config_file *file, const char *format, ...)
{
	char text[320];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	file->n_mistakes++;
	file->bad_section = file->section_serial;
	if (!file->line)
		return config_mistake(file->config, "%.150s: %s", file->path, text);
	return config_mistake(file->config, "%.150s:%d: %s", file->path, file->line, text);
}

const char *config_error(const struct config *config, int status)
{
	return config && config->n_mistakes ? config->mistakes[0] : strerror(-status);
}

void config_print_mistakes(FILE *out, const struct config *config, int status)
{
	size_t told = config && config->n_mistakes < CONFIG_MISTAKES_MAX ? config->n_mistakes
									 : CONFIG_MISTAKES_MAX;

	if (!config || !config->n_mistakes) {
		fprintf(out, "%s\n", strerror(-status));
		return;
	}
	for (size_t i = 0; i < told; i++)
		fprintf(out, "%s\n", config->mistakes[i]);
	if (config->n_mistakes > told)
		fprintf(out, "and %zu more\n", config->n_mistakes - told);
}

/* ── where values come from ────────────────────────────────────────────────────────────────── */

static struct config_entry *origin_of(struct config *config, const char *section, const char *key)
{
	for (size_t i = 0; i < n_config_settings && i < CONFIG_SETTINGS_MAX; i++)
		if (!strcmp(config_settings[i].section, section) &&
		    !strcmp(config_settings[i].name, key))
			return &config->origins[i];
	return NULL;
}

/* What another line of the same rule says again holds in its place, but of [Match] and of a device
 * rule, whose lists add up. */
static struct config_entry *entry_before(struct config_file *file, const char *section,
					 const char *key)
{
	struct config *config = file->config;

	if (strcmp(section, "Quota"))
		return NULL;
	for (size_t i = config->n_entries; i-- && config->entries[i].set == file->set;)
		if (!strcmp(config->entries[i].section_name, section) &&
		    !strcmp(config->entries[i].key, key))
			return &config->entries[i];
	return NULL;
}

static int entry_room(struct config_file *file, struct config_entry **ret)
{
	struct config *config = file->config;

	if (config->n_entries == CONFIG_ENTRIES_MAX)
		return config_file_error(file, "more than %d keys in all rule files",
					 CONFIG_ENTRIES_MAX);
	if (config->n_entries == config->entries_room) {
		size_t room = config->entries_room ? 2 * config->entries_room : 32;
		struct config_entry *entries =
			reallocarray(config->entries, room, sizeof(*entries));

		if (!entries)
			return -ENOMEM;
		config->entries = entries;
		config->entries_room = room;
	}
	*ret = &config->entries[config->n_entries++];
	return 0;
}

int config_entry_add(struct config_file *file, const char *section, const char *key,
		     const char *value)
{
	struct config_entry *entry = NULL,
			    made = {
				    .kind = file->kind,
				    .set = file->set,
				    .section = (unsigned int)file->section_serial,
				    .title = file->title,
				    .section_name = config_text_keep(file->config, section),
				    .key = config_text_keep(file->config, key),
				    .value = config_text_keep(file->config, value),
				    .file = file->path,
				    .line = file->line,
			    };
	int status = 0;

	if (!made.section_name || !made.key || !made.value)
		return -ENOMEM;
	if (file->kind == CONFIG_MAIN)
		entry = origin_of(file->config, section, key);
	if (!entry)
		entry = entry_before(file, section, key);
	if (!entry)
		status = entry_room(file, &entry);
	if (!status)
		*entry = made;
	return status;
}
