/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A guest's state file: content, extents and words, and what of a damaged file is read. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "state/state_file.h"
#include "util/fd.h"

static size_t page;
static struct state_file *file;

static int setup(void **state)
{
	(void)state;
	page = (size_t)sysconf(_SC_PAGESIZE);
	return state_file_new(&file, "state file test");
}

static int teardown(void **state)
{
	(void)state;
	file = state_file_free(file);
	return 0;
}

static void commit(const char *text)
{
	assert_int_equal(state_file_commit(file, text, strlen(text)), 0);
}

static void assert_content(const char *text)
{
	size_t n;
	const void *content = state_file_content(file, &n);

	assert_int_equal(n, strlen(text));
	assert_memory_equal(content, text, n);
}

static void assert_none(void)
{
	size_t n = 1;

	assert_null(state_file_content(file, &n));
	assert_int_equal(n, 0);
}

/* Another process has it now. */
static void hand_over(void)
{
	const char *why = "?";
	int fd = fd_duplicate(state_file_fd(file));

	file = state_file_free(file);
	assert_int_equal(state_file_adopt(&file, fd, &why), 0);
}

static uint64_t pages_in_use(void)
{
	struct stat stat;

	assert_int_equal(fstat(state_file_fd(file), &stat), 0);
	return (uint64_t)stat.st_blocks * 512 / page;
}

/* ── content ───────────────────────────────────────────────────────────────────────────────── */

static void test_name(void **state)
{
	char longest[STATE_FILE_NAME_BYTES], name[STATE_FILE_NAME_BYTES];
	struct state_file *other;
	int fd;

	(void)state;
	state_file_name(state_file_fd(file), name);
	assert_string_equal(name, "state file test");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	for (const char *text = longest;; text = "") {
		assert_int_equal(state_file_new(&other, text), 0);
		state_file_name(state_file_fd(other), name);
		assert_string_equal(name, text);
		state_file_free(other);
		if (!*text)
			break;
	}
	/* Others': one of ours, of a version before they had names; one that is no file. */
	fd = memfd_create("iommubroker guest", 0);
	state_file_name(fd, name);
	assert_string_equal(name, "");
	fd_close(fd);
	fd = memfd_create("", 0);
	state_file_name(fd, name);
	assert_string_equal(name, "");
	fd_close(fd);
	state_file_name(-1, name);
	assert_string_equal(name, "");
}

static void test_content(void **state)
{
	(void)state;
	assert_none();
	assert_int_equal(state_file_sequence(file), 0);
	hand_over();
	assert_none();
	commit("first");
	assert_content("first");
	commit("the second");
	assert_content("the second");
	hand_over();
	assert_content("the second");
	assert_int_equal(state_file_sequence(file), 2);
	commit("3");
	assert_content("3");
	assert_int_equal(state_file_commit(file, NULL, 0), 0);
	assert_none();
	hand_over();
	assert_none();
	assert_int_equal(state_file_sequence(file), 4);
	commit("fifth");
	hand_over();
	assert_content("fifth");
}

static void test_descriptor_is_not_inherited(void **state)
{
	(void)state;
	assert_true(fcntl(state_file_fd(file), F_GETFD) & FD_CLOEXEC);
}

static void test_content_stays_until_the_next_commit_but_one(void **state)
{
	const char *first;
	size_t n;

	(void)state;
	commit("first");
	first = state_file_content(file, &n);
	commit("the second");
	assert_memory_equal(first, "first", 5);
}

/* Contents of all lengths around whole pages, and what grew and shrank leaves no pages behind. */
static void test_lengths(void **state)
{
	char *bytes = malloc(40 * page);

	(void)state;
	assert_non_null(bytes);
	for (size_t i = 0; i < 40 * page; i++)
		bytes[i] = (char)(i * 31 + i / 256);
	for (size_t n = 0; n < 40; n++) {
		for (size_t odd = page - 1; odd <= page + 1; odd++) {
			const size_t length = n * page + odd > 40 * page ? 0 : n * page + odd;
			size_t got;

			assert_int_equal(
				state_file_commit(file, bytes + n, length ? length - n : 0), 0);
			hand_over();
			if (!length)
				continue;
			assert_memory_equal(state_file_content(file, &got), bytes + n, length - n);
			assert_int_equal(got, length - n);
		}
	}
	free(bytes);
	assert_in_range(pages_in_use(), 40, 2 * 46);
	for (int i = 0; i < 2; i++) {
		commit("short");
		hand_over();
	}
	commit("short");
	assert_in_range(pages_in_use(), 3, 3);
}

static void test_too_much_content(void **state)
{
	void *bytes = mmap(NULL, STATE_CONTENT_MAX + 1, PROT_READ,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	(void)state;
	assert_ptr_not_equal(bytes, MAP_FAILED);
	commit("before");
	assert_int_equal(state_file_commit(file, bytes, STATE_CONTENT_MAX + 1), -EFBIG);
	assert_content("before");
	hand_over();
	assert_content("before");
	munmap(bytes, STATE_CONTENT_MAX + 1);
}

/* Without a place for the new content the old one holds, and what fits comes through. */
static void test_no_room_for_content(void **state)
{
	const size_t n = 64 * page;
	struct rlimit former, limit;
	void *bytes = calloc(1, n);

	(void)state;
	assert_non_null(bytes);
	commit("before");
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &former), 0);
	limit = (struct rlimit){.rlim_cur = 8 * page, .rlim_max = former.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(state_file_commit(file, bytes, n), -ENOSPC);
	assert_content("before");
	hand_over();
	assert_content("before");
	assert_int_equal(state_file_commit(file, bytes, n), -ENOSPC);
	commit("behind");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &former), 0);
	assert_content("behind");
	assert_int_equal(state_file_commit(file, bytes, n), 0);
	free(bytes);
}

static void test_words(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < STATE_FILE_WORDS; i++) {
		assert_int_equal(atomic_load(state_word(file, i)), 0);
		atomic_store(state_word(file, i), UINT64_MAX - i);
	}
	commit("beside words");
	hand_over();
	for (unsigned int i = 0; i < STATE_FILE_WORDS; i++)
		assert_true(atomic_load(state_word(file, i)) == UINT64_MAX - i);
	assert_content("beside words");
}

/* ── extents ───────────────────────────────────────────────────────────────────────────────── */

static bool all_bytes(const struct state_extent *extent, uint8_t value)
{
	const uint8_t *bytes = extent->memory;

	for (uint64_t i = 0; i < extent->bytes; i++)
		if (bytes[i] != value)
			return false;
	return true;
}

static struct state_extent extent_new(uint64_t bytes, uint8_t fill)
{
	struct state_extent extent;

	assert_int_equal(state_extent_new(file, bytes, &extent), 0);
	assert_true(all_bytes(&extent, 0));
	memset(extent.memory, fill, extent.bytes);
	return extent;
}

static void extent_adopt(struct state_extent *extent, uint8_t fill)
{
	assert_int_equal(state_extent_adopt(file, extent->offset, extent->bytes, extent), 0);
	assert_true(all_bytes(extent, fill));
}

static void test_extents(void **state)
{
	struct state_extent a = extent_new(1, 1), b = extent_new(3 * page, 2);
	struct state_extent c = extent_new(page + 1, 3), none = {0};

	(void)state;
	assert_int_equal(a.bytes, page);
	assert_int_equal(c.bytes, 2 * page);
	commit("content between");
	state_extent_free(file, &b);
	assert_int_equal(b.bytes, 0);
	state_extent_free(file, &none);
	hand_over();
	extent_adopt(&c, 3);
	extent_adopt(&a, 1);
	b = extent_new(3 * page, 4);
	assert_true(all_bytes(&a, 1) && all_bytes(&c, 3));
	commit("other content");
	hand_over();
	extent_adopt(&a, 1);
	extent_adopt(&b, 4);
	extent_adopt(&c, 3);
	assert_content("other content");
}

/* What a hole held is nobody's to see, and its pages are given back. */
static void test_freed_extent_is_empty(void **state)
{
	struct state_extent a = extent_new(64 * page, 0xaa), b;
	const uint64_t offset = a.offset;

	(void)state;
	assert_in_range(pages_in_use(), 65, 65);
	state_extent_free(file, &a);
	assert_in_range(pages_in_use(), 1, 1);
	b = extent_new(64 * page, 0xbb);
	assert_int_equal(b.offset, offset);
}

/* It is sparse: what nobody wrote to has no pages. */
static void test_large_extent(void **state)
{
	struct state_extent extent;

	(void)state;
	assert_int_equal(state_extent_new(file, UINT64_C(1) << 36, &extent), 0);
	((uint8_t *)extent.memory)[extent.bytes - 1] = 1;
	assert_in_range(pages_in_use(), 2, 2);
	hand_over();
	assert_int_equal(state_extent_adopt(file, extent.offset, extent.bytes, &extent), 0);
	assert_int_equal(((uint8_t *)extent.memory)[extent.bytes - 1], 1);
}

static void test_extents_that_cannot_be(void **state)
{
	static const uint64_t lengths[] = {
		0,          STATE_FILE_BYTES_MAX, STATE_FILE_BYTES_MAX + 1,
		UINT64_MAX, UINT64_MAX - 4095,    UINT64_C(1) << 63};
	struct state_extent extent = {.bytes = 77};

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++)
		assert_int_equal(state_extent_new(file, lengths[i], &extent), -ENOSPC);
	assert_int_equal(extent.bytes, 77);
	commit("still writable");
	hand_over();
	assert_content("still writable");
}

/* What the content does not tell of is left over from a kill: it goes when the successor begins. */
static void test_untold_extents_go(void **state)
{
	struct state_extent told = extent_new(page, 1), untold = extent_new(50 * page, 2);

	(void)state;
	commit("tells of the first");
	commit("tells of the first");
	hand_over();
	extent_adopt(&told, 1);
	assert_in_range(pages_in_use(), 54, 54);
	commit("more");
	assert_in_range(pages_in_use(), 4, 4);
	untold = extent_new(50 * page, 3);
	assert_true(all_bytes(&told, 1));
	state_extent_free(file, &untold);
	hand_over();
	extent_adopt(&told, 1);
}

static void test_adopting_what_cannot_be(void **state)
{
	struct state_extent a = extent_new(4 * page, 1), got = {.bytes = 77};
	struct stat stat;
	uint64_t end;
	size_t n;

	(void)state;
	commit("content");
	assert_int_equal(state_extent_adopt(file, a.offset, a.bytes, &got), -EBADMSG);
	hand_over();
	assert_int_equal(fstat(state_file_fd(file), &stat), 0);
	end = (uint64_t)stat.st_size;
	extent_adopt(&a, 1);
	{
		const uint64_t bad[][2] = {
			{0, page},
			{0, end},
			{a.offset, 0},
			{a.offset, page},
			{a.offset + page, page},
			{a.offset + 3 * page, 2 * page},
			{a.offset + 1, page},
			{a.offset + 4 * page, page - 1},
			{a.offset + 4 * page, page}, /* the content lies there */
			{end, page},
			{end - page, 2 * page},
			{UINT64_MAX - page + 1, page},
			{UINT64_MAX - page + 1, 2 * page},
			{page, UINT64_MAX - page + 1},
			{UINT64_C(1) << 63, UINT64_C(1) << 63},
		};

		for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
			assert_int_equal(state_extent_adopt(file, bad[i][0], bad[i][1], &got),
					 -EBADMSG);
	}
	assert_int_equal(got.bytes, 77);
	assert_non_null(state_file_content(file, &n));
	assert_content("content");
	commit("from here on none is adopted");
	state_extent_free(file, &a);
	assert_int_equal(state_extent_adopt(file, page, page, &got), -EBADMSG);
}

/* ── damage ────────────────────────────────────────────────────────────────────────────────── */

static size_t image_of(uint8_t **ret)
{
	struct stat stat;
	ssize_t n;

	assert_int_equal(fstat(state_file_fd(file), &stat), 0);
	*ret = malloc((size_t)stat.st_size);
	assert_non_null(*ret);
	n = pread(state_file_fd(file), *ret, (size_t)stat.st_size, 0);
	assert_int_equal(n, stat.st_size);
	return (size_t)n;
}

static int image_adopt(const uint8_t *bytes, size_t n, struct state_file **ret, const char **why)
{
	int fd = memfd_create("damaged", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	return state_file_adopt(ret, fd, why);
}

static int descriptors_open(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_no_file_at_all(void **state)
{
	const int before = descriptors_open();
	const char *why = NULL;
	struct state_file *got;
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(state_file_adopt(&got, ends[0], &why), -EBADMSG);
	assert_non_null(why);
	assert_int_equal(state_file_adopt(&got, open("/", O_RDONLY | O_CLOEXEC), &why), -EBADMSG);
	assert_int_equal(state_file_adopt(&got, -1, &why), -EBADF);
	close(ends[1]);
	assert_int_equal(descriptors_open(), before);
}

/* Every length that is too short for what it tells of. */
static void test_truncated_file(void **state)
{
	uint8_t *image;
	size_t n;

	(void)state;
	commit("the former");
	commit("the latter");
	n = image_of(&image);
	assert_int_equal(n, 3 * page);
	for (size_t cut = 0; cut <= n; cut += 8) {
		struct state_file *got = NULL;
		const char *why = NULL;
		int status = image_adopt(image, cut, &got, &why);

		assert_int_equal(status, cut < 2 * page ? -EBADMSG : 0);
		if (status)
			assert_non_null(why);
		state_file_free(got);
	}
	free(image);
}

static void test_foreign_headers(void **state)
{
	uint8_t *image, *copy;
	size_t n;

	(void)state;
	commit("content");
	n = image_of(&image);
	copy = malloc(n);
	assert_non_null(copy);
	/* magic, version, page size: each byte of them counts */
	for (size_t i = 0; i < 16; i++) {
		struct state_file *got;
		const char *why = NULL;

		memcpy(copy, image, n);
		copy[i] ^= 0x80;
		assert_int_equal(image_adopt(copy, n, &got, &why), -EBADMSG);
		assert_non_null(why);
	}
	free(copy);
	free(image);
}

/* The latter content damaged: the former one. Both: an error. */
static void test_damaged_copies(void **state)
{
	const char *why = NULL;
	struct state_file *got;
	uint8_t *image, *at;
	size_t n;

	(void)state;
	commit("the former");
	commit("the latter");
	n = image_of(&image);
	at = memmem(image, n, "the latter", 10);
	assert_non_null(at);
	*at ^= 1;
	assert_int_equal(image_adopt(image, n, &got, &why), 0);
	assert_int_equal(state_file_sequence(got), 1);
	file = state_file_free(file);
	file = got;
	assert_content("the former");
	commit("on with it");
	hand_over();
	assert_content("on with it");
	at = memmem(image, n, "the former", 10);
	at[9] ^= 0x10;
	assert_int_equal(image_adopt(image, n, &got, &why), -EBADMSG);
	free(image);
}

static bool is_one_of(struct state_file *got, const char *former, const char *latter)
{
	size_t n;
	const void *content = state_file_content(got, &n);

	if (n == strlen(former) && !memcmp(content, former, n))
		return true;
	return n == strlen(latter) && !memcmp(content, latter, n);
}

/* Whatever is damaged, what is read was once written, or it is an error; and it goes on. */
static void test_random_damage(void **state)
{
	static const char former[] = "what was there", latter[] = "what is there";
	size_t n, errors = 0, cases = 10000;
	uint8_t *image, *copy;

	(void)state;
	srandom(1);
	commit(former);
	commit(latter);
	n = image_of(&image);
	copy = malloc(n);
	assert_non_null(copy);
	for (size_t i = 0; i < cases; i++) {
		const char *why = NULL;
		struct state_file *got;
		int status;

		memcpy(copy, image, n);
		/* mostly where something is */
		for (long j = random() % 6; j >= 0; j--)
			copy[(size_t)random() % 3 * page + (size_t)random() % 120] =
				(uint8_t)random();
		status = image_adopt(copy, n, &got, &why);
		assert_true(status == 0 || (status == -EBADMSG && why));
		errors += status != 0;
		if (status)
			continue;
		assert_true(is_one_of(got, former, latter));
		assert_int_equal(state_file_commit(got, "next", 4), 0);
		state_file_free(got);
	}
	assert_in_range(errors, cases / 100, cases - cases / 100);
	free(copy);
	free(image);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_name),
		TEST(test_content),
		TEST(test_descriptor_is_not_inherited),
		TEST(test_content_stays_until_the_next_commit_but_one),
		TEST(test_lengths),
		TEST(test_too_much_content),
		TEST(test_no_room_for_content),
		TEST(test_words),
		TEST(test_extents),
		TEST(test_freed_extent_is_empty),
		TEST(test_large_extent),
		TEST(test_extents_that_cannot_be),
		TEST(test_untold_extents_go),
		TEST(test_adopting_what_cannot_be),
		TEST(test_no_file_at_all),
		TEST(test_truncated_file),
		TEST(test_foreign_headers),
		TEST(test_damaged_copies),
		TEST(test_random_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
