/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CONFIG_FILE_H
#define IB_CONFIG_FILE_H

/* Reading the files of a configuration; shared by the files of config.c. */

#include <stdbool.h>
#include <stdio.h>

#include "config.h"

/* A file while it is read, or a rule file and then its drop-ins. */
struct config_file {
	struct config *config;
	enum config_kind kind;
	const char *path; /* of the one that is read now; the configuration's text */
	FILE *stream;
	int line, section_serial, section_started, status;
	int first_section;                /* the section_serial that path begins with */
	int unknown_section;              /* the last one; its keys are not looked at */
	int bad_section;                  /* the last one in which something was wrong */
	size_t n_mistakes;                /* of this file */
	const char *title;                /* "quota.d/50-prod.conf", likewise */
	unsigned int set;                 /* number of struct config_entry */
	struct broker_device_rule device; /* the [Device] section that is read */
	int device_line;                  /* of its first key; 0: none is open */
};

/* Read paths[0], and then what adds to it. Mistakes are noted down; 0 unless memory or the disk
 * fails, which is a negative errno. */
int config_file_read(struct config *config, enum config_kind kind, const char *const *paths,
		     size_t n_paths);
/* The same of a stream, which is not closed; it is told as the file path. */
int config_file_parse(struct config *config, enum config_kind kind, const char *path, FILE *stream);
/* Notes down "path:line: …" and returns -EINVAL, after which reading goes on. */
int config_file_error(struct config_file *file, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Each of the following: 0, -EINVAL after config_file_error(), or -ENOMEM. The section is one of
 * config_section_names(). */
int config_main_key(struct config_file *file, const char *section, const char *key,
		    const char *value);
int config_device_key(struct config_file *file, const char *section, const char *key,
		      const char *value);
/* The last section of a device file is complete. */
int config_device_end(struct config_file *file);
int config_quota_begin(struct config_file *file);
int config_quota_key(struct config_file *file, const char *section, const char *key,
		     const char *value);
int config_quota_end(struct config_file *file);
/* Where the limit stands that was just read: the line of the file, or the setting's default. */
void config_limit_place(const struct config_file *file, const char *name,
			struct limit_setting *limit);

/* Names of the sections that such a file may have, in ret; how many. */
#define CONFIG_SECTIONS_MAX 16
size_t config_section_names(enum config_kind kind, const char *ret[CONFIG_SECTIONS_MAX]);

/* ── config_entry.c ───────────────────────────────────────────────────────────────────────── */

/* A copy that lives as long as the configuration. NULL: no memory. */
const char *config_text_keep(struct config *config, const char *text);
/* One more mistake; -EINVAL. */
int config_mistake(struct config *config, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Remembers where the key that was just read stands. As the functions above. */
int config_entry_add(struct config_file *file, const char *section, const char *key,
		     const char *value);

/* ── config_folder.c ──────────────────────────────────────────────────────────────────────── */

/* Files of a folder's, with the folder of highest precedence that has each; sorted by name. */
struct config_list {
	size_t n, room;
	struct config_name {
		char *name;
		size_t folder; /* 0: the highest precedence */
		bool adds;     /* NAME.conf.d, whose files add to NAME.conf */
	} * names;
};

/* Every name in subfolder of any of the folders that ends in .conf or .conf.d. What cannot be read
 * is noted down. 0 or -ENOMEM; the list is to be freed in both cases. */
int config_folder_list(struct config *config, const char *const *folders, size_t n_folders,
		       const char *subfolder, struct config_list *ret);
void config_list_free(struct config_list *list);
const struct config_name *config_list_find(const struct config_list *list, const char *name);

#endif
