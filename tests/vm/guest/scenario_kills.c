/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The daemon is killed again and again, at random times, under a VMM that changes its tables, its
 * memory and its second device while its first device's DMA goes on (tests/scenario/restart_vmm.c).
 * $IB_KILLS times, drawn from $IB_SEED.
 *
 * After some of them the VMM pauses: what the kernel has mapped is compared with the tables of both
 * devices, page by page, and what it counts as pinned with the ledger. At the beginning and at the
 * end the VMM gives back what comes and goes; then nothing may have grown.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "machine.h"
#include "proc.h"
#include "scenario.h"
#include "supervisor.h"

#define TESTS         "/usr/lib/iommubroker-tests/"
#define KILLS         6u
#define LOOK_EVERY    5u
#define PAUSE_US_MAX  3000000u
#define GOES_ON_TRIES 6000u
#define GOES_ON_US    20000
#define LINE_BYTES    2048
#define OWN_KIB_MORE  2048u
#define WINDOW        "0x100000000 2048" /* restart_vmm's, and its pages */

static const char *const dma_trouble[] = {
	"DMAR: [DMA", "DMAR: DRHD: handling fault", "for PCI function", "recover", NULL,
};

struct load {
	struct machine machine;
	int to[2], from[2]; /* the VMM's pipes */
	pid_t vmm;
	FILE *says;
	char line[LINE_BYTES];
	uint64_t random;
};

static unsigned int random_below(struct load *load, unsigned int n)
{
	load->random = load->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned int)(load->random >> 33) % n;
}

/* ── the VMM ───────────────────────────────────────────────────────────────────────────────── */

static void be_vmm(const struct machine *machine, void *user_data)
{
	struct load *load = user_data;
	char seed[16];

	snprintf(seed, sizeof(seed), "%u", random_below(load, 30000));
	dup2(load->to[0], 0);
	dup2(load->from[1], 1);
	execl(TESTS "restart_vmm", "restart_vmm", machine->fd_sock, getenv("IB_VM_PCI"),
	      getenv("IB_VM_PCI2"), seed, (char *)NULL);
	_exit(127);
}

static void hear(struct load *load, const char *word)
{
	char *got = fgets(load->line, sizeof(load->line), load->says);

	if (got == NULL || strncmp(load->line, word, strlen(word)) != 0)
		printf("  the VMM says: %s\n", got != NULL ? got : "nothing");
	REQUIRE(got != NULL && strncmp(load->line, word, strlen(word)) == 0);
	load->line[strcspn(load->line, "\n")] = '\0';
}

static void tell(struct load *load, const char *command)
{
	REQUIRE(dprintf(load->to[1], "%s\n", command) > 0);
}

static void ask(struct load *load, const char *command, const char *word)
{
	tell(load, command);
	hear(load, word);
}

static void vmm_begin(struct load *load)
{
	REQUIRE(pipe2(load->to, O_CLOEXEC) == 0 && pipe2(load->from, O_CLOEXEC) == 0);
	load->says = fdopen(load->from[0], "re");
	REQUIRE(load->says != NULL);
	load->vmm = machine_spawn(&load->machine, VMM_UID, be_vmm, load);
	close(load->to[0]);
	close(load->from[1]);
	hear(load, "ready");
}

static void vmm_end(struct load *load)
{
	ask(load, "quit", "bye");
	machine_join(load->vmm);
	fclose(load->says);
	close(load->to[1]);
}

static uint64_t counted(struct load *load, const char *what)
{
	const char *at;

	ask(load, "count", "counts ");
	at = strstr(load->line, what);
	REQUIRE(at != NULL);
	while (at > load->line && strchr(" 0123456789", at[-1]) != NULL)
		at--;
	return strtoull(at, NULL, 10);
}

/* What was refreshed since the daemon is ready was refreshed by it. */
static void wait_serves(struct load *load)
{
	uint64_t before;

	load->machine.daemon = supervisor_wait_ready(load->machine.supervisor);
	before = counted(load, " refreshes");
	for (unsigned int i = 0; counted(load, " refreshes") <= before; i++) {
		REQUIRE(i < GOES_ON_TRIES);
		usleep(GOES_ON_US);
	}
}

/* ── what must be so ───────────────────────────────────────────────────────────────────────── */

static unsigned int words(const char *line)
{
	unsigned int n = 0;

	for (const char *at = line; (at = strchr(at, ' ')) != NULL; at++)
		n++;
	return n;
}

/* How many address spaces the kernel has for the daemon. With tables, what the VMM said of them:
 * each that has something mapped must be one of them, and the other way around. */
static unsigned int spaces(const struct load *load, const char *tables)
{
	unsigned int n = 0, filled = 0, found = 0;
	char command[96], line[LINE_BYTES];
	FILE *pipe;

	snprintf(command, sizeof(command), TESTS "kernel_mappings %d " WINDOW,
		 (int)load->machine.daemon);
	pipe = popen(command, "re");
	REQUIRE(pipe != NULL);
	for (; fgets(line, sizeof(line), pipe) != NULL; n++) {
		line[strcspn(line, "\n")] = '\0';
		if (strspn(line, "0") == strlen(line))
			continue;
		filled++;
		found += tables != NULL && strstr(tables, line) != NULL;
	}
	CHECK_EQUAL((uint64_t)pclose(pipe), 0);
	if (tables != NULL) {
		CHECK_EQUAL(filled, words(tables));
		CHECK_EQUAL(found, words(tables));
	}
	return n;
}

/* The VMM pauses, from here until it is told to go on. */
static void compare(struct load *load)
{
	struct machine_status status;

	wait_serves(load);
	ask(load, "check", "ok ");
	printf("  %s\n", load->line);
	ask(load, "hold", "tables");
	spaces(load, load->line);
	machine_status(&load->machine, &status);
	CHECK_EQUAL(proc_pinned_bytes(load->machine.daemon), status.pinned_bytes);
}

/* What must not grow, of a VMM that rests. */
struct level {
	struct machine_status status;
	size_t descriptors, stored;
	unsigned int spaces;
	uint64_t own_kib;
};

static struct level level(struct load *load)
{
	struct level level = {0};

	compare(load);
	ask(load, "rest", "rests");
	machine_status(&load->machine, &level.status);
	level.descriptors = proc_descriptors(load->machine.daemon, NULL);
	level.stored = supervisor_stored(load->machine.supervisor);
	level.spaces = spaces(load, NULL);
	level.own_kib = proc_status(load->machine.daemon, "RssAnon", 10);
	tell(load, "go");
	return level;
}

static void check_level(const struct level *before, const struct level *after)
{
	CHECK_EQUAL(after->descriptors, before->descriptors);
	CHECK_EQUAL(after->stored, before->stored);
	CHECK_EQUAL(after->spaces, before->spaces);
	CHECK_EQUAL(after->status.sessions, before->status.sessions);
	CHECK_EQUAL(after->status.guests, before->status.guests);
	CHECK_EQUAL(after->status.devices, before->status.devices);
	CHECK_EQUAL(after->status.nested_domains, before->status.nested_domains);
	CHECK_EQUAL(after->status.pinned_bytes, before->status.pinned_bytes);
	CHECK_EQUAL(after->status.mappings_reserved, before->status.mappings_reserved);
	CHECK(after->own_kib <= before->own_kib + OWN_KIB_MORE);
}

/* ── death ─────────────────────────────────────────────────────────────────────────────────── */

/* One time in three it serves by then; else it may be starting, or taking over. */
static void die(struct load *load)
{
	if (random_below(load, 3) == 0)
		wait_serves(load);
	usleep(random_below(load, PAUSE_US_MAX));
	supervisor_kill(load->machine.supervisor);
}

static void die_often(struct load *load, unsigned int kills)
{
	for (unsigned int n = 1; n <= kills; n++) {
		check_step("death %u", n);
		die(load);
		if (n % LOOK_EVERY != 0)
			continue;
		compare(load);
		tell(load, "go");
	}
}

static uint64_t seed_draw(char *ret_text, size_t n)
{
	const char *given = getenv("IB_SEED");
	uint64_t seed = UINT64_C(0xcbf29ce484222325);
	uint32_t drawn = 0;

	if (given == NULL || given[0] == '\0') {
		REQUIRE(getentropy(&drawn, sizeof(drawn)) == 0);
		snprintf(ret_text, n, "%08" PRIx32, drawn);
	} else {
		snprintf(ret_text, n, "%s", given);
	}
	for (const char *at = ret_text; *at != '\0'; at++)
		seed = (seed ^ (uint8_t)*at) * UINT64_C(0x100000001b3);
	return seed;
}

void case_kills(void)
{
	const char *given = getenv("IB_KILLS");
	unsigned int kills =
		given != NULL && *given != '\0' ? (unsigned int)strtoul(given, NULL, 10) : KILLS;
	char rules[256], seed[32];
	const struct machine_options options = {.supervised = true, .device_rules = rules};
	struct level before, after;
	struct load load = {0};
	uint64_t mark = kernel_log_mark();

	snprintf(rules, sizeof(rules), "[Device]\nUser=%d\nPciAddress=%s\nPciAddress=%s\n", VMM_UID,
		 getenv("IB_VM_PCI"), getenv("IB_VM_PCI2"));
	load.random = seed_draw(seed, sizeof(seed));
	printf("  seed %s, %u deaths\n", seed, kills);
	fflush(stdout);
	machine_start(&load.machine, &options);
	vmm_begin(&load);
	/* what there is before is to be had of one that was taken over, too */
	supervisor_kill(load.machine.supervisor);
	check_step("at the beginning");
	before = level(&load);
	die_often(&load, kills);
	check_step("at the end");
	after = level(&load);
	check_level(&before, &after);
	CHECK_EQUAL(supervisor_starts(load.machine.supervisor), kills + 2);
	vmm_end(&load);
	CHECK_EQUAL(kernel_log_count(mark, dma_trouble, true), 0);
	load.machine.descriptors = SIZE_MAX; /* a fresh one's, and this one was not */
	machine_stop(&load.machine);
}
