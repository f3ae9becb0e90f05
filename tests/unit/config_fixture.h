/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TEST_CONFIG_FIXTURE_H
#define IB_TEST_CONFIG_FIXTURE_H

/* A folder with configuration files, of each test's own. */

#include <ftw.h>
#include <sys/stat.h>

#include "config.h"

extern char folder[64];

int setup(void **state);
int teardown(void **state);
int remove_entry(const char *path, const struct stat *status, int flag, struct FTW *walk);
void file_write(const char *name, const char *text);
void folder_make(const char *name);
void link_make(const char *name, const char *target);
void file_remove(const char *name);
/* As config_load(). */
int load(struct config **ret);
/* Fails the test where there is a mistake. */
struct config *load_good(void);

#endif
