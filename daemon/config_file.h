/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CONFIG_FILE_H
#define IB_CONFIG_FILE_H

/* Reading one configuration file; shared by the files of config.c. */

#include <stdbool.h>
#include <stdio.h>

#include "config.h"

struct config_file;
/* 0, or -EINVAL after config_file_error(). */
typedef int (*config_key_fn)(struct config_file *file, const char *section, const char *key,
			     const char *value);

/* A [Device] section while it is read. */
struct device_section {
	int line; /* of its header; 0: none open */
	bool any_user, any_function, passed_descriptor, relaxed;
	size_t n_users, n_fids, n_addresses;
	uid_t users[CONFIG_IDS_MAX];
	uint32_t fids[CONFIG_IDS_MAX];
	char addresses[CONFIG_IDS_MAX][16];
};

struct config_file {
	struct config *config;
	const char *path;
	FILE *stream;
	config_key_fn key;
	int line, section_serial, section_started, status;
	struct device_section device;
};

/* Read path. 0, -ENOENT, another errno of opening it, or -EINVAL with config->error set. */
int config_file_read(struct config *config, const char *path, config_key_fn key);
/* Sets config->error to "path:line: …" and returns -EINVAL. */
int config_file_error(struct config_file *file, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

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

#endif
