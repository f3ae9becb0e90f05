/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See doctor_file.h. */

#include "ctl/doctor_file.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define FILE_BYTES_MAX (4 << 20)

#define PATH_OF(doctor, path)                   \
	char at[DOCTOR_PATH_BYTES];             \
	va_list arguments;                      \
	va_start(arguments, path);              \
	path_make(doctor, at, path, arguments); \
	va_end(arguments)

__attribute__((format(printf, 3, 0))) static void path_make(const struct doctor *doctor, char *ret,
							    const char *path, va_list arguments)
{
	int n = snprintf(ret, DOCTOR_PATH_BYTES, "%s/", doctor->root);

	if (n >= 0 && n < DOCTOR_PATH_BYTES)
		vsnprintf(ret + n, (size_t)(DOCTOR_PATH_BYTES - n), path, arguments);
}

int file_stat(const struct doctor *doctor, struct stat *ret, const char *path, ...)
{
	PATH_OF(doctor, path);
	return stat(at, ret) == 0 ? 0 : errno;
}

bool file_exists(const struct doctor *doctor, const char *path, ...)
{
	PATH_OF(doctor, path);
	return access(at, F_OK) == 0;
}

char *file_read(const struct doctor *doctor, const char *path, ...)
{
	size_t n = 0, room = 65536;
	char *text;
	gzFile file;
	int r;

	PATH_OF(doctor, path);
	file = gzopen(at, "r");
	text = malloc(room + 1);
	if (file == NULL || text == NULL)
		goto failed;
	while ((r = gzread(file, text + n, (unsigned int)(room - n))) > 0) {
		char *more;

		n += (size_t)r;
		if (n < room || room >= FILE_BYTES_MAX)
			continue;
		more = realloc(text, 2 * room + 1);
		if (more == NULL)
			goto failed;
		text = more;
		room *= 2;
	}
	if (r < 0)
		goto failed;
	gzclose(file);
	text[n] = '\0';
	return text;
failed:
	r = errno != 0 ? errno : EIO;
	if (file != NULL)
		gzclose(file);
	free(text);
	errno = r;
	return NULL;
}

uint64_t file_number(const struct doctor *doctor, const char *path, ...)
{
	uint64_t value = UINT64_MAX;
	FILE *file;

	PATH_OF(doctor, path);
	file = fopen(at, "re");
	if (file == NULL)
		return UINT64_MAX;
	if (fscanf(file, "%" SCNu64, &value) != 1)
		value = UINT64_MAX;
	fclose(file);
	return value;
}

bool file_link(const struct doctor *doctor, char *ret, size_t ret_bytes, const char *path, ...)
{
	ssize_t n;

	PATH_OF(doctor, path);
	n = readlink(at, ret, ret_bytes - 1);
	if (n < 0)
		return false;
	ret[n] = '\0';
	return true;
}

static int is_name(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

struct file_names *file_names(const struct doctor *doctor, const char *path, ...)
{
	struct dirent **entries;
	struct file_names *names;
	int n;

	PATH_OF(doctor, path);
	n = scandir(at, &entries, is_name, alphasort);
	if (n < 0)
		return NULL;
	names = calloc(1, sizeof(*names));
	if (names != NULL)
		names->names = calloc((size_t)n + 1, sizeof(char *));
	for (int i = 0; i < n; i++) {
		if (names != NULL && names->names != NULL) {
			names->names[names->n] = strdup(entries[i]->d_name);
			names->n += names->names[names->n] != NULL;
		}
		free(entries[i]);
	}
	free(entries);
	return names;
}

struct file_names *file_names_free(struct file_names *names)
{
	if (names == NULL)
		return NULL;
	for (size_t i = 0; i < names->n; i++)
		free(names->names[i]);
	free(names->names);
	free(names);
	return NULL;
}

bool text_line(const char *text, const char *name, char *ret, size_t ret_bytes)
{
	size_t n = strlen(name);

	for (const char *line = text; line != NULL && *line != '\0';) {
		const char *end = strchrnul(line, '\n');

		if (strncmp(line, name, n) == 0) {
			line += n + strspn(line + n, " \t:=");
			snprintf(ret, ret_bytes, "%.*s", line < end ? (int)(end - line) : 0, line);
			return true;
		}
		line = *end != '\0' ? end + 1 : NULL;
	}
	return false;
}

uint64_t text_line_number(const char *text, const char *name)
{
	char value[64];
	char *after;
	uint64_t number;

	if (!text_line(text, name, value, sizeof(value)))
		return UINT64_MAX;
	number = strtoull(value, &after, 10);
	return after == value ? UINT64_MAX : number;
}

/* ── /etc/group, /etc/passwd ──────────────────────────────────────────────────────────────── */

/* "name:x:ID:rest" */
static bool find_id(const struct doctor *doctor, const char *file, const char *name,
		    uint32_t *ret_id, char *ret_rest, size_t ret_rest_bytes)
{
	char *text = file_read(doctor, "etc/%s", file);
	char key[64], line[1024];
	unsigned long id;
	bool found;
	int n = 0;

	snprintf(key, sizeof(key), "%s:", name);
	found = text != NULL && text_line(text, key, line, sizeof(line)) &&
		sscanf(line, "%*[^:]:%lu%n", &id, &n) == 1;
	free(text);
	if (!found)
		return false;
	*ret_id = (uint32_t)id;
	if (ret_rest != NULL)
		snprintf(ret_rest, ret_rest_bytes, "%s", line[n] == ':' ? line + n + 1 : "");
	return true;
}

bool group_find(const struct doctor *doctor, const char *name, uint32_t *ret_gid, char *ret_members,
		size_t ret_members_bytes)
{
	return find_id(doctor, "group", name, ret_gid, ret_members, ret_members_bytes);
}

bool user_find(const struct doctor *doctor, const char *name, uint32_t *ret_uid)
{
	return find_id(doctor, "passwd", name, ret_uid, NULL, 0);
}

size_t group_users(const struct doctor *doctor, uint32_t gid)
{
	char *text = file_read(doctor, "etc/passwd");
	char *rest = NULL;
	size_t n = 0;

	if (text == NULL)
		return 0;
	for (char *line = strtok_r(text, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest)) {
		unsigned long its;

		if (sscanf(line, "%*[^:]:%*[^:]:%*[^:]:%lu:", &its) == 1 && its == gid)
			n++;
	}
	free(text);
	return n;
}
