/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One configuration file: inih splits its lines into sections and keys, this file reads the lines,
 * keeps count of them and of sections (inih as packaged tells neither), goes on after a mistake,
 * and hands each key to its owner.
 */

#include "config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "config_table.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* ── lines ─────────────────────────────────────────────────────────────────────────────────── */

/* A line without its end, cut to what fits. Its length as it stands there, or -1: there is none. */
static long line_fetch(FILE *stream, char *line, size_t bytes, bool *ret_zero)
{
	long n = 0;
	int byte = getc(stream);

	if (byte == EOF)
		return -1;
	for (; byte != EOF && byte != '\n'; byte = getc(stream)) {
		if (n + 1 < (long)bytes)
			line[n] = (char)byte;
		*ret_zero |= !byte;
		n++;
	}
	line[n + 1 < (long)bytes ? n : (long)bytes - 1] = '\0';
	return n;
}

/* What inih would find: one of these, and not in a comment. */
static bool has_one_of(const char *text, const char *wanted)
{
	bool blank = false;

	for (; *text && !strchr(wanted, *text) && !(blank && *text == ';'); text++)
		blank = *text == ' ' || *text == '\t';
	return *text && strchr(wanted, *text);
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

/* "[Limits]" */
static void header_read(struct config_file *file, const char *line)
{
	const char *names[CONFIG_SECTIONS_MAX];
	size_t n = config_section_names(file->kind, names);
	char name[64];

	file->section_serial++;
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(line + 1, "]"), line + 1);
	for (size_t i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return;
	file->unknown_section = file->section_serial;
	unknown(file, "section", name, names, n);
}

static void line_judge(struct config_file *file, char *line)
{
	bool header = line[0] == '[';

	if (!line[0] || line[0] == '#' || line[0] == ';')
		return;
	if (!has_one_of(line + (header ? 1 : 0), header ? "]" : "=:")) {
		config_file_error(file, "neither [Section], Key=value nor a comment");
		if (header)
			file->unknown_section = ++file->section_serial;
		line[0] = '\0';
	} else if (header) {
		header_read(file, line);
	} else if (file->section_serial == file->first_section) {
		config_file_error(file, "a key before any [Section]");
		line[0] = '\0';
	}
}

/* To inih a line that begins with a blank goes on with the key before it, and of a line that is too
 * long the rest is the next line: both would silently change what a key says. */
static char *line_read(char *line, int bytes, void *context)
{
	struct config_file *file = context;
	bool zero = false;
	long n = file->status ? -1 : line_fetch(file->stream, line, (size_t)bytes, &zero);
	size_t blanks;

	if (n < 0)
		return NULL;
	file->line++;
	if (zero || n > bytes - 2) {
		if (zero)
			config_file_error(file, "a zero byte: this is no text");
		else
			config_file_error(file, "more than %d characters", bytes - 2);
		line[0] = '\0';
		return line;
	}
	if (file->line == 1 && !strncmp(line, "\xef\xbb\xbf", 3))
		memmove(line, line + 3, strlen(line) - 2);
	blanks = strspn(line, " \t\r\f\v");
	memmove(line, line + blanks, strlen(line) + 1 - blanks);
	line_judge(file, line);
	return line;
}

/* ── keys of iommubrokerd.conf ─────────────────────────────────────────────────────────────── */

static int key_unknown(struct config_file *file, const struct setting *table, size_t n_table,
		       const char *section, const char *key)
{
	const char *names[128];
	size_t n = 0;

	for (size_t i = 0; i < n_table && n < LENGTH(names); i++)
		if (!strcmp(table[i].section, section))
			names[n++] = table[i].name;
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

/* ── the file ──────────────────────────────────────────────────────────────────────────────── */

size_t config_section_names(enum config_kind kind, const char *ret[CONFIG_SECTIONS_MAX])
{
	size_t n = 0;

	if (kind == CONFIG_DEVICE) {
		ret[n++] = "Device";
	} else if (kind == CONFIG_QUOTA) {
		ret[n++] = "Match";
		ret[n++] = "Quota";
	} else {
		for (size_t i = 0; i < n_config_settings && n < CONFIG_SECTIONS_MAX - 1; i++)
			if (!n || strcmp(ret[n - 1], config_settings[i].section))
				ret[n++] = config_settings[i].section;
		ret[n++] = "EmulatedFunction";
	}
	return n;
}

static int key_handle(void *context, const char *section, const char *key, const char *value)
{
	static int (*const keys[])(struct config_file *, const char *, const char *,
				   const char *) = {
		[CONFIG_MAIN] = config_main_key,
		[CONFIG_QUOTA] = config_quota_key,
		[CONFIG_DEVICE] = config_device_key,
	};
	struct config_file *file = context;
	int status;

	if (file->status || file->unknown_section == file->section_serial)
		return 1;
	status = keys[file->kind](file, section, key, value);
	if (!status)
		status = config_entry_add(file, section, key, value);
	if (status && status != -EINVAL)
		file->status = status;
	return 1;
}

static void stream_parse(struct config_file *file, const char *path, FILE *stream)
{
	int line;

	file->path = path;
	file->stream = stream;
	file->line = 0;
	file->first_section = file->section_serial;
	line = ini_parse_stream(line_read, file, key_handle, file);
	if (line > 0 && !file->n_mistakes) {
		file->line = line;
		config_file_error(file, "neither [Section], Key=value nor a comment");
	} else if (ferror(stream)) {
		file->line = 0;
		config_file_error(file, "cannot be read: %s", strerror(errno));
	} else if (line < 0 && !file->status) {
		file->status = -ENOMEM;
	}
}

/* An empty file, or a link to /dev/null: there is to be none of this name. */
static bool masks(const struct stat *stat)
{
	return S_ISREG(stat->st_mode) ? !stat->st_size
				      : S_ISCHR(stat->st_mode) && stat->st_rdev == makedev(1, 3);
}

/* NULL: it masks, or cannot be read, which is noted down. Never waits, whatever the file is. */
static FILE *file_open(struct config_file *file)
{
	int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat stat;
	FILE *stream = NULL;

	file->line = 0;
	if (fd < 0 || fstat(fd, &stat))
		config_file_error(file, "cannot be read: %s", strerror(errno));
	else if (S_ISDIR(stat.st_mode))
		config_file_error(file, "is a folder, not a file");
	else if (!masks(&stat) && !S_ISREG(stat.st_mode))
		config_file_error(file, "is neither a file nor a link to /dev/null");
	else if (stat.st_size > CONFIG_FILE_BYTES_MAX)
		config_file_error(file, "has more than %d bytes", CONFIG_FILE_BYTES_MAX);
	else if (!masks(&stat))
		stream = fdopen(fd, "re");
	if (!stream && fd >= 0)
		close(fd);
	return stream;
}

/* "/etc/iommubroker/quota.d/50-prod.conf" is known as "quota.d/50-prod.conf". */
static int file_begin(struct config_file *file, struct config *config, enum config_kind kind,
		      const char *path)
{
	static const char *const folders[] = {"", "quota.d/", "device.d/"};
	const char *base = strrchr(path, '/');
	char title[300];

	*file = (struct config_file){.config = config, .kind = kind};
	snprintf(title, sizeof(title), "%s%.256s", folders[kind], base ? base + 1 : path);
	file->title = config_text_keep(config, title);
	file->path = config_text_keep(config, path);
	file->set = ++config->n_sets;
	return file->title && file->path ? 0 : -ENOMEM;
}

/* What an end tells follows from what was wrong before. */
static int file_end(struct config_file *file)
{
	int status = file->status;

	file->line = file->device_line;
	if (!status && file->kind == CONFIG_DEVICE)
		status = config_device_end(file);
	if (!status && file->kind == CONFIG_QUOTA && !file->n_mistakes)
		status = config_quota_end(file);
	return status == -EINVAL ? 0 : status;
}

static int drop_in_read(struct config_file *file, const char *path)
{
	FILE *stream;

	file->path = config_text_keep(file->config, path);
	if (!file->path)
		return -ENOMEM;
	stream = file_open(file);
	if (!stream)
		return 0;
	stream_parse(file, file->path, stream);
	fclose(stream);
	return file->status;
}

int config_file_read(struct config *config, enum config_kind kind, const char *const *paths,
		     size_t n_paths)
{
	struct config_file file;
	const char *path;
	FILE *stream;
	int status = file_begin(&file, config, kind, paths[0]);

	if (status)
		return status;
	path = file.path;
	stream = file_open(&file);
	if (!stream)
		return 0;
	if (kind == CONFIG_QUOTA)
		status = config_quota_begin(&file);
	if (!status) {
		stream_parse(&file, path, stream);
		status = file.status;
	}
	fclose(stream);
	for (size_t i = 1; i < n_paths && !status; i++)
		status = drop_in_read(&file, paths[i]);
	file.path = path;
	if (!status)
		status = file_end(&file);
	return status == -EINVAL ? 0 : status;
}

int config_file_parse(struct config *config, enum config_kind kind, const char *path, FILE *stream)
{
	struct config_file file;
	int status = file_begin(&file, config, kind, path);

	if (!status && kind == CONFIG_QUOTA)
		status = config_quota_begin(&file);
	if (status)
		return status == -EINVAL ? 0 : status;
	stream_parse(&file, file.path, stream);
	return file_end(&file);
}
