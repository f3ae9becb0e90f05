/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nested_fixture.h"

void nested_test_init(struct test *t, const struct broker_settings *settings)
{
	fixture_init_guest(&t->f, settings);
	t->function = function_bind(&t->f, 1);
	t->root = table_root(&t->f);
}

int nested_setup(void **state)
{
	static struct test t;
	struct broker_settings settings = settings_default();

	nested_test_init(&t, &settings);
	*state = &t;
	return 0;
}

int nested_teardown(void **state)
{
	struct test *t = *state;

	function_free(&t->function);
	fixture_deinit(&t->f);
	return 0;
}

struct nested_created register_tables(struct test *t, bool attach)
{
	return nested_make_s390(&t->f, t->function.device, t->root, FIRST, LAST, attach);
}

uint64_t register_attached(struct test *t)
{
	struct nested_created created = register_tables(t, true);

	assert_int_equal(created.verdict, VERDICT_DONE);
	return created.nested;
}

enum emulated_dma_reason dma_write_at(struct test *t, uint64_t iova)
{
	return emulated_dma_write(t->function.dma, iova, "x", 1, NULL);
}

struct range_result attach_function(struct test *t, enum attachment to, uint64_t nested)
{
	struct range_result walk;

	assert_done(&t->f, device_attach(t->f.broker, t->f.session, t->function.device, to, nested,
					 &walk, &t->f.refusal));
	return walk;
}

struct nested_created replace_anchor(struct test *t, uint64_t nested, uint64_t iota, uint64_t pba,
				     uint64_t pal)
{
	struct nested_created created = {0};

	assert_done(&t->f, nested_replace(t->f.broker, t->f.session, nested, iota, pba, pal,
					  &created, &t->f.refusal));
	return created;
}

struct nested_description describe_nested(struct test *t, uint64_t nested)
{
	struct guest_description *guest;
	struct nested_description description = {0};

	assert_done(&t->f,
		    guest_describe(t->f.broker, t->f.session, t->f.guest, &guest, &t->f.refusal));
	for (size_t i = 0; i < guest->n_nested; i++)
		if (guest->nested[i].nested == nested)
			description = guest->nested[i];
	guest_description_free(guest);
	assert_int_equal(description.nested, nested);
	return description;
}

void destroy_nested(struct test *t, uint64_t nested)
{
	uint64_t dropped;

	assert_done(&t->f,
		    nested_destroy(t->f.broker, t->f.session, nested, &dropped, &t->f.refusal));
}

void assert_nothing_reserved(struct test *t)
{
	assert_int_equal(host_usage(&t->f, LEDGER_NESTED).current, 0);
	assert_int_equal(host_usage(&t->f, LEDGER_MAPPINGS).current, 0);
	assert_int_equal(host_usage(&t->f, LEDGER_TABLE_BYTES).current, 0);
}
