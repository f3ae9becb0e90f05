/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a refresh costs on a real kernel, with a device attached: JSON lines {"name", "value",
 * "unit", "ratio", "against"}.
 *
 *     bench_kernel [-t TURNS] [-d DATA] [-o FILE] [CASE...]
 *
 * Three methods by turns in one run: the daemon's broker, shadow and backend without the transport;
 * the very same kernel calls, bare, in a loop; and a map or unmap of its own for each page, as VMMs
 * do it without the daemon. Ratios are of medians. Each row is of all refreshes of the case; the
 * machine's processor is emulated, so quote the ratios. Where its clock counts instructions (QEMU's
 * -icount), as on x86-64, one turn is like another.
 *
 * It runs as the daemon does: as the service user, without capabilities.
 */

#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench_method.h"

#define TURNS_MAX     99u
#define TURNS_DEFAULT 1u
#define DATA_DEFAULT  "/usr/lib/iommubroker-tests/data"

enum method { BY_BROKER, BY_BARE_CALLS, BY_PAGE, METHODS };

static const char *const method_names[] = {"broker", "bare_calls", "by_page"};

struct options {
	unsigned int turns;
	const char *output;
	const char *data;
};

static unsigned int passed, failed;
static FILE *rows;

static void report(const char *name, const char *what, double value, const char *unit, double ratio,
		   const char *against)
{
	fprintf(rows, "{\"name\": \"%s_%s\", \"value\": %.3f, \"unit\": \"%s\", \"ratio\": ", name,
		what, value, unit);
	if (against)
		fprintf(rows, "%.3f, \"against\": \"%s_%s\"}\n", ratio, name, against);
	else
		fprintf(rows, "null, \"against\": null}\n");
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static double median(uint64_t *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_u64);
	return (double)values[n / 2];
}

/* ── replays ───────────────────────────────────────────────────────────────────────────────── */

static uint64_t refreshes(const struct bench_scripts *scripts)
{
	uint64_t n = 0;

	for (size_t i = 0; i < scripts->n; i++)
		n += scripts->scripts[i].n_steps;
	return n;
}

static struct bench_time turn(struct bench_machine *machine, const struct bench_scripts *scripts,
			      struct bench_log *logs, enum method method)
{
	struct bench_time time = {0};

	switch (method) {
	case BY_BROKER:
		bench_by_broker(machine, scripts, NULL, &time);
		break;
	case BY_BARE_CALLS:
		bench_by_bare_calls(machine, scripts, logs, &time);
		break;
	case BY_PAGE:
		bench_by_page(machine, scripts, &time);
		break;
	case METHODS:
		break;
	}
	return time;
}

static void report_replay(const char *name, uint64_t n_refreshes, const double *ns,
			  const struct bench_time *last)
{
	double each = 1e3 * (double)n_refreshes;

	report(name, "broker", ns[BY_BROKER] / each, "us", ns[BY_BROKER] / ns[BY_BARE_CALLS],
	       "bare_calls");
	report(name, "bare_calls", ns[BY_BARE_CALLS] / each, "us", 0, NULL);
	report(name, "by_page", ns[BY_PAGE] / each, "us", ns[BY_PAGE] / ns[BY_BROKER], "broker");
	report(name, "broker_ioctls", (double)last[BY_BROKER].ioctls, "calls", 0, NULL);
	report(name, "by_page_ioctls", (double)last[BY_PAGE].ioctls, "calls",
	       (double)last[BY_PAGE].ioctls / (double)last[BY_BROKER].ioctls, "broker_ioctls");
}

static void report_sweeps(const char *name, const struct bench_time *time)
{
	double n = (double)time->sweeps;

	if (!time->sweeps)
		return;
	report(name, "sweep", (double)time->sweep_ns / n / 1e3, "us", 0, NULL);
	report(name, "sweep_share", 100.0 * (double)time->sweep_ns / (double)time->ns, "%", 0,
	       NULL);
}

/* The broker finds what there is to find, and no method more than another. */
static void check(const char *name, const struct bench_scripts *scripts,
		  const struct bench_time *time)
{
	uint64_t mapped = 0, unmapped = 0;

	for (size_t i = 0; i < scripts->n; i++) {
		mapped += scripts->scripts[i].mapped;
		unmapped += scripts->scripts[i].unmapped;
	}
	if (time[BY_BROKER].mapped == mapped && time[BY_BROKER].unmapped == unmapped &&
	    time[BY_BROKER].ioctls == time[BY_BARE_CALLS].ioctls) {
		passed++;
		return;
	}
	failed++;
	fprintf(stderr,
		"bench_kernel: %s: %" PRIu64 " leaves mapped and %" PRIu64 " unmapped, not %" PRIu64
		" and %" PRIu64 "; %" PRIu64 " calls, bare %" PRIu64 "\n",
		name, time[BY_BROKER].mapped, time[BY_BROKER].unmapped, mapped, unmapped,
		time[BY_BROKER].ioctls, time[BY_BARE_CALLS].ioctls);
}

/* Takes the scripts. */
static void replay(struct bench_machine *machine, const struct options *options, const char *name,
		   struct bench_scripts *scripts)
{
	struct bench_log *logs = bench_alloc(scripts->n, sizeof(*logs));
	struct bench_time last[METHODS], recorded = {0};
	uint64_t times[METHODS][TURNS_MAX];
	double medians[METHODS];

	bench_by_broker(machine, scripts, logs, &recorded);
	for (unsigned int i = 0; i < options->turns; i++) {
		for (unsigned int m = 0; m < METHODS; m++) {
			last[m] = turn(machine, scripts, logs, m);
			times[m][i] = last[m].ns;
			fprintf(stderr, "# %s turn %u %s: %.3f ms\n", name, i + 1, method_names[m],
				(double)last[m].ns / 1e6);
		}
	}
	for (unsigned int m = 0; m < METHODS; m++)
		medians[m] = median(times[m], options->turns);
	last[BY_BROKER].ioctls = recorded.ioctls;
	report_replay(name, refreshes(scripts), medians, last);
	report_sweeps(name, &last[BY_BROKER]);
	check(name, scripts, last);
	for (size_t i = 0; i < scripts->n; i++)
		free(logs[i].calls);
	free(logs);
	bench_scripts_free(scripts);
}

/* "lazy_unswept": as if its guest had invalidated no leaf before it said so, so that no sweep finds
 * one, and places that show the same frame pile up in the kernel. */
static void case_trace(struct bench_machine *machine, const struct options *options,
		       const char *name)
{
	struct bench_scripts scripts;
	char path[256];

	snprintf(path, sizeof(path), "%s/nvme-virtio-%s.trace.xz", options->data,
		 strcmp(name, "strict") ? "lazy" : "strict");
	bench_scripts_load(&scripts, path);
	if (!strcmp(name, "lazy"))
		bench_scripts_invalidate_early(&scripts);
	replay(machine, options, name, &scripts);
}

/* ── aliases ───────────────────────────────────────────────────────────────────────────────── */

/* A recorded guest's frames were shown at 249 places on average, at 1,920 at most. */
static void case_aliased(struct bench_machine *machine, const struct options *options,
			 const char *name)
{
	struct bench_scripts scripts;

	if (!strcmp(name, "aliased_most"))
		bench_scripts_lazy(&scripts, 2, 1920);
	else
		bench_scripts_lazy(&scripts, 16, 249);
	replay(machine, options, name, &scripts);
}

/* The worst that the limits of aliases allow, for some frames: how long the end of such a domain
 * takes, and the longest call of it, which cannot be killed. */
static void case_destroy(struct bench_machine *machine, const struct options *options,
			 const char *name)
{
	static const size_t n_frames = 2, n_places = FRAME_ALIASES_MAX;
	struct bench_scripts scripts;
	struct bench_script *script;
	struct refresh refresh = {.n_ranges = 1};
	uint64_t start_ns;

	bench_scripts_filled(&scripts, n_frames, n_places);
	script = scripts.scripts;
	bench_nested_make(machine, script);
	for (size_t i = 0; i < script->n_writes; i++)
		bench_write(machine, &script->writes[i]);
	refresh.nested = machine->nested;
	refresh.ranges[0] = (struct refresh_range){script->steps[0].start, script->steps[0].length};
	bench_refresh(machine, &refresh);
	if (refresh.results[0].mapped != n_frames * n_places)
		bench_die("the domain is not filled");
	bench_machine_watch(machine, true);
	start_ns = bench_now_ns();
	bench_nested_destroy(machine);
	report(name, "all", (double)(bench_now_ns() - start_ns) / 1e6, "ms", 0, NULL);
	report(name, "longest_call", (double)machine->longest_ns / 1e6, "ms", 0, NULL);
	bench_machine_watch(machine, false);
	bench_scripts_free(&scripts);
	passed++;
}

/* Its holder ends unannounced: devices stopped and blocked, all memory unpinned. The last case. */
static void case_release(struct bench_machine *machine, const struct options *options,
			 const char *name)
{
	double gib = (double)machine->memory_bytes / (double)(UINT64_C(1) << 30), seconds;
	uint64_t start_ns = bench_now_ns();

	(void)options;
	bench_guest_end(machine);
	seconds = (double)(bench_now_ns() - start_ns) / 1e9;
	report(name, "all", seconds * 1e3, "ms", 0, NULL);
	report(name, "per_gib", seconds / gib, "s", 0, NULL);
	passed++;
}

/* ── main ──────────────────────────────────────────────────────────────────────────────────── */

static const struct {
	const char *name;
	void (*run)(struct bench_machine *machine, const struct options *options, const char *name);
	bool only_named;
} cases[] = {
	{"lazy", case_trace, false},
	{"lazy_unswept", case_trace, true}, /* takes as long as all others */
	{"strict", case_trace, false},
	{"aliased", case_aliased, false},
	{"aliased_most", case_aliased, false},
	{"destroy", case_destroy, false},
	{"release", case_release, false},
};

static void become_daemon(void)
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	const struct passwd *user;

	if (getuid())
		return;
	user = getpwnam("iommubroker");
	if (!user)
		bench_die("no user iommubroker");
	if (setrlimit(RLIMIT_MEMLOCK, &unlimited) < 0 || setgroups(0, NULL) < 0 ||
	    setgid(user->pw_gid) < 0 || setuid(user->pw_uid) < 0)
		bench_die("cannot become user iommubroker");
}

static bool case_wanted(size_t i, char **names, int n)
{
	for (int k = 0; k < n; k++)
		if (!strcmp(names[k], cases[i].name))
			return true;
	return n == 0 && !cases[i].only_named;
}

static struct options options_read(int argc, char **argv)
{
	struct options options = {.turns = TURNS_DEFAULT, .data = DATA_DEFAULT};
	int option;

	while ((option = getopt(argc, argv, "t:d:o:")) != -1) {
		if (option == 't')
			options.turns = (unsigned int)strtoul(optarg, NULL, 10);
		else if (option == 'd')
			options.data = optarg;
		else if (option == 'o')
			options.output = optarg;
		else
			bench_die("usage: bench_kernel [-t TURNS] [-d DATA] [-o FILE] [CASE...]");
	}
	if (options.turns < 1 || options.turns > TURNS_MAX)
		bench_die("1 to %u turns", TURNS_MAX);
	return options;
}

int main(int argc, char **argv)
{
	struct options options = options_read(argc, argv);
	struct bench_machine machine;

	setvbuf(stdout, NULL, _IOLBF, 0);
	rows = options.output ? fopen(options.output, "we") : stdout;
	if (!rows)
		bench_die("cannot write %s", options.output);
	become_daemon();
	bench_machine_init(&machine);
	bench_method_init();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (case_wanted(i, argv + optind, argc - optind))
			cases[i].run(&machine, &options, cases[i].name);
	bench_machine_deinit(&machine);
	if (rows != stdout && fclose(rows) != 0)
		bench_die("cannot write %s", options.output);
	printf("%u passed, %u failed, 0 skipped\n", passed, failed);
	return failed != 0;
}
