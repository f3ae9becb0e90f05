/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_DOCTOR_FILE_H
#define IB_CTL_DOCTOR_FILE_H

/* Files under doctor's root. Paths are formats, from the root on, without a first "/". */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "ctl/doctor.h"

#define DOCTOR_PATH_BYTES 4096

/* 0, or an errno. */
__attribute__((format(printf, 3, 4))) int file_stat(const struct doctor *doctor, struct stat *ret,
						    const char *path, ...);
__attribute__((format(printf, 2, 3))) bool file_exists(const struct doctor *doctor,
						       const char *path, ...);
/* The whole file, which may be compressed, as a text to be freed; NULL with errno. */
__attribute__((format(printf, 2, 3))) char *file_read(const struct doctor *doctor, const char *path,
						      ...);
/* A number in a file; UINT64_MAX if there is none. */
__attribute__((format(printf, 2, 3))) uint64_t file_number(const struct doctor *doctor,
							   const char *path, ...);
/* Where a link leads. */
__attribute__((format(printf, 4, 5))) bool file_link(const struct doctor *doctor, char *ret,
						     size_t ret_bytes, const char *path, ...);

/* Names in a folder but . and .., sorted; NULL with errno, or to be given to file_names_free(). */
struct file_names {
	size_t n;
	char **names;
};
__attribute__((format(printf, 2, 3))) struct file_names *file_names(const struct doctor *doctor,
								    const char *path, ...);
struct file_names *file_names_free(struct file_names *names);

/* What follows name at the start of a line of text, with separators (blanks, ":") taken off, up to
 * the end of the line; false: there is no such line. */
bool text_line(const char *text, const char *name, char *ret, size_t ret_bytes);
/* The same as a number; UINT64_MAX if there is none. */
uint64_t text_line_number(const char *text, const char *name);

/* A group or user of /etc; false: there is none, or the file cannot be read. */
bool group_find(const struct doctor *doctor, const char *name, uint32_t *ret_gid, char *ret_members,
		size_t ret_members_bytes);
bool user_find(const struct doctor *doctor, const char *name, uint32_t *ret_uid);
/* How many users have it as their first group. */
size_t group_users(const struct doctor *doctor, uint32_t gid);

#endif
