/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See kept_function.h. Only a function without a driver can be enabled by hand. */

#include "kept_function.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "machine.h"

#define PCI "/sys/bus/pci"

static void text_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	REQUIRE_EQUAL((uint64_t)write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* The node is a new one then, and root's. */
static void node_give(const char *address)
{
	char path[300];
	struct dirent *entry;
	bool given = false;
	DIR *folder;

	snprintf(path, sizeof(path), PCI "/devices/%s/vfio-dev", address);
	folder = opendir(path);
	REQUIRE(folder != NULL);
	while ((entry = readdir(folder)) != NULL) {
		if (strncmp(entry->d_name, "vfio", 4) != 0)
			continue;
		snprintf(path, sizeof(path), "/dev/vfio/devices/%s", entry->d_name);
		given = chown(path, 0, DAEMON_UID) == 0 && chmod(path, 0660) == 0;
	}
	closedir(folder);
	REQUIRE(given);
}

static void enable_write(const char *address, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), PCI "/devices/%s/driver/unbind", address);
	text_write(path, address);
	snprintf(path, sizeof(path), PCI "/devices/%s/enable", address);
	text_write(path, value);
	text_write(PCI "/drivers_probe", address);
	node_give(address);
}

void kept_function_enable(const char *address)
{
	enable_write(address, "1");
}

void kept_function_release(const char *address)
{
	enable_write(address, "0");
}
