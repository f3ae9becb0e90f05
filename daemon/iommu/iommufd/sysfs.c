/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Reading sysfs; see sysfs.h. Layout (Documentation/ABI/testing/sysfs-devices-vfio-dev,
 * Documentation/arch/s390/pci.rst):
 *
 *     bus/pci/devices/ADDRESS -> ../../../devices/...      a directory for each function
 *     bus/pci/devices/ADDRESS/function_id                  "0x%08x", on s390
 *     bus/pci/devices/ADDRESS/vfio-dev/vfioN/dev           "MAJOR:MINOR", when at a VFIO driver
 *     dev/char/MAJOR:MINOR -> ../../devices/.../vfio-dev/vfioN
 *     .../vfio-dev/vfioN/device -> the function
 *
 * Only the kernel writes here, so a wrong form is no attack; it is refused all the same, since
 * names read here become parts of paths.
 */

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "iommu/iommufd/sysfs.h"

#define ADDRESS_TAIL_LENGTH 8 /* ":bb:ss.f" */
#define DOMAIN_DIGITS_MIN   4

static bool is_hex(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!isxdigit((unsigned char)text[i]))
			return false;
	}
	return true;
}

int sysfs_pci_address(char ret[SYSFS_PCI_ADDRESS_BYTES], const char *text)
{
	size_t length = strnlen(text, SYSFS_PCI_ADDRESS_BYTES), domain;
	const char *tail;

	if (length >= SYSFS_PCI_ADDRESS_BYTES || length < DOMAIN_DIGITS_MIN + ADDRESS_TAIL_LENGTH)
		return EINVAL;
	domain = length - ADDRESS_TAIL_LENGTH;
	tail = text + domain;
	if (!is_hex(text, domain) || tail[0] != ':' || !is_hex(tail + 1, 2) || tail[3] != ':' ||
	    !is_hex(tail + 4, 2) || tail[6] != '.')
		return EINVAL;
	/* 32 devices of 8 functions on a bus */
	if ((tail[4] != '0' && tail[4] != '1') || tail[7] < '0' || tail[7] > '7')
		return EINVAL;
	for (size_t i = 0; i <= length; i++)
		ret[i] = (char)tolower((unsigned char)text[i]);
	return 0;
}

/* Reads a small attribute as one line of text. */
static int read_line(char *ret, size_t bytes, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n;
	int error;

	if (fd < 0)
		return errno == ENOTDIR ? ENOENT : errno;
	do
		n = read(fd, ret, bytes - 1);
	while (n < 0 && errno == EINTR);
	error = n < 0 ? errno : 0;
	close(fd);
	if (error)
		return error;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return 0;
}

static int join(char ret[PATH_MAX], const char *format, const char *a, const char *b, const char *c)
{
	int n = snprintf(ret, PATH_MAX, format, a, b, c);

	return n < 0 || n >= PATH_MAX ? ENAMETOOLONG : 0;
}

int sysfs_pci_number(uint32_t *ret, const char *sysfs, const char *pci_address,
		     const char *attribute)
{
	char path[PATH_MAX], line[32], *rest;
	unsigned long long value;
	int error;

	error = join(path, "%s/bus/pci/devices/%s/%s", sysfs, pci_address, attribute);
	if (!error)
		error = read_line(line, sizeof(line), path);
	if (error)
		return error;
	if (!isdigit((unsigned char)line[0]))
		return EIO;
	errno = 0;
	value = strtoull(line, &rest, 0);
	if (errno || *rest || value > UINT32_MAX)
		return EIO;
	*ret = (uint32_t)value;
	return 0;
}

int sysfs_pci_by_fid(char ret[SYSFS_PCI_ADDRESS_BYTES], const char *sysfs, uint32_t fid)
{
	char path[PATH_MAX], address[SYSFS_PCI_ADDRESS_BYTES];
	int error = join(path, "%s/bus/pci/devices%s%s", sysfs, "", "");
	struct dirent *entry;
	uint32_t found;
	DIR *dir;

	if (error)
		return error;
	dir = opendir(path);
	if (!dir)
		return errno;
	error = ENOENT;
	while (error && (entry = readdir(dir))) {
		if (sysfs_pci_address(address, entry->d_name))
			continue;
		if (!sysfs_pci_number(&found, sysfs, address, "function_id") && found == fid) {
			memcpy(ret, address, sizeof(address));
			error = 0;
		}
	}
	closedir(dir);
	return error;
}

/* "vfioN" */
static bool is_vfio_name(const char *name)
{
	size_t length = strlen(name);

	return !strncmp(name, "vfio", 4) && length > 4 && length < SYSFS_VFIO_NAME_BYTES &&
	       strspn(name + 4, "0123456789") == length - 4;
}

static int parse_node(dev_t *ret, const char *line)
{
	unsigned int major_number, minor_number;
	char rest;

	if (sscanf(line, "%u:%u%c", &major_number, &minor_number, &rest) != 2)
		return EIO;
	*ret = makedev(major_number, minor_number);
	return 0;
}

/* The one entry of a function's vfio-dev directory. */
static int find_vfio_name(char ret[SYSFS_VFIO_NAME_BYTES], const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int error = ENOENT;

	if (!dir)
		return errno == ENOTDIR ? ENOENT : errno;
	while (error && (entry = readdir(dir))) {
		if (!is_vfio_name(entry->d_name))
			continue;
		memcpy(ret, entry->d_name, strlen(entry->d_name) + 1);
		error = 0;
	}
	closedir(dir);
	return error;
}

int sysfs_vfio_of_pci(struct sysfs_vfio *ret, const char *sysfs, const char *pci_address)
{
	char dir[PATH_MAX], path[PATH_MAX], line[32];
	struct sysfs_vfio vfio = {0};
	int error;

	error = sysfs_pci_address(vfio.pci_address, pci_address);
	if (!error)
		error = join(dir, "%s/bus/pci/devices/%s/%s", sysfs, vfio.pci_address, "vfio-dev");
	if (!error)
		error = find_vfio_name(vfio.name, dir);
	if (!error)
		error = join(path, "%s/%s/%s", dir, vfio.name, "dev");
	if (!error)
		error = read_line(line, sizeof(line), path);
	if (!error)
		error = parse_node(&vfio.node, line);
	if (!error)
		*ret = vfio;
	return error;
}

/* Last component of what a link leads to. ENOENT: no such link. */
static int link_base(char *ret, size_t bytes, const char *path)
{
	char target[PATH_MAX];
	const char *base;

	if (!realpath(path, target))
		return errno;
	base = strrchr(target, '/');
	base = base ? base + 1 : target;
	if (strlen(base) >= bytes)
		return ENAMETOOLONG;
	memcpy(ret, base, strlen(base) + 1);
	return 0;
}

int sysfs_vfio_of_node(struct sysfs_vfio *ret, const char *sysfs, dev_t node)
{
	char path[PATH_MAX], number[32], function[SYSFS_PCI_ADDRESS_BYTES];
	struct sysfs_vfio vfio;

	snprintf(number, sizeof(number), "%u:%u", major(node), minor(node));
	if (join(path, "%s/dev/char/%s/%s", sysfs, number, "device") ||
	    link_base(function, sizeof(function), path))
		return EINVAL;
	/* The other way round: only the VFIO device of a PCI function has its number there. */
	if (sysfs_vfio_of_pci(&vfio, sysfs, function) || vfio.node != node)
		return EINVAL;
	*ret = vfio;
	return 0;
}
