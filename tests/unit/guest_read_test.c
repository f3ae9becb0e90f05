/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Guarded reads: what they answer, and that memory taken away is an answer and never zeros, while
 * any other SIGBUS still kills.
 */

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "util/guest_read.h"

#define PAGE 4096u

struct file {
	int fd;
	uint8_t *map; /* two pages */
};

static struct file file_new(void)
{
	struct file file = {.fd = memfd_create("guest", MFD_CLOEXEC)};

	/* cmocka has its own SIGBUS handler while a test runs. */
	assert_int_equal(guest_read_init(), 0);
	assert_true(file.fd >= 0);
	assert_int_equal(ftruncate(file.fd, 2 * PAGE), 0);
	file.map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);
	assert_ptr_not_equal(file.map, MAP_FAILED);
	memset(file.map, 0x5a, 2 * PAGE);
	return file;
}

static void file_free(struct file *file)
{
	munmap(file->map, 2 * PAGE);
	close(file->fd);
}

static void test_values(void **state)
{
	struct file file = file_new();
	uint64_t words[4], word = 0;

	((uint64_t *)file.map)[2] = 42;
	assert_true(guest_read_u64(file.map + 16, &word));
	assert_int_equal(word, 42);
	assert_true(guest_read_words(file.map + 8, words, 4));
	assert_int_equal(words[0], UINT64_C(0x5a5a5a5a5a5a5a5a));
	assert_int_equal(words[1], 42);
	assert_true(guest_read_words(NULL, words, 0));
	file_free(&file);
}

static void test_compare(void **state)
{
	struct file file = file_new();
	uint8_t kept[PAGE];

	memcpy(kept, file.map, PAGE);
	assert_int_equal(guest_read_compare(kept, file.map, PAGE), GUEST_SAME);
	for (size_t at = 0; at < PAGE; at += 37) {
		file.map[at] ^= 1;
		assert_int_equal(guest_read_compare(kept, file.map, PAGE), GUEST_DIFFERENT);
		file.map[at] ^= 1;
	}
	file.map[PAGE - 1] ^= 0x80;
	assert_int_equal(guest_read_compare(kept, file.map, PAGE), GUEST_DIFFERENT);
	file_free(&file);
}

static void test_any_clear(void **state)
{
	struct file file = file_new();
	uint64_t *words = (uint64_t *)file.map, bit = UINT64_C(1) << 18;

	for (size_t i = 0; i < PAGE / 8; i++)
		words[i] |= bit;
	for (size_t n = 8; n <= PAGE / 8; n += 8) {
		assert_int_equal(guest_read_any_clear(words, n, bit), GUEST_SAME);
		words[n - 1] &= ~bit;
		assert_int_equal(guest_read_any_clear(words, n, bit), GUEST_DIFFERENT);
		words[n - 1] |= bit;
	}
	for (size_t i = 0; i < 64; i++) {
		words[i] &= ~bit;
		assert_int_equal(guest_read_any_clear(words, 64, bit), GUEST_DIFFERENT);
		words[i] |= bit;
	}
	file_free(&file);
}

static void check_gone(const uint8_t *gone)
{
	uint64_t word = 7, words[8] = {7};
	uint8_t kept[64] = {0};

	assert_false(guest_read_u64(gone, &word));
	assert_int_equal(word, 7);
	assert_false(guest_read_words(gone, words, 8));
	assert_int_equal(guest_read_compare(kept, gone, 64), GUEST_FAULT);
	assert_int_equal(guest_read_any_clear(gone, 8, 1), GUEST_FAULT);
}

static void test_gone(void **state)
{
	struct file file = file_new();
	uint64_t words[16], word;

	assert_int_equal(ftruncate(file.fd, PAGE), 0);
	/* Again and again: the signal must not stay blocked, the span not stay open. */
	for (int i = 0; i < 100; i++)
		check_gone(file.map + PAGE + 64 * (i % 32));
	/* Across the edge, and what is still there. */
	assert_false(guest_read_words(file.map + PAGE - 64, words, 16));
	assert_true(guest_read_words(file.map + PAGE - 64, words, 8));
	assert_int_equal(ftruncate(file.fd, 2 * PAGE), 0);
	assert_true(guest_read_u64(file.map + PAGE, &word));
	assert_int_equal(word, 0);
	file_free(&file);
}

static void *gone_thread(void *argument)
{
	static char read_gone[] = "a page that is gone was read";
	static char not_read[] = "a page that is there was not read";
	struct file *file = argument;

	for (int i = 0; i < 2000; i++) {
		uint64_t word;

		if (guest_read_u64(file->map + PAGE, &word))
			return read_gone;
		if (!guest_read_u64(file->map, &word))
			return not_read;
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct file file = file_new();
	pthread_t threads[4];

	assert_int_equal(ftruncate(file.fd, PAGE), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, gone_thread, &file), 0);
	for (int i = 0; i < 4; i++) {
		void *failure;

		pthread_join(threads[i], &failure);
		assert_null(failure);
	}
	file_free(&file);
}

/* Runs in a child; how it ended. */
static int child_signal(void (*act)(const uint8_t *gone))
{
	struct file file = file_new();
	int status;
	pid_t pid;

	assert_int_equal(ftruncate(file.fd, PAGE), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		act(file.map + PAGE);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	file_free(&file);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void act_unguarded(const uint8_t *gone)
{
	*(volatile const uint8_t *)gone;
}

static void act_unguarded_after(const uint8_t *gone)
{
	uint64_t word;

	/* The span of a read that failed must not cover what comes after it. */
	if (!guest_read_u64(gone, &word))
		*(volatile const uint8_t *)gone;
}

static void act_sent(const uint8_t *gone)
{
	raise(SIGBUS);
}

static void act_guarded(const uint8_t *gone)
{
	uint64_t word;

	(void)guest_read_u64(gone, &word);
}

static void test_others_kill(void **state)
{
	assert_int_equal(child_signal(act_guarded), 0);
	assert_int_equal(child_signal(act_unguarded), SIGBUS);
	assert_int_equal(child_signal(act_unguarded_after), SIGBUS);
	assert_int_equal(child_signal(act_sent), SIGBUS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),    cmocka_unit_test(test_compare),
		cmocka_unit_test(test_any_clear), cmocka_unit_test(test_gone),
		cmocka_unit_test(test_threads),   cmocka_unit_test(test_others_kill),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
