/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What may be guest memory: every kind of descriptor, open mode and seal, and unpopulated files. */
#include "broker_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/guest.h"
#include "broker/memory_file.h"
#include "broker/root.h"

static struct fixture *fixture_new(const struct broker_settings *settings)
{
	static struct fixture f;

	fixture_init(&f, settings);
	assert_done(&f, guest_make(&f, &f.guest));
	return &f;
}

static int setup(void **state)
{
	struct broker_settings settings = settings_default();

	*state = fixture_new(&settings);
	return 0;
}

static int teardown(void **state)
{
	fixture_deinit(*state);
	return 0;
}

static int add(struct fixture *f, int consume_fd, bool writable)
{
	struct memory_file_added added;

	return memory_file_add(f->broker, f->session, f->guest, consume_fd, writable, &added,
			       &f->refusal);
}

static void assert_bad(struct fixture *f, int consume_fd, bool writable, const char *field,
		       const char *words)
{
	assert_true(consume_fd >= 0);
	assert_refused(f, add(f, consume_fd, writable), REFUSAL_INVALID);
	assert_string_equal(f->refusal.field, field);
	if (!strstr(f->refusal.message, words))
		fail_msg("\"%s\" does not say \"%s\"", f->refusal.message, words);
	assert_int_equal(fcntl(consume_fd, F_GETFD), -1); /* consumed */
}

static int sized(int fd, off_t bytes)
{
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, bytes), 0);
	return fd;
}

static int memfd_of(off_t bytes)
{
	return sized(memfd_create("guest memory", MFD_CLOEXEC | MFD_ALLOW_SEALING), bytes);
}

static int memfd_sealed(int seals)
{
	int fd = memfd_of(PAGE);

	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int memfd_reopened(int flags)
{
	int fd = memfd_of(PAGE), again;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	close(fd);
	return again;
}

static void test_other_kinds(void **state)
{
	int pair[2];

	assert_int_equal(pipe(pair), 0);
	assert_bad(*state, pair[0], false, "descriptor", "is a pipe");
	close(pair[1]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_bad(*state, pair[0], false, "descriptor", "is a socket");
	close(pair[1]);
	assert_bad(*state, open("/dev/null", O_RDWR), true, "descriptor", "is a character device");
	assert_bad(*state, open("/proc/self", O_RDONLY | O_DIRECTORY), false, "descriptor",
		   "is a directory");
	assert_bad(*state, open("/proc/self/exe", O_RDONLY), false, "descriptor",
		   "is an ordinary file");
	assert_bad(*state, eventfd(0, 0), true, "descriptor", "is no file");
}

static void test_closed_descriptor(void **state)
{
	int fd = memfd_of(PAGE);

	close(fd);
	assert_refused((struct fixture *)*state, add(*state, fd, true), REFUSAL_INVALID);
}

static void test_open_modes(void **state)
{
	assert_bad(*state, memfd_reopened(O_PATH), false, "descriptor", "O_PATH");
	assert_bad(*state, memfd_reopened(O_WRONLY), true, "descriptor", "writing only");
	assert_bad(*state, memfd_reopened(O_RDONLY), true, "writable", "reading only");
	assert_done((struct fixture *)*state, add(*state, memfd_reopened(O_RDONLY), false));
	assert_done((struct fixture *)*state, add(*state, memfd_reopened(O_RDWR), true));
}

static void test_write_seals(void **state)
{
	assert_bad(*state, memfd_sealed(F_SEAL_WRITE), true, "writable", "sealed against writing");
	assert_bad(*state, memfd_sealed(F_SEAL_FUTURE_WRITE), true, "writable",
		   "sealed against writing");
	assert_done((struct fixture *)*state, add(*state, memfd_sealed(F_SEAL_WRITE), false));
}

static void test_lengths(void **state)
{
	struct fixture *f = *state;
	struct memory_file_added added;

	assert_bad(f, memfd_of(0), true, "descriptor", "0 bytes");
	assert_bad(f, memfd_of(PAGE + 1), true, "descriptor", "4097 bytes");
	assert_done(f, memory_file_add(f->broker, f->session, f->guest, memfd_of(3 * PAGE), true,
				       &added, &f->refusal));
	assert_int_equal(added.length_bytes, 3 * PAGE);
	assert_int_equal(added.page_bytes, 4096);
	assert_int_not_equal(added.memory_file, 0);
}

static void check_shrink_seal(enum broker_seals policy, bool unsealed, bool unsealable)
{
	struct broker_settings settings = settings_default();
	struct fixture *f;
	int plain;

	settings.require_seals = policy;
	f = fixture_new(&settings);
	assert_done(f, add(f, memfd_sealed(F_SEAL_SHRINK), true));
	if (unsealed)
		assert_done(f, add(f, memfd_of(PAGE), true));
	else
		assert_bad(f, memfd_of(PAGE), true, "descriptor", "F_SEAL_SHRINK");
	plain = sized(memfd_create("plain", MFD_CLOEXEC), PAGE);
	if (unsealable)
		assert_done(f, add(f, plain, true));
	else
		assert_bad(f, plain, true, "descriptor", "cannot be sealed");
	fixture_deinit(f);
}

static void test_seal_policies(void **state)
{
	check_shrink_seal(BROKER_SEALS_OFF, true, true);
	check_shrink_seal(BROKER_SEALS_PERMISSIVE, false, true);
	check_shrink_seal(BROKER_SEALS_REQUIRED, false, false);
}

static void test_number_of_files(void **state)
{
	struct fixture *f = *state;
	struct memory_file_added added;

	for (int i = 0; i < 64; i++)
		assert_done(f, memory_file_add(f->broker, f->session, f->guest, memfd_of(PAGE),
					       true, &added, &f->refusal));
	assert_refused(f, add(f, memfd_of(PAGE), true), REFUSAL_QUOTA);
	assert_string_equal(f->refusal.resource, "memory_files");
	assert_done(f, memory_file_remove(f->broker, f->session, f->guest, added.memory_file,
					  &f->refusal));
	assert_done(f, add(f, memfd_of(PAGE), true));
}

/* A user's files over all guests: each takes a descriptor and a mapping of the daemon's. */
static void test_number_of_files_of_a_user(void **state)
{
	struct broker_settings settings = settings_default();
	struct memory_file_added added;
	struct fixture f;
	uint64_t other;

	(void)state;
	limit_set(&settings, LIMIT_TENANT, LEDGER_MEMORY_FILES, 4); /* one is the fixture's */
	fixture_init_guest(&f, &settings);
	assert_done(&f, guest_make(&f, &other));
	for (int i = 0; i < 2; i++)
		assert_done(&f, add(&f, memfd_of(PAGE), true));
	assert_done(&f, memory_file_add(f.broker, f.session, other, memfd_of(PAGE), true, &added,
					&f.refusal));
	assert_refused(&f, add(&f, memfd_of(PAGE), true), REFUSAL_QUOTA);
	assert_string_equal(f.refusal.rule, limit_place(LIMIT_TENANT));
	assert_done(&f,
		    memory_file_remove(f.broker, f.session, other, added.memory_file, &f.refusal));
	assert_done(&f, add(&f, memfd_of(PAGE), true));
	assert_refused(&f, add(&f, memfd_of(PAGE), true), REFUSAL_QUOTA);
	fixture_deinit(&f);
}

static void test_remove(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_filled(2 * PAGE, NULL);
	uint64_t file = file_add(f, fd, true);

	assert_done(f, memory_map_one(f, file, 0, 0, PAGE, true));
	assert_refused(f, memory_file_remove(f->broker, f->session, f->guest, file, &f->refusal),
		       REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "MEMORY_FILE_IN_USE");
	assert_done(f, memory_unmap_one(f, 0, UINT64_MAX));
	assert_done(f, memory_file_remove(f->broker, f->session, f->guest, file, &f->refusal));
	assert_refused(f, memory_file_remove(f->broker, f->session, f->guest, file, &f->refusal),
		       REFUSAL_NOT_FOUND);
	close(fd);
}

/* A file means something in its own guest only. */
static void test_file_of_another_guest(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_filled(PAGE, NULL);
	uint64_t file = file_add(f, fd, true);

	assert_done(f, guest_make(f, &f->guest));
	assert_refused(f, memory_map_one(f, file, 0, 0, PAGE, true), REFUSAL_NOT_FOUND);
	assert_string_equal(f->refusal.field, "map[0].memory_file");
	assert_refused(f, memory_file_remove(f->broker, f->session, f->guest, file, &f->refusal),
		       REFUSAL_NOT_FOUND);
	close(fd);
}

/* ── populated or not ──────────────────────────────────────────────────────────────────────── */

static void test_sparse_is_refused(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_of(8 * PAGE);
	uint64_t file = file_add(f, fd, true);
	struct stat st;

	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	assert_int_equal(pwrite(fd, "x", 1, 2 * PAGE), 1);
	assert_refused(f, memory_map_one(f, file, 0, 0, 3 * PAGE, true), REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "UNPOPULATED_MEMORY");
	assert_string_equal(f->refusal.field, "map[0]");
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 2 * 8); /* nothing was allocated by looking */
	assert_int_equal(host_usage(f, LEDGER_PINNED_BYTES).current, 0);
	/* Only what is mapped has to be there. */
	assert_done(f, memory_map_one(f, file, 0, 0, PAGE, true));
	assert_done(f, memory_map_one(f, file, 2 * PAGE, PAGE, PAGE, true));
	close(fd);
}

/* Allocated and never written: it is its owner's already, and is cleared, as the kernel would pin
 * what stood there before. */
static void test_allocated_is_cleared(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_of(8 * PAGE);
	uint64_t file = file_add(f, fd, true);

	assert_int_equal(fallocate(fd, 0, 0, 8 * PAGE), 0);
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), 0);
	assert_done(f, memory_map_one(f, file, 0, 0, 4 * PAGE, true));
	assert_true(lseek(fd, 0, SEEK_HOLE) >= (off_t)(4 * PAGE));
	close(fd);
}

static void test_charge_populates(void **state)
{
	struct broker_settings settings = settings_default();
	struct fixture *f;
	struct stat st;
	uint64_t file;
	int fd;

	settings.unpopulated_memory = BROKER_UNPOPULATED_CHARGE;
	f = fixture_new(&settings);
	fd = memfd_of(8 * PAGE);
	file = file_add(f, fd, true);
	assert_done(f, memory_map_one(f, file, PAGE, 0, 4 * PAGE, true));
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 4 * 8); /* what is mapped and no more */
	close(fd);
	fixture_deinit(f);
}

/* The position belongs to the file's owner. */
static void test_position_is_left_alone(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_filled(4 * PAGE, NULL);
	uint64_t file = file_add(f, fd, true);

	assert_int_equal(lseek(fd, 1234, SEEK_SET), 1234);
	assert_done(f, memory_map_one(f, file, 0, 0, 4 * PAGE, true));
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 1234);
	close(fd);
}

/* What was mapped while nothing was pinned is looked at again when it is. */
static void test_hole_made_before_the_bind(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_filled(8 * PAGE, NULL);
	uint64_t file = file_add(f, fd, true);
	struct function function = function_open(f, 1);
	struct device_description description;

	assert_done(f, memory_map_one(f, file, 0, 0, 8 * PAGE, true));
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, PAGE), 0);
	assert_refused(f,
		       device_bind(f->broker, f->session, function.device, NULL, NULL, &description,
				   &f->refusal),
		       REFUSAL_PRECONDITION);
	assert_string_equal(f->refusal.reason, "UNPOPULATED_MEMORY");
	assert_non_null(strstr(f->refusal.message, "the device was closed"));
	assert_int_equal(host_usage(f, LEDGER_DEVICES).current, 0);
	assert_int_equal(host_usage(f, LEDGER_PINNED_BYTES).current, 8 * PAGE);
	function_free(&function);
	/* Once it is there again, everything is as if nothing had been. */
	assert_int_equal(pwrite(fd, "x", 1, PAGE), 1);
	function = function_bind(f, 1);
	function_free(&function);
	close(fd);
}

/* Whether the kernel could pin the file through our mapping of it for a device that writes. */
static bool host_can_be_written(struct fixture *f, uint64_t handle)
{
	struct guest *guest = guest_find(f->broker, f->session, f->guest, &f->refusal);
	struct memory_file *file = memory_file_find(guest, handle, &f->refusal);
	int fd = memfd_filled(PAGE, NULL);
	ssize_t n;

	assert_non_null(file);
	/* through the kernel, which answers EFAULT where we would die */
	n = pread(fd, (void *)(uintptr_t)file->host, 1, 0);
	close(fd);
	guest_unref(guest);
	return n == 1;
}

/* Kernels without MAP_FILE pin through our mapping: it needs the rights that the guest has, and
 * there no more than those. */
static void test_host_mapping_without_map_file(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_filled(PAGE, NULL);

	assert_false(host_can_be_written(f, file_add(f, fd, true)));
	f->broker->features.map_file = false;
	assert_true(host_can_be_written(f, file_add(f, fd, true)));
	assert_false(host_can_be_written(f, file_add(f, fd, false)));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_other_kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_closed_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_open_modes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write_seals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lengths, setup, teardown),
		cmocka_unit_test(test_seal_policies),
		cmocka_unit_test_setup_teardown(test_number_of_files, setup, teardown),
		cmocka_unit_test(test_number_of_files_of_a_user),
		cmocka_unit_test_setup_teardown(test_remove, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_of_another_guest, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sparse_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_allocated_is_cleared, setup, teardown),
		cmocka_unit_test(test_charge_populates),
		cmocka_unit_test_setup_teardown(test_position_is_left_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hole_made_before_the_bind, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_mapping_without_map_file, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
