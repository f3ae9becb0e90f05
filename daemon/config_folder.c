/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which files the folders of a configuration hold together. */

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "config_file.h"

static bool name_ends(const char *name, const char *ending)
{
	size_t length = strlen(name), ending_length = strlen(ending);

	return name[0] != '.' && length > ending_length &&
	       !strcmp(name + length - ending_length, ending);
}

static int list_add(struct config_list *list, const char *name, size_t folder)
{
	if (list->n == list->room) {
		size_t room = list->room ? 2 * list->room : 16;
		struct config_name *names = reallocarray(list->names, room, sizeof(*names));

		if (!names)
			return -ENOMEM;
		list->names = names;
		list->room = room;
	}
	list->names[list->n].name = strdup(name);
	if (!list->names[list->n].name)
		return -ENOMEM;
	list->names[list->n].adds = name_ends(name, ".conf.d");
	list->names[list->n++].folder = folder;
	return 0;
}

static int folder_read(struct config *config, const char *path, size_t folder,
		       struct config_list *list)
{
	DIR *stream = opendir(path);
	struct dirent *entry;
	int status = 0;
	size_t n = 0;

	if (!stream && errno == ENOENT)
		return 0;
	if (!stream) {
		config_mistake(config, "%.300s: cannot be read: %s", path, strerror(errno));
		return 0;
	}
	while (!status && (entry = readdir(stream))) {
		if (!name_ends(entry->d_name, ".conf") && !name_ends(entry->d_name, ".conf.d"))
			continue;
		if (n++ == CONFIG_FILES_MAX) {
			config_mistake(config, "%.300s: more than %d files", path,
				       CONFIG_FILES_MAX);
			break;
		}
		status = list_add(list, entry->d_name, folder);
	}
	closedir(stream);
	return status;
}

static int name_compare(const void *a, const void *b)
{
	const struct config_name *one = a, *other = b;
	int order = strcmp(one->name, other->name);

	return order ? order : (one->folder > other->folder) - (one->folder < other->folder);
}

/* Of each name the first, which is that of the highest precedence. */
static void list_uniq(struct config_list *list)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++) {
		if (n && !strcmp(list->names[n - 1].name, list->names[i].name))
			free(list->names[i].name);
		else
			list->names[n++] = list->names[i];
	}
	list->n = n;
}

int config_folder_list(struct config *config, const char *const *folders, size_t n_folders,
		       const char *subfolder, struct config_list *ret)
{
	char path[PATH_MAX];
	int status = 0;

	*ret = (struct config_list){0};
	for (size_t i = 0; i < n_folders && !status; i++) {
		if (snprintf(path, sizeof(path), "%s/%s", folders[i], subfolder) >=
		    (int)sizeof(path))
			config_mistake(config, "%.300s: the path is too long", folders[i]);
		else
			status = folder_read(config, path, i, ret);
	}
	if (ret->n)
		qsort(ret->names, ret->n, sizeof(*ret->names), name_compare);
	list_uniq(ret);
	return status;
}

void config_list_free(struct config_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->names[i].name);
	free(list->names);
	*list = (struct config_list){0};
}

static int name_find(const void *key, const void *element)
{
	return strcmp(key, ((const struct config_name *)element)->name);
}

const struct config_name *config_list_find(const struct config_list *list, const char *name)
{
	if (!list->n)
		return NULL;
	return bsearch(name, list->names, list->n, sizeof(*list->names), name_find);
}
