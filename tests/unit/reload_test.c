/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A reload that SIGHUP asked for is a worker's, and the daemon may be told to end before its turn
 * comes: then it touches nothing that is gone, and takes nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "iommu/emulated/emulated.h"
#include "reload.h"
#include "rpc/dispatch.h"
#include "rpc/loop.h"

struct blocker {
	struct pool_job job;
	sem_t begun, go_on;
};

struct daemon {
	char folder[64];
	struct options options;
	struct config *config;
	struct broker *broker;
	struct loop *loop;
	struct dispatcher *dispatcher;
	struct reload reload;
};

static bool blocker_run(struct pool_job *job)
{
	struct blocker *blocker = (struct blocker *)job;

	sem_post(&blocker->begun);
	sem_wait(&blocker->go_on);
	return false;
}

/* On one worker, so that whoever holds it holds up the reload. */
static void daemon_start(struct daemon *daemon)
{
	struct iommu_backend *backend;

	*daemon = (struct daemon){.folder = "/tmp/reload_test.XXXXXX", .options.emulated = true};
	assert_non_null(mkdtemp(daemon->folder));
	daemon->options.config_dirs[daemon->options.n_config_dirs++] = daemon->folder;
	assert_int_equal(config_load(&daemon->config, daemon->options.config_dirs, 1), 0);
	daemon->config->broker.threads_max = 1;
	daemon->config->broker.open_devices = true;
	assert_int_equal(iommu_emulated_new(&backend, NULL, 0), 0);
	assert_int_equal(broker_new(&daemon->broker, backend, &daemon->config->broker), 0);
	assert_int_equal(loop_new(&daemon->loop), 0);
	assert_int_equal(dispatcher_new(&daemon->dispatcher, daemon->broker, daemon->loop,
					&daemon->config->rpc),
			 0);
	reload_init(&daemon->reload, &daemon->options, daemon->config, daemon->broker,
		    daemon->dispatcher);
}

static void daemon_end(struct daemon *daemon)
{
	reload_deinit(&daemon->reload);
	loop_free(daemon->loop);
	config_free(daemon->config);
	rmdir(daemon->folder);
}

static int configure(struct daemon *daemon, struct refusal *refusal)
{
	char *notes = NULL;
	int status = reload_operator.configure(&daemon->reload, true, &notes, refusal);

	free(notes);
	return status;
}

static void test_taken_while_it_serves(void **state)
{
	struct refusal refusal;
	struct daemon daemon;

	(void)state;
	daemon_start(&daemon);
	assert_int_equal(configure(&daemon, &refusal), 0);
	assert_ptr_not_equal(daemon.reload.current, daemon.config);
	reload_stop(&daemon.reload);
	dispatcher_free(daemon.dispatcher);
	broker_free(daemon.broker);
	daemon_end(&daemon);
}

static void test_its_turn_comes_at_the_end(void **state)
{
	struct blocker blocker = {.job.run = blocker_run};
	struct refusal refusal;
	struct daemon daemon;

	(void)state;
	daemon_start(&daemon);
	sem_init(&blocker.begun, 0, 0);
	sem_init(&blocker.go_on, 0, 0);
	pool_submit(broker_pool(daemon.broker), &blocker.job);
	sem_wait(&blocker.begun);
	reload_later(&daemon.reload);
	reload_stop(&daemon.reload);
	dispatcher_free(daemon.dispatcher);
	sem_post(&blocker.go_on);
	broker_free(daemon.broker);
	assert_ptr_equal(daemon.reload.current, daemon.config);
	assert_int_equal(configure(&daemon, &refusal), REFUSED);
	assert_string_equal(refusal.reason, "ENDING");
	sem_destroy(&blocker.begun);
	sem_destroy(&blocker.go_on);
	daemon_end(&daemon);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken_while_it_serves),
		cmocka_unit_test(test_its_turn_comes_at_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
