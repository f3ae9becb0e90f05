/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A guest's state file when the process that works on it is killed: after each of its stores, one
 * instruction after another, and at times that nobody chose, thousands of times. What a successor
 * finds is the content before the commit that was under way or the one behind it, and every extent
 * that it tells of as it was.
 *
 * The writer works through a script: commits of many lengths, extents made, filled and told of,
 * told of no more and freed. It notes in shared memory which step it begins and which is done.
 */

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "state/state_file.h"
#include "util/fd.h"

#define EXTENTS_MAX  4
#define LENGTH_MAX   9000
#define TAIL_RUN     128 /* bytes that are alike; it is told by instructions, one at a time */
#define KILLS        3000
#define STEPS_TRACED 16

struct told_extent {
	uint64_t offset, bytes, seed;
};

/* The content, and behind it bytes whose number and values follow from the step. */
struct told {
	uint64_t step, n_extents;
	struct told_extent extents[EXTENTS_MAX];
};

struct notes {
	_Atomic uint64_t begun, done;
};

struct writer {
	struct state_file *file;
	struct told told;
	struct state_extent extents[EXTENTS_MAX];
	struct notes *notes;
};

static struct notes *notes;

static int setup(void **state)
{
	(void)state;
	notes = mmap(NULL, sizeof(*notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	return notes == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	return munmap(notes, sizeof(*notes));
}

/* ── the writer ────────────────────────────────────────────────────────────────────────────── */

static size_t tail_length(uint64_t step)
{
	return step * 977 % (step % 8 == 7 ? LENGTH_MAX : 200);
}

static uint8_t tail_byte(uint64_t step, size_t i)
{
	return (uint8_t)(step * 31 + i / TAIL_RUN);
}

static bool commit(struct writer *writer)
{
	static uint8_t bytes[sizeof(struct told) + LENGTH_MAX + TAIL_RUN];
	const size_t length = tail_length(writer->told.step);

	memcpy(bytes, &writer->told, sizeof(writer->told));
	for (size_t i = 0; i < length; i += TAIL_RUN)
		memset(bytes + sizeof(writer->told) + i, tail_byte(writer->told.step, i), TAIL_RUN);
	return !state_file_commit(writer->file, bytes, sizeof(writer->told) + length);
}

static bool extent_make(struct writer *writer)
{
	struct told *told = &writer->told;
	struct state_extent *extent = &writer->extents[told->n_extents];

	if (state_extent_new(writer->file, 1 + told->step * 1500 % 9000, extent))
		return false;
	for (uint64_t i = 0; i < extent->bytes; i += 128)
		if (((uint8_t *)extent->memory)[i])
			return false;
	memset(extent->memory, (int)(told->step | 1), extent->bytes);
	told->extents[told->n_extents++] = (struct told_extent){
		.offset = extent->offset,
		.bytes = extent->bytes,
		.seed = told->step | 1,
	};
	return commit(writer);
}

/* First it is told of no more, then it goes. */
static bool extent_drop(struct writer *writer)
{
	struct told *told = &writer->told;
	struct state_extent extent = writer->extents[0];

	told->n_extents--;
	memmove(told->extents, told->extents + 1, told->n_extents * sizeof(*told->extents));
	memmove(writer->extents, writer->extents + 1, told->n_extents * sizeof(extent));
	if (!commit(writer))
		return false;
	state_extent_free(writer->file, &extent);
	return true;
}

static bool write_step(struct writer *writer)
{
	struct told *told = &writer->told;
	bool well;

	told->step++;
	atomic_store(&writer->notes->begun, told->step);
	if (told->step % 5 == 1 && told->n_extents < EXTENTS_MAX)
		well = extent_make(writer);
	else if (told->step % 5 == 3 && told->n_extents > 1)
		well = extent_drop(writer);
	else
		well = commit(writer);
	atomic_store(&writer->notes->done, told->step);
	atomic_store(state_word(writer->file, 0), told->step);
	return well;
}

/* ── the successor ─────────────────────────────────────────────────────────────────────────── */

static void assert_tail(const uint8_t *bytes, size_t n, uint64_t step)
{
	assert_int_equal(n, tail_length(step));
	for (size_t i = 0; i < n; i++)
		if (bytes[i] != tail_byte(step, i))
			fail_msg("byte %zu of step %lu is another's", i, (unsigned long)step);
}

static void adopt_extents(struct writer *writer)
{
	for (uint64_t i = 0; i < writer->told.n_extents; i++) {
		const struct told_extent *told = &writer->told.extents[i];
		struct state_extent *extent = &writer->extents[i];

		assert_int_equal(
			state_extent_adopt(writer->file, told->offset, told->bytes, extent), 0);
		for (uint64_t at = 0; at < extent->bytes; at++)
			if (((uint8_t *)extent->memory)[at] != (uint8_t)told->seed)
				fail_msg("extent %lu is not as it was", (unsigned long)i);
	}
}

/* What is there was told by the last step that was done, or by the one that was begun. */
static void adopt(struct writer *writer, int consume_fd)
{
	const uint64_t done = atomic_load(&notes->done), begun = atomic_load(&notes->begun);
	const uint8_t *content;
	const char *why = "?";
	size_t n;

	*writer = (struct writer){.notes = notes};
	if (state_file_adopt(&writer->file, consume_fd, &why))
		fail_msg("after step %lu: %s", (unsigned long)done, why);
	content = state_file_content(writer->file, &n);
	if (!content) {
		assert_int_equal(done, 0);
		return;
	}
	assert_true(n >= sizeof(writer->told));
	memcpy(&writer->told, content, sizeof(writer->told));
	assert_in_range(writer->told.step, done, begun);
	assert_tail(content + sizeof(writer->told), n - sizeof(writer->told), writer->told.step);
	assert_in_range(atomic_load(state_word(writer->file, 0)), done ? done - 1 : 0, done);
	adopt_extents(writer);
}

/* And it can go on: two steps more, and another successor finds them. */
static void go_on(struct writer *writer)
{
	int fd = fd_duplicate(state_file_fd(writer->file));
	const struct notes former = {atomic_load(&notes->begun), atomic_load(&notes->done)};

	assert_true(write_step(writer) && write_step(writer));
	state_file_free(writer->file);
	adopt(writer, fd);
	atomic_store(&notes->begun, former.begun);
	atomic_store(&notes->done, former.done);
}

static void assert_nothing_leaks(const struct writer *writer)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct stat stat;

	assert_int_equal(fstat(state_file_fd(writer->file), &stat), 0);
	/* the header, two copies of three pages and the slack, and extents of up to three */
	assert_in_range((uint64_t)stat.st_blocks * 512 / page, 1, 1 + 2 * 4 + EXTENTS_MAX * 3);
}

/* ── kills at times that nobody chose ──────────────────────────────────────────────────────── */

static pid_t writer_start(struct writer *writer)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		for (;;)
			if (!write_step(writer))
				_exit(1);
	return pid;
}

static void writer_kill(pid_t pid)
{
	const struct timespec pause = {.tv_nsec = random() % 400000};
	int status;

	nanosleep(&pause, NULL);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_killed_at_any_time(void **state)
{
	struct writer writer = {.notes = notes};
	uint64_t between = 0;

	(void)state;
	srandom(1);
	assert_int_equal(state_file_new(&writer.file, "killed"), 0);
	for (int i = 0; i < KILLS; i++) {
		int fd = fd_duplicate(state_file_fd(writer.file));

		writer_kill(writer_start(&writer));
		between += atomic_load(&notes->begun) != atomic_load(&notes->done);
		state_file_free(writer.file);
		adopt(&writer, fd);
		atomic_store(&notes->begun, writer.told.step);
		atomic_store(&notes->done, writer.told.step);
		atomic_store(state_word(writer.file, 0), writer.told.step);
		if (i % 64 == 0) {
			assert_true(write_step(&writer));
			assert_nothing_leaks(&writer);
		}
	}
	state_file_free(writer.file);
	/* or they were never in the middle of anything */
	assert_true(between > KILLS / 100);
}

/* ── kills after each store ────────────────────────────────────────────────────────────────── */

struct image {
	uint8_t *bytes;
	size_t n;
};

static bool image_differs(const struct image *image, int fd, const uint8_t *memory)
{
	struct stat stat;

	assert_int_equal(fstat(fd, &stat), 0);
	return (size_t)stat.st_size != image->n || memcmp(image->bytes, memory, image->n) != 0;
}

static void image_take(struct image *image, int fd)
{
	struct stat stat;

	assert_int_equal(fstat(fd, &stat), 0);
	free(image->bytes);
	image->n = (size_t)stat.st_size;
	image->bytes = malloc(image->n);
	assert_non_null(image->bytes);
	assert_int_equal(pread(fd, image->bytes, image->n, 0), image->n);
}

static void image_check(const struct image *image)
{
	int fd = memfd_create("as it was", MFD_CLOEXEC);
	struct writer writer;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, image->bytes, image->n), image->n);
	adopt(&writer, fd);
	go_on(&writer);
	state_file_free(writer.file);
}

/* Stopped before its first step. -1: this machine does not trace. */
static pid_t traced_start(struct writer *writer)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(2);
		raise(SIGSTOP);
		for (int i = 0; i < STEPS_TRACED; i++)
			if (!write_step(writer))
				_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSTOPPED(status))
		return -1;
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL);
	return pid;
}

/* One instruction. false: it ended, and well. */
static bool traced_step(pid_t pid)
{
	int status;

	assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSTOPPED(status))
		return true;
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	return false;
}

static void test_killed_after_each_store(void **state)
{
	const size_t window = 1 << 20;
	struct writer writer = {.notes = notes};
	struct image image = {0};
	size_t states = 0;
	uint8_t *memory;
	pid_t pid;
	int fd;

	(void)state;
	atomic_store(&notes->begun, 0);
	atomic_store(&notes->done, 0);
	assert_int_equal(state_file_new(&writer.file, "traced"), 0);
	fd = state_file_fd(writer.file);
	memory = mmap(NULL, window, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	pid = traced_start(&writer);
	if (pid > 0) {
		do {
			if (image_differs(&image, fd, memory)) {
				image_take(&image, fd);
				image_check(&image);
				states++;
			}
		} while (traced_step(pid));
		assert_true(states > STEPS_TRACED * 10);
	}
	free(image.bytes);
	munmap(memory, window);
	state_file_free(writer.file);
	if (pid < 0)
		skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_at_any_time),
		cmocka_unit_test(test_killed_after_each_store),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
