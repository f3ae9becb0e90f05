/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The iommufd backend where no kernel interface is needed: which devices and descriptors are
 * refused, how long opening waits, and what is refused before the kernel is asked.
 *
 * /dev/null stands in for what is not there: for a device node, since the made-up sysfs says that
 * its number is that of a VFIO device, and for the iommufd.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "iommu/iommufd/call.h"
#include "iommu/iommufd/iommufd.h"
#include "iommu/iommufd/options.h"
#include "iommufd_tree.h"

#define NOBODY    65534
#define LONG_WAIT UINT64_C(60000000000)

/* /dev/null stands in for the iommufd as well: it opens, and knows no call. */
static struct iommu_backend *backend_of(const struct tree *tree, uint64_t open_wait_ns)
{
	struct iommu_iommufd_options options = {
		.iommu_path = "/dev/null",
		.vfio_dir = tree->vfio_dir,
		.sysfs = tree->sysfs,
		.open_wait_ns = open_wait_ns,
	};
	struct iommu_backend *backend;

	assert_int_equal(iommu_iommufd_new_with(&backend, &options), 0);
	return backend;
}

static int open_address(const struct tree *tree, const char *address)
{
	struct iommu_backend *backend = backend_of(tree, 0);
	struct iommu_device_address named = {0};
	struct iommu_device *device = NULL;
	int error;

	memcpy(named.pci_address, address, strlen(address));
	error = backend->ops->device_open(backend, &named, &device);
	if (error)
		assert_null(device);
	backend->ops->device_close(device);
	backend->ops->free(backend);
	return error;
}

static void nothing_is_there_without_an_iommufd(void **state)
{
	struct iommu_backend *backend = NULL;

	assert_int_equal(iommu_iommufd_new(&backend, "/nowhere/iommu", "/dev/vfio", "/sys"),
			 -ENOENT);
	assert_null(backend);
}

static void what_is_no_iommufd_has_no_features(void **state)
{
	struct iommu_backend *backend = backend_of(*state, 0);
	struct iommu_context *context = NULL;
	struct iommu_features features;

	assert_string_equal(backend->ops->name, "iommufd");
	assert_int_equal(backend->ops->context_new(backend, &context), ENOTTY);
	assert_null(context);
	assert_int_equal(backend->ops->probe(backend, &features), ENOTTY);
	assert_null(backend->ops->context_free(NULL));
	assert_null(backend->ops->device_close(NULL));
	assert_null(backend->ops->free(backend));
}

static void devices_that_are_not_there_are_refused(void **state)
{
	struct tree *tree = *state;

	assert_int_equal(open_address(tree, "0000:00:04"), EINVAL);
	assert_int_equal(open_address(tree, ADDRESS), ENOENT);
	tree_function(tree, ADDRESS, NULL, NULL);
	assert_int_equal(open_address(tree, ADDRESS), ENOENT);
	tree_function(tree, ADDRESS, "vfio0", "1:3\n");
	assert_int_equal(open_address(tree, ADDRESS), ENOENT);
}

static void an_address_needs_its_end(void **state)
{
	struct iommu_backend *backend = backend_of(*state, 0);
	struct iommu_device_address named;
	struct iommu_device *device;

	named.by_fid = false;
	memset(named.pci_address, '0', sizeof(named.pci_address));
	assert_int_equal(backend->ops->device_open(backend, &named, &device), EINVAL);
	backend->ops->free(backend);
}

static void nodes_that_sysfs_does_not_name_are_refused(void **state)
{
	struct tree *tree = *state;
	char path[PATH_MAX];

	tree_function(tree, ADDRESS, "vfio0", "1:3\n");
	tree_file(tree, "vfio/devices/vfio0", "");
	assert_int_equal(open_address(tree, ADDRESS), ENOENT);
	tree_path(tree, path, "vfio/devices/vfio0");
	assert_int_equal(unlink(path), 0);
	/* the right device behind a link, which anyone could have put there */
	assert_int_equal(symlink("/dev/null", path), 0);
	assert_int_equal(open_address(tree, ADDRESS), ENOENT);
}

/* False: this machine lets us make no device node, or use none where the tree is. */
static bool make_null_node(const struct tree *tree, mode_t mode, unsigned int minor_number)
{
	char path[PATH_MAX];
	int fd;

	tree_path(tree, path, "vfio/devices/vfio0");
	if (mknod(path, S_IFCHR | 0600, makedev(1, minor_number)))
		return false;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	close(fd);
	assert_int_equal(chmod(path, mode), 0);
	return true;
}

static void the_node_that_sysfs_names_is_opened(void **state)
{
	struct tree *tree = *state;
	struct iommu_backend *backend = backend_of(tree, 0);
	struct iommu_device_address named = {.by_fid = true, .fid = 0x11};
	struct iommu_device *device;

	tree_function(tree, ADDRESS, "vfio0", "1:3\n");
	tree_file(tree, "sys/bus/pci/devices/" ADDRESS "/function_id", "0x00000011\n");
	if (!make_null_node(tree, 0600, 3)) {
		backend->ops->free(backend);
		print_message("skipped: no device node can be made here\n");
		skip();
	}
	assert_int_equal(open_address(tree, ADDRESS), 0);
	assert_int_equal(backend->ops->device_open(backend, &named, &device), 0);
	assert_true(fcntl(backend->ops->device_fd(device), F_GETFD) & FD_CLOEXEC);
	backend->ops->device_close(device);
	backend->ops->free(backend);
}

static void a_node_of_another_number_is_refused(void **state)
{
	struct tree *tree = *state;

	tree_function(tree, ADDRESS, "vfio0", "1:3\n");
	if (!make_null_node(tree, 0600, 5)) {
		print_message("skipped: no device node can be made here\n");
		skip();
	}
	assert_int_equal(open_address(tree, ADDRESS), ENOENT);
}

static void a_node_that_is_not_ours_is_refused(void **state)
{
	struct tree *tree = *state;
	bool is_root = !geteuid();
	char path[PATH_MAX];

	tree_function(tree, ADDRESS, "vfio0", "1:3\n");
	tree_file(tree, "vfio/devices/vfio0", "");
	tree_path(tree, path, "vfio/devices/vfio0");
	assert_int_equal(chmod(path, 0), 0);
	if (is_root)
		assert_int_equal(seteuid(NOBODY), 0);
	assert_int_equal(open_address(tree, ADDRESS), EACCES);
	if (is_root)
		assert_int_equal(seteuid(0), 0);
}

static void *make_node_late(void *argument)
{
	const struct timespec pause = {.tv_nsec = 5000000};

	nanosleep(&pause, NULL);
	return make_null_node(argument, 0600, 3) ? argument : NULL;
}

static void opening_waits_for_the_node(void **state)
{
	struct tree *tree = *state;
	struct iommu_backend *backend;
	struct iommu_device_address named = {.pci_address = ADDRESS};
	struct iommu_device *device;
	pthread_t thread;
	char path[PATH_MAX];
	void *made;

	tree_function(tree, ADDRESS, "vfio0", "1:3\n");
	if (!make_null_node(tree, 0600, 3)) {
		print_message("skipped: no device node can be made here\n");
		skip();
	}
	tree_path(tree, path, "vfio/devices/vfio0");
	assert_int_equal(unlink(path), 0);
	backend = backend_of(tree, LONG_WAIT);
	assert_int_equal(pthread_create(&thread, NULL, make_node_late, tree), 0);
	assert_int_equal(backend->ops->device_open(backend, &named, &device), 0);
	assert_int_equal(pthread_join(thread, &made), 0);
	assert_non_null(made);
	backend->ops->device_close(device);
	backend->ops->free(backend);
}

static void pauses_grow_and_end(void **state)
{
	struct iommufd_retry none = iommufd_retry_for(0), retry = iommufd_retry_for(LONG_WAIT);
	struct iommufd_retry forever = iommufd_retry_for(UINT64_MAX);
	uint64_t first_ns = retry.pause_ns;

	assert_false(iommufd_retry_again(&none));
	assert_int_equal(forever.deadline_ns, UINT64_MAX);
	assert_true(first_ns > 0);
	assert_true(iommufd_retry_again(&retry));
	assert_int_equal(retry.pause_ns, 2 * first_ns);
	for (int i = 0; i < 8; i++)
		assert_true(iommufd_retry_again(&retry));
	assert_int_equal(retry.pause_ns, 64 * first_ns);
}

/* What a client may send in place of a device's descriptor. */
static void refuse_descriptor(const struct tree *tree, int fd)
{
	struct iommu_backend *backend = backend_of(tree, 0);
	struct iommu_device *device = NULL;

	assert_int_equal(backend->ops->device_open_fd(backend, fd, &device), EINVAL);
	assert_null(device);
	if (fd >= 0) {
		assert_int_equal(fcntl(fd, F_GETFD), -1);
		assert_int_equal(errno, EBADF);
	}
	backend->ops->free(backend);
}

static void descriptors_of_other_things_are_refused(void **state)
{
	struct tree *tree = *state;
	int pair[2];

	tree_function(tree, ADDRESS, "vfio0", "1:3\n");
	tree_node_link(tree, "1:3", ADDRESS);
	refuse_descriptor(tree, -1);
	refuse_descriptor(tree, open("/dev/zero", O_RDWR));
	refuse_descriptor(tree, open("/dev/null", O_RDONLY));
	refuse_descriptor(tree, open("/dev/null", O_WRONLY));
	refuse_descriptor(tree, open("/dev/null", O_RDWR | O_PATH));
	refuse_descriptor(tree, memfd_create("guest", MFD_CLOEXEC));
	refuse_descriptor(tree, open(tree->root, O_RDONLY | O_DIRECTORY));
	refuse_descriptor(tree, open(tree->root, O_RDWR | O_TMPFILE, 0600));
	assert_int_equal(pipe(pair), 0);
	refuse_descriptor(tree, pair[0]);
	refuse_descriptor(tree, pair[1]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	refuse_descriptor(tree, pair[0]);
	refuse_descriptor(tree, pair[1]);
}

static struct iommu_device *null_device(const struct tree *tree, struct iommu_backend *backend)
{
	struct iommu_device *device;

	tree_function(tree, ADDRESS, "vfio0", "1:3\n");
	tree_node_link(tree, "1:3", ADDRESS);
	assert_int_equal(backend->ops->device_open_fd(backend, open("/dev/null", O_RDWR), &device),
			 0);
	return device;
}

static void a_device_comes_in_as_a_descriptor(void **state)
{
	struct iommu_backend *backend = backend_of(*state, 0);
	struct iommu_device *device = null_device(*state, backend);
	struct stat ours, theirs;
	int fd;

	assert_int_equal(backend->ops->device_descriptor(device, &fd), 0);
	assert_int_not_equal(fd, backend->ops->device_fd(device));
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fstat(fd, &theirs), 0);
	assert_int_equal(fstat(backend->ops->device_fd(device), &ours), 0);
	assert_true(ours.st_rdev == theirs.st_rdev);
	close(fd);
	backend->ops->device_close(device);
	backend->ops->free(backend);
}

static void an_unbound_device_is_told_from_sysfs(void **state)
{
	struct tree *tree = *state;
	struct iommu_backend *backend = backend_of(tree, 0);
	struct iommu_device *device = null_device(tree, backend);
	struct iommu_device_info info;

	assert_int_equal(backend->ops->device_info(device, &info), 0);
	assert_int_equal(info.vendor, 0x1234);
	assert_int_equal(info.device, 0x11e8);
	assert_string_equal(info.pci_address, ADDRESS);
	assert_false(info.has_fid);
	assert_int_equal(info.designations, 0);
	assert_int_equal(info.dma_last, 0);
	tree_file(tree, "sys/bus/pci/devices/" ADDRESS "/function_id", "0xfffffffe\n");
	assert_int_equal(backend->ops->device_info(device, &info), 0);
	assert_true(info.has_fid);
	assert_int_equal(info.fid, 0xfffffffe);
	assert_int_equal(info.designations, 0xf);
	tree_file(tree, "sys/bus/pci/devices/" ADDRESS "/function_id", "fid\n");
	assert_int_equal(backend->ops->device_info(device, &info), EIO);
	backend->ops->device_close(device);
	backend->ops->free(backend);
}

static void asking_whether_it_is_held_gives_the_descriptor_up(void **state)
{
	struct iommu_backend *backend = backend_of(*state, 0);
	struct iommu_device *device = null_device(*state, backend);
	int fd = backend->ops->device_fd(device);
	bool held = true;

	/* its node is gone meanwhile */
	assert_int_equal(backend->ops->device_held(device, &held), ENOENT);
	assert_true(held);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_int_equal(backend->ops->device_fd(device), -1);
	backend->ops->device_close(device);
	backend->ops->free(backend);
}

/* A context whose descriptor is none: what comes to the kernel is EBADF. */
static void ranges_are_checked_before_the_kernel(void **state)
{
	struct iommu_context context = {
		.fd = -1, .map_file = true, .select_lock = PTHREAD_MUTEX_INITIALIZER};
	struct iommu_device device = {.fd = -1};
	struct iommu_file file = {.fd = -1, .bytes = 8192};
	uint64_t unmapped = 1;
	uint32_t id;

	assert_int_equal(iommufd_map_file(&context, 1, &file, 4096, 4096, 0, 3), EBADF);
	assert_int_equal(iommufd_map_file(&context, 1, &file, 4096, 4097, 0, 3), EINVAL);
	assert_int_equal(iommufd_map_file(&context, 1, &file, 8193, 0, 0, 3), EINVAL);
	assert_int_equal(iommufd_map_file(&context, 1, &file, UINT64_MAX, 2, 0, 3), EINVAL);
	assert_int_equal(iommufd_map_file(&context, 1, &file, 4096, UINT64_MAX, 0, 3), EINVAL);
	context.map_file = false;
	assert_int_equal(iommufd_map_file(&context, 1, &file, 0, 4096, 0, 3), EOPNOTSUPP);
	file.host = &file;
	assert_int_equal(iommufd_map_file(&context, 1, &file, 0, 4096, 0, 3), EBADF);
	file.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(iommufd_map_file(&context, 1, &file, 0, 4096, 0, 3), EINVAL);
	close(file.fd);
	file.fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(file.fd, 4096), 0);
	assert_int_equal(iommufd_map_file(&context, 1, &file, 0, 4096, 0, 3), EBADF);
	assert_int_equal(iommufd_map_file(&context, 1, &file, 4096, 4096, 0, 3), EINVAL);
	close(file.fd);
	assert_int_equal(iommufd_cut(&context, 1, 4096, 0, &unmapped), EINVAL);
	assert_int_equal(unmapped, 0);
	assert_int_equal(iommufd_cut(&context, 1, UINT64_MAX, 2, &unmapped), EOVERFLOW);
	assert_int_equal(iommufd_cut(&context, 1, UINT64_MAX, 1, &unmapped), EBADF);
	assert_int_equal(iommufd_page_table_new(&context, &device, 1, &id), EINVAL);
	assert_int_equal(iommufd_page_table_new_nested(&context, &device, 1, NULL, &id),
			 EOPNOTSUPP);
	pthread_mutex_destroy(&context.select_lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_there_without_an_iommufd),
		IN_TREE(what_is_no_iommufd_has_no_features),
		IN_TREE(devices_that_are_not_there_are_refused),
		IN_TREE(an_address_needs_its_end),
		IN_TREE(nodes_that_sysfs_does_not_name_are_refused),
		IN_TREE(the_node_that_sysfs_names_is_opened),
		IN_TREE(a_node_of_another_number_is_refused),
		IN_TREE(a_node_that_is_not_ours_is_refused),
		IN_TREE(opening_waits_for_the_node),
		cmocka_unit_test(pauses_grow_and_end),
		IN_TREE(descriptors_of_other_things_are_refused),
		IN_TREE(a_device_comes_in_as_a_descriptor),
		IN_TREE(an_unbound_device_is_told_from_sysfs),
		IN_TREE(asking_whether_it_is_held_gives_the_descriptor_up),
		cmocka_unit_test(ranges_are_checked_before_the_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
