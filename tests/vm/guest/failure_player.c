/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See failure_player.h. The child and its parent take turns, a byte each through a socket. */

#include "failure_player.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#include "iommubroker.h"
#include "proc.h"

#define SETTLE_TRIES    2500
#define SETTLE_PAUSE_US 2000

struct player_shared {
	struct player_order order;
	struct player_report report;
	bool only_usage;
	char step[120];
};

/* ── the child ─────────────────────────────────────────────────────────────────────────────── */

struct child {
	struct player_shared *shared;
	struct fail_nth *control;
	struct life *life;
	struct iommubroker_session *watcher; /* lives on, and sees what its tenant is charged */
	int socket;
};

/* A kernel with IOMMUFD_TEST also lets lookups of ids fail when it is told to let an allocation
 * fail, and answers that there is no such object. No memory is needed for that: other kernels never
 * do, and then the daemon is right to believe it. What must hold in any case is checked. */
static bool is_strict(const struct child *child)
{
	int error = child->control->last_error;

	return error == 0 || error == ENOMEM;
}

/* Want of memory, said as such; or what the kernel said, with its words. */
static void check_documented(const struct outcome *outcome, bool strict)
{
	bool resources =
		outcome->result == -ENOMEM && strcmp(outcome->reason, "HOST_RESOURCES") == 0;
	bool host = outcome->result == -EIO && strcmp(outcome->reason, "HOST_ERROR") == 0;

	if (outcome->result < 0) {
		CHECK(resources || (host && !strict));
		CHECK(outcome->message[0] != '\0');
	} else {
		CHECK(outcome->verdict == IOMMUBROKER_VERDICT_RESOURCES ||
		      (outcome->verdict == IOMMUBROKER_VERDICT_ERROR && !strict));
	}
}

static bool child_step_again(struct child *child, size_t step)
{
	struct outcome outcome = life_step(child->life, step);

	if (CHECK(outcome.good)) {
		life_check(child->life, step, &outcome, true);
		return true;
	}
	printf("  again: %s: %s (verdict %u)\n", outcome.reason, outcome.message, outcome.verdict);
	return false;
}

/* False: the life ends here. */
static bool child_step(struct child *child, size_t step)
{
	struct player_report *report = &child->shared->report;
	struct outcome outcome = life_step(child->life, step);
	bool strict = is_strict(child);

	life_check(child->life, step, &outcome, strict);
	if (outcome.good)
		return true;
	CHECK(report->failed == SIZE_MAX);
	report->failed = step;
	report->outcome = outcome;
	check_documented(&outcome, strict);
	return strict && child->shared->order.on_failure == PLAYER_RETRY &&
	       child_step_again(child, step);
}

static void child_play(struct child *child)
{
	const struct player_order *order = &child->shared->order;

	child->shared->report = (struct player_report){.failed = SIZE_MAX};
	life_begin(child->life, order->dma);
	if (order->play != NULL) {
		order->play(child->life, child->control);
	} else {
		for (size_t step = 0; step < order->n_steps; step++) {
			check_step("%s, %s", child->shared->step, life_step_name(step));
			if (!child_step(child, step))
				break;
		}
	}
	child->shared->report.calls_before_end = atomic_load(&child->control->calls);
	life_end(child->life);
}

/* The watcher holds its session, its connection, and the call that asks. */
static bool watcher_holds_one(const char *resource)
{
	static const char *const held[] = {"sessions", "connections", "calls"};

	for (size_t i = 0; i < sizeof(held) / sizeof(held[0]); i++)
		if (!strcmp(resource, held[i]))
			return true;
	return false;
}

static void child_check_usage(struct child *child)
{
	struct iommubroker_error *error = NULL;
	struct iommubroker_usage *usage = NULL;

	REQUIRE_DONE(iommubroker_usage(child->watcher, &usage, &error), &error);
	CHECK(usage->n_entries >= 8);
	for (size_t i = 0; i < usage->n_entries; i++) {
		bool mine = watcher_holds_one(usage->entries[i].resource);

		check_step("%s, ledger, %s", child->shared->step, usage->entries[i].resource);
		CHECK_EQUAL(usage->entries[i].current, mine ? 1 : 0);
	}
	iommubroker_usage_free(usage);
}

static void child_run(const struct machine *machine, void *user_data)
{
	struct child *child = user_data;
	struct iommubroker_error *error = NULL;
	char turn;

	child->life = life_new(machine);
	REQUIRE_DONE(iommubroker_session_open(machine->fd_sock, "watcher", &child->watcher, &error),
		     &error);
	while (read(child->socket, &turn, 1) == 1) {
		if (child->shared->only_usage)
			child_check_usage(child);
		else
			child_play(child);
		REQUIRE_EQUAL((uint64_t)write(child->socket, &turn, 1), 1);
	}
	iommubroker_session_free(child->watcher);
	life_free(child->life);
}

/* ── what is left ──────────────────────────────────────────────────────────────────────────── */

static uint64_t vmstat(const char *key)
{
	uint64_t value = UINT64_MAX;
	size_t n = strlen(key);
	char line[128];
	FILE *file = fopen("/proc/vmstat", "re");

	REQUIRE(file != NULL);
	while (fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, key, n) == 0 && line[n] == ' ')
			value = strtoull(line + n + 1, NULL, 10);
	fclose(file);
	REQUIRE(value != UINT64_MAX);
	return value;
}

static struct player_base base_now(const struct player *player)
{
	return (struct player_base){
		.descriptors = proc_descriptors(player->machine->daemon, NULL),
		.iommu_pages = vmstat("nr_iommu_pages"),
		.pinned_pages = vmstat("nr_foll_pin_acquired") - vmstat("nr_foll_pin_released"),
	};
}

static bool is_settled(const struct player *player, const struct player_base *now)
{
	return now->descriptors == player->base.descriptors &&
	       now->iommu_pages == player->base.iommu_pages &&
	       now->pinned_pages == player->base.pinned_pages &&
	       proc_pinned_bytes(player->machine->daemon) == 0;
}

/* The end of a connection is worked off when the VMM goes on already. */
static void settle(const struct player *player)
{
	struct player_base now = base_now(player);

	for (int i = 0; i < SETTLE_TRIES && !is_settled(player, &now); i++) {
		usleep(SETTLE_PAUSE_US);
		now = base_now(player);
	}
	CHECK_EQUAL(now.descriptors, player->base.descriptors);
	CHECK_EQUAL(now.iommu_pages, player->base.iommu_pages);
	CHECK_EQUAL(now.pinned_pages, player->base.pinned_pages);
	CHECK_EQUAL(proc_pinned_bytes(player->machine->daemon), 0);
	REQUIRE(waitpid(player->machine->daemon, NULL, WNOHANG) == 0);
}

/* ── the parent ────────────────────────────────────────────────────────────────────────────── */

static void take_turn(struct player *player)
{
	char turn = 0;

	REQUIRE_EQUAL((uint64_t)write(player->socket, &turn, 1), 1);
	REQUIRE_EQUAL((uint64_t)read(player->socket, &turn, 1), 1);
}

static void remember_step(struct player *player)
{
	snprintf(player->shared->step, sizeof(player->shared->step), "call %u, allocation %u",
		 player->control->call, player->control->nth);
	check_step("%s", player->shared->step);
}

struct player_report player_play(struct player *player, const struct player_order *order)
{
	player->shared->order = *order;
	player->shared->only_usage = false;
	remember_step(player);
	take_turn(player);
	settle(player);
	fail_nth_disarm(player->control);
	player->shared->only_usage = true;
	take_turn(player);
	return player->shared->report;
}

/* Until the daemon holds nothing of a guest, and closes nothing more for a while. */
static void wait_for_rest(const struct player *player)
{
	pid_t daemon = player->machine->daemon;
	size_t before = 0, now;

	for (int still = 0, i = 0; still < 20 && i < SETTLE_TRIES; i++) {
		usleep(SETTLE_PAUSE_US);
		now = proc_descriptors(daemon, NULL);
		still = now == before && proc_descriptors(daemon, "/dev/") <= 1 ? still + 1 : 0;
		before = now;
	}
	CHECK_EQUAL(proc_pinned_bytes(daemon), 0);
}

/* What is made at first use, here and in the kernel, belongs to the base. */
static void base_take(struct player *player)
{
	const struct player_report *report = &player->shared->report;

	for (int i = 0; i < 2; i++) {
		player->shared->order = (struct player_order){.n_steps = life_steps()};
		take_turn(player);
		if (!CHECK_EQUAL(report->failed, SIZE_MAX))
			printf("  without a failure: %s: %s\n", life_step_name(report->failed),
			       report->outcome.message);
		wait_for_rest(player);
	}
	player->base = base_now(player);
}

void player_start(struct player *player, struct machine *machine, struct fail_nth *control)
{
	struct child child = {.control = control};
	int sockets[2];

	*player = (struct player){.machine = machine, .control = control};
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
	player->shared = mmap(NULL, sizeof(*player->shared), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(player->shared != MAP_FAILED);
	child.shared = player->shared;
	child.socket = sockets[1];
	player->socket = sockets[0];
	player->child = machine_spawn(machine, VMM_UID, child_run, &child);
	close(sockets[1]);
	base_take(player);
}

void player_stop(struct player *player)
{
	shutdown(player->socket, SHUT_RDWR);
	machine_join(player->child);
	close(player->socket);
	munmap(player->shared, sizeof(*player->shared));
}
