/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What of a client's bytes reaches the log, and how often. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "util/log.h"
#include "util/utf8.h"

static char seen_text[LOG_TEXT_BYTES], seen_fields[LOG_FIELDS_MAX][LOG_FIELD_BYTES];
static size_t seen_n_fields;
static enum log_level seen_level;

static void see(enum log_level level, const char *text, const char (*fields)[LOG_FIELD_BYTES],
		size_t n_fields)
{
	seen_level = level;
	strcpy(seen_text, text);
	memcpy(seen_fields, fields, n_fields * LOG_FIELD_BYTES);
	seen_n_fields = n_fields;
}

static int setup(void **state)
{
	(void)state;
	log_set_sink(see);
	return 0;
}

static void test_escape(void **state)
{
	static const struct {
		const char *raw, *escaped;
	} texts[] = {
		{"plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x99\x82",
		 "plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x99\x82"},
		{"line\nbreak\ttab\x7f", "line\\x0abreak\\x09tab\\x7f"},
		{"\x1b[31mred", "\\x1b[31mred"},
		{"\xff\xc3(", "\\xff\\xc3("},
		{"\xc0\xaf\xed\xa0\x80", "\\xc0\\xaf\\xed\\xa0\\x80"},
		{"", ""},
		/* a C1 control, a line's end and a turn of direction, beside what may stay */
		{"\xc2\x9b"
		 "2J\xe2\x80\xa8\xe2\x80\xae\xe2\x81\xa6 \xc3\xa9\xe2\x82\xac",
		 "\\xc2\\x9b2J\\xe2\\x80\\xa8\\xe2\\x80\\xae\\xe2\\x81\\xa6 \xc3\xa9\xe2\x82\xac"},
	};
	char escaped[100];

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		log_escape(escaped, sizeof(escaped), texts[i].raw);
		assert_string_equal(escaped, texts[i].escaped);
	}
}

static void test_escape_is_bounded(void **state)
{
	char small[6] = "#####";

	(void)state;
	log_escape(small, 5, "abcdefgh");
	assert_string_equal(small, "abcd");
	log_escape(small, 5, "abc\n");
	assert_string_equal(small, "abc"); /* no half of an escape */
	log_escape(small, 4, "ab\xe2\x82\xac");
	assert_string_equal(small, "ab"); /* no half of a character */
	log_escape(small, 1, "a");
	assert_string_equal(small, "");
}

static void test_entry(void **state)
{
	struct log_entry entry;
	char name[LOG_FIELD_BYTES + 10];

	(void)state;
	log_begin(&entry, LOG_LEVEL_WARNING);
	log_field(&entry, "NAME", "%s", "a\nMESSAGE=forged");
	memset(name, 'N', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	log_field(&entry, name, "dropped");
	for (size_t i = 0; i < LOG_FIELDS_MAX + 3; i++)
		log_field(&entry, "N", "%zu", i);
	entry.suppressed = 3;
	log_end(&entry, "client %s", "x\ny");
	assert_int_equal(seen_level, LOG_LEVEL_WARNING);
	assert_string_equal(seen_text, "client x\\x0ay (after 3 more that are not shown)");
	assert_int_equal(seen_n_fields, LOG_FIELDS_MAX);
	assert_string_equal(seen_fields[0], "NAME=a\\x0aMESSAGE=forged");
	assert_string_equal(seen_fields[1], "N=0");
	log_error("plain %d", 5);
	assert_int_equal(seen_level, LOG_LEVEL_ERROR);
	assert_string_equal(seen_text, "plain 5");
}

static void test_rate(void **state)
{
	struct log_rate rate = {0};
	uint64_t now_ns = 1000 * LOG_RATE_INTERVAL_NS;
	uint32_t suppressed;

	(void)state;
	for (size_t i = 0; i < LOG_RATE_BURST; i++) {
		assert_true(log_rate_allow(&rate, now_ns, &suppressed));
		assert_int_equal(suppressed, 0);
	}
	for (size_t i = 0; i < 5; i++)
		assert_false(log_rate_allow(&rate, now_ns + i, &suppressed));
	now_ns += LOG_RATE_INTERVAL_NS;
	assert_true(log_rate_allow(&rate, now_ns, &suppressed));
	assert_int_equal(suppressed, 5);
	assert_false(log_rate_allow(&rate, now_ns, &suppressed));
	now_ns += 1000 * LOG_RATE_INTERVAL_NS;
	for (size_t i = 0; i < LOG_RATE_BURST; i++)
		assert_true(log_rate_allow(&rate, now_ns, &suppressed));
	assert_false(log_rate_allow(&rate, now_ns, &suppressed));
}

static void test_utf8(void **state)
{
	static const struct {
		const char *text;
		size_t bytes;
		bool valid;
	} texts[] = {
		{"", 0, true},
		{"a", 1, true},
		{"a\0b", 3, false},
		{"\x80", 1, false},
		{"\xc1\xbf", 2, false},
		{"\xc2\x80", 2, true},
		{"\xdf", 1, false},
		{"\xe0\x9f\xbf", 3, false},
		{"\xe0\xa0\x80", 3, true},
		{"\xed\x9f\xbf", 3, true},
		{"\xed\xa0\x80", 3, false}, /* surrogate */
		{"\xef\xbf\xbf", 3, true},
		{"\xf0\x8f\xbf\xbf", 4, false},
		{"\xf0\x90\x80\x80", 4, true},
		{"\xf4\x8f\xbf\xbf", 4, true},
		{"\xf4\x90\x80\x80", 4, false}, /* above U+10FFFF */
		{"\xf5\x80\x80\x80", 4, false},
		{"\xe2\x82", 2, false},
		{"\xe2\x82z", 3, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(utf8_is_text((const uint8_t *)texts[i].text, texts[i].bytes),
				 texts[i].valid);
}

static void test_repair(void **state)
{
	char text[] = "ok \xc3\xa4 \xff cut \xe2\x82";

	(void)state;
	utf8_repair(text);
	assert_string_equal(text, "ok \xc3\xa4 ? cut ??");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_escape_is_bounded),
		cmocka_unit_test_setup(test_entry, setup),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_repair),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
