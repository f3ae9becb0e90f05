/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What lies in the store is not what it was: state files that are damaged as files, of another
 * version or another guest's, descriptors that are missing, swapped or of something else.
 */
#include "left_restore.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/fd.h"

static struct trial trial;

static int state_fd(void)
{
	return trial_fd(&trial, FD_STATE, 0)->fd;
}

static void state_write(const void *bytes, size_t n, off_t at)
{
	assert_int_equal(pwrite(state_fd(), bytes, n, at), n);
}

static void run(bool taken_over)
{
	trial_run(&trial);
	if (trial.taken_over != taken_over)
		fail_msg("%s", taken_over ? trial.log : "it was taken over");
}

static void released(const char *why)
{
	run(false);
	if (!strstr(trial.log, why))
		fail_msg("\"%s\" does not tell \"%s\"", trial.log, why);
}

/* ── the file ──────────────────────────────────────────────────────────────────────────────── */

static void header_changed(off_t at, uint32_t value, const char *why)
{
	trial_begin(&trial);
	state_write(&value, sizeof(value), at);
	released(why);
}

static void test_header(void **state)
{
	(void)state;
	header_changed(0, 0, "no guest's state");
	header_changed(4, 1, "no guest's state");
	header_changed(STATE_VERSION_AT, 0, "a version");
	header_changed(STATE_VERSION_AT, 2, "a version");
	header_changed(STATE_VERSION_AT, UINT32_MAX, "a version");
	header_changed(STATE_PAGE_BYTES_AT, 12345, "other pages");
}

static void copy_spoil(unsigned int copy)
{
	struct state_description description = description_get(state_fd(), copy);
	uint8_t byte;

	assert_true(description.bytes > 0);
	assert_int_equal(
		pread(state_fd(), &byte, 1, (off_t)(description.offset + description.bytes / 2)),
		1);
	byte ^= 1;
	state_write(&byte, 1, (off_t)(description.offset + description.bytes / 2));
}

/* The former copy is one call older: here it lacks an answer, and nothing else. */
static void test_copies(void **state)
{
	(void)state;
	for (int older = 0; older < 2; older++) {
		trial_begin(&trial);
		copy_spoil(description_newer(state_fd()) ^ (unsigned int)older);
		run(true);
		assert_int_equal(trial.pages, LEFT_SHOWN_PAGES);
	}
	trial_begin(&trial);
	copy_spoil(0);
	copy_spoil(1);
	released("neither copy");
}

static void test_descriptions(void **state)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const uint64_t offsets[] = {
		0, 1, page / 2, UINT64_MAX, UINT64_MAX & ~(page - 1), UINT64_C(1) << 45};
	const uint64_t lengths[] = {1, 7, UINT64_C(1) << 28, UINT64_C(1) << 29, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < 6 + 5; i++) {
		struct state_description description;

		trial_begin(&trial);
		description = description_get(state_fd(), description_newer(state_fd()));
		if (i < 6)
			description.offset = offsets[i];
		else
			description.bytes = lengths[i - 6];
		description_put(state_fd(), 0, description);
		description_put(state_fd(), 1, description);
		released("neither copy");
	}
}

/* Its end is missing: what lay there, or all. */
static void test_truncated(void **state)
{
	struct stat stat;

	(void)state;
	for (off_t left_of_8 = 0; left_of_8 < 8; left_of_8++) {
		trial_begin(&trial);
		assert_int_equal(fstat(state_fd(), &stat), 0);
		assert_int_equal(ftruncate(state_fd(), stat.st_size * left_of_8 / 8), 0);
		trial_run(&trial);
	}
	trial_begin(&trial);
	assert_int_equal(ftruncate(state_fd(), 0), 0);
	released("shorter than its header");
}

/* Before anybody is told of it a guest has no content: so nobody misses it. */
static void test_no_content(void **state)
{
	const struct state_description none = {0};

	(void)state;
	trial_begin(&trial);
	content_put(state_fd(), (const uint8_t *)"", 0);
	description_put(state_fd(), description_newer(state_fd()) ^ 1, none);
	trial.unpromised = true;
	run(false);
	assert_string_equal(trial.log, "");
}

/* Any bytes where the shadows' tables lie, and anywhere else but in the header. */
static void test_scribbled(void **state)
{
	struct stat stat;

	(void)state;
	srandom(1);
	for (int i = 0; i < 40; i++) {
		trial_begin(&trial);
		assert_int_equal(fstat(state_fd(), &stat), 0);
		for (int j = 0; j < 400; j++) {
			const uint8_t byte = (uint8_t)random();

			state_write(&byte, 1, 4096 + random() % (stat.st_size - 4096));
		}
		trial_run(&trial);
	}
}

/* ── descriptors ───────────────────────────────────────────────────────────────────────────── */

static void test_anothers_state(void **state)
{
	struct stored_fd *theirs;

	(void)state;
	trial_begin(&trial);
	theirs = left_find(trial.given, trial.n_given, LEFT_NEIGHBOUR, FD_STATE, 0);
	left_replace(trial_fd(&trial, FD_STATE, 0), fd_duplicate(theirs->fd));
	released("another guest's");
}

/* Each that is stored, one at a time, is not there, or is something else. */
static void each_replaced(int (*other)(void), bool ring_too)
{
	const size_t before = descriptors_open();
	size_t n = 1;

	for (size_t i = 0; i < n; i++) {
		struct stored_fd *given;
		enum fd_kind kind;

		trial_begin(&trial);
		n = trial.n_given;
		given = &trial.given[i];
		kind = given->name.kind;
		trial.strangers = kind == FD_DEVICE;
		if (given->name.guest == LEFT_NEIGHBOUR) {
			trial_drop(&trial);
			continue;
		}
		if (other)
			left_replace(given, other());
		else
			trial_lose(&trial, kind, given->name.index);
		run(ring_too && (kind == FD_RING || kind == FD_DOORBELL));
		assert_int_equal(descriptors_open(), before);
	}
}

static int pipe_end(void)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	close(ends[1]);
	return ends[0];
}

static int event(void)
{
	return eventfd(0, EFD_CLOEXEC);
}

static int folder(void)
{
	return open("/", O_RDONLY | O_CLOEXEC);
}

static int empty_file(void)
{
	return memfd_create("empty", MFD_CLOEXEC);
}

static void test_missing(void **state)
{
	(void)state;
	each_replaced(NULL, true);
}

static void test_something_else(void **state)
{
	(void)state;
	each_replaced(pipe_end, true);
	each_replaced(event, true);
	each_replaced(folder, true);
	each_replaced(empty_file, true);
}

static void swapped(enum fd_kind a, uint32_t a_index, enum fd_kind b, uint32_t b_index)
{
	struct stored_fd *first, *second;
	int fd;

	trial_begin(&trial);
	first = trial_fd(&trial, a, a_index);
	second = trial_fd(&trial, b, b_index);
	fd = first->fd;
	first->fd = second->fd;
	second->fd = fd;
	trial.strangers = a != b;
	run(false);
}

static void test_swapped(void **state)
{
	(void)state;
	swapped(FD_MEMORY, 0, FD_MEMORY, 1);
	swapped(FD_DEVICE, 0, FD_DEVICE, 1);
	swapped(FD_DEVICE, 2, FD_DEVICE, 3);
	swapped(FD_DEVICE, 0, FD_MEMORY, 0);
	swapped(FD_STATE, 0, FD_CONTEXT, 0);
	swapped(FD_CONTEXT, 0, FD_DEVICE, 3);
}

/* Names that nobody of ours gives. */
static void test_more(void **state)
{
	static const struct fd_name names[] = {
		{LEFT_VICTIM, FD_MEMORY, 7},   {LEFT_VICTIM, FD_DEVICE, 7},
		{LEFT_VICTIM, FD_CONTEXT, 1},  {LEFT_VICTIM, FD_STATE, 1},
		{LEFT_VICTIM, FD_DOORBELL, 9}, {LEFT_VICTIM, FD_RING, 46655},
	};

	(void)state;
	trial_begin(&trial);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		trial.given[trial.n_given++] = (struct stored_fd){names[i], empty_file()};
	run(true);
	assert_int_equal(trial.pages, LEFT_SHOWN_PAGES);
}

/* The daemon died over it again and again: so it is given up. */
static void test_tries(void **state)
{
	const uint64_t tries = 11;
	/* behind the descriptions, the second word */
	const off_t at = STATE_DESCRIPTIONS_AT + 2 * sizeof(struct state_description) + 8;

	(void)state;
	trial_begin(&trial);
	state_write(&tries, sizeof(tries), at);
	released("again and again");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),         cmocka_unit_test(test_copies),
		cmocka_unit_test(test_descriptions),   cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_no_content),     cmocka_unit_test(test_scribbled),
		cmocka_unit_test(test_anothers_state), cmocka_unit_test(test_missing),
		cmocka_unit_test(test_something_else), cmocka_unit_test(test_swapped),
		cmocka_unit_test(test_more),           cmocka_unit_test(test_tries),
	};

	return cmocka_run_group_tests(tests, trials_setup, trials_teardown);
}
