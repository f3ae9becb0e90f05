/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl top: sample, frame, wait. */

#include "ctl/top.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl/command.h"

#define INTERVAL_MS      2000
#define INTERVAL_MS_MAX  3600000
#define PATIENCE_SECONDS 5 /* a terminal's keys are not looked at meanwhile */
#define CLEAR_ALL        "\x1b[H\x1b[J"

struct top {
	struct command_context *context;
	struct top_sample *sample, *before;
	enum top_sort sort;
	uint64_t interval_ms, left; /* frames; UINT64_MAX: no end */
	bool terminal;
};

static void sleep_ms(uint64_t milliseconds)
{
	struct timespec time = {.tv_sec = (time_t)(milliseconds / 1000),
				.tv_nsec = (long)(milliseconds % 1000) * 1000000};

	nanosleep(&time, NULL);
}

static int sample_again(struct top *top)
{
	struct rpc_status status;

	top_sample_free(top->before);
	top->before = top->sample;
	top->sample = NULL;
	top_sample_take(top->context->rpc, &top->sample, &status);
	if (status.code == 0)
		return EXIT_DONE;
	top_terminal_close();
	return command_outcome(top->context, &status);
}

static void show(struct top *top)
{
	top_sample_sort(top->sample, top->before, top->sort);
	if (top->context->options->json) {
		json_t *json = top_frame_json(top->sample, top->before);

		json_dumpf(json, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		putchar('\n');
		json_decref(json);
	} else {
		if (top->terminal)
			fputs(CLEAR_ALL, stdout);
		/* The cursor stays below the last line. */
		top_frame_print(stdout, top->sample, top->before, top->sort,
				top->terminal ? top_terminal_lines() - 1 : SIZE_MAX);
	}
	fflush(stdout);
}

/* false: it is to end. */
static bool take_key(struct top *top, int key)
{
	static const char keys[TOP_SORTS] = {'p', 'm', 'r', 'f', 'n'};

	for (size_t i = 0; i < TOP_SORTS; i++)
		if (key == keys[i])
			top->sort = (enum top_sort)i;
	return key != 'q' && key >= 0;
}

/* Live: the first frame comes at once, without rates. */
static int run_terminal(struct top *top)
{
	int r = EXIT_DONE;

	while (r == EXIT_DONE && top->left > 0) {
		r = sample_again(top);
		if (r != EXIT_DONE)
			break;
		show(top);
		if (top->left != UINT64_MAX)
			top->left--;
		if (top->left > 0 && !take_key(top, top_terminal_wait(top->interval_ms)))
			break;
	}
	top_terminal_close();
	return r;
}

/* For a file or a pipe: each frame has rates. */
static int run_plain(struct top *top)
{
	int r = sample_again(top);

	while (r == EXIT_DONE && top->left > 0) {
		sleep_ms(top->interval_ms);
		r = sample_again(top);
		if (r != EXIT_DONE)
			break;
		show(top);
		if (ferror(stdout))
			break;
		if (top->left != UINT64_MAX && --top->left > 0 && !top->context->options->json)
			putchar('\n');
	}
	return r;
}

int command_top(struct command_context *context, int argc, char **argv)
{
	const struct options *options = context->options;
	struct top top = {.context = context, .interval_ms = INTERVAL_MS, .left = UINT64_MAX};
	int r;

	if (options->sort != NULL && !top_sort_find(options->sort, &top.sort))
		return command_bad_usage(
			context, "--sort takes pinned, mappings, refreshes, refused or name");
	if (options->interval_ms.given)
		top.interval_ms = options->interval_ms.value;
	if (top.interval_ms < 1 || top.interval_ms > INTERVAL_MS_MAX)
		return command_bad_usage(context, "--interval is from 0.001 to 3600 seconds");
	rpc_set_patience(context->rpc, PATIENCE_SECONDS);
	top.terminal = !options->json && top_terminal_open();
	if (options->count.given)
		top.left = options->count.value;
	else if (!top.terminal)
		top.left = 1;
	r = top.terminal ? run_terminal(&top) : run_plain(&top);
	top_sample_free(top.sample);
	top_sample_free(top.before);
	return r;
}
