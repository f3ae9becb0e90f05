/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a delegation gives, to whom, for how long; and what it changes about the guest: nothing that
 * anybody is judged by. */

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device_fixture.h"

#define OTHER_UID 64055
#define HOLD      (1u << GUEST_RIGHT_HOLD)
#define MAP       (1u << GUEST_RIGHT_MAP)

/* A process that lives until it is told to go. */
static struct peer process_begin(uid_t uid)
{
	pid_t parent = getpid(), pid = fork();
	struct peer peer = {.pid = pid, .uid = uid};

	assert_true(pid >= 0);
	if (!pid) {
		/* A test that fails leaves nobody behind. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == parent)
			pause();
		_exit(0);
	}
	peer.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	assert_true(peer.pidfd >= 0);
	return peer;
}

static void process_end(struct peer *peer)
{
	kill(peer->pid, SIGKILL);
	waitpid(peer->pid, NULL, 0);
	close(peer->pidfd);
}

static struct delegation_request asked(struct fixture *f, unsigned int rights)
{
	return (struct delegation_request){.guest = f->guest, .rights = rights};
}

static struct session *delegate(struct fixture *f, const struct delegation_request *request,
				uint64_t *ret_delegation)
{
	struct session *session = NULL;
	uint64_t delegation = 0;

	assert_done(f, delegation_new(&session, f->broker, f->session, request, &delegation,
				      &f->refusal));
	if (ret_delegation)
		*ret_delegation = delegation;
	return session;
}

static int delegate_status(struct fixture *f, const struct delegation_request *request)
{
	struct session *session = NULL;
	uint64_t delegation = 0;
	int status =
		delegation_new(&session, f->broker, f->session, request, &delegation, &f->refusal);

	if (!status) {
		session_close(session, NULL, NULL);
		session_unref(session);
	}
	return status;
}

static void leave(struct session *consume_session)
{
	session_close(consume_session, NULL, NULL);
	session_unref(consume_session);
}

static struct guest_description *described(struct fixture *f, struct session *session)
{
	struct guest_description *description = NULL;

	assert_done(f, guest_describe(f->broker, session, f->guest, &description, &f->refusal));
	return description;
}

static void assert_shown(struct fixture *f, struct session *session, const struct peer *peer)
{
	struct guest_description *description = described(f, session);

	assert_int_equal(description->summary.pid, peer->pid);
	assert_int_equal(description->summary.uid, peer->uid);
	guest_description_free(description);
}

/* ── who is judged ─────────────────────────────────────────────────────────────────────────── */

static const struct broker_device_rule for_other_user = {
	.by_name = true,
	.n_users = 1,
	.users = {OTHER_UID},
	.where = "a rule for somebody else",
};

static void refuse_device(struct fixture *f, struct session *session)
{
	const struct device_open_request request = {.consume_fd = -1,
						    .address = {.by_fid = true, .fid = 1}};
	uint64_t device = 0;
	int fd = -1;

	assert_refused(
		f, device_open(f->broker, session, f->guest, &request, &device, &fd, &f->refusal),
		REFUSAL_DENIED);
}

/* Anybody can have a pidfd of any process: to name it gives nothing that is that process' user's.
 */
static void test_named_peer_lends_no_rule(void **state)
{
	struct peer other = process_begin(OTHER_UID);
	struct delegation_request request;
	struct fixture f;

	(void)state;
	device_rules_init(&f, &for_other_user, 1);
	refuse_device(&f, f.session);
	request = asked(&f, HOLD);
	request.peer = &other;
	leave(delegate(&f, &request, NULL));
	refuse_device(&f, f.session);
	process_end(&other);
	fixture_deinit(&f);
}

static void test_claimed_delegation_lends_no_rule(void **state)
{
	struct peer other = process_begin(OTHER_UID);
	struct delegation_request request;
	struct session *session;
	struct fixture f;

	(void)state;
	device_rules_init(&f, &for_other_user, 1);
	request = asked(&f, HOLD | 1u << GUEST_RIGHT_DEVICE);
	session = delegate(&f, &request, NULL);
	assert_done(&f, delegation_bind(session, &other, &f.refusal));
	refuse_device(&f, f.session);
	refuse_device(&f, session);
	leave(session);
	process_end(&other);
	fixture_deinit(&f);
}

/* ── who is shown ──────────────────────────────────────────────────────────────────────────── */

static void observe(void *context, const struct event *event, const struct event_subject *subject)
{
	struct peer *told = context;

	(void)event;
	told->pid = subject->pid;
	told->uid = subject->uid;
}

/* Operators are told of that one, too. session: a delegation's. */
static void assert_told(struct fixture *f, struct session *session, const struct peer *peer)
{
	struct peer told = {0};

	broker_set_observer(f->broker, observe, &told);
	delegation_tell_revoked(session);
	broker_set_observer(f->broker, NULL, NULL);
	assert_int_equal(told.pid, peer->pid);
	assert_int_equal(told.uid, peer->uid);
}

static void test_holder_is_shown_while_it_holds(void **state)
{
	struct fixture *f = *state;
	struct peer other = process_begin(OTHER_UID);
	struct delegation_request request = asked(f, HOLD), does_not = asked(f, MAP);
	struct session *session = delegate(f, &request, NULL);
	struct session *beside = delegate(f, &does_not, NULL);

	assert_shown(f, f->session, &f->peer);
	assert_told(f, beside, &f->peer);
	assert_done(f, delegation_bind(session, &other, &f->refusal));
	assert_shown(f, f->session, &other);
	assert_told(f, beside, &other);
	leave(session);
	assert_shown(f, f->session, &f->peer);
	assert_told(f, beside, &f->peer);
	leave(beside);
	process_end(&other);
}

static void test_refused_changes_nothing(void **state)
{
	struct peer other = process_begin(OTHER_UID);
	struct broker_settings settings = settings_default();
	struct delegation_request request;
	struct fixture f;

	(void)state;
	limit_set(&settings, LIMIT_TENANT, LEDGER_SESSIONS, 1);
	fixture_init_guest(&f, &settings);
	request = asked(&f, HOLD);
	request.peer = &other;
	assert_refused(&f, delegate_status(&f, &request), REFUSAL_QUOTA);
	assert_shown(&f, f.session, &f.peer);
	process_end(&other);
	fixture_deinit(&f);
}

/* Its owner's next process is its owner's user's, whoever held it beside them. */
static void test_resumed_by_its_owner(void **state)
{
	struct fixture *f = *state;
	struct peer other = process_begin(OTHER_UID);
	struct delegation_request request = asked(f, HOLD);
	struct session *session = delegate(f, &request, NULL);
	uint8_t secret[BROKER_SECRET_BYTES];
	uint64_t guest = 0;

	memcpy(secret, f->guest_secret, sizeof(secret));
	assert_done(f, delegation_bind(session, &other, &f->refusal));
	leave(session);
	assert_done(f, guest_prepare_handover(f->broker, f->session, f->guest, 3600, false,
					      &f->refusal));
	leave(f->session);
	f->session = session_make(f);
	assert_done(f, guest_resume(f->broker, f->session, secret, &guest, &f->refusal));
	assert_int_equal(guest, f->guest);
	process_end(&other);
}

/* ── what it gives ─────────────────────────────────────────────────────────────────────────── */

static void test_rights(void **state)
{
	struct fixture *f = *state;
	struct delegation_request request;
	struct session *session;

	assert_true(session_rights(f->session) & 1u << GUEST_RIGHT_OWN);
	for (unsigned int right = GUEST_RIGHT_MAP; right < GUEST_RIGHTS_END; right++) {
		request = asked(f, 1u << right);
		session = delegate(f, &request, NULL);
		assert_int_equal(session_rights(session), 1u << right | 1u << GUEST_RIGHT_ANY);
		leave(session);
	}
}

static void test_only_its_guest(void **state)
{
	struct fixture *f = *state;
	struct delegation_request request = asked(f, MAP);
	struct session *session = delegate(f, &request, NULL);
	struct guest_description *description = NULL;
	uint64_t other = 0;

	assert_done(f, guest_make(f, &other));
	guest_description_free(described(f, session));
	assert_refused(f, guest_describe(f->broker, session, other, &description, &f->refusal),
		       REFUSAL_NOT_FOUND);
	leave(session);
}

static void test_limits_while_it_lasts(void **state)
{
	struct fixture *f = *state;
	struct delegation_request request = asked(f, MAP);
	struct session *wide, *narrow;

	request.pinned_bytes_max = 2 * MEMORY_BYTES;
	wide = delegate(f, &request, NULL);
	request.pinned_bytes_max = MEMORY_BYTES;
	narrow = delegate(f, &request, NULL);
	assert_refused(f, memory_map_one(f, f->memory_file, 0, MEMORY_BYTES, MIB, true),
		       REFUSAL_QUOTA);
	assert_string_equal(f->refusal.rule, "limit given at Delegate");
	leave(narrow);
	assert_done(f, memory_map_one(f, f->memory_file, 0, MEMORY_BYTES, MEMORY_BYTES, true));
	assert_refused(f, memory_map_one(f, f->memory_file, 0, 4 * MEMORY_BYTES, MIB, true),
		       REFUSAL_QUOTA);
	leave(wide);
	assert_done(f, memory_map_one(f, f->memory_file, 0, 4 * MEMORY_BYTES, MIB, true));
}

static void test_some_devices(void **state)
{
	struct fixture *f = *state;
	struct function one = function_bind(f, 1), two = function_bind(f, 2);
	uint64_t hidden =
		nested_make_s390(f, two.device, table_root(f), DMA_BASE, DMA_LAST, true).nested;
	uint64_t seen =
		nested_make_s390(f, one.device, table_root(f), DMA_BASE, DMA_LAST, true).nested;
	struct delegation_request request = asked(f, 1u << GUEST_RIGHT_DOMAIN);
	struct guest_description *description;
	uint64_t dropped = 0;
	uint32_t destroyed = 0;
	struct session *session;

	request.devices[0] = one.device;
	request.n_devices = 1;
	session = delegate(f, &request, NULL);
	assert_refused(f, nested_destroy(f->broker, session, hidden, &dropped, &f->refusal),
		       REFUSAL_NOT_FOUND);
	assert_refused(f, guest_reset(f->broker, session, f->guest, &destroyed, &f->refusal),
		       REFUSAL_DENIED);
	description = described(f, session);
	assert_int_equal(description->n_devices, 1);
	assert_int_equal(description->devices[0].device, one.device);
	assert_int_equal(description->n_nested, 1);
	assert_int_equal(description->nested[0].nested, seen);
	guest_description_free(description);
	description = described(f, f->session);
	assert_int_equal(description->n_devices, 2);
	assert_int_equal(description->n_nested, 2);
	guest_description_free(description);
	assert_done(f, nested_destroy(f->broker, session, seen, &dropped, &f->refusal));
	leave(session);
	function_free(&one);
	function_free(&two);
}

static void no_wake(void *context)
{
	(void)context;
}

static size_t errors_told(struct fixture *f, struct session *session, uint64_t device)
{
	struct event_watch *watch = NULL;
	struct event event;
	size_t n = 0;

	assert_done(f, event_watch_new(&watch, f->broker, session, f->guest, 0, no_wake, NULL,
				       &f->refusal));
	while (event_watch_next(watch, &event) == 1)
		n += event.kind == EVENT_TRANSLATION_ERROR && event.device == device;
	event_watch_free(watch);
	return n;
}

static void fail_translation(struct fixture *f, struct function *function)
{
	uint64_t root = table_root(f);

	table_break(f, root, DMA_BASE);
	nested_make_s390(f, function->device, root, DMA_BASE, DMA_LAST, true);
}

static void test_events_of_some_devices(void **state)
{
	struct fixture *f = *state;
	struct function one = function_bind(f, 1), two = function_bind(f, 2);
	struct delegation_request request = asked(f, 1u << GUEST_RIGHT_EVENTS);
	struct session *session;

	request.devices[0] = one.device;
	request.n_devices = 1;
	session = delegate(f, &request, NULL);
	fail_translation(f, &two);
	fail_translation(f, &one);
	assert_int_not_equal(errors_told(f, f->session, one.device), 0);
	assert_int_not_equal(errors_told(f, f->session, two.device), 0);
	assert_int_not_equal(errors_told(f, session, one.device), 0);
	assert_int_equal(errors_told(f, session, two.device), 0);
	leave(session);
	function_free(&one);
	function_free(&two);
}

/* ── whose it is ───────────────────────────────────────────────────────────────────────────── */

static void test_bound(void **state)
{
	struct fixture *f = *state;
	struct peer other = process_begin(OTHER_UID);
	struct delegation_request request = asked(f, MAP);
	struct session *session = delegate(f, &request, NULL);

	assert_done(f, delegation_bind(session, &other, &f->refusal));
	assert_done(f, delegation_bind(session, &other, &f->refusal));
	assert_refused(f, delegation_bind(session, &f->peer, &f->refusal), REFUSAL_UNAUTHENTICATED);
	leave(session);
	request.peer = &other;
	session = delegate(f, &request, NULL);
	assert_refused(f, delegation_bind(session, &f->peer, &f->refusal), REFUSAL_UNAUTHENTICATED);
	assert_done(f, delegation_bind(session, &other, &f->refusal));
	leave(session);
	process_end(&other);
}

static void test_found_by_its_delegator(void **state)
{
	struct fixture *f = *state;
	struct delegation_request request = asked(f, MAP);
	struct session *other = session_make(f), *found = NULL, *session;
	uint64_t delegation;

	session = delegate(f, &request, &delegation);
	assert_refused(f, delegation_find(&found, f->broker, other, delegation, &f->refusal),
		       REFUSAL_NOT_FOUND);
	assert_done(f, delegation_find(&found, f->broker, f->session, delegation, &f->refusal));
	assert_ptr_equal(found, session);
	session_unref(found);
	leave(session);
	assert_refused(f, delegation_find(&found, f->broker, f->session, delegation, &f->refusal),
		       REFUSAL_NOT_FOUND);
	leave(other);
}

static void test_charged_to_the_guests_tenant(void **state)
{
	struct broker_settings settings = settings_default();
	struct delegation_request request;
	struct session *session;
	struct fixture f;

	(void)state;
	limit_set(&settings, LIMIT_TENANT, LEDGER_SESSIONS, 2);
	fixture_init_guest(&f, &settings);
	request = asked(&f, MAP);
	session = delegate(&f, &request, NULL);
	assert_refused(&f, delegate_status(&f, &request), REFUSAL_QUOTA);
	leave(session);
	assert_done(&f, delegate_status(&f, &request));
	assert_int_equal(host_usage(&f, LEDGER_SESSIONS).current, 1);
	fixture_deinit(&f);
}

static void test_so_many_of_one_guest(void **state)
{
	struct fixture *f = *state;
	struct delegation_request request = asked(f, MAP);
	struct session *made[DELEGATIONS_OF_GUEST_MAX];

	for (size_t i = 0; i < DELEGATIONS_OF_GUEST_MAX; i++)
		made[i] = delegate(f, &request, NULL);
	assert_refused(f, delegate_status(f, &request), REFUSAL_QUOTA);
	leave(made[7]);
	made[7] = delegate(f, &request, NULL);
	assert_refused(f, delegate_status(f, &request), REFUSAL_QUOTA);
	for (size_t i = 0; i < DELEGATIONS_OF_GUEST_MAX; i++)
		leave(made[i]);
	assert_int_equal(host_usage(f, LEDGER_SESSIONS).current, 1);
}

/* ── who keeps it ──────────────────────────────────────────────────────────────────────────── */

static void wait_until_gone(struct fixture *f)
{
	while (host_usage(f, LEDGER_GUESTS).current)
		usleep(1000);
}

static void test_heirs(void **state)
{
	struct fixture *f = *state;
	struct delegation_request request = asked(f, MAP);
	struct session *user = delegate(f, &request, NULL), *first, *second;
	struct guest_description *description = NULL;

	request = asked(f, HOLD);
	first = delegate(f, &request, NULL);
	second = delegate(f, &request, NULL);
	leave(f->session);
	f->session = NULL;
	guest_description_free(described(f, first));
	leave(first);
	guest_description_free(described(f, user));
	guest_description_free(described(f, second));
	leave(second);
	wait_until_gone(f);
	assert_refused(f, guest_describe(f->broker, user, f->guest, &description, &f->refusal),
		       REFUSAL_NOT_FOUND);
	leave(user);
	assert_int_equal(host_usage(f, LEDGER_SESSIONS).current, 0);
}

/* ── its end, amid calls ───────────────────────────────────────────────────────────────────── */

struct caller {
	struct fixture *f;
	struct session *session;
	pthread_t thread;
	atomic_uint good, refused;
	atomic_bool stop;
};

static void *caller_run(void *context)
{
	struct caller *caller = context;
	struct fixture *f = caller->f;
	struct refusal refusal;

	while (!atomic_load(&caller->stop)) {
		struct guest_description *description = NULL;

		if (guest_describe(f->broker, caller->session, f->guest, &description, &refusal)) {
			assert_int_equal(refusal.kind, REFUSAL_NOT_FOUND);
			atomic_fetch_add(&caller->refused, 1);
		} else {
			atomic_fetch_add(&caller->good, 1);
		}
		guest_description_free(description);
	}
	return NULL;
}

static void wait_for(atomic_uint *count, unsigned int n)
{
	while (atomic_load(count) < n)
		usleep(100);
}

static void test_ended_amid_calls(void **state)
{
	struct fixture *f = *state;
	struct delegation_request request = asked(f, MAP);

	for (unsigned int i = 0; i < 16; i++) {
		struct caller caller = {.f = f, .session = delegate(f, &request, NULL)};
		unsigned int good;

		assert_int_equal(pthread_create(&caller.thread, NULL, caller_run, &caller), 0);
		wait_for(&caller.good, 3);
		delegation_tell_revoked(caller.session);
		session_close(caller.session, NULL, NULL);
		wait_for(&caller.refused, 1);
		good = atomic_load(&caller.good);
		wait_for(&caller.refused, 5);
		assert_int_equal(atomic_load(&caller.good), good);
		atomic_store(&caller.stop, true);
		pthread_join(caller.thread, NULL);
		session_unref(caller.session);
	}
	assert_int_equal(host_usage(f, LEDGER_SESSIONS).current, 1);
}

#define IN_FIXTURE(test) cmocka_unit_test_setup_teardown(test, device_setup, device_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_named_peer_lends_no_rule),
		cmocka_unit_test(test_claimed_delegation_lends_no_rule),
		IN_FIXTURE(test_holder_is_shown_while_it_holds),
		cmocka_unit_test(test_refused_changes_nothing),
		IN_FIXTURE(test_resumed_by_its_owner),
		IN_FIXTURE(test_rights),
		IN_FIXTURE(test_only_its_guest),
		IN_FIXTURE(test_limits_while_it_lasts),
		IN_FIXTURE(test_some_devices),
		IN_FIXTURE(test_events_of_some_devices),
		IN_FIXTURE(test_bound),
		IN_FIXTURE(test_found_by_its_delegator),
		cmocka_unit_test(test_charged_to_the_guests_tenant),
		IN_FIXTURE(test_so_many_of_one_guest),
		IN_FIXTURE(test_heirs),
		IN_FIXTURE(test_ended_amid_calls),
	};

	return cmocka_run_group_tests_name("delegations", tests, NULL, NULL);
}
