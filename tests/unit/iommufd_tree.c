/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The tree of iommufd_tree.h. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "iommufd_tree.h"

static int count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

void tree_path(const struct tree *tree, char path[PATH_MAX], const char *name)
{
	snprintf(path, PATH_MAX, "%s/%s", tree->root, name);
}

void tree_dir(const struct tree *tree, const char *name)
{
	char path[PATH_MAX];

	tree_path(tree, path, name);
	for (char *slash = path + strlen(tree->root) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
	assert_true(!mkdir(path, 0755) || errno == EEXIST);
}

void tree_file(const struct tree *tree, const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *file;

	tree_path(tree, path, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

void tree_link(const struct tree *tree, const char *name, const char *to)
{
	char path[PATH_MAX], target[PATH_MAX];

	tree_path(tree, path, name);
	tree_path(tree, target, to);
	assert_int_equal(symlink(target, path), 0);
}

void tree_function(const struct tree *tree, const char *address, const char *vfio, const char *node)
{
	char name[300];

	snprintf(name, sizeof(name), "sys/bus/pci/devices/%s", address);
	tree_dir(tree, name);
	snprintf(name, sizeof(name), "sys/bus/pci/devices/%s/vendor", address);
	tree_file(tree, name, "0x1234\n");
	snprintf(name, sizeof(name), "sys/bus/pci/devices/%s/device", address);
	tree_file(tree, name, "0x11e8\n");
	if (!vfio)
		return;
	snprintf(name, sizeof(name), "sys/bus/pci/devices/%s/vfio-dev/%s", address, vfio);
	tree_dir(tree, name);
	snprintf(name, sizeof(name), "sys/bus/pci/devices/%s/vfio-dev/%s/dev", address, vfio);
	tree_file(tree, name, node);
}

void tree_node_link(const struct tree *tree, const char *node, const char *address)
{
	char name[128], target[128];

	snprintf(name, sizeof(name), "sys/dev/char/%s", node);
	tree_dir(tree, name);
	snprintf(name, sizeof(name), "sys/dev/char/%s/device", node);
	snprintf(target, sizeof(target), "sys/bus/pci/devices/%s", address);
	tree_link(tree, name, target);
}

int tree_setup(void **state)
{
	struct tree *tree = calloc(1, sizeof(*tree));

	assert_non_null(tree);
	tree->descriptors = count_descriptors();
	strcpy(tree->root, "/tmp/iommufd-test-XXXXXX");
	assert_non_null(mkdtemp(tree->root));
	assert_int_equal(chmod(tree->root, 0755), 0);
	snprintf(tree->sysfs, sizeof(tree->sysfs), "%s/sys", tree->root);
	snprintf(tree->vfio_dir, sizeof(tree->vfio_dir), "%s/vfio", tree->root);
	tree_dir(tree, "sys/bus/pci/devices");
	tree_dir(tree, "vfio/devices");
	*state = tree;
	return 0;
}

static int remove_entry(const char *path, const struct stat *status, int flag, struct FTW *walk)
{
	return remove(path);
}

int tree_teardown(void **state)
{
	struct tree *tree = *state;
	int leaked = count_descriptors() - tree->descriptors;

	nftw(tree->root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(tree);
	if (leaked)
		print_error("%d descriptors were left open\n", leaked);
	return leaked ? -1 : 0;
}
