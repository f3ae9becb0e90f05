/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A guest that goes on without its VMM: kept, resumed, charged to somebody else, or over. */

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "broker_fixture.h"

#define DATA_GPA (4 * MIB)
#define IOVA     (DMA_BASE + 16 * PAGE)

/* A guest with a function attached to a nested domain that shows one page. */
struct machine {
	struct fixture f;
	struct function function;
	uint64_t nested, root;
	uint8_t secret[BROKER_SECRET_BYTES];
};

static void machine_init(struct machine *m, const struct broker_settings *settings)
{
	memset(m, 0, sizeof(*m));
	fixture_init_guest(&m->f, settings);
	memcpy(m->secret, m->f.guest_secret, sizeof(m->secret));
	m->function = function_bind(&m->f, 1);
	m->root = table_root(&m->f);
	table_map(&m->f, m->root, IOVA, DATA_GPA, true);
	m->nested = nested_make_s390(&m->f, m->function.device, m->root, DMA_BASE, DMA_LAST, true)
			    .nested;
}

static void machine_deinit(struct machine *m)
{
	function_free(&m->function);
	fixture_deinit(&m->f);
}

static enum emulated_dma_reason dma(struct machine *m)
{
	uint8_t byte = 0;

	return emulated_dma_read(m->function.dma, IOVA, &byte, 1, NULL);
}

static int prepare(struct machine *m, uint32_t seconds, bool block)
{
	struct fixture *f = &m->f;

	return guest_prepare_handover(f->broker, f->session, f->guest, seconds, block, &f->refusal);
}

static void holder_ends(struct machine *m)
{
	session_close(m->f.session, NULL, NULL);
	m->f.session = session_unref(m->f.session);
}

static int resume(struct machine *m, const uint8_t *secret)
{
	uint64_t guest = 0;
	int status = guest_resume(m->f.broker, m->f.session, secret, &guest, &m->f.refusal);

	if (!status)
		assert_int_equal(guest, m->f.guest);
	return status;
}

/* The guest, and then the session that it belonged to: both end on the pool. */
static void wait_until_gone(struct machine *m)
{
	struct timespec pause = {0, 1000000};

	while (host_usage(&m->f, LEDGER_GUESTS).current ||
	       host_usage(&m->f, LEDGER_SESSIONS).current > (m->f.session != NULL)) {
		broker_expire_handovers(m->f.broker);
		nanosleep(&pause, NULL);
	}
}

static void assert_same_usage(struct fixture *f, const struct usage *before)
{
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		assert_int_equal(host_usage(f, i).current, before[i].current);
}

static void test_resumed(void **state)
{
	struct broker_settings settings = settings_default();
	struct guest_description *description;
	struct usage before[LEDGER_RESOURCES];
	struct machine m;

	(void)state;
	machine_init(&m, &settings);
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		before[i] = host_usage(&m.f, i);
	assert_done(&m.f, prepare(&m, 600, false));
	holder_ends(&m);
	assert_true(broker_expire_handovers(m.f.broker) > 500 * 1000000000ull);
	assert_int_equal(dma(&m), EMULATED_DMA_OK);
	m.f.session = session_make(&m.f);
	/* It is nobody's as long as it waits. */
	assert_refused(
		&m.f,
		guest_describe(m.f.broker, m.f.session, m.f.guest, &description, &m.f.refusal),
		REFUSAL_NOT_FOUND);
	assert_done(&m.f, resume(&m, m.secret));
	assert_int_equal(broker_expire_handovers(m.f.broker), UINT64_MAX);
	assert_same_usage(&m.f, before);
	/* With all that it has, by the same handles. */
	assert_done(&m.f,
		    guest_describe(m.f.broker, m.f.session, m.f.guest, &description, &m.f.refusal));
	assert_int_equal(description->n_regions, 1);
	assert_int_equal(description->devices[0].device, m.function.device);
	assert_int_equal(description->nested[0].nested, m.nested);
	guest_description_free(description);
	assert_int_equal(dma(&m), EMULATED_DMA_OK);
	table_unmap(&m.f, m.root, IOVA);
	assert_int_equal(refresh_one(&m.f, m.nested, IOVA, PAGE).unmapped, 1);
	assert_int_equal(dma(&m), EMULATED_DMA_NOT_MAPPED);
	/* Once: the end of this one takes it down. */
	assert_refused(&m.f, resume(&m, m.secret), REFUSAL_PRECONDITION);
	holder_ends(&m);
	wait_until_gone(&m);
	assert_int_equal(host_usage(&m.f, LEDGER_PINNED_BYTES).current, 0);
	assert_int_equal(host_usage(&m.f, LEDGER_SESSIONS).current, 0);
	machine_deinit(&m);
}

/* From one process to the next, and on. */
static void test_again(void **state)
{
	struct broker_settings settings = settings_default();
	struct machine m;

	(void)state;
	machine_init(&m, &settings);
	for (int i = 0; i < 5; i++) {
		assert_done(&m.f, prepare(&m, 600, false));
		holder_ends(&m);
		m.f.session = session_make(&m.f);
		assert_done(&m.f, resume(&m, m.secret));
		assert_int_equal(host_usage(&m.f, LEDGER_SESSIONS).current, 1);
		assert_int_equal(dma(&m), EMULATED_DMA_OK);
	}
	assert_done(&m.f, guest_destroy(m.f.broker, m.f.session, m.f.guest, &m.f.refusal));
	assert_int_equal(host_usage(&m.f, LEDGER_GUESTS).current, 0);
	assert_ledger_empty(&m.f);
	machine_deinit(&m);
}

static void test_blocked(void **state)
{
	struct broker_settings settings = settings_default();
	struct range_result walk;
	struct machine m;

	(void)state;
	machine_init(&m, &settings);
	assert_done(&m.f, prepare(&m, 600, true));
	assert_int_equal(dma(&m), EMULATED_DMA_OK);
	holder_ends(&m);
	while (dma(&m) == EMULATED_DMA_OK)
		sched_yield();
	m.f.session = session_make(&m.f);
	assert_done(&m.f, resume(&m, m.secret));
	assert_int_not_equal(dma(&m), EMULATED_DMA_OK);
	assert_done(&m.f, device_attach(m.f.broker, m.f.session, m.function.device,
					ATTACHMENT_NESTED, m.nested, &walk, &m.f.refusal));
	machine_deinit(&m);
}

static void test_over(void **state)
{
	struct broker_settings settings = settings_default();
	struct machine m;

	(void)state;
	machine_init(&m, &settings);
	assert_done(&m.f, prepare(&m, 1, false));
	holder_ends(&m);
	wait_until_gone(&m);
	assert_int_not_equal(dma(&m), EMULATED_DMA_OK);
	m.f.session = session_make(&m.f);
	assert_refused(&m.f, resume(&m, m.secret), REFUSAL_NOT_FOUND);
	assert_ledger_empty(&m.f);
	machine_deinit(&m);
}

/* Announced too long ago is not announced. */
static void test_too_late(void **state)
{
	struct timespec pause = {1, 10000000};
	struct broker_settings settings = settings_default();
	struct machine m;

	(void)state;
	machine_init(&m, &settings);
	assert_done(&m.f, prepare(&m, 1, false));
	nanosleep(&pause, NULL);
	holder_ends(&m);
	m.f.session = session_make(&m.f);
	assert_refused(&m.f, resume(&m, m.secret), REFUSAL_NOT_FOUND);
	machine_deinit(&m);
}

static void test_refused(void **state)
{
	struct broker_settings settings = settings_default();
	struct session *holder, *stranger = NULL;
	uint8_t wrong[BROKER_SECRET_BYTES];
	struct machine m;
	struct peer peer;

	(void)state;
	machine_init(&m, &settings);
	peer = m.f.peer;
	peer.uid++;
	assert_done(&m.f, session_new(&stranger, m.f.broker, &peer, "stranger", m.f.secret,
				      &m.f.refusal));
	assert_done(&m.f, prepare(&m, 600, false));
	holder = m.f.session;
	m.f.session = session_make(&m.f);
	assert_refused(&m.f, resume(&m, m.secret), REFUSAL_PRECONDITION);
	assert_string_equal(m.f.refusal.reason, "GUEST_HELD");
	assert_refused(&m.f, prepare(&m, 600, false), REFUSAL_NOT_FOUND);
	session_close(holder, NULL, NULL);
	session_unref(holder);
	memcpy(wrong, m.secret, sizeof(wrong));
	wrong[15] ^= 1;
	assert_refused(&m.f, resume(&m, wrong), REFUSAL_NOT_FOUND);
	holder = m.f.session;
	m.f.session = stranger;
	assert_refused(&m.f, resume(&m, m.secret), REFUSAL_NOT_FOUND);
	m.f.session = holder;
	assert_done(&m.f, resume(&m, m.secret));
	session_unref(stranger);
	machine_deinit(&m);
}

/* All or nothing: who has no room for it does not get it, and it waits on. */
static void test_no_room(void **state)
{
	struct broker_settings settings = settings_default();
	struct usage before[LEDGER_RESOURCES];
	uint64_t other = 0;
	struct machine m;

	(void)state;
	limit_set(&settings, LIMIT_SESSION, LEDGER_GUESTS, 1);
	machine_init(&m, &settings);
	assert_done(&m.f, prepare(&m, 600, false));
	holder_ends(&m);
	m.f.session = session_make(&m.f);
	assert_done(&m.f, guest_make(&m.f, &other));
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		before[i] = host_usage(&m.f, i);
	assert_refused(&m.f, resume(&m, m.secret), REFUSAL_QUOTA);
	assert_same_usage(&m.f, before);
	assert_int_equal(dma(&m), EMULATED_DMA_OK);
	assert_done(&m.f, guest_destroy(m.f.broker, m.f.session, other, &m.f.refusal));
	assert_done(&m.f, resume(&m, m.secret));
	/* And what the host has no room for twice goes from one to the other all the same. */
	assert_int_equal(host_usage(&m.f, LEDGER_GUESTS).current, 1);
	machine_deinit(&m);
}

/* The limit of all holds this guest once: that is enough. */
static void test_full_host(void **state)
{
	struct broker_settings settings = settings_default();
	struct machine m;

	(void)state;
	limit_set(&settings, LIMIT_HOST, LEDGER_GUESTS, 1);
	limit_set(&settings, LIMIT_HOST, LEDGER_PINNED_BYTES, MEMORY_BYTES);
	machine_init(&m, &settings);
	assert_done(&m.f, prepare(&m, 600, false));
	holder_ends(&m);
	m.f.session = session_make(&m.f);
	assert_done(&m.f, resume(&m, m.secret));
	machine_deinit(&m);
}

/* Nobody comes any more when the broker ends. */
static void test_end_while_waiting(void **state)
{
	struct broker_settings settings = settings_default();
	struct machine m;

	(void)state;
	machine_init(&m, &settings);
	assert_done(&m.f, prepare(&m, 600, false));
	holder_ends(&m);
	assert_int_equal(dma(&m), EMULATED_DMA_OK);
	machine_deinit(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resumed),           cmocka_unit_test(test_again),
		cmocka_unit_test(test_blocked),           cmocka_unit_test(test_over),
		cmocka_unit_test(test_too_late),          cmocka_unit_test(test_refused),
		cmocka_unit_test(test_no_room),           cmocka_unit_test(test_full_host),
		cmocka_unit_test(test_end_while_waiting),
	};

	return cmocka_run_group_tests_name("handover", tests, NULL, NULL);
}
