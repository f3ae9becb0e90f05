/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See fake_admin.h. ctl/rpc.h is implemented here, with what crosses packed and unpacked. */

#include "fake_admin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ctl/command.h"
#include "ctl/json.h"
#include "ctl/rpc.h"

#define ANSWERS_MAX 64
#define WORDS_MAX   32
#define RUN_SECONDS 60

struct answer {
	const char *method;
	uint32_t from; /* 0: every call */
	uint8_t *bytes;
	size_t n_bytes;
	bool refused;
	struct rpc_status status;
};

struct rpc {
	uint32_t patience_seconds;
};

static struct answer answers[ANSWERS_MAX];
static size_t n_answers;
static FILE *requests; /* in the child */

/* ── answers ──────────────────────────────────────────────────────────────────────────────── */

void fake_admin_reset(void)
{
	for (size_t i = 0; i < n_answers; i++)
		free(answers[i].bytes);
	n_answers = 0;
}

static struct answer *add(const char *method, const ProtobufCMessage *message)
{
	struct answer *answer = &answers[n_answers++];

	assert_true(n_answers < ANSWERS_MAX);
	*answer = (struct answer){.method = method};
	if (message == NULL)
		return answer;
	answer->n_bytes = protobuf_c_message_get_packed_size(message);
	answer->bytes = malloc(answer->n_bytes + 1);
	assert_non_null(answer->bytes);
	protobuf_c_message_pack(message, answer->bytes);
	return answer;
}

void fake_admin_answer(const char *method, const ProtobufCMessage *message)
{
	add(method, message);
}

void fake_admin_answer_from(const char *method, uint32_t call, const ProtobufCMessage *message)
{
	add(method, message)->from = call;
}

void fake_admin_refuse(const char *method, int code, const char *text,
		       const ProtobufCMessage *details)
{
	struct answer *answer = add(method, NULL);

	answer->refused = true;
	answer->status.code = code;
	snprintf(answer->status.message, sizeof(answer->status.message), "%s", text);
	if (details == NULL)
		return;
	answer->status.details_bytes = protobuf_c_message_get_packed_size(details);
	assert_true(answer->status.details_bytes <= sizeof(answer->status.details));
	protobuf_c_message_pack(details, answer->status.details);
}

/* ── ctl/rpc.h ────────────────────────────────────────────────────────────────────────────── */

struct rpc *rpc_new(const char *socket_path)
{
	return calloc(1, sizeof(struct rpc));
}

struct rpc *rpc_free(struct rpc *rpc)
{
	free(rpc);
	return NULL;
}

void rpc_set_patience(struct rpc *rpc, uint32_t seconds)
{
	rpc->patience_seconds = seconds;
}

static void keep_request(const char *method, const ProtobufCMessage *request)
{
	json_t *json = json_from_message(request);
	char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);

	fprintf(requests, "%s %s\n", method, text);
	fflush(requests);
	free(text);
	json_decref(json);
}

/* Which call of method this is, from 1. */
static uint32_t count_call(const char *method)
{
	static struct {
		const char *method;
		uint32_t n;
	} calls[ANSWERS_MAX];

	for (size_t i = 0; i < ANSWERS_MAX; i++) {
		if (calls[i].method == NULL)
			calls[i].method = method;
		if (strcmp(calls[i].method, method) == 0)
			return ++calls[i].n;
	}
	abort();
}

static bool hand_out(const struct answer *answer, const ProtobufCMessageDescriptor *type,
		     rpc_message_fn function, void *user_data)
{
	ProtobufCMessage *message =
		protobuf_c_message_unpack(type, NULL, answer->n_bytes, answer->bytes);
	bool wanted;

	if (message == NULL)
		abort();
	wanted = function(user_data, message);
	protobuf_c_message_free_unpacked(message, NULL);
	return wanted;
}

/* The greatest "from" that has come; 0 if there is none. */
static uint32_t stage_of(const char *method, uint32_t call)
{
	uint32_t stage = 0;

	for (size_t i = 0; i < n_answers; i++)
		if (strcmp(answers[i].method, method) == 0 && answers[i].from <= call &&
		    answers[i].from > stage)
			stage = answers[i].from;
	return stage;
}

void rpc_call(struct rpc *rpc, const char *method, const ProtobufCMessage *request,
	      const ProtobufCMessageDescriptor *response, rpc_message_fn function, void *user_data,
	      struct rpc_status *ret_status)
{
	uint32_t stage = stage_of(method, count_call(method));
	bool any = false;

	keep_request(method, request);
	*ret_status = (struct rpc_status){0};
	for (size_t i = 0; i < n_answers; i++) {
		if (strcmp(answers[i].method, method) != 0 || answers[i].from != stage)
			continue;
		any = true;
		if (answers[i].refused) {
			*ret_status = answers[i].status;
			return;
		}
		if (!hand_out(&answers[i], response, function, user_data)) {
			ret_status->code = 1;
			return;
		}
	}
	if (!any) {
		ret_status->code = RPC_UNAVAILABLE;
		strcpy(ret_status->message, "no answer was laid down");
	}
}

/* ── the tool ─────────────────────────────────────────────────────────────────────────────── */

static char *read_all(int fd)
{
	off_t n = lseek(fd, 0, SEEK_END);
	char *text = calloc(1, (size_t)n + 1);

	assert_non_null(text);
	assert_int_equal(pread(fd, text, (size_t)n, 0), n);
	close(fd);
	return text;
}

static void child(const char *command_line, const int fds[3])
{
	char words[1024], *argv[WORDS_MAX + 1] = {(char *)"iommubrokerctl"}, *rest = NULL;
	int argc = 1;

	alarm(RUN_SECONDS);
	snprintf(words, sizeof(words), "%s", command_line);
	for (char *word = strtok_r(words, " ", &rest); word != NULL && argc < WORDS_MAX;
	     word = strtok_r(NULL, " ", &rest))
		argv[argc++] = word;
	dup2(fds[0], STDOUT_FILENO);
	dup2(fds[1], STDERR_FILENO);
	requests = fdopen(fds[2], "w");
	_exit(ctl_main(argc, argv) | (fflush(NULL) != 0 ? 64 : 0));
}

struct run fake_admin_run(const char *command_line)
{
	static struct run run;
	int fds[3], status;
	pid_t pid;

	free(run.out);
	free(run.err);
	free(run.requests);
	for (size_t i = 0; i < 3; i++) {
		fds[i] = memfd_create("run", MFD_CLOEXEC);
		assert_true(fds[i] >= 0);
	}
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		child(command_line, fds);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	run.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	run.out = read_all(fds[0]);
	run.err = read_all(fds[1]);
	run.requests = read_all(fds[2]);
	return run;
}
