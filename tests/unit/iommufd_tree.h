/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_IOMMUFD_TREE_H
#define IB_TESTS_IOMMUFD_TREE_H

/*
 * A made-up sysfs and a directory of device nodes, in a directory of the test's own: ROOT/sys and
 * ROOT/vfio. Names are relative to ROOT.
 */

#include <limits.h>

#define ADDRESS "0000:00:04.0"

struct tree {
	char root[64];
	char sysfs[128], vfio_dir[128];
	int descriptors; /* open before the test */
};

/* Set-up and teardown of one cmocka test, whose state is the tree. The teardown fails the test that
 * left a descriptor open. */
int tree_setup(void **state);
int tree_teardown(void **state);

void tree_path(const struct tree *tree, char path[PATH_MAX], const char *name);
void tree_dir(const struct tree *tree, const char *name);
void tree_file(const struct tree *tree, const char *name, const char *text);
void tree_link(const struct tree *tree, const char *name, const char *to);
/* A PCI function; vfio: the name of its VFIO device, or NULL; node: its number, "511:0". */
void tree_function(const struct tree *tree, const char *address, const char *vfio,
		   const char *node);
/* sys/dev/char/NODE/device -> the function */
void tree_node_link(const struct tree *tree, const char *node, const char *address);

#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, tree_setup, tree_teardown)

#endif
