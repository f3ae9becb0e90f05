/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * iommubroker-replay: play a recorded guest through the daemon as a VMM would, and check by DMA
 * that the device reaches what the guest's tables say and nothing else. See iommubroker-replay(1).
 */

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "replay/check.h"
#include "replay/play.h"

#define EXIT_BAD_USAGE 2
#define EXIT_NO_DAEMON 3

#define RAM_MIB_DEFAULT 384
#define RAM_MIB_MAX     1024 /* below the tables, and below 4 GiB */

struct options {
	const char *runtime_dir;
	const char *trace, *tables;
	const char *guest_name;
	struct play_anchor anchors[FUNCTIONS_MAX];
	size_t n_anchors;
	uint64_t ram_bytes;
	unsigned int keep_seconds;
	bool json, ring;
};

struct inputs {
	struct input trace, tables;
};

static void usage(FILE *to)
{
	fputs("usage: iommubroker-replay [--runtime-dir DIR] --trace FILE [OPTION...]\n"
	      "       iommubroker-replay [--runtime-dir DIR] [--trace FILE] --tables FILE\n"
	      "                          --anchor FID=IOTA,PBA,PAL... [OPTION...]\n"
	      "\n"
	      "  --runtime-dir DIR   folder of the daemon's sockets (/run/iommubroker)\n"
	      "  --trace FILE        events of a recorded guest; .xz and .gz as they are\n"
	      "  --tables FILE       pages with the tables of a recorded guest; played in place "
	      "of\n"
	      "                      the trace, which then only tells what they must hold\n"
	      "  --anchor F=I,B,L    of function F: IOTA, first and last IOVA (PBA, PAL)\n"
	      "  --guest-name NAME   as operators see it (replay)\n"
	      "  --memory-mib N      the guest's memory (384)\n"
	      "  --keep SECONDS      stay alive at the end, for a look with iommubrokerctl\n"
	      "  --ring              refresh through an update ring\n"
	      "  --json              print one JSON object\n"
	      "\n"
	      "Exit status: 0 without failures, 1 with, 2 wrong usage, 3 no daemon.\n",
	      to);
}

static bool parse_number(const char *text, char end, uint64_t *ret, const char **ret_after)
{
	char *after;

	errno = 0;
	*ret = strtoull(text, &after, 0);
	if (errno != 0 || after == text || *after != end || *text == '-')
		return false;
	*ret_after = after + (end != '\0');
	return true;
}

static bool parse_anchor(const char *text, struct options *options)
{
	struct play_anchor *to = &options->anchors[options->n_anchors];
	uint64_t id;

	if (options->n_anchors == FUNCTIONS_MAX || !parse_number(text, '=', &id, &text) ||
	    id > UINT32_MAX || !parse_number(text, ',', &to->anchor.iota, &text) ||
	    !parse_number(text, ',', &to->anchor.pba, &text) ||
	    !parse_number(text, '\0', &to->anchor.pal, &text) || to->anchor.pba > to->anchor.pal)
		return false;
	for (size_t i = 0; i < options->n_anchors; i++)
		if (options->anchors[i].function_id == id)
			return false;
	to->function_id = id;
	options->n_anchors++;
	return true;
}

static bool parse_bounded(const char *text, uint64_t max, uint64_t *ret)
{
	return parse_number(text, '\0', ret, &text) && *ret <= max;
}

static bool parse_option(int option, struct options *options)
{
	uint64_t number;

	switch (option) {
	case 'r':
		options->runtime_dir = optarg;
		return true;
	case 't':
		options->trace = optarg;
		return true;
	case 'T':
		options->tables = optarg;
		return true;
	case 'a':
		return parse_anchor(optarg, options);
	case 'g':
		options->guest_name = optarg;
		return true;
	case 'm':
		if (!parse_bounded(optarg, RAM_MIB_MAX, &number) || number == 0)
			return false;
		options->ram_bytes = number << 20;
		return true;
	case 'k':
		if (!parse_bounded(optarg, 86400, &number))
			return false;
		options->keep_seconds = number;
		return true;
	case 'j':
		options->json = true;
		return true;
	case 'R':
		options->ring = true;
		return true;
	case 'h':
		usage(stdout);
		exit(EXIT_SUCCESS);
	default:
		return false;
	}
}

static bool parse_options(int argc, char **argv, struct options *options)
{
	static const struct option table[] = {
		{"runtime-dir", required_argument, NULL, 'r'},
		{"trace", required_argument, NULL, 't'},
		{"tables", required_argument, NULL, 'T'},
		{"anchor", required_argument, NULL, 'a'},
		{"guest-name", required_argument, NULL, 'g'},
		{"memory-mib", required_argument, NULL, 'm'},
		{"keep", required_argument, NULL, 'k'},
		{"ring", no_argument, NULL, 'R'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "h", table, NULL)) != -1)
		if (!parse_option(option, options))
			return false;
	return optind == argc && (options->trace != NULL || options->tables != NULL) &&
	       (options->tables != NULL) == (options->n_anchors > 0);
}

static json_t *live_leaves_json(const struct machine *machine)
{
	json_t *live = json_object();
	char id[16];

	for (size_t i = 0; i < machine->n_functions; i++) {
		snprintf(id, sizeof(id), "%u", machine->functions[i].id);
		json_object_set_new(live, id, json_integer(machine->functions[i].live_leaves));
	}
	return live;
}

static void print_json(const struct machine *machine)
{
	const struct totals *totals = &machine->totals;
	json_t *root = json_pack(
		"{s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:f}", "refreshes",
		(json_int_t)totals->refreshes, "leaves_mapped", (json_int_t)totals->leaves_mapped,
		"leaves_unmapped", (json_int_t)totals->leaves_unmapped, "live_leaves",
		live_leaves_json(machine), "backend_maps", (json_int_t)totals->backend_maps,
		"backend_unmaps", (json_int_t)totals->backend_unmaps, "dma_checks",
		(json_int_t)totals->dma_checks, "dma_failures", (json_int_t)totals->dma_failures,
		"seconds", totals->seconds);

	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	fflush(stdout);
	json_decref(root);
}

static void print_text(const struct machine *machine)
{
	const struct totals *totals = &machine->totals;

	printf("%-28s %12llu\n", "refreshes", (unsigned long long)totals->refreshes);
	printf("%-28s %12llu\n", "leaves mapped or changed",
	       (unsigned long long)totals->leaves_mapped);
	printf("%-28s %12llu\n", "leaves unmapped", (unsigned long long)totals->leaves_unmapped);
	for (size_t i = 0; i < machine->n_functions; i++)
		printf("live leaves of function %-4u %12llu\n", machine->functions[i].id,
		       (unsigned long long)machine->functions[i].live_leaves);
	printf("%-28s %12llu\n", "backend calls that map",
	       (unsigned long long)totals->backend_maps);
	printf("%-28s %12llu\n", "backend calls that unmap",
	       (unsigned long long)totals->backend_unmaps);
	printf("%-28s %12llu\n", "checks by DMA", (unsigned long long)totals->dma_checks);
	printf("%-28s %12llu\n", "of them failed", (unsigned long long)totals->dma_failures);
	printf("%-28s %12.2f\n", "seconds", totals->seconds);
	fflush(stdout);
}

static double now_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* What the daemon answered on the way, and what is installed at the end. */
static void compare(struct machine *machine)
{
	struct totals *totals = &machine->totals;

	if (machine_read_counters(machine) < 0)
		return;
	if (totals->leaves_mapped != totals->model_mapped ||
	    totals->leaves_unmapped != totals->model_unmapped)
		machine_fail(machine,
			     "the daemon mapped %llu leaves and unmapped %llu, not %llu and %llu",
			     (unsigned long long)totals->leaves_mapped,
			     (unsigned long long)totals->leaves_unmapped,
			     (unsigned long long)totals->model_mapped,
			     (unsigned long long)totals->model_unmapped);
	for (size_t i = 0; i < machine->n_functions; i++)
		check_all_leaves(machine, &machine->functions[i]);
}

static void play(struct machine *machine, const struct options *options,
		 const struct inputs *inputs)
{
	double started = now_seconds();
	int r;

	if (options->tables == NULL)
		r = play_trace(machine, &inputs->trace);
	else
		r = play_tables(machine, &inputs->tables, options->anchors, options->n_anchors);
	if (r == 0 && options->tables != NULL && options->trace != NULL)
		r = play_compare_end(machine, &inputs->trace);
	machine->totals.seconds = now_seconds() - started;
	if (r == 0)
		compare(machine);
	if (options->json)
		print_json(machine);
	else
		print_text(machine);
	if (r == 0 && options->keep_seconds > 0)
		sleep(options->keep_seconds);
}

static int function_ids(const struct options *options, const struct inputs *inputs,
			uint32_t *ret_ids, size_t *ret_n)
{
	if (options->trace != NULL) {
		int r = play_trace_functions(&inputs->trace, ret_ids, ret_n);

		if (r < 0 || options->tables == NULL)
			return r;
	}
	for (size_t i = 0; i < options->n_anchors; i++)
		ret_ids[i] = options->anchors[i].function_id;
	*ret_n = options->n_anchors;
	return 0;
}

static int run(const struct options *options, const struct inputs *inputs)
{
	struct machine_options machine_options = {
		.guest_name = options->guest_name,
		.ram_bytes = options->ram_bytes,
		.by_ring = options->ring,
		.own_tables = options->tables == NULL,
		.checks = &check_emulated,
	};
	static struct machine machine;
	uint32_t ids[FUNCTIONS_MAX];
	char socket[4096];
	int r;

	r = function_ids(options, inputs, ids, &machine_options.n_functions);
	if (r < 0) {
		fprintf(stderr, "iommubroker-replay: %s: %s\n", options->trace,
			r == -E2BIG ? "too many functions" : "not a trace");
		return EXIT_FAILURE;
	}
	machine_options.function_ids = ids;
	snprintf(socket, sizeof(socket), "%s/fd.sock", options->runtime_dir);
	machine_options.socket = socket;
	r = machine_open(&machine, &machine_options);
	if (r == 0)
		play(&machine, options, inputs);
	machine_close(&machine);
	if (r == -ENOTCONN)
		return EXIT_NO_DAEMON;
	return machine.totals.failures + machine.totals.dma_failures > 0 ? EXIT_FAILURE
									 : EXIT_SUCCESS;
}

/* No path: nothing to read. */
static bool read_input(const char *path, struct input *ret)
{
	int r = path != NULL ? input_read(path, ret) : 0;

	if (r < 0)
		fprintf(stderr, "iommubroker-replay: %s: %s\n", path, strerrordesc_np(-r));
	return r == 0;
}

int main(int argc, char **argv)
{
	struct options options = {
		.runtime_dir = "/run/iommubroker",
		.guest_name = "replay",
		.ram_bytes = (uint64_t)RAM_MIB_DEFAULT << 20,
	};
	struct inputs inputs = {0};
	int r = EXIT_FAILURE;

	if (!parse_options(argc, argv, &options)) {
		usage(stderr);
		return EXIT_BAD_USAGE;
	}
	if (read_input(options.trace, &inputs.trace) && read_input(options.tables, &inputs.tables))
		r = run(&options, &inputs);
	input_free(&inputs.trace);
	input_free(&inputs.tables);
	return r;
}
