/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a process before this one left, made of any bytes: a state file that is adopted is usable,
 * its content can be read record by record, extents of which that tells can be adopted or not, and
 * a commit after that is found by the next who adopts it.
 *
 * Input: a byte that says what follows it:
 *   0  a whole file
 *   1  its content: records; the first 16 bytes of a fixed part are taken for an extent's place
 *   2  for each copy: sequence, offset, bytes, checksum of the content; then a file behind the
 *      header. Descriptions get the checksum that makes them valid.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "state/record.h"
#include "state/state_file.h"
#include "util/fd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As state_file.c has it. */
#define DESCRIPTIONS_AT   16
#define DESCRIPTION_WORDS 5
#define VALID             (UINT64_C(1) << 63)
#define EXTENT_TOUCH_MAX  (1 << 20)

static void require(bool good)
{
	if (!good)
		abort();
}

/* ── making files ──────────────────────────────────────────────────────────────────────────── */

static void write_at(int fd, const void *bytes, size_t n, off_t at)
{
	require(pwrite(fd, bytes, n, at) == (ssize_t)n);
}

static int file_of(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	require(fd >= 0);
	write_at(fd, data, size, 0);
	return fd;
}

/* With an extent and two commits. */
static int file_with_content(const uint8_t *data, size_t size)
{
	struct state_extent extent;
	struct state_file *file;
	int fd;

	require(!state_file_new(&file, "fuzz"));
	require(!state_extent_new(file, 3, &extent));
	memset(extent.memory, 1, extent.bytes);
	require(!state_file_commit(file, "former", 6));
	require(!state_file_commit(file, data, size));
	fd = fd_duplicate(state_file_fd(file));
	state_file_free(file);
	return fd;
}

static int file_with_descriptions(const uint8_t *data, size_t size)
{
	const size_t each = (DESCRIPTION_WORDS - 1) * sizeof(uint64_t);
	int fd = file_with_content((const uint8_t *)"latter", 6);

	for (uint64_t copy = 0; copy < 2 && size >= each; copy++, data += each, size -= each) {
		uint64_t words[1 + DESCRIPTION_WORDS] = {copy};

		memcpy(words + 1, data, each);
		words[DESCRIPTION_WORDS] = VALID | crc32_z(0, (const uint8_t *)words, each + 8);
		write_at(fd, words + 1, DESCRIPTION_WORDS * sizeof(uint64_t),
			 (off_t)(DESCRIPTIONS_AT + copy * DESCRIPTION_WORDS * sizeof(uint64_t)));
	}
	write_at(fd, data, size, sysconf(_SC_PAGESIZE));
	return fd;
}

static int file_make(const uint8_t *data, size_t size)
{
	const uint8_t kind = size ? data[0] % 3 : 0;

	data += !!size;
	size -= !!size;
	if (kind == 1)
		return file_with_content(data, size);
	return kind ? file_with_descriptions(data, size) : file_of(data, size);
}

/* ── reading them ──────────────────────────────────────────────────────────────────────────── */

static void extent_try(struct state_file *file, const struct record *record)
{
	struct state_extent extent = {0};
	uint64_t place[2];

	record_get(record, place, sizeof(place));
	if (state_extent_adopt(file, place[0], place[1], &extent))
		return;
	require(extent.offset == place[0] && extent.bytes == place[1]);
	for (uint64_t at = 0; at < extent.bytes && at < EXTENT_TOUCH_MAX; at += 512)
		((uint8_t *)extent.memory)[at] ^= 1;
	/* nobody else can have it */
	require(state_extent_adopt(file, place[0], place[1], &extent));
	if (place[0] / 4096 % 2)
		state_extent_free(file, &extent);
}

static void records_read(struct state_file *file)
{
	struct record_reader reader = {0};
	struct record record;
	uint8_t sum = 0;

	reader.bytes = state_file_content(file, &reader.n);
	while (record_next(&reader, &record) == 1) {
		for (uint32_t i = 0; i < record.fixed_bytes; i++)
			sum ^= record.fixed[i];
		for (uint32_t i = 0; i < record.tail_bytes; i++)
			sum ^= record.tail[i];
		extent_try(file, &record);
	}
	require(reader.at <= reader.n);
	atomic_fetch_add(state_word(file, STATE_FILE_WORDS - 1), sum);
}

static void successor_check(int consume_fd, uint64_t sequence)
{
	struct state_file *file;
	const char *why;
	size_t n;

	require(!state_file_adopt(&file, consume_fd, &why));
	require(state_file_sequence(file) == sequence);
	require(!memcmp(state_file_content(file, &n), "committed by the successor", 26));
	require(n == 26);
	state_file_free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = file_make(data, size), again = fd_duplicate(fd);
	struct state_extent extent;
	struct state_file *file;
	const char *why = NULL;
	uint64_t sequence;

	if (state_file_adopt(&file, fd, &why)) {
		require(why && *why);
		fd_close(again);
		return 0;
	}
	records_read(file);
	sequence = state_file_sequence(file);
	require(!state_file_commit(file, "committed by the successor", 26));
	require(state_file_sequence(file) == sequence + 1);
	require(!state_extent_new(file, 1, &extent));
	require(!((uint8_t *)extent.memory)[0]);
	state_file_free(file);
	successor_check(again, sequence + 1);
	return 0;
}
