/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One configuration file: inih splits it into sections and keys, this file keeps count of lines
 * and sections (inih as packaged tells neither) and hands each key to its owner.
 */

#include "config_file.h"

#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "config_table.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

int config_file_error(struct config_file *file, const char *format, ...)
{
	char text[320];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	snprintf(file->config->error, sizeof(file->config->error), "%.150s:%d: %s", file->path,
		 file->line, text);
	return -EINVAL;
}

/* To inih a line that begins with a blank goes on with the key before it, and of a line that is too
 * long the rest is the next line: both would silently change what a key says. */
static char *line_read(char *line, int bytes, void *context)
{
	struct config_file *file = context;
	char *read = fgets(line, bytes, file->stream);
	size_t length, blanks;

	if (!read)
		return NULL;
	file->line++;
	length = strlen(line);
	if (length + 1 == (size_t)bytes && line[length - 1] != '\n') {
		file->status = config_file_error(file, "more than %d characters", bytes - 2);
		return NULL;
	}
	blanks = strspn(line, " \t");
	memmove(line, line + blanks, length + 1 - blanks);
	if (line[0] == '[')
		file->section_serial++;
	return read;
}

static int unknown(struct config_file *file, const char *what, const char *written,
		   const char *const *names, size_t n)
{
	const char *suggestion = setting_suggest(written, names, n);

	if (suggestion)
		return config_file_error(file, "unknown %s '%.64s'; did you mean %s?", what,
					 written, suggestion);
	return config_file_error(file, "unknown %s '%.64s'", what, written);
}

static int key_unknown(struct config_file *file, const struct setting *table, size_t n_table,
		       const char *section, const char *key)
{
	const char *names[128];
	size_t n = 0;

	for (size_t i = 0; i < n_table && n < LENGTH(names); i++)
		if (!strcmp(table[i].section, section))
			names[n++] = table[i].name;
	if (!n) {
		static const char *const sections[] = {"Limits",  "Memory",
						       "Clients", "Translation",
						       "Service", "EmulatedFunction"};

		return unknown(file, "section", section, sections, LENGTH(sections));
	}
	return unknown(file, "key", key, names, n);
}

static int value_apply(struct config_file *file, const struct setting *setting, const char *value,
		       void *base, size_t *n_target)
{
	char error[256];

	if (setting_parse(setting, value, (char *)base + setting->offset, n_target, error,
			  sizeof(error)))
		return config_file_error(file, "[%s] %s=: %s", setting->section, setting->name,
					 error);
	if (setting->limit)
		config_limit_place(file, setting->name,
				   (struct limit_setting *)((char *)base + setting->offset));
	return 0;
}

static const struct setting *setting_find(const struct setting *table, size_t n,
					  const char *section, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(table[i].section, section) && !strcmp(table[i].name, key))
			return &table[i];
	return NULL;
}

static int emulated_key(struct config_file *file, const char *key, const char *value)
{
	const struct setting *setting =
		setting_find(emulated_settings, n_emulated_settings, "EmulatedFunction", key);
	struct config *config = file->config;
	char error[64];

	if (!setting)
		return key_unknown(file, emulated_settings, n_emulated_settings, "EmulatedFunction",
				   key);
	if (file->section_started != file->section_serial) {
		if (config->n_emulated == IOMMU_EMULATED_FUNCTIONS_MAX)
			return config_file_error(file, "more than %d [EmulatedFunction] sections",
						 IOMMU_EMULATED_FUNCTIONS_MAX);
		file->section_started = file->section_serial;
		config->n_emulated++;
		for (size_t i = 0; i < n_emulated_settings; i++)
			if (*emulated_settings[i].default_text)
				setting_parse(&emulated_settings[i],
					      emulated_settings[i].default_text,
					      (char *)&config->emulated[config->n_emulated - 1] +
						      emulated_settings[i].offset,
					      NULL, error, sizeof(error));
	}
	return value_apply(file, setting, value, &config->emulated[config->n_emulated - 1], NULL);
}

int config_main_key(struct config_file *file, const char *section, const char *key,
		    const char *value)
{
	const struct setting *setting;
	struct config *config = file->config;
	size_t *n_target = NULL;

	if (!strcmp(section, "EmulatedFunction"))
		return emulated_key(file, key, value);
	setting = setting_find(config_settings, n_config_settings, section, key);
	if (!setting)
		return key_unknown(file, config_settings, n_config_settings, section, key);
	if (setting->type == SETTING_USERS || setting->type == SETTING_GROUPS) {
		bool users = setting->type == SETTING_USERS;
		char error[256];

		n_target = users ? &config->rpc.n_client_uids : &config->rpc.n_client_gids;
		if (setting_parse(setting, value,
				  users ? (void *)config->rpc.client_uids
					: (void *)config->rpc.client_gids,
				  n_target, error, sizeof(error)))
			return config_file_error(file, "[%s] %s=: %s", section, key, error);
		return 0;
	}
	return value_apply(file, setting, value, config, NULL);
}

static int key_handle(void *context, const char *section, const char *key, const char *value)
{
	struct config_file *file = context;

	if (file->status)
		return 0;
	file->status = file->key(file, section, key, value);
	return !file->status;
}

int config_file_read(struct config *config, const char *path, config_key_fn key)
{
	struct config_file file = {.config = config, .path = path, .key = key};
	int line;

	file.stream = fopen(path, "re");
	if (!file.stream)
		return -errno;
	if (key == config_quota_key) {
		file.status = config_quota_begin(&file);
		if (file.status) {
			fclose(file.stream);
			return file.status;
		}
	}
	line = ini_parse_stream(line_read, &file, key_handle, &file);
	if (!file.status && line > 0) {
		file.line = line;
		config_file_error(&file, "neither [Section], Key=value nor a comment");
		file.status = -EINVAL;
	} else if (!file.status && (line < 0 || ferror(file.stream))) {
		file.status = -EIO;
	}
	if (!file.status && key == config_device_key)
		file.status = config_device_end(&file);
	if (!file.status && key == config_quota_key)
		file.status = config_quota_end(&file);
	fclose(file.stream);
	return file.status;
}
