/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See machine.h. What is here is what any VMM does with the library, plus the counting. */

#include "replay/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replay/check.h"
#include "replay/workspace.h"

/* Tables of one anchor: two for the upper levels and a page table for each MiB of 2 GiB. */
#define TABLES_BYTES (8u << 20)
#define TABLES_GPA   UINT64_C(0x180000000) /* well above the RAM of recorded guests */
/* What a refresh did that was answered too late is in no count: so there is time, also on a machine
 * that is emulated, for one that takes out all that a lazy guest has mapped. */
#define REFRESH_NS   UINT64_C(300000000000)
#define BUSY_TRIES   1000
#define RING_ENTRIES 16

void machine_fail(struct machine *machine, const char *format, ...)
{
	va_list args;

	machine->totals.failures++;
	va_start(args, format);
	fputs("iommubroker-replay: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

static int broken(struct machine *machine, const char *what, int result,
		  struct iommubroker_error *error)
{
	const char *message = iommubroker_error_message(error);

	machine_fail(machine, "%s: %s", what,
		     message[0] != '\0' ? message : strerrordesc_np(-result));
	iommubroker_error_free(error);
	return result;
}

/* Guest memory: one file with RAM and tables, sealed so that nobody can take it away under the
 * daemon, and populated, as the daemon wants it. */
static int make_memory(struct machine *machine)
{
	uint64_t n_bytes = machine->ram_bytes + machine->tables_bytes;
	struct stat st;
	void *memory;

	machine->memory_fd = memfd_create("replayed-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (machine->memory_fd < 0 || ftruncate(machine->memory_fd, n_bytes) < 0 ||
	    fallocate(machine->memory_fd, 0, 0, n_bytes) < 0 ||
	    fcntl(machine->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0 ||
	    fstat(machine->memory_fd, &st) < 0)
		return broken(machine, "guest memory", -errno, NULL);
	memory = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, machine->memory_fd, 0);
	if (memory == MAP_FAILED)
		return broken(machine, "guest memory", -errno, NULL);
	machine->memory = memory;
	machine->memory_dev = st.st_dev;
	machine->memory_ino = st.st_ino;
	return 0;
}

static int map_memory(struct machine *machine)
{
	struct iommubroker_error *error = NULL;
	struct iommubroker_map map[2] = {
		{
			.length = machine->ram_bytes,
			.access = IOMMUBROKER_ACCESS_READ_WRITE,
		},
		{
			.offset = machine->ram_bytes,
			.gpa = TABLES_GPA,
			.length = machine->tables_bytes,
			.access = IOMMUBROKER_ACCESS_READ_WRITE,
		},
	};
	const struct iommubroker_memory_update update = {
		.n_map = machine->tables_bytes > 0 ? 2 : 1,
		.map = map,
	};
	int r;

	r = iommubroker_memory_file_add(machine->guest, machine->memory_fd, true, &machine->file,
					&error);
	if (r < 0)
		return broken(machine, "memory file", r, error);
	map[0].file = map[1].file = machine->file;
	r = iommubroker_memory_update(machine->guest, &update, NULL, NULL, NULL, &error);
	return r < 0 ? broken(machine, "guest memory", r, error) : 0;
}

static int open_device(struct machine *machine, struct function *function,
		       struct iommubroker_error **ret_error)
{
	if (function->pci_address != NULL)
		return iommubroker_device_open_pci(machine->guest, function->pci_address,
						   &function->device, &function->device_fd,
						   ret_error);
	return iommubroker_device_open_function(machine->guest, function->id, &function->device,
						&function->device_fd, ret_error);
}

/* Open, tell KVM (a real VMM: KVM_DEV_VFIO_FILE_ADD), bind; then get at its DMA engine. */
static int open_function(struct machine *machine, struct function *function)
{
	struct iommubroker_error *error = NULL;
	int r;

	function->device_fd = -1;
	r = open_device(machine, function, &error);
	if (r < 0)
		return broken(machine, "open function", r, error);
	r = iommubroker_device_bind(function->device, NULL, NULL, NULL, &error);
	if (r < 0)
		return broken(machine, "bind function", r, error);
	r = machine->checks->open(machine, function);
	return r < 0 ? broken(machine, "the function has no DMA engine that is known here", r, NULL)
		     : 0;
}

static void place_tables(struct machine *machine)
{
	uint64_t at = 0;

	if (machine->tables_bytes == 0)
		return;
	for (size_t i = 0; i < machine->n_functions; i++) {
		for (size_t k = 0; k < 2; k++, at += TABLES_BYTES) {
			machine->functions[i].tables[k].host =
				machine->memory + machine->ram_bytes + at;
			machine->functions[i].tables[k].gpa = TABLES_GPA + at;
			machine->functions[i].tables[k].n_bytes = TABLES_BYTES;
		}
	}
}

static int open_guest(struct machine *machine, const struct machine_options *options)
{
	const struct iommubroker_guest_options guest_options = {
		.struct_bytes = sizeof(guest_options),
		.name = options->guest_name,
	};
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_session_open(options->socket, "iommubroker-replay", &machine->session,
				     &error);
	if (r < 0) {
		broken(machine, "session", r, error);
		return -ENOTCONN;
	}
	r = iommubroker_guest_create(machine->session, &guest_options, &machine->guest, &error);
	if (r < 0)
		return broken(machine, "guest", r, error);
	if (options->by_ring)
		r = iommubroker_ring_create(machine->guest, 1, RING_ENTRIES, &machine->ring,
					    &error);
	return r < 0 ? broken(machine, "update ring", r, error) : 0;
}

int machine_open(struct machine *machine, const struct machine_options *options)
{
	int r;

	*machine = (struct machine){
		.checks = options->checks,
		.checks_data = options->checks_data,
		.memory_fd = -1,
		.ram_bytes = options->ram_bytes,
	};
	machine->n_functions = options->n_functions;
	if (options->own_tables)
		machine->tables_bytes = options->n_functions * 2 * TABLES_BYTES;
	for (size_t i = 0; i < options->n_functions; i++)
		machine->functions[i] = (struct function){
			.id = options->function_ids[i],
			.pci_address =
				options->pci_addresses != NULL ? options->pci_addresses[i] : NULL,
			.device_fd = -1,
		};
	r = open_guest(machine, options);
	if (r == 0)
		r = make_memory(machine);
	if (r == 0)
		r = map_memory(machine);
	if (r == 0) {
		place_tables(machine);
		r = workspaces_place(machine);
		if (r < 0)
			broken(machine, "pages for the checks", r, NULL);
	}
	for (size_t i = 0; i < machine->n_functions && r == 0; i++)
		r = open_function(machine, &machine->functions[i]);
	return r;
}

static void free_leaves(struct leaf **leaves)
{
	struct leaf *leaf, *next;

	HASH_ITER (hh, *leaves, leaf, next) {
		HASH_DEL(*leaves, leaf);
		free(leaf);
	}
}

void machine_forget_leaves(struct function *function)
{
	free_leaves(&function->leaves);
	free_leaves(&function->dropped);
}

static void close_function(struct machine *machine, struct function *function)
{
	machine->checks->close(function);
	if (function->device_fd >= 0)
		close(function->device_fd);
	iommubroker_nested_free(function->nested);
	iommubroker_device_free(function->device);
	machine_forget_leaves(function);
}

void machine_close(struct machine *machine)
{
	struct iommubroker_error *error = NULL;
	int r;

	if (machine->guest != NULL) {
		r = iommubroker_guest_destroy(machine->guest, &error);
		if (r < 0)
			broken(machine, "destroying the guest", r, error);
	}
	for (size_t i = 0; i < machine->n_functions; i++)
		close_function(machine, &machine->functions[i]);
	iommubroker_ring_free(machine->ring);
	iommubroker_memory_file_free(machine->file);
	iommubroker_guest_free(machine->guest);
	iommubroker_session_free(machine->session);
	if (machine->memory != NULL)
		munmap(machine->memory, machine->ram_bytes + machine->tables_bytes);
	if (machine->memory_fd >= 0)
		close(machine->memory_fd);
}

struct function *machine_function(struct machine *machine, uint32_t id)
{
	for (size_t i = 0; i < machine->n_functions; i++)
		if (machine->functions[i].id == id)
			return &machine->functions[i];
	return NULL;
}

int machine_register(struct machine *machine, struct function *function,
		     const struct iommubroker_anchor *anchor)
{
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	bool first = function->nested == NULL;
	int r;

	if (!first)
		r = iommubroker_nested_replace(function->nested, anchor, &registration, &error);
	else
		r = iommubroker_nested_create_s390(function->device, anchor, true, 0,
						   &function->nested, &registration, &error);
	if (r < 0)
		return broken(machine, "register", r, error);
	if (registration.verdict != IOMMUBROKER_VERDICT_DONE) {
		machine_fail(machine, "function %u: register: verdict %u %s", function->id,
			     registration.verdict, registration.reason);
		return -EINVAL;
	}
	if (registration.walk.verdict != IOMMUBROKER_VERDICT_DONE)
		machine_fail(machine, "function %u: the walk at registration: verdict %u, event %u",
			     function->id, registration.walk.verdict, registration.walk.event_code);
	machine->totals.leaves_mapped += registration.walk.mapped;
	if (first)
		function->nested_index = registration.index;
	machine_forget_leaves(function);
	function->pba = anchor->pba;
	function->pal = anchor->pal;
	return 0;
}

/* A domain's counters go with it. */
static void keep_counters(struct machine *machine, const struct function *function,
			  const struct iommubroker_guest_info *info)
{
	for (size_t i = 0; i < info->n_nested; i++) {
		if (info->nested[i].nested != iommubroker_nested_handle(function->nested))
			continue;
		machine->totals.backend_maps += info->nested[i].backend_maps;
		machine->totals.backend_unmaps += info->nested[i].backend_unmaps;
	}
}

int machine_deregister(struct machine *machine, struct function *function)
{
	struct iommubroker_guest_info *info = NULL;
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_guest_describe(machine->guest, &info, &error);
	if (r < 0)
		return broken(machine, "describe", r, error);
	keep_counters(machine, function, info);
	iommubroker_guest_info_free(info);
	r = iommubroker_nested_destroy(function->nested, NULL, &error);
	if (r < 0)
		return broken(machine, "deregister", r, error);
	function->nested = iommubroker_nested_free(function->nested);
	machine_forget_leaves(function);
	return 0;
}

static void compare_counts(struct machine *machine, const struct function *function,
			   const struct iommubroker_range *range)
{
	struct totals *totals = &machine->totals;

	if (totals->differed || (totals->leaves_mapped == totals->model_mapped &&
				 totals->leaves_unmapped == totals->model_unmapped))
		return;
	totals->differed = true;
	machine_fail(machine,
		     "refresh %llu, function %u, 0x%llx bytes at 0x%llx: since the beginning the "
		     "daemon mapped %llu leaves and unmapped %llu, not %llu and %llu",
		     (unsigned long long)totals->refreshes, function->id,
		     (unsigned long long)range->length, (unsigned long long)range->start,
		     (unsigned long long)totals->leaves_mapped,
		     (unsigned long long)totals->leaves_unmapped,
		     (unsigned long long)totals->model_mapped,
		     (unsigned long long)totals->model_unmapped);
}

/* One entry at a time, as a VMM whose processor stands still for it. */
static int refresh_by_ring(struct iommubroker_ring *ring, const struct function *function,
			   const struct iommubroker_range *range, struct iommubroker_result *ret)
{
	const struct iommubroker_ring_entry entry = {
		.operation = IOMMUBROKER_RING_REFRESH,
		.nested_index = function->nested_index,
		.iova = range->start,
		.length = range->length,
		.user_data = range->start,
	};
	struct iommubroker_ring_result done;
	int r = iommubroker_ring_submit(ring, 0, &entry, 1);

	if (r == 1)
		r = iommubroker_ring_wait(ring, 0, REFRESH_NS);
	if (r == 0)
		r = iommubroker_ring_reap(ring, 0, &done, 1);
	if (r < 0)
		return r;
	if (r != 1 || done.user_data != entry.user_data)
		return -EBADMSG;
	*ret = done.result;
	return 0;
}

static int refresh(const struct machine *machine, const struct function *function,
		   const struct iommubroker_range *range, struct iommubroker_result *ret)
{
	if (machine->ring != NULL)
		return refresh_by_ring(machine->ring, function, range, ret);
	return iommubroker_refresh(function->nested, range, 1, REFRESH_NS, ret);
}

void machine_refresh(struct machine *machine, struct function *function, uint64_t start,
		     uint64_t length)
{
	const struct iommubroker_range range = {start, length};
	struct iommubroker_result result = {0};
	int r = 0;

	machine->totals.refreshes++;
	for (int i = 0; i < BUSY_TRIES; i++) {
		r = refresh(machine, function, &range, &result);
		if (r < 0 || result.verdict != IOMMUBROKER_VERDICT_BUSY)
			break;
	}
	if (r < 0 || result.verdict != IOMMUBROKER_VERDICT_DONE)
		machine_fail(machine,
			     "function %u: refresh of 0x%llx, 0x%llx bytes: result %d, verdict %u, "
			     "event %u at 0x%llx",
			     function->id, (unsigned long long)start, (unsigned long long)length, r,
			     result.verdict, result.event_code,
			     (unsigned long long)result.fault_iova);
	machine->totals.leaves_mapped += result.mapped;
	machine->totals.leaves_unmapped += result.unmapped;
	compare_counts(machine, function, &range);
	if (machine->checks->refreshed != NULL)
		machine->checks->refreshed(machine);
}

/* Into one of the two sets of a function, out of the other. */
static void move_leaf(struct leaf **from, struct leaf **to, struct leaf *leaf)
{
	HASH_DEL(*from, leaf);
	HASH_ADD(hh, *to, iova, sizeof(leaf->iova), leaf);
}

static struct leaf *new_leaf(struct function *function, uint64_t iova)
{
	struct leaf *leaf = NULL;

	HASH_FIND(hh, function->dropped, &iova, sizeof(iova), leaf);
	if (leaf != NULL) {
		move_leaf(&function->dropped, &function->leaves, leaf);
		return leaf;
	}
	leaf = calloc(1, sizeof(*leaf));
	if (leaf == NULL)
		return NULL;
	leaf->iova = iova;
	HASH_ADD(hh, function->leaves, iova, sizeof(iova), leaf);
	return leaf;
}

int machine_expect(struct machine *machine, struct function *function, uint64_t iova, uint64_t gpa,
		   unsigned int access)
{
	struct leaf *leaf = NULL;

	HASH_FIND(hh, function->leaves, &iova, sizeof(iova), leaf);
	if (access == ZPCI_LEAF_NONE) {
		if (leaf != NULL) {
			machine->totals.model_unmapped++;
			move_leaf(&function->leaves, &function->dropped, leaf);
		}
		return 0;
	}
	if (leaf != NULL && leaf->gpa == gpa && leaf->access == access)
		return 0;
	if (leaf == NULL)
		leaf = new_leaf(function, iova);
	if (leaf == NULL)
		return -ENOMEM;
	leaf->gpa = gpa;
	leaf->access = access;
	machine->totals.model_mapped++;
	return 0;
}

int machine_read_counters(struct machine *machine)
{
	struct iommubroker_guest_info *info = NULL;
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_guest_describe(machine->guest, &info, &error);
	if (r < 0)
		return broken(machine, "describe", r, error);
	for (size_t i = 0; i < machine->n_functions; i++) {
		struct function *function = &machine->functions[i];

		if (function->nested == NULL)
			continue;
		keep_counters(machine, function, info);
		for (size_t k = 0; k < info->n_nested; k++)
			if (info->nested[k].nested == iommubroker_nested_handle(function->nested))
				function->live_leaves = info->nested[k].live_leaves;
	}
	iommubroker_guest_info_free(info);
	return 0;
}
