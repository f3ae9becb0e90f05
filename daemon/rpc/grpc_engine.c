/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/grpc_engine.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "rpc/grpc_connection.h"
#include "rpc/grpc_log.h"
#include "util/crash_point.h"
#include "util/turns.h"

struct grpc_engine {
	unsigned int users;
	struct loop *loop;
	grpc_completion_queue *queue;
	pthread_t guard_thread, queue_thread;
	bool guard_runs, queue_runs;
	struct turns turns; /* of the queue's thread */
};

/* The main thread's; gRPC core itself is as global as this. */
static struct grpc_engine *the_engine;

static void *queue_main(void *context)
{
	struct grpc_engine *engine = context;

	for (;;) {
		grpc_event event = grpc_completion_queue_next(
			engine->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
		struct grpc_tag *tag = event.tag;

		if (event.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		if (event.type != GRPC_OP_COMPLETE)
			continue;
		turn_begin(&engine->turns);
		CRASH_POINT(CALL_TAKEN);
		grpc_tag_taken(tag);
		tag->done(tag, event.success);
		turn_end(&engine->turns);
	}
}

static void *guard_main(void *context)
{
	struct grpc_engine *engine = context;

	loop_run(engine->loop);
	return NULL;
}

/* Signals are main's, but for those that a thread causes itself: reads of guest memory answer
 * SIGBUS. */
static void signals_block(sigset_t *ret_before)
{
	static const int own[] = {SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
	sigset_t blocked;

	sigfillset(&blocked);
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		sigdelset(&blocked, own[i]);
	pthread_sigmask(SIG_SETMASK, &blocked, ret_before);
}

static int threads_start(struct grpc_engine *engine)
{
	int error = pthread_create(&engine->guard_thread, NULL, guard_main, engine);

	if (error)
		return -error;
	engine->guard_runs = true;
	pthread_setname_np(engine->guard_thread, "grpc-guard");
	error = pthread_create(&engine->queue_thread, NULL, queue_main, engine);
	if (error)
		return -error;
	engine->queue_runs = true;
	pthread_setname_np(engine->queue_thread, "grpc-queue");
	return 0;
}

static void engine_free(struct grpc_engine *engine)
{
	if (engine->guard_runs) {
		loop_exit(engine->loop, 0);
		pthread_join(engine->guard_thread, NULL);
	}
	grpc_completion_queue_shutdown(engine->queue);
	if (engine->queue_runs)
		pthread_join(engine->queue_thread, NULL);
	else
		queue_main(engine); /* gRPC wants it drained */
	grpc_completion_queue_destroy(engine->queue);
	loop_free(engine->loop);
	free(engine);
	grpc_shutdown_blocking();
}

static int engine_new(struct grpc_engine **ret)
{
	struct grpc_engine *engine = calloc(1, sizeof(*engine));
	sigset_t before;
	int status;

	if (!engine)
		return -ENOMEM;
	grpc_log_filter();
	signals_block(&before);
	grpc_init(); /* starts threads of its own */
	engine->queue = grpc_completion_queue_create_for_next(NULL);
	status = loop_new(&engine->loop);
	if (!status)
		status = threads_start(engine);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (status)
		engine_free(engine);
	else
		*ret = engine;
	return status;
}

int grpc_engine_ref(struct grpc_engine **ret)
{
	int status = the_engine ? 0 : engine_new(&the_engine);

	if (status)
		return status;
	the_engine->users++;
	*ret = the_engine;
	return 0;
}

struct grpc_engine *grpc_engine_unref(struct grpc_engine *engine)
{
	if (!engine || --engine->users)
		return NULL;
	the_engine = NULL;
	engine_free(engine);
	return NULL;
}

const char *grpc_engine_hangs(struct grpc_engine *engine)
{
	bool guard = loop_goes_on(engine->loop), queue = turns_go_on(&engine->turns);

	return guard ? queue ? NULL : "grpc-queue" : "grpc-guard";
}

struct loop *grpc_engine_loop(struct grpc_engine *engine)
{
	return engine->loop;
}

grpc_completion_queue *grpc_engine_queue(struct grpc_engine *engine)
{
	return engine->queue;
}
