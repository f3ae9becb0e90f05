/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See bench_machine.h. */

#include "bench_machine.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "util/guest_read.h"

#define MIB          (UINT64_C(1) << 20)
#define RAM_BYTES    (384 * MIB) /* of the recorded guests */
#define TABLES_BYTES (8 * MIB)
#define LEAVES_MAX   (UINT64_C(1) << 20)

/* The seat holds one machine: calls of the backend name no owner. */
static struct bench_machine *seated;

uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ── between broker and backend ────────────────────────────────────────────────────────────── */

static int seat_context_new(struct iommu_backend *backend, struct iommu_context **ret)
{
	int error = seated->kernel_ops->context_new(backend, ret);

	if (!error)
		seated->context = *ret;
	return error;
}

static int seat_device_open(struct iommu_backend *backend,
			    const struct iommu_device_address *address, struct iommu_device **ret)
{
	int error = seated->kernel_ops->device_open(backend, address, ret);

	if (!error)
		seated->kernel_device = *ret;
	return error;
}

static void log_call(const struct bench_call *call)
{
	struct bench_log *log = seated->log;

	if (log->n == log->room) {
		log->room = log->room ? 2 * log->room : 4096;
		log->calls = reallocarray(log->calls, log->room, sizeof(*log->calls));
		if (!log->calls)
			bench_die("no memory");
	}
	log->calls[log->n] = *call;
	log->calls[log->n++].step = seated->step;
}

static int seat_copy(struct iommu_context *context, uint32_t dst_ioas, uint64_t dst_iova,
		     uint32_t src_ioas, uint64_t src_iova, uint64_t length, unsigned int prot)
{
	const struct bench_call call = {
		.kind = BENCH_COPY,
		.prot = prot,
		.iova = dst_iova,
		.gpa = src_iova,
		.length = length,
	};

	seated->parent_ioas = src_ioas;
	log_call(&call);
	return seated->kernel_ops->copy(context, dst_ioas, dst_iova, src_ioas, src_iova, length,
					prot);
}

static int seat_cut(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length,
		    uint64_t *ret_unmapped)
{
	const struct bench_call call = {.kind = BENCH_CUT, .iova = iova, .length = length};

	log_call(&call);
	return seated->kernel_ops->cut(context, ioas, iova, length, ret_unmapped);
}

static void watch_since(uint64_t start_ns)
{
	uint64_t took_ns = bench_now_ns() - start_ns;

	if (took_ns > seated->longest_ns)
		seated->longest_ns = took_ns;
}

static int watched_cut(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length,
		       uint64_t *ret_unmapped)
{
	uint64_t start_ns = bench_now_ns();
	int error = seated->kernel_ops->cut(context, ioas, iova, length, ret_unmapped);

	watch_since(start_ns);
	return error;
}

static int watched_destroy(struct iommu_context *context, uint32_t id)
{
	uint64_t start_ns = bench_now_ns();
	int error = seated->kernel_ops->destroy(context, id);

	watch_since(start_ns);
	return error;
}

void bench_machine_record(struct bench_machine *machine, struct bench_log *log)
{
	machine->log = log;
	machine->ops.copy = log ? seat_copy : machine->kernel_ops->copy;
	machine->ops.cut = log ? seat_cut : machine->kernel_ops->cut;
}

void bench_machine_watch(struct bench_machine *machine, bool watch)
{
	machine->longest_ns = 0;
	machine->ops.cut = watch ? watched_cut : machine->kernel_ops->cut;
	machine->ops.destroy = watch ? watched_destroy : machine->kernel_ops->destroy;
}

/* ── made ──────────────────────────────────────────────────────────────────────────────────── */

#define must(machine, call)                                                     \
	do {                                                                    \
		if ((call) != 0)                                                \
			bench_die("%s: %s", #call, (machine)->refusal.message); \
	} while (0)

static void broker_make(struct bench_machine *machine)
{
	/* without limits */
	const struct broker_settings settings = {
		.nested_mappings_default = LEAVES_MAX,
		.designations = S390_DESIGNATIONS_ALL,
		.require_seals = BROKER_SEALS_OFF,
		.unpopulated_memory = BROKER_UNPOPULATED_REJECT,
		.threads_max = 2,
		.pin_slice_bytes = 256 * MIB,
		.open_devices = true,
	};
	struct peer peer = {.pid = getpid(), .uid = getuid(), .gid = getgid()};
	uint8_t secret[BROKER_SECRET_BYTES];
	const struct guest_create_request guest = {.name = "bench"};

	if (broker_new(&machine->broker, machine->backend, &settings))
		bench_die("no broker");
	peer.pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	must(machine, session_new(&machine->session, machine->broker, &peer, "bench", secret,
				  &machine->refusal));
	close(peer.pidfd);
	must(machine, guest_create(machine->broker, machine->session, &guest, &machine->guest,
				   secret, &machine->refusal));
}

static int memory_make(struct bench_machine *machine)
{
	int fd = memfd_create("guest memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	machine->memory_bytes = RAM_BYTES + TABLES_BYTES;
	if (fd < 0 || ftruncate(fd, (off_t)machine->memory_bytes) < 0)
		bench_die("no memory file");
	machine->memory =
		mmap(NULL, machine->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (machine->memory == MAP_FAILED)
		bench_die("no memory");
	memset(machine->memory, 0x5a, machine->memory_bytes);
	machine->tables = (struct zpci_tables){
		.host = machine->memory + RAM_BYTES,
		.gpa = RAM_BYTES,
		.n_bytes = TABLES_BYTES,
	};
	return fd;
}

static void memory_map(struct bench_machine *machine)
{
	struct memory_update_request *request = bench_alloc(1, sizeof(*request));
	struct memory_file_added added;
	struct memory_updated updated;

	must(machine, memory_file_add(machine->broker, machine->session, machine->guest,
				      memory_make(machine), true, &added, &machine->refusal));
	request->n_map = 1;
	request->map[0] = (struct memory_map_entry){
		.memory_file = added.memory_file,
		.length = machine->memory_bytes,
		.writable = true,
	};
	must(machine, memory_update(machine->broker, machine->session, machine->guest, request,
				    NULL, &updated, &machine->refusal));
	free(request);
}

/* The one that tests/vm/run.sh names. */
static struct iommu_device_address device_address(void)
{
	const char *fid = getenv("IB_VM_FID"), *pci = getenv("IB_VM_PCI");
	struct iommu_device_address address = {.by_fid = fid && *fid};

	if (address.by_fid)
		address.fid = (uint32_t)strtoul(fid, NULL, 0);
	else if (pci && strlen(pci) < sizeof(address.pci_address))
		strcpy(address.pci_address, pci);
	else
		bench_die("neither IB_VM_FID nor IB_VM_PCI");
	return address;
}

static void device_make(struct bench_machine *machine)
{
	const struct device_open_request request = {.consume_fd = -1, .address = device_address()};
	struct device_description description;
	int fd;

	must(machine, device_open(machine->broker, machine->session, machine->guest, &request,
				  &machine->device, &fd, &machine->refusal));
	close(fd);
	must(machine, device_bind(machine->broker, machine->session, machine->device, NULL, NULL,
				  &description, &machine->refusal));
}

void bench_machine_init(struct bench_machine *machine)
{
	int r;

	memset(machine, 0, sizeof(*machine));
	if (guest_read_init() < 0)
		bench_die("no SIGBUS handler");
	r = iommu_iommufd_new(&machine->backend, "/dev/iommu", "/dev/vfio", "/sys");
	if (r < 0)
		bench_die("no iommufd: %s", strerror(-r));
	machine->kernel_ops = machine->backend->ops;
	machine->ops = *machine->kernel_ops;
	machine->ops.context_new = seat_context_new;
	machine->ops.device_open = seat_device_open;
	machine->backend->ops = &machine->ops;
	seated = machine;
	broker_make(machine);
	memory_map(machine);
	device_make(machine);
}

void bench_machine_deinit(struct bench_machine *machine)
{
	session_unref(machine->session);
	broker_free(machine->broker);
	munmap(machine->memory, machine->memory_bytes);
	seated = NULL;
}

struct end {
	pthread_mutex_t lock;
	pthread_cond_t over;
	bool is_over;
};

static void on_end(void *context)
{
	struct end *end = context;

	pthread_mutex_lock(&end->lock);
	end->is_over = true;
	pthread_cond_signal(&end->over);
	pthread_mutex_unlock(&end->lock);
}

void bench_guest_end(struct bench_machine *machine)
{
	struct end end = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
	struct broker_status status;

	session_close(machine->session, on_end, &end);
	pthread_mutex_lock(&end.lock);
	while (!end.is_over)
		pthread_cond_wait(&end.over, &end.lock);
	pthread_mutex_unlock(&end.lock);
	broker_status(machine->broker, &status);
	if (status.pinned_bytes || status.guests)
		bench_die("the guest is still there");
}

/* ── at work ───────────────────────────────────────────────────────────────────────────────── */

void bench_nested_make(struct bench_machine *machine, const struct bench_script *script)
{
	struct nested_create_request request = {
		.device = machine->device,
		.attach = true,
		.format = NESTED_S390,
		.first = script->first,
		.last = script->last,
	};
	struct nested_created created;

	if (zpci_tables_init(&machine->tables, script->iota) < 0)
		bench_die("no table for IOTA %#llx", (unsigned long long)script->iota);
	request.iota = zpci_tables_iota(&machine->tables, script->iota);
	must(machine, nested_create(machine->broker, machine->session, &request, &created,
				    &machine->refusal));
	if (created.verdict != VERDICT_DONE)
		bench_die("a registration ends with verdict %d, not DONE", created.verdict);
	machine->nested = created.nested;
}

void bench_nested_destroy(struct bench_machine *machine)
{
	uint64_t dropped;

	must(machine, nested_destroy(machine->broker, machine->session, machine->nested, &dropped,
				     &machine->refusal));
}

void bench_write(struct bench_machine *machine, const struct bench_leaf *leaf)
{
	if (zpci_tables_set(&machine->tables, leaf->iova, leaf->gpa, leaf->access) < 0)
		bench_die("a leaf that cannot be, at %#llx", (unsigned long long)leaf->iova);
}

/* Set for the refresh that is waited for; long ones are answered by the broker's threads. */
static _Atomic int refresh_status;
#define REFRESH_RUNS 1000 /* neither 0, REFUSED nor negative */

static void refresh_done(struct refresh *refresh, int status)
{
	refresh_status = status;
}

void bench_refresh(struct bench_machine *machine, struct refresh *refresh)
{
	refresh_status = REFRESH_RUNS;
	refresh->done = refresh_done;
	broker_refresh_run(machine->broker, machine->session, refresh);
	while (refresh_status == REFRESH_RUNS)
		sched_yield();
	if (refresh_status)
		bench_die("a refresh: %s", refresh->refusal.message);
	if (refresh->results[0].verdict != VERDICT_DONE)
		bench_die("a refresh ends with verdict %d, not DONE", refresh->results[0].verdict);
}

/* ── without it ────────────────────────────────────────────────────────────────────────────── */

void bench_space_init(struct bench_space *space, struct bench_machine *machine, bool cuttable)
{
	const struct iommu_backend_ops *ops = machine->kernel_ops;

	space->machine = machine;
	if (ops->ioas_new(machine->context, cuttable, &space->ioas) ||
	    ops->page_table_new(machine->context, machine->kernel_device, space->ioas,
				&space->page_table) ||
	    ops->attach(machine->kernel_device, space->page_table))
		bench_die("no address space");
}

void bench_space_deinit(struct bench_space *space)
{
	struct bench_machine *machine = space->machine;
	const struct iommu_backend_ops *ops = machine->kernel_ops;

	if (ops->detach(machine->kernel_device) ||
	    ops->destroy(machine->context, space->page_table) ||
	    ops->destroy(machine->context, space->ioas))
		bench_die("an address space does not go");
}
