/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A VMM under which the daemon is killed again and again, and which must not notice more than a
 * pause.
 *
 *   restart_vmm FD_SOCK DEVICE SECOND_DEVICE SEED [RELAXED_FUNCTION]
 *
 * Its devices are functions of the emulated backend or real ones, as restart_dma.h has them.
 *
 * Five threads at once: the device's DMA in a loop over mappings that never change, which must
 * never fault nor land elsewhere; a vCPU that changes its tables and refreshes, and looks through
 * the device at what a refresh that was DONE has promised; guest memory that comes and goes; a
 * second device that is opened, bound, registered, changed and closed, in every third life with a
 * managed domain; another guest that comes and goes, with a device if a function is given for it
 * that may have relaxed translation. Every other refresh goes through an update ring. Whatever is
 * not as it should be is said on one line that begins with FAIL, and ends the program.
 *
 * Lines on stdin: "check" lets the threads pause, compares every page of both windows, as the
 * devices see them, with the tables (of real devices some pages, and only what is mapped), and
 * answers "ok" with counts of what was done since the start; "count" answers "counts" with them at
 * once; "pause" does as "check", answers "held" with what the daemon should have charged now, and
 * lets them go on at the next line, "go" (answered "ok"); "hold" lets them pause until "go" and
 * answers "tables" with a map of each device that there is: a bit for each page of its window, the
 * first one's in the first digit's highest, set where its tables show memory; "rest", after "hold",
 * gives back whatever else comes and goes and answers "rests"; "quit" gives everything back and
 * answers "bye". At first it says "ready".
 */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "iommubroker.h"
#include "restart_dma.h"

#define MIB            (UINT64_C(1) << 20)
#define MEMORY_BYTES   (64 * MIB)
#define FIXED_BYTES    (48 * MIB) /* of them, what is always mapped */
#define PIECE_BYTES    MIB        /* what comes and goes, 16 of them */
#define PIECES         16u
#define PAGE           UINT64_C(4096)
#define WINDOW_FIRST   UINT64_C(0x100000000)
#define WINDOW_LAST    UINT64_C(0x17fffffff)
#define LEAVES_A_TABLE 256u
#define TABLES         8u /* page tables of a device; the first one's leaves never change */
#define LEAVES         (TABLES * LEAVES_A_TABLE)
#define STABLE         LEAVES_A_TABLE

/* Where the tables and buffers of device number d are, in guest physical addresses. */
#define TABLES_OF(d)   (MIB * (1 + (d)))
#define REGION_OF(d)   TABLES_OF(d)
#define SEGMENT_OF(d)  (TABLES_OF(d) + 0x4000)
#define PAGES_OF(d, t) (TABLES_OF(d) + 0x8000 + (t)*0x800)
#define STABLE_OF(d)   (MIB * (8 + (d))) /* STABLE pages, which only that device writes */
#define FRAMES         (16 * MIB) /* all others, up to the end of the fixed part, and the pieces */

#define WORKSPACE RESTART_WORKSPACE_PAGES

#define INVALID_LEAF UINT64_C(0x400)

#define REFRESH_TIMEOUT_NS UINT64_C(500000000)
#define BUSY_PAUSE_US      500
#define PATIENCE_NS        UINT64_C(120000000000)

struct function {
	unsigned int number; /* 0 to 2 */
	const char *name;
	int fd;
	struct iommubroker_device *device;
	struct iommubroker_nested *nested;
	uint32_t nested_index;
	bool managed;                  /* its domain has no tables: leaves are given one by one */
	struct iommubroker_ring *ring; /* for every other refresh */
	uint64_t n_entries;            /* that went through it */
	struct restart_dma *dma;
	uint64_t leaves[LEAVES]; /* as its tables have them */
};

static struct {
	uint8_t *memory;
	int memory_fd;
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	struct iommubroker_memory_file *file;
	struct function functions[2];
	atomic_bool piece_there[PIECES]; /* certain */
	atomic_bool piece_gone[PIECES];  /* certain; neither: it is changing */
	atomic_ulong n_transfers, n_refreshes, n_entries, n_busy, n_updates, n_lives;
	pthread_rwlock_t running; /* read: a thread does one more thing; write: all pause */
	atomic_bool stop;
	bool paused; /* but for the first device's DMA */
} vmm;

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	char line[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	printf("FAIL %s\n", line);
	fflush(stdout);
	_exit(EXIT_FAILURE);
}

/* error: where the call put it; NULL: the call has none. */
static void check(int result, const char *what, struct iommubroker_error *const *error)
{
	if (result)
		fail("%s: %d %s", what, result, error ? iommubroker_error_message(*error) : "");
}

static uint32_t random_below(uint64_t *state, uint32_t n)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)((*state >> 33) % n);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ── the guest's memory and tables ─────────────────────────────────────────────────────────── */

static void write_entry(uint64_t gpa, uint64_t entry)
{
	__atomic_store_n((uint64_t *)(void *)(vmm.memory + gpa), htobe64(entry), __ATOMIC_RELEASE);
}

static void set_leaf(struct function *function, unsigned int leaf, uint64_t entry)
{
	function->leaves[leaf] = entry;
	write_entry(PAGES_OF(function->number, leaf / LEAVES_A_TABLE) + leaf % LEAVES_A_TABLE * 8,
		    entry);
}

/* How many leaves, from the first on, never change. */
static unsigned int stable_leaves(const struct function *function)
{
	return function->number == 0 ? STABLE : WORKSPACE;
}

static void make_tables(struct function *function)
{
	unsigned int d = function->number;

	for (uint64_t i = 0; i < 2048; i++) {
		write_entry(REGION_OF(d) + i * 8, 0x20);
		write_entry(SEGMENT_OF(d) + i * 8, 0x20);
	}
	for (unsigned int i = 0; i < LEAVES; i++)
		set_leaf(function, i, INVALID_LEAF);
	write_entry(REGION_OF(d) + 2 * 8, SEGMENT_OF(d) | 0x4 | 3);
	for (uint64_t t = 0; t < TABLES; t++)
		write_entry(SEGMENT_OF(d) + t * 8, PAGES_OF(d, t));
	for (unsigned int i = 0; i < stable_leaves(function); i++)
		set_leaf(function, i, STABLE_OF(d) + i * PAGE);
}

static int memory_file(uint64_t bytes)
{
	int fd = memfd_create("restart-vmm", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) || fallocate(fd, 0, 0, (off_t)bytes) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		fail("guest memory: %s", strerror(errno));
	return fd;
}

static void make_memory(void)
{
	vmm.memory_fd = memory_file(MEMORY_BYTES);
	vmm.memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vmm.memory_fd, 0);
	if (vmm.memory == MAP_FAILED)
		fail("guest memory: %s", strerror(errno));
}

/* ── what the VMM asks of the daemon ───────────────────────────────────────────────────────── */

static void connect_guest(const char *path)
{
	const struct iommubroker_guest_options options = {
		.struct_bytes = sizeof(options),
		.name = "restart",
	};
	struct iommubroker_map map = {
		.length = FIXED_BYTES,
		.access = IOMMUBROKER_ACCESS_READ_WRITE,
	};
	const struct iommubroker_memory_update update = {.n_map = 1, .map = &map};
	struct iommubroker_error *error = NULL;

	check(iommubroker_session_open(path, "restart-vmm", &vmm.session, &error), "session",
	      &error);
	check(iommubroker_guest_create(vmm.session, &options, &vmm.guest, &error), "guest", &error);
	check(iommubroker_memory_file_add(vmm.guest, vmm.memory_fd, true, &vmm.file, &error),
	      "memory file", &error);
	map.file = vmm.file;
	check(iommubroker_memory_update(vmm.guest, &update, NULL, NULL, NULL, &error), "memory",
	      &error);
}

static struct iommubroker_anchor anchor_of(const struct function *function)
{
	return (struct iommubroker_anchor){
		.iota = REGION_OF(function->number) | 0x804,
		.pba = WINDOW_FIRST,
		.pal = WINDOW_LAST,
	};
}

static int nested_create(struct function *function, struct iommubroker_registration *ret,
			 struct iommubroker_error **ret_error)
{
	const struct iommubroker_anchor anchor = anchor_of(function);
	const struct iommubroker_address_range window = {WINDOW_FIRST, WINDOW_LAST};

	if (function->managed)
		return iommubroker_nested_create_managed(function->device, &window, true, LEAVES,
							 &function->nested, ret, ret_error);
	return iommubroker_nested_create_s390(function->device, &anchor, true, 0, &function->nested,
					      ret, ret_error);
}

static void function_close(struct function *function)
{
	struct iommubroker_error *error = NULL;

	check(iommubroker_ring_destroy(function->ring, &error), "destroying a ring", &error);
	function->ring = iommubroker_ring_free(function->ring);
	check(iommubroker_nested_destroy(function->nested, NULL, &error), "deregister", &error);
	function->nested = iommubroker_nested_free(function->nested);
	function->dma = restart_dma_close(function->dma);
	close(function->fd);
	check(iommubroker_device_close(function->device, NULL, &error), "close", &error);
	function->device = iommubroker_device_free(function->device);
}

/* One entry in flight at a time; none is lost, and none answered twice. */
static void do_by_ring(struct function *function, struct iommubroker_ring_entry entry,
		       struct iommubroker_result *ret)
{
	struct iommubroker_ring_result result;
	uint32_t lane = (function->n_entries + 1) / 64 % 2;

	entry.nested_index = function->nested_index;
	entry.user_data = ++function->n_entries;
	if (iommubroker_ring_submit(function->ring, lane, &entry, 1) != 1)
		fail("the ring takes no entry");
	check(iommubroker_ring_wait(function->ring, lane, PATIENCE_NS), "waiting for the ring",
	      NULL);
	if (iommubroker_ring_reap(function->ring, lane, &result, 1) != 1)
		fail("the ring has nothing");
	if (result.user_data != entry.user_data)
		fail("the ring answers %" PRIu64 ", not %" PRIu64, result.user_data,
		     entry.user_data);
	*ret = result.result;
	vmm.n_entries++;
}

/* As a Linux guest does: on BUSY again. */
static void refresh(struct function *function, uint64_t start, uint64_t length)
{
	const struct iommubroker_range range = {.start = start, .length = length};
	const struct iommubroker_ring_entry entry = {IOMMUBROKER_RING_REFRESH, 0, start, length};
	const uint64_t end = now_ns() + PATIENCE_NS;
	struct iommubroker_result result;

	do {
		if (start / PAGE % 2)
			do_by_ring(function, entry, &result);
		else
			check(iommubroker_refresh(function->nested, &range, 1, REFRESH_TIMEOUT_NS,
						  &result),
			      "refresh", NULL);
		if (result.verdict == IOMMUBROKER_VERDICT_BUSY) {
			vmm.n_busy++;
			usleep(BUSY_PAUSE_US);
		}
		if (now_ns() > end)
			fail("refresh: BUSY for two minutes");
	} while (result.verdict == IOMMUBROKER_VERDICT_BUSY);
	if (result.verdict != IOMMUBROKER_VERDICT_DONE)
		fail("refresh of %#" PRIx64 ": verdict %u, event %u", start, result.verdict,
		     result.event_code);
	vmm.n_refreshes++;
}

/* Entries of a managed domain, likewise. */
static void give(struct function *function, uint64_t iova, uint64_t length, uint64_t gpa, bool map)
{
	const struct iommubroker_ring_entry by_ring = {
		.operation = map ? IOMMUBROKER_RING_MAP : IOMMUBROKER_RING_UNMAP,
		.iova = iova,
		.length = length,
		.gpa = gpa,
		.writable = map,
	};
	const struct iommubroker_entry entry = {
		.iova = iova,
		.length = length,
		.gpa = gpa,
		.access = map ? IOMMUBROKER_ACCESS_READ_WRITE : IOMMUBROKER_ACCESS_NONE,
	};
	struct iommubroker_error *error = NULL;
	struct iommubroker_result result;
	size_t n = 1;

	do {
		if (iova / PAGE % 2)
			do_by_ring(function, by_ring, &result);
		else
			check(iommubroker_nested_update(function->nested, &entry, 1, &result, &n,
							&error),
			      "update", &error);
		if (result.verdict == IOMMUBROKER_VERDICT_BUSY)
			usleep(BUSY_PAUSE_US);
	} while (result.verdict == IOMMUBROKER_VERDICT_BUSY);
	if (n != 1 || result.verdict != IOMMUBROKER_VERDICT_DONE)
		fail("%s at %#" PRIx64 ": verdict %u of %zu", map ? "map" : "unmap", iova,
		     result.verdict, n);
	vmm.n_refreshes++;
}

static void function_open(struct function *function)
{
	const struct restart_workspace workspace = {
		.iova = WINDOW_FIRST,
		.host = vmm.memory + STABLE_OF(function->number),
	};
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	const char *why;

	check(restart_device_open(vmm.guest, function->name, &function->device, &function->fd,
				  &error),
	      "open", &error);
	check(iommubroker_device_bind(function->device, NULL, NULL, NULL, &error), "bind", &error);
	check(nested_create(function, &registration, &error), "register", &error);
	if (registration.verdict != IOMMUBROKER_VERDICT_DONE)
		fail("register: verdict %u", registration.verdict);
	function->nested_index = registration.index;
	if (function->managed)
		give(function, WINDOW_FIRST, WORKSPACE * PAGE, STABLE_OF(function->number), true);
	why = restart_dma_open(&function->dma, function->fd, vmm.memory_fd, &workspace);
	if (why)
		fail("DMA of device %u: %s", function->number, why);
	function->n_entries = 0;
	check(iommubroker_ring_create(vmm.guest, 2, 8, &function->ring, &error), "ring", &error);
}

/* ── what the devices see ──────────────────────────────────────────────────────────────────── */

/* A leaf may show a piece of memory that is changing just now: then nothing is known of it. */
enum expected { SHOWN, HIDDEN, UNKNOWN };

static enum expected expected_of(uint64_t entry)
{
	uint64_t gpa = entry & ~(PAGE - 1);
	unsigned int piece;

	if (entry & INVALID_LEAF)
		return HIDDEN;
	if (gpa < FIXED_BYTES)
		return SHOWN;
	piece = (unsigned int)((gpa - FIXED_BYTES) / PIECE_BYTES);
	if (atomic_load(&vmm.piece_there[piece]))
		return SHOWN;
	return atomic_load(&vmm.piece_gone[piece]) ? HIDDEN : UNKNOWN;
}

/* What is not there, or can go at any time, is looked at only where that is no fault. */
static bool may_look(uint64_t entry)
{
	if (!restart_kind.faults)
		return true;
	return !(entry & INVALID_LEAF) && (vmm.paused || (entry & ~(PAGE - 1)) < FIXED_BYTES);
}

static void look(struct function *function, unsigned int leaf)
{
	uint64_t iova = WINDOW_FIRST + leaf * PAGE, entry = function->leaves[leaf];
	uint64_t gpa = entry & ~(PAGE - 1);
	enum expected before = expected_of(entry);
	bool reaches = false;
	const char *why = NULL;

	if (before == UNKNOWN || leaf < WORKSPACE || !may_look(entry) ||
	    !restart_dma_wants_look(function->dma))
		return;
	if (before == SHOWN)
		why = restart_dma_look(function->dma, iova, vmm.memory + gpa, gpa);
	else
		reaches = !restart_kind.faults && restart_dma_reaches(function->dma, iova);
	if (before != expected_of(entry))
		return;
	if (reaches)
		fail("device %u sees memory at %#" PRIx64 ", its tables hide it", function->number,
		     iova);
	if (why)
		fail("device %u sees at %#" PRIx64 ": %s; its tables show %#" PRIx64,
		     function->number, iova, why, entry);
}

/* ── threads ───────────────────────────────────────────────────────────────────────────────── */

struct job {
	void (*once)(uint64_t *random);
	uint64_t random;
	bool pauses; /* with the others, for a check */
};

static void *run(void *context)
{
	struct job *job = context;

	while (!atomic_load(&vmm.stop)) {
		if (job->pauses)
			pthread_rwlock_rdlock(&vmm.running);
		job->once(&job->random);
		if (job->pauses)
			pthread_rwlock_unlock(&vmm.running);
	}
	return NULL;
}

/* Never pauses: whatever becomes of the daemon, this is served by the hardware alone. */
static void transfer(uint64_t *random)
{
	struct function *function = &vmm.functions[0];
	unsigned int page = WORKSPACE + random_below(random, STABLE - WORKSPACE);
	uint64_t sent[8], back[8],
		iova = WINDOW_FIRST + page * PAGE + 64 * random_below(random, 64);
	const char *why;

	for (size_t i = 0; i < 8; i++)
		sent[i] = *random + i;
	why = restart_dma_transfer(function->dma, iova, sent, back, sizeof(sent));
	if (why)
		fail("DMA to %#" PRIx64 ": %s", iova, why);
	if (memcmp(sent, back, sizeof(sent)) ||
	    memcmp(vmm.memory + STABLE_OF(0) + (iova - WINDOW_FIRST), sent, sizeof(sent)))
		fail("DMA to %#" PRIx64 " landed elsewhere", iova);
	if (++vmm.n_transfers % 64 == 0)
		usleep(500); /* the machine has other things to do */
}

static uint64_t random_leaf(uint64_t *random)
{
	uint64_t pages = (MEMORY_BYTES - FRAMES) / PAGE;

	if (!random_below(random, 3))
		return INVALID_LEAF;
	return FRAMES + random_below(random, (uint32_t)pages) * PAGE;
}

/* A few leaves next to each other, so that runs come and go; now and then the whole window. */
static void change_leaves(struct function *function, unsigned int first, uint64_t *random)
{
	unsigned int leaf = first + random_below(random, LEAVES - first);
	unsigned int n = 1 + random_below(random, 40), end;
	uint64_t entry = random_leaf(random);

	end = leaf + n < LEAVES ? leaf + n : LEAVES;
	for (unsigned int i = leaf; i < end; i++) {
		set_leaf(function, i, entry);
		if (!(entry & INVALID_LEAF))
			entry = entry + PAGE < MEMORY_BYTES ? entry + PAGE : INVALID_LEAF;
	}
	if (random_below(random, 16))
		refresh(function, WINDOW_FIRST + leaf * PAGE, (end - leaf) * PAGE);
	else
		refresh(function, WINDOW_FIRST, WINDOW_LAST - WINDOW_FIRST + 1);
	for (unsigned int i = leaf; i < end; i++)
		look(function, i);
}

/* The same, without tables; of memory that is always there. */
static void change_entries(struct function *function, uint64_t *random)
{
	unsigned int first = stable_leaves(function), end, n = 1 + random_below(random, 40);
	unsigned int leaf = first + random_below(random, LEAVES - first);
	uint64_t gpa = FRAMES + PAGE * random_below(random, (FIXED_BYTES - FRAMES) / PAGE - n);
	uint64_t iova = WINDOW_FIRST + leaf * PAGE;
	bool map = random_below(random, 3);

	end = leaf + n < LEAVES ? leaf + n : LEAVES;
	give(function, iova, (end - leaf) * PAGE, 0, false);
	if (map)
		give(function, iova, (end - leaf) * PAGE, gpa, true);
	for (unsigned int i = leaf; i < end; i++) {
		function->leaves[i] = map ? gpa + (i - leaf) * PAGE : INVALID_LEAF;
		look(function, i);
	}
}

static void run_vcpu(uint64_t *random)
{
	change_leaves(&vmm.functions[0], STABLE, random);
	usleep(200);
}

static void change_piece(unsigned int piece)
{
	bool there = atomic_load(&vmm.piece_there[piece]);
	const uint64_t gpa = FIXED_BYTES + piece * PIECE_BYTES;
	const struct iommubroker_map map = {
		.file = vmm.file,
		.offset = gpa,
		.gpa = gpa,
		.length = PIECE_BYTES,
		.access = IOMMUBROKER_ACCESS_READ_WRITE,
	};
	const struct iommubroker_address_range range = {gpa, gpa + PIECE_BYTES - 1};
	const struct iommubroker_memory_update update = {
		.n_unmap = there,
		.unmap = &range,
		.n_map = !there,
		.map = &map,
	};
	struct iommubroker_error *error = NULL;

	atomic_store(&vmm.piece_there[piece], false);
	atomic_store(&vmm.piece_gone[piece], false);
	check(iommubroker_memory_update(vmm.guest, &update, NULL, NULL, NULL, &error),
	      there ? "unmapping memory" : "mapping memory", &error);
	atomic_store(there ? &vmm.piece_gone[piece] : &vmm.piece_there[piece], true);
	vmm.n_updates++;
}

static void change_memory(uint64_t *random)
{
	change_piece(random_below(random, PIECES));
	usleep(2000);
}

static void register_again(struct function *function)
{
	const struct iommubroker_anchor anchor = anchor_of(function);
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;

	check(iommubroker_nested_replace(function->nested, &anchor, &registration, &error),
	      "registering again", &error);
	if (registration.verdict != IOMMUBROKER_VERDICT_DONE)
		fail("registering again: verdict %u", registration.verdict);
}

/* Away from its tables, and back to them. */
static void attach_again(struct function *function)
{
	struct iommubroker_error *error = NULL;

	if (restart_kind.forgets)
		return;
	check(iommubroker_device_attach(function->device, IOMMUBROKER_ATTACHMENT_BLOCKED, NULL,
					NULL, &error),
	      "detaching", &error);
	if (!restart_kind.faults && restart_dma_reaches(function->dma, WINDOW_FIRST))
		fail("detached, and not blocked");
	check(iommubroker_device_attach(function->device, IOMMUBROKER_ATTACHMENT_NESTED,
					function->nested, NULL, &error),
	      "attaching", &error);
	for (unsigned int i = 0; i < LEAVES; i += 7)
		look(function, i);
}

/* ── another guest ─────────────────────────────────────────────────────────────────────────── */

static struct {
	struct iommubroker_guest *guest;
	struct iommubroker_memory_file *file;
	struct function function; /* number 2 */
	bool mapped;
	int memory_fd;
	unsigned int step;
} beside;

static void beside_map(void)
{
	const struct iommubroker_map map = {
		.file = beside.file,
		.length = FIXED_BYTES / 2,
		.access = IOMMUBROKER_ACCESS_READ_WRITE,
	};
	const struct iommubroker_memory_update update = {.n_map = 1, .map = &map};
	struct iommubroker_error *error = NULL;

	check(iommubroker_memory_update(beside.guest, &update, NULL, NULL, NULL, &error), "memory",
	      &error);
	beside.mapped = true;
}

/* The first one of a guest: its memory is pinned now. */
static void beside_bind(void)
{
	struct function *function = &beside.function;
	struct iommubroker_error *error = NULL;

	check(restart_device_open(beside.guest, function->name, &function->device, &function->fd,
				  &error),
	      "open", &error);
	check(iommubroker_device_bind(function->device, NULL, NULL, NULL, &error), "bind", &error);
}

static void beside_attach(enum iommubroker_attachment to)
{
	struct iommubroker_error *error = NULL;

	check(iommubroker_device_attach(beside.function.device, to, NULL, NULL, &error), "attach",
	      &error);
}

static void beside_register(void)
{
	const struct iommubroker_anchor anchor = anchor_of(&beside.function);
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;

	make_tables(&beside.function);
	check(iommubroker_nested_create_s390(beside.function.device, &anchor, true, 0,
					     &beside.function.nested, &registration, &error),
	      "register", &error);
}

/* To an anchor that shows all memory, and back to tables. */
static void beside_replace(bool relaxed)
{
	struct iommubroker_anchor anchor = anchor_of(&beside.function);
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;

	if (relaxed)
		anchor.iota = 0;
	check(iommubroker_nested_replace(beside.function.nested, &anchor, &registration, &error),
	      "registering again", &error);
	if (registration.verdict != IOMMUBROKER_VERDICT_DONE)
		fail("registering again: verdict %u", registration.verdict);
}

static void beside_reset(void)
{
	struct iommubroker_error *error = NULL;

	check(iommubroker_guest_reset(beside.guest, NULL, &error), "reset", &error);
	beside.function.nested = iommubroker_nested_free(beside.function.nested);
}

static void beside_close(void)
{
	struct function *function = &beside.function;
	struct iommubroker_error *error = NULL;

	close(function->fd);
	check(iommubroker_device_close(function->device, NULL, &error), "close", &error);
	function->device = iommubroker_device_free(function->device);
}

static void beside_create(void)
{
	const struct iommubroker_guest_options options = {
		.struct_bytes = sizeof(options),
		.name = "beside",
	};
	struct iommubroker_error *error = NULL;

	check(iommubroker_guest_create(vmm.session, &options, &beside.guest, &error), "guest",
	      &error);
}

static void beside_add_file(void)
{
	struct iommubroker_error *error = NULL;

	check(iommubroker_memory_file_add(beside.guest, beside.memory_fd, true, &beside.file,
					  &error),
	      "memory file", &error);
}

static void beside_remove_file(void)
{
	struct iommubroker_error *error = NULL;

	check(iommubroker_memory_file_remove(beside.file, &error), "removing a file", &error);
	beside.file = iommubroker_memory_file_free(beside.file);
}

static void beside_destroy(void)
{
	struct iommubroker_error *error = NULL;

	check(iommubroker_guest_destroy(beside.guest, &error), "destroying a guest", &error);
	beside.file = iommubroker_memory_file_free(beside.file);
	beside.guest = iommubroker_guest_free(beside.guest);
	beside.mapped = false;
}

/* One step of the life of a guest that has, with a function of its own, a device as well. */
static void live_beside(uint64_t *random)
{
	switch (beside.step++) {
	case 0:
		beside_create();
		break;
	case 1:
		beside_add_file();
		if (!beside.function.name)
			beside.step = random_below(random, 3) ? 9 : 10;
		break;
	case 2:
		beside_map();
		break;
	case 3:
		beside_bind();
		break;
	case 4:
		beside_attach(IOMMUBROKER_ATTACHMENT_RELAXED);
		break;
	case 5:
		beside_register();
		break;
	case 6:
		beside_replace(true);
		beside_replace(false);
		break;
	case 7:
		beside_reset();
		break;
	case 8:
		beside_close();
		beside.step = 10;
		break;
	case 9:
		beside_remove_file();
		break;
	default:
		beside_destroy();
		beside.step = 0;
	}
	usleep(3000);
}

/* One step of the second device's life; between two of them everybody can pause. */
static void live(uint64_t *random)
{
	struct function *function = &vmm.functions[1];

	if (!function->device) {
		make_tables(function);
		function->managed = !random_below(random, 3);
		function_open(function);
	} else if (!random_below(random, 20) && !function->managed) {
		register_again(function);
	} else if (!random_below(random, 20)) {
		attach_again(function);
	} else if (random_below(random, 12)) {
		if (function->managed)
			change_entries(function, random);
		else
			change_leaves(function, stable_leaves(function), random);
	} else {
		function_close(function);
		vmm.n_lives++;
	}
	usleep(1000);
}

/* ── commands ──────────────────────────────────────────────────────────────────────────────── */

static void hold_still(void)
{
	pthread_rwlock_wrlock(&vmm.running);
	vmm.paused = true;
}

static void go_on(void)
{
	vmm.paused = false;
	pthread_rwlock_unlock(&vmm.running);
}

static void print_counts(const char *word)
{
	printf("%s %lu transfers, %lu refreshes, %lu by ring, %lu busy, %lu updates, %lu lives\n",
	       word, vmm.n_transfers, vmm.n_refreshes, vmm.n_entries, vmm.n_busy, vmm.n_updates,
	       vmm.n_lives);
	fflush(stdout);
}

static void look_at_all(void)
{
	for (size_t f = 0; f < 2; f++)
		for (unsigned int i = 0; vmm.functions[f].device && i < LEAVES; i++)
			look(&vmm.functions[f], i);
}

static void check_all(void)
{
	hold_still();
	look_at_all();
	print_counts("ok");
	go_on();
}

static void print_tables(void)
{
	fputs("tables", stdout);
	for (size_t f = 0; f < 2; f++) {
		const struct function *function = &vmm.functions[f];

		if (!function->device)
			continue;
		putchar(' ');
		for (unsigned int i = 0; i < LEAVES; i += 4) {
			unsigned int digit = 0;

			for (unsigned int k = 0; k < 4; k++)
				digit = digit << 1 |
					(expected_of(function->leaves[i + k]) == SHOWN);
			printf("%x", digit);
		}
	}
	putchar('\n');
	fflush(stdout);
}

static void rest(void)
{
	if (vmm.functions[1].device)
		function_close(&vmm.functions[1]);
	if (beside.function.device && beside.function.nested)
		beside_reset();
	if (beside.function.device)
		beside_close();
	if (beside.guest)
		beside_destroy();
	beside.step = 0;
	for (unsigned int i = 0; i < PIECES; i++)
		if (atomic_load(&vmm.piece_there[i]))
			change_piece(i);
	puts("rests");
	fflush(stdout);
}

static void hold(void)
{
	char line[64];

	hold_still();
	print_tables();
	while (fgets(line, sizeof(line), stdin) && strcmp(line, "go\n") != 0)
		rest();
	go_on();
}

/* What the ledger should say, but for what it counts at other measures. While all pause. */
static void print_held(void)
{
	unsigned int devices = !!beside.function.device, rings = 0, regions = 1 + beside.mapped;
	uint64_t pinned = FIXED_BYTES + (beside.mapped ? FIXED_BYTES / 2 : 0), leaves = 0;
	unsigned int nested = !!beside.function.nested, pieces = 0;

	for (size_t f = 0; f < 2; f++) {
		const struct function *function = &vmm.functions[f];

		devices += !!function->device;
		nested += !!function->device;
		rings += !!function->device;
		for (unsigned int i = 0; function->device && i < LEAVES; i++)
			leaves += expected_of(function->leaves[i]) == SHOWN;
	}
	for (size_t i = 0; i < PIECES; i++)
		pieces += atomic_load(&vmm.piece_there[i]);
	printf("held guests %u, devices %u, nested_domains %u, managed %u, rings %u, "
	       "memory_files %u, regions %u, pinned_bytes %" PRIu64 ", leaves %" PRIu64 "\n",
	       1 + !!beside.guest, devices, nested,
	       vmm.functions[1].device && vmm.functions[1].managed, rings, 1 + !!beside.file,
	       regions + pieces, pinned + pieces * PIECE_BYTES, leaves);
	fflush(stdout);
}

static void pause_all(char *line, int line_bytes)
{
	hold_still();
	look_at_all();
	print_held();
	if (!fgets(line, line_bytes, stdin))
		_exit(EXIT_FAILURE); /* nobody asks any more */
	go_on();
	puts("ok");
	fflush(stdout);
}

static void tear_down(void)
{
	struct iommubroker_error *error = NULL;

	for (size_t f = 0; f < 2; f++)
		if (vmm.functions[f].device)
			function_close(&vmm.functions[f]);
	check(iommubroker_guest_destroy(vmm.guest, &error), "destroy", &error);
	iommubroker_memory_file_free(vmm.file);
	iommubroker_guest_free(vmm.guest);
	iommubroker_session_free(vmm.session);
}

int main(int argc, char **argv)
{
	static struct job jobs[] = {
		{transfer, 0, false}, {run_vcpu, 0, true},    {change_memory, 0, true},
		{live, 0, true},      {live_beside, 0, true},
	};
	pthread_rwlockattr_t writers_first;
	pthread_t threads[5];
	char line[64];

	if (argc != 5 && argc != 6)
		return 2;
	pthread_rwlockattr_init(&writers_first);
	pthread_rwlockattr_setkind_np(&writers_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&vmm.running, &writers_first);
	for (size_t i = 0; i < PIECES; i++)
		vmm.piece_gone[i] = true;
	make_memory();
	connect_guest(argv[1]);
	for (unsigned int f = 0; f < 2; f++) {
		vmm.functions[f].number = f;
		vmm.functions[f].name = argv[2 + f];
	}
	beside.function.number = 2;
	beside.function.name = argc == 6 ? argv[5] : NULL;
	/* A kernel without kcmp(2) does not tell two openings of a file from one. */
	beside.memory_fd = beside.function.name ? vmm.memory_fd : memory_file(MIB);
	make_tables(&vmm.functions[0]);
	function_open(&vmm.functions[0]);
	puts("ready");
	fflush(stdout);
	for (size_t i = 0; i < 5; i++) {
		jobs[i].random = strtoul(argv[4], NULL, 0) * 5 + i;
		check(-pthread_create(&threads[i], NULL, run, &jobs[i]), "thread", NULL);
	}
	while (fgets(line, sizeof(line), stdin) && strcmp(line, "quit\n") != 0)
		if (!strcmp(line, "hold\n"))
			hold();
		else if (!strcmp(line, "pause\n"))
			pause_all(line, sizeof(line));
		else if (!strcmp(line, "count\n"))
			print_counts("counts");
		else
			check_all();
	atomic_store(&vmm.stop, true);
	for (size_t i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	tear_down();
	puts("bye");
	return EXIT_SUCCESS;
}
