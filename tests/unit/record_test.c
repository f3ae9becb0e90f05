/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Records: what one version writes another reads, and what is damaged nobody does. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "state/record.h"

struct former {
	uint64_t a;
	uint32_t b;
};

struct latter {
	uint64_t a;
	uint32_t b, c;
	uint64_t d;
};

static const struct former former = {.a = 0x0123456789abcdef, .b = 77};
static const struct latter latter = {.a = 11, .b = 22, .c = 33, .d = 44};

static struct record_reader reader_of(const struct record_writer *writer)
{
	assert_false(writer->failed);
	return (struct record_reader){.bytes = writer->bytes, .n = writer->n};
}

static struct record next(struct record_reader *reader)
{
	struct record record;

	assert_int_equal(record_next(reader, &record), 1);
	return record;
}

static void assert_end(struct record_reader *reader)
{
	struct record record;

	assert_int_equal(record_next(reader, &record), 0);
	assert_int_equal(reader->at, reader->n);
}

/* A shorter struct is filled up with zeros, a longer one cut, whatever was in the array. */
static void test_versions(void **state)
{
	struct record_writer writer = {0};
	struct record_reader reader;
	struct record record;
	struct latter read_latter;
	struct former read_former;

	(void)state;
	record_put(&writer, 1, 0, &former, sizeof(former), NULL, 0);
	record_put(&writer, 2, 0, &latter, sizeof(latter), NULL, 0);
	reader = reader_of(&writer);
	record = next(&reader);
	memset(&read_latter, 0xff, sizeof(read_latter));
	record_get(&record, &read_latter, sizeof(read_latter));
	assert_true(read_latter.a == former.a && read_latter.b == former.b);
	assert_true(!read_latter.c && !read_latter.d);
	record = next(&reader);
	record_get(&record, &read_former, sizeof(read_former));
	assert_true(read_former.a == latter.a && read_former.b == latter.b);
	assert_end(&reader);
	record_writer_free(&writer);
}

/* Fixed parts and tails of any length come back, each aligned, as do type and flags. */
static void test_lengths(void **state)
{
	struct record_writer writer = {0};
	struct record_reader reader;
	uint8_t bytes[64];

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(200 + i);
	for (uint32_t n = 0; n < 32 * 32; n++)
		record_put(&writer, (uint16_t)(n + 60000), n % 2 ? RECORD_MUST_KNOW : 0, bytes,
			   n / 32, bytes + 32, n % 32);
	reader = reader_of(&writer);
	assert_int_equal(writer.n % 8, 0);
	for (uint32_t n = 0; n < 32 * 32; n++) {
		struct record record = next(&reader);

		assert_int_equal(record.type, n + 60000);
		assert_int_equal(record.flags, n % 2 ? RECORD_MUST_KNOW : 0);
		assert_int_equal(record.fixed_bytes, n / 32);
		assert_int_equal(record.tail_bytes, n % 32);
		assert_memory_equal(record.fixed, bytes, n / 32);
		assert_memory_equal(record.tail, bytes + 32, n % 32);
		assert_int_equal((uintptr_t)record.fixed % 8, 0);
		assert_int_equal((uintptr_t)record.tail % 8, 0);
	}
	assert_end(&reader);
	record_writer_free(&writer);
}

/* A reader skips what it does not know by doing nothing; what it must know is marked. */
static void test_unknown_types(void **state)
{
	struct record_writer writer = {0};
	struct record_reader reader;
	struct record record;

	(void)state;
	record_put(&writer, 999, 0, &latter, sizeof(latter), "tail", 4);
	record_put(&writer, 1000, RECORD_MUST_KNOW, NULL, 0, NULL, 0);
	record_put(&writer, 1, 0, &former, sizeof(former), NULL, 0);
	reader = reader_of(&writer);
	record = next(&reader);
	assert_int_equal(record.type, 999);
	assert_false(record.flags & RECORD_MUST_KNOW);
	record = next(&reader);
	assert_true(record.flags & RECORD_MUST_KNOW);
	record = next(&reader);
	assert_int_equal(record.type, 1);
	assert_end(&reader);
	record_writer_free(&writer);
}

static void test_clear_keeps_memory(void **state)
{
	struct record_writer writer = {0};
	struct record_reader reader;
	const uint8_t *bytes;

	(void)state;
	for (int i = 0; i < 1000; i++)
		record_put(&writer, 1, 0, &latter, sizeof(latter), NULL, 0);
	bytes = writer.bytes;
	writer.failed = true;
	record_put(&writer, 3, 0, &latter, sizeof(latter), NULL, 0);
	assert_int_equal(writer.n, 1000 * (16 + sizeof(latter)));
	record_writer_clear(&writer);
	record_put(&writer, 2, 0, &former, sizeof(former), NULL, 0);
	assert_ptr_equal(writer.bytes, bytes);
	reader = reader_of(&writer);
	assert_int_equal(next(&reader).type, 2);
	assert_end(&reader);
	record_writer_free(&writer);
	assert_null(writer.bytes);
	assert_int_equal(writer.capacity, 0);
	reader = (struct record_reader){0};
	assert_end(&reader);
}

/* ── damage ────────────────────────────────────────────────────────────────────────────────── */

static void write_some(struct record_writer *writer)
{
	for (uint16_t i = 0; i < 20; i++)
		record_put(writer, i, i % 2, &latter, i, "abcdefghijklmnopqrst", i);
}

/* Reads on from a copy that ends where its memory ends, so that ASan sees a byte too many. */
static int read_copy(const uint8_t *bytes, size_t n, size_t *ret_records)
{
	struct record_reader reader = {.n = n};
	uint8_t *copy = malloc(n ? n : 1);
	struct record record;
	uint8_t sum = 0;
	int status;

	assert_non_null(copy);
	memcpy(copy, bytes, n);
	reader.bytes = copy;
	*ret_records = 0;
	while ((status = record_next(&reader, &record)) == 1) {
		for (uint32_t i = 0; i < record.fixed_bytes; i++)
			sum ^= record.fixed[i];
		for (uint32_t i = 0; i < record.tail_bytes; i++)
			sum ^= record.tail[i];
		(*ret_records)++;
		assert_in_range(reader.at, 16, n);
	}
	*(volatile uint8_t *)&sum = sum;
	free(copy);
	return status;
}

/* Cut between records it is a shorter sequence, cut anywhere else an error. */
static void test_truncations(void **state)
{
	struct record_writer writer = {0};
	size_t whole = 0, records;

	(void)state;
	write_some(&writer);
	for (size_t n = 0; n <= writer.n; n++) {
		int status = read_copy(writer.bytes, n, &records);

		assert_true(status == 0 || status == -EBADMSG);
		whole += status == 0;
		if (status == 0)
			assert_int_equal(records, whole - 1);
	}
	assert_int_equal(whole, 21);
	record_writer_free(&writer);
}

static void test_random_damage(void **state)
{
	struct record_writer writer = {0};
	size_t errors = 0, records;
	uint8_t *copy;

	(void)state;
	srandom(1);
	write_some(&writer);
	copy = malloc(writer.n);
	assert_non_null(copy);
	for (int i = 0; i < 10000; i++) {
		int status;

		memcpy(copy, writer.bytes, writer.n);
		for (long j = random() % 4; j >= 0; j--)
			copy[(size_t)random() % writer.n] = (uint8_t)random();
		status = read_copy(copy, writer.n, &records);
		assert_true(status == 0 || status == -EBADMSG);
		errors += status != 0;
	}
	assert_true(errors > 1000);
	free(copy);
	record_writer_free(&writer);
}

/* Lengths whose sum is 0 in 32 bits, or beyond all that is there. */
static void test_lengths_that_wrap(void **state)
{
	static const uint32_t lengths[] = {1, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff};
	_Alignas(8) uint32_t bytes[16] = {0};
	size_t records;

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		for (size_t j = 0; j < 5; j++) {
			bytes[1] = lengths[i];
			bytes[2] = lengths[j];
			if (i || j)
				assert_int_equal(
					read_copy((uint8_t *)bytes, sizeof(bytes), &records),
					-EBADMSG);
		}
	}
	bytes[1] = bytes[2] = 0;
	assert_int_equal(read_copy((uint8_t *)bytes, sizeof(bytes), &records), 0);
	assert_int_equal(records, 4);
	bytes[3] = 1; /* where nothing is yet */
	assert_int_equal(read_copy((uint8_t *)bytes, sizeof(bytes), &records), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),          cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_unknown_types),     cmocka_unit_test(test_clear_keeps_memory),
		cmocka_unit_test(test_truncations),       cmocka_unit_test(test_random_damage),
		cmocka_unit_test(test_lengths_that_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
