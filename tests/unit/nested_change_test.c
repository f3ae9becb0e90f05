/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nested domains: attachment, replacement, managed entries, explanations. Judged by DMA. */
#include "nested_fixture.h"

#include <errno.h>

#include "broker_invariant.h"

/* ── attachment ────────────────────────────────────────────────────────────────────────────── */

static void test_detached_is_empty(void **state)
{
	struct test *t = *state;
	struct nested_created created;
	struct range_result walk;

	table_map(&t->f, t->root, IOVA, PAGE, true);
	created = register_tables(t, false);
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(created.walk.mapped, 0);
	walk = refresh_one(&t->f, created.nested, IOVA, PAGE); /* deferred to the attachment */
	assert_int_equal(walk.verdict, VERDICT_DONE);
	assert_int_equal(walk.mapped, 0);
	walk = attach_function(t, ATTACHMENT_NESTED, created.nested);
	assert_int_equal(walk.verdict, VERDICT_DONE);
	assert_int_equal(walk.mapped, 1);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	attach_function(t, ATTACHMENT_BLOCKED, 0);
	assert_int_equal(describe_nested(t, created.nested).live_leaves, 0);
	/* What changed meanwhile is seen when it comes back. */
	table_unmap(&t->f, t->root, IOVA);
	table_map(&t->f, t->root, IOVA + PAGE, PAGE, true);
	walk = attach_function(t, ATTACHMENT_NESTED, created.nested);
	assert_int_equal(walk.mapped, 1);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(dma_write_at(t, IOVA + PAGE), EMULATED_DMA_OK);
}

static void test_switch_between_two(void **state)
{
	struct test *t = *state;
	uint64_t other_root = table_root(&t->f);
	uint64_t one, two;

	table_map(&t->f, t->root, IOVA, PAGE, true);
	table_map(&t->f, other_root, IOVA, 2 * PAGE, true);
	one = register_attached(t);
	two = nested_make_s390(&t->f, t->function.device, other_root, FIRST, LAST, false).nested;
	attach_function(t, ATTACHMENT_NESTED, two);
	assert_false(describe_nested(t, one).attached);
	assert_true(describe_nested(t, two).attached);
	assert_int_equal(describe_nested(t, one).live_leaves, 0);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	assert_int_equal(t->f.memory[2 * PAGE], 'x');
	attach_function(t, ATTACHMENT_RELAXED, 0);
	assert_int_equal(describe_nested(t, two).live_leaves, 0);
	attach_function(t, ATTACHMENT_NESTED, one);
	destroy_nested(t, one); /* attached: its device is blocked */
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_BLOCKED);
}

static void test_nested_of_another_device(void **state)
{
	struct test *t = *state;
	struct function two = function_bind(&t->f, 2);
	uint64_t nested = register_attached(t);
	struct range_result walk;

	assert_refused(&t->f,
		       device_attach(t->f.broker, t->f.session, two.device, ATTACHMENT_NESTED,
				     nested, &walk, &t->f.refusal),
		       REFUSAL_INVALID);
	assert_string_equal(t->f.refusal.field, "nested");
	function_free(&two);
}

static void test_reset_guest(void **state)
{
	struct test *t = *state;
	uint32_t destroyed;

	table_map(&t->f, t->root, IOVA, PAGE, true);
	register_attached(t);
	register_tables(t, false);
	assert_done(&t->f,
		    guest_reset(t->f.broker, t->f.session, t->f.guest, &destroyed, &t->f.refusal));
	assert_int_equal(destroyed, 2);
	assert_nothing_reserved(t);
	assert_int_not_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	assert_int_equal(host_usage(&t->f, LEDGER_PINNED_BYTES).current, MEMORY_BYTES);
	register_attached(t);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
}

/* ── replace ───────────────────────────────────────────────────────────────────────────────── */

static void test_replace(void **state)
{
	struct test *t = *state;
	uint64_t other_root = table_root(&t->f), nested;
	struct nested_created created;

	table_map(&t->f, t->root, IOVA, PAGE, true);
	table_map(&t->f, t->root, IOVA + PAGE, 2 * PAGE, true);
	table_map(&t->f, other_root, IOVA, PAGE, true);
	nested = register_attached(t);
	/* What both hold is not even touched: no map can have happened. */
	iommu_emulated_fail_every(t->f.backend, IOMMU_EMULATED_COPY, EIO);
	created = replace_anchor(t, nested, anchor_of(other_root), FIRST, LAST);
	iommu_emulated_fail_every(t->f.backend, 0, 0);
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(created.nested, nested);
	assert_int_equal(created.walk.unmapped, 1);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	assert_int_equal(dma_write_at(t, IOVA + PAGE), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(describe_nested(t, nested).iota, anchor_of(other_root));
	/* A window that leaves it out takes it away. */
	created = replace_anchor(t, nested, anchor_of(other_root), FIRST + MIB, LAST);
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_NOT_MAPPED);
}

static void test_replace_by_a_bad_anchor(void **state)
{
	struct test *t = *state;
	struct nested_created created;
	uint64_t nested;

	table_map(&t->f, t->root, IOVA, PAGE, true);
	nested = register_attached(t);
	created = replace_anchor(t, nested, anchor_of(t->root), 0, LAST);
	assert_int_equal(created.verdict, VERDICT_OPERAND);
	assert_int_equal(created.anchor_fault, S390_ANCHOR_PBA_BELOW_START);
	assert_int_equal(describe_nested(t, nested).first, FIRST);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
}

/* Tables too large: the former anchor is back, with what it showed. */
static void test_replace_out_of_mappings(void **state)
{
	struct test t;
	struct broker_settings settings = settings_default();
	uint64_t other_root, nested;

	settings.nested_mappings_default = 2;
	nested_test_init(&t, &settings);
	other_root = table_root(&t.f);
	table_map(&t.f, t.root, IOVA, PAGE, true);
	for (uint64_t i = 0; i < 3; i++)
		table_map(&t.f, other_root, IOVA + (2 * i + 1) * PAGE, i * PAGE, true);
	nested = register_attached(&t);
	assert_int_equal(replace_anchor(&t, nested, anchor_of(other_root), FIRST, LAST).verdict,
			 VERDICT_RESOURCES);
	assert_int_equal(describe_nested(&t, nested).iota, anchor_of(t.root));
	assert_int_equal(dma_write_at(&t, IOVA), EMULATED_DMA_OK);
	assert_int_equal(dma_write_at(&t, IOVA + PAGE), EMULATED_DMA_NOT_MAPPED);
	/* The same from no tables (T = 0) to these. */
	assert_int_equal(replace_anchor(&t, nested, 0, FIRST, LAST).verdict, VERDICT_DONE);
	assert_int_equal(replace_anchor(&t, nested, anchor_of(other_root), FIRST, LAST).verdict,
			 VERDICT_RESOURCES);
	assert_int_equal(describe_nested(&t, nested).format, NESTED_RELAXED);
	assert_int_equal(dma_write_at(&t, DMA_BASE + 3 * PAGE), EMULATED_DMA_OK);
	assert_int_equal(t.f.memory[3 * PAGE], 'x');
	assert_ledger_is_held(t.f.broker);
	function_free(&t.function);
	fixture_deinit(&t.f);
}

/* From tables to none (T = 0) and back: another page table under the same handle. */
static void test_replace_changes_translation(void **state)
{
	struct test *t = *state;
	struct nested_created created;
	uint64_t nested;

	table_map(&t->f, t->root, IOVA, PAGE, true);
	nested = register_attached(t);
	assert_int_equal(describe_nested(t, nested).live_leaves, 1);
	created = replace_anchor(t, nested, 0, FIRST, LAST);
	assert_int_equal(describe_nested(t, nested).live_leaves,
			 0); /* those of the tables are gone */
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(describe_nested(t, nested).format, NESTED_RELAXED);
	assert_int_equal(dma_write_at(t, DMA_BASE + 3 * PAGE), EMULATED_DMA_OK);
	assert_int_equal(t->f.memory[3 * PAGE], 'x');
	assert_int_equal(refresh_one(&t->f, nested, 0, 1).verdict, VERDICT_DONE);
	assert_int_equal(host_usage(&t->f, LEDGER_MAPPINGS).current, 0);
	created = replace_anchor(t, nested, anchor_of(t->root), FIRST, LAST);
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(created.walk.mapped, 1);
	assert_int_equal(dma_write_at(t, DMA_BASE + 3 * PAGE), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	assert_int_equal(describe_nested(t, nested).mappings_reserved, 65536);
	destroy_nested(t, nested);
	assert_nothing_reserved(t);
}

static void test_relaxed_anchor(void **state)
{
	struct test *t = *state;
	const struct nested_create_request request = {
		.device = t->function.device,
		.attach = true,
		.first = FIRST + MIB / 2, /* amid an area */
		.last = FIRST + 2 * MIB + 3 * PAGE - 1,
	};
	struct nested_created created;

	assert_done(&t->f,
		    nested_create(t->f.broker, t->f.session, &request, &created, &t->f.refusal));
	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_int_equal(describe_nested(t, created.nested).format, NESTED_RELAXED);
	assert_int_equal(dma_write_at(t, DMA_BASE + MIB), EMULATED_DMA_OK);
	assert_int_equal(t->f.memory[MIB], 'x');
	/* Its window holds here too. */
	assert_int_equal(dma_write_at(t, DMA_BASE + MIB / 2 - 1), EMULATED_DMA_NOT_MAPPED);
	assert_int_equal(dma_write_at(t, DMA_BASE + MIB / 2), EMULATED_DMA_OK);
	assert_int_equal(t->f.memory[MIB / 2], 'x');
	assert_int_equal(dma_write_at(t, DMA_BASE + 2 * MIB + 3 * PAGE - 1), EMULATED_DMA_OK);
	assert_int_equal(dma_write_at(t, DMA_BASE + 2 * MIB + 3 * PAGE), EMULATED_DMA_NOT_MAPPED);
	assert_done(&t->f, memory_unmap_one(&t->f, 0, UINT64_MAX));
	assert_int_equal(dma_write_at(t, DMA_BASE + MIB), EMULATED_DMA_NOT_MAPPED);
	assert_ledger_is_held(t->f.broker);
}

/* ── managed ───────────────────────────────────────────────────────────────────────────────── */

static size_t managed_update(struct test *t, uint64_t nested, const struct nested_entry *entries,
			     size_t n, struct range_result *results)
{
	size_t tried = 0;

	assert_done(&t->f, nested_update(t->f.broker, t->f.session, nested, entries, n, results,
					 &tried, &t->f.refusal));
	return tried;
}

static void test_managed(void **state)
{
	struct test *t = *state;
	const struct nested_entry entries[] = {
		{IOVA, 3 * PAGE, 0, true, true},
		{IOVA + PAGE, PAGE, 8 * PAGE, true, true}, /* in place of what stood there */
		{IOVA + 2 * PAGE, PAGE, 0, false, false},
	};
	const struct nested_entry outside[] = {
		{IOVA, PAGE, 0, true, true},
		{IOVA + PAGE, PAGE, MEMORY_BYTES, true, false},
		{IOVA, PAGE, 0, false, false},
	};
	struct range_result results[3];
	struct nested_created created =
		nested_make_managed(&t->f, t->function.device, FIRST, LAST, false);

	assert_int_equal(managed_update(t, created.nested, entries, 3, results), 3);
	assert_int_equal(results[1].mapped, 1);
	assert_int_equal(results[2].unmapped, 1);
	attach_function(t, ATTACHMENT_NESTED, created.nested); /* entries do not wait for it */
	assert_int_equal(dma_write_at(t, IOVA + PAGE), EMULATED_DMA_OK);
	assert_int_equal(t->f.memory[8 * PAGE], 'x');
	assert_int_equal(dma_write_at(t, IOVA + 2 * PAGE), EMULATED_DMA_NOT_MAPPED);
	/* Stops at the first that fails. */
	assert_int_equal(managed_update(t, created.nested, outside, 3, results), 2);
	assert_int_equal(results[1].verdict, VERDICT_OPERAND);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
	/* They stay while the device is elsewhere. */
	attach_function(t, ATTACHMENT_BLOCKED, 0);
	attach_function(t, ATTACHMENT_NESTED, created.nested);
	assert_int_equal(dma_write_at(t, IOVA), EMULATED_DMA_OK);
}

static void test_managed_refused(void **state)
{
	struct test *t = *state;
	const struct nested_entry bad[] = {
		{IOVA + 1, PAGE, 0, true, true},
		{IOVA, PAGE + 1, 0, true, true},
		{IOVA, 0, 0, true, true},
		{IOVA, PAGE, 1, true, true},
		{FIRST - PAGE, PAGE, 0, true, true},
		{LAST - PAGE + 1, 2 * PAGE, 0, true, true},
		{IOVA, -PAGE, 0, true, true},
		{IOVA, PAGE, -PAGE, true, true},
		{FIRST - PAGE, PAGE, 0, false, true},
	};
	struct nested_created created =
		nested_make_managed(&t->f, t->function.device, FIRST, LAST, true);
	uint64_t s390 = register_tables(t, false).nested;
	struct nested_created replaced;
	struct range_result result;
	size_t n;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_refused(&t->f,
			       nested_update(t->f.broker, t->f.session, created.nested, &bad[i], 1,
					     &result, &n, &t->f.refusal),
			       REFUSAL_INVALID);
		assert_string_equal(t->f.refusal.field, "entries[0]");
	}
	assert_refused(&t->f,
		       nested_update(t->f.broker, t->f.session, created.nested, bad, 0, &result, &n,
				     &t->f.refusal),
		       REFUSAL_INVALID);
	assert_refused(
		&t->f,
		nested_update(t->f.broker, t->f.session, s390, bad, 1, &result, &n, &t->f.refusal),
		REFUSAL_PRECONDITION);
	assert_refused(&t->f,
		       nested_replace(t->f.broker, t->f.session, created.nested, anchor_of(t->root),
				      FIRST, LAST, &replaced, &t->f.refusal),
		       REFUSAL_PRECONDITION);
}

static void test_managed_window(void **state)
{
	struct test *t = *state;
	static const struct iommu_range bad[] = {
		{LAST, FIRST}, {FIRST + 1, LAST}, {FIRST, LAST - 1}, {0, LAST}, {FIRST, UINT64_MAX},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct nested_create_request request = {
			.device = t->function.device,
			.format = NESTED_MANAGED,
			.first = bad[i].first,
			.last = bad[i].last,
		};
		struct nested_created created;

		assert_refused(
			&t->f,
			nested_create(t->f.broker, t->f.session, &request, &created, &t->f.refusal),
			REFUSAL_INVALID);
		assert_string_equal(t->f.refusal.field, "managed");
		assert_nothing_reserved(t);
	}
}

/* ── explain ───────────────────────────────────────────────────────────────────────────────── */

static void test_explain(void **state)
{
	struct test *t = *state;
	struct explanation e;
	uint64_t nested;

	table_map(&t->f, t->root, IOVA, PAGE, true);
	nested = register_attached(t);
	assert_done(&t->f,
		    nested_explain(t->f.broker, t->f.session, nested, IOVA + 7, &e, &t->f.refusal));
	assert_int_equal(e.iova, IOVA + 7);
	assert_int_equal(e.tables.n_steps, 3);
	assert_true(e.tables.present && e.installed && e.consistent);
	assert_int_equal(e.installed_gpa, PAGE);
	/* The tables changed, the device does not know yet. */
	table_map(&t->f, t->root, IOVA, PAGE, false);
	assert_done(&t->f, nested_explain(t->f.broker, NULL, nested, IOVA, &e, &t->f.refusal));
	assert_false(e.consistent);
	assert_true(e.installed_writable);
	table_unmap(&t->f, t->root, IOVA);
	assert_done(&t->f, nested_explain(t->f.broker, NULL, nested, IOVA, &e, &t->f.refusal));
	assert_false(e.tables.present);
	assert_false(e.consistent);
	refresh_one(&t->f, nested, IOVA, PAGE);
	assert_done(&t->f, nested_explain(t->f.broker, NULL, nested, IOVA, &e, &t->f.refusal));
	assert_true(e.consistent && !e.installed);
	replace_anchor(t, nested, 0, FIRST, LAST);
	assert_done(&t->f,
		    nested_explain(t->f.broker, NULL, nested, DMA_BASE + PAGE, &e, &t->f.refusal));
	assert_true(e.consistent && e.installed);
	assert_int_equal(e.installed_gpa, PAGE);
	assert_int_equal(e.tables.n_steps, 0);
	destroy_nested(t, nested);
	assert_refused(&t->f, nested_explain(t->f.broker, NULL, nested, IOVA, &e, &t->f.refusal),
		       REFUSAL_NOT_FOUND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, nested_setup, nested_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_detached_is_empty),
		TEST(test_switch_between_two),
		TEST(test_nested_of_another_device),
		TEST(test_reset_guest),
		TEST(test_replace),
		TEST(test_replace_by_a_bad_anchor),
		cmocka_unit_test(test_replace_out_of_mappings),
		TEST(test_replace_changes_translation),
		TEST(test_relaxed_anchor),
		TEST(test_managed),
		TEST(test_managed_refused),
		TEST(test_managed_window),
		TEST(test_explain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
