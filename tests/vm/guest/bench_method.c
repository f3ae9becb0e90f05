/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See bench_method.h.
 *
 * Time is taken for each refresh alone: what the guest writes between two of them is nobody's. The
 * bare calls and the pages' calls are laid out before the clock runs.
 */

#include "bench_method.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iommu/iommufd/uapi.h"

#define CLOCK_TURNS 1001

static uint64_t clock_ns;

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void bench_method_init(void)
{
	static uint64_t turns[CLOCK_TURNS];

	for (size_t i = 0; i < CLOCK_TURNS; i++) {
		uint64_t start_ns = bench_now_ns();

		turns[i] = bench_now_ns() - start_ns;
	}
	qsort(turns, CLOCK_TURNS, sizeof(turns[0]), compare_u64);
	clock_ns = turns[CLOCK_TURNS / 2];
}

static uint64_t since(uint64_t start_ns)
{
	uint64_t took_ns = bench_now_ns() - start_ns;

	return took_ns > clock_ns ? took_ns - clock_ns : 0;
}

/* ── the daemon's ──────────────────────────────────────────────────────────────────────────── */

/* A page that becomes mapped is cut only by a sweep. */
static bool step_swept(const struct bench_step *step, const struct refresh *refresh)
{
	return step->length == BENCH_PAGE_BYTES && refresh->results[0].mapped &&
	       refresh->results[0].unmapped;
}

static void broker_step(struct bench_machine *machine, const struct bench_script *script, size_t i,
			struct bench_time *time)
{
	const struct bench_step *step = &script->steps[i];
	struct refresh refresh;
	uint64_t start_ns, took_ns;

	for (size_t k = 0; k < step->n_writes; k++)
		bench_write(machine, &script->writes[step->first_write + k]);
	refresh.nested = machine->nested;
	refresh.n_ranges = 1;
	refresh.ranges[0] = (struct refresh_range){step->start, step->length};
	machine->step = i;
	start_ns = bench_now_ns();
	bench_refresh(machine, &refresh);
	took_ns = since(start_ns);
	time->ns += took_ns;
	time->mapped += refresh.results[0].mapped;
	time->unmapped += refresh.results[0].unmapped;
	if (!step_swept(step, &refresh))
		return;
	time->sweeps++;
	time->sweep_ns += took_ns;
}

static uint64_t log_ioctls(const struct bench_log *log)
{
	uint64_t n = 0;

	for (size_t i = 0; i < log->n; i++)
		n += log->calls[i].kind == BENCH_CUT ? 2 : 1;
	return n;
}

void bench_by_broker(struct bench_machine *machine, const struct bench_scripts *scripts,
		     struct bench_log *logs, struct bench_time *time)
{
	for (size_t s = 0; s < scripts->n; s++) {
		const struct bench_script *script = &scripts->scripts[s];

		bench_nested_make(machine, script);
		bench_machine_record(machine, logs ? &logs[s] : NULL);
		for (size_t i = 0; i < script->n_steps; i++)
			broker_step(machine, script, i, time);
		bench_machine_record(machine, NULL);
		bench_nested_destroy(machine);
		if (logs)
			time->ioctls += log_ioctls(&logs[s]);
	}
}

/* ── ioctls ────────────────────────────────────────────────────────────────────────────────── */

struct ioctl_call {
	unsigned long request;
	size_t step;
	union {
		struct uapi_ioas_copy copy;
		struct uapi_vfio_ioas select;
		struct uapi_vfio_unmap cut;
		struct uapi_ioas_map map;
		struct uapi_ioas_unmap unmap;
	};
};

struct ioctl_list {
	struct ioctl_call *calls;
	size_t n;
};

static struct ioctl_call *list_add(struct ioctl_list *list, unsigned long request, size_t step)
{
	struct ioctl_call *call = &list->calls[list->n++];

	call->request = request;
	call->step = step;
	return call;
}

/* The calls of one step in a row are one interval. */
static void list_run(struct bench_machine *machine, struct ioctl_list *list,
		     struct bench_time *time)
{
	int fd = machine->kernel_ops->context_fd(machine->context);
	size_t i = 0;

	while (i < list->n) {
		size_t step = list->calls[i].step;
		uint64_t start_ns = bench_now_ns();

		for (; i < list->n && list->calls[i].step == step; i++)
			if (ioctl(fd, list->calls[i].request, &list->calls[i].copy) < 0)
				bench_die("call %zu of %zu: %s", i, list->n, strerror(errno));
		time->ns += since(start_ns);
	}
	time->ioctls += list->n;
}

static uint32_t flags_of(unsigned int prot)
{
	return UAPI_IOMMU_MAP_FIXED_IOVA | (prot & IOMMU_PROT_READ ? UAPI_IOMMU_MAP_READABLE : 0) |
	       (prot & IOMMU_PROT_WRITE ? UAPI_IOMMU_MAP_WRITABLE : 0);
}

static void list_add_copy(struct ioctl_list *list, const struct bench_space *space,
			  const struct bench_call *call)
{
	list_add(list, UAPI_IOMMU_IOAS_COPY, call->step)->copy = (struct uapi_ioas_copy){
		.size = sizeof(struct uapi_ioas_copy),
		.flags = flags_of(call->prot),
		.dst_ioas_id = space->ioas,
		.src_ioas_id = space->machine->parent_ioas,
		.length = call->length,
		.dst_iova = call->iova,
		.src_iova = call->gpa,
	};
}

static void list_add_cut(struct ioctl_list *list, const struct bench_space *space,
			 const struct bench_call *call)
{
	list_add(list, UAPI_IOMMU_VFIO_IOAS, call->step)->select = (struct uapi_vfio_ioas){
		.size = sizeof(struct uapi_vfio_ioas),
		.ioas_id = space->ioas,
		.op = UAPI_IOMMU_VFIO_IOAS_SET,
	};
	list_add(list, UAPI_VFIO_IOMMU_UNMAP_DMA, call->step)->cut = (struct uapi_vfio_unmap){
		.argsz = sizeof(struct uapi_vfio_unmap),
		.iova = call->iova,
		.size = call->length,
	};
}

void bench_by_bare_calls(struct bench_machine *machine, const struct bench_scripts *scripts,
			 const struct bench_log *logs, struct bench_time *time)
{
	for (size_t s = 0; s < scripts->n; s++) {
		const struct bench_log *log = &logs[s];
		struct ioctl_list list = {bench_alloc(2 * log->n, sizeof(struct ioctl_call)), 0};
		struct bench_space space;

		bench_space_init(&space, machine, true);
		for (size_t i = 0; i < log->n; i++) {
			if (log->calls[i].kind == BENCH_COPY)
				list_add_copy(&list, &space, &log->calls[i]);
			else
				list_add_cut(&list, &space, &log->calls[i]);
		}
		list_run(machine, &list, time);
		bench_space_deinit(&space);
		free(list.calls);
	}
}

static void list_add_leaf(struct ioctl_list *list, const struct bench_space *space, size_t step,
			  const struct bench_leaf *leaf)
{
	unsigned int prot = IOMMU_PROT_READ;

	if (leaf->was_mapped)
		list_add(list, UAPI_IOMMU_IOAS_UNMAP, step)->unmap = (struct uapi_ioas_unmap){
			.size = sizeof(struct uapi_ioas_unmap),
			.ioas_id = space->ioas,
			.iova = leaf->iova,
			.length = BENCH_PAGE_BYTES,
		};
	if (leaf->access == ZPCI_LEAF_NONE)
		return;
	if (leaf->access == ZPCI_LEAF_READ_WRITE)
		prot |= IOMMU_PROT_WRITE;
	list_add(list, UAPI_IOMMU_IOAS_MAP, step)->map = (struct uapi_ioas_map){
		.size = sizeof(struct uapi_ioas_map),
		.flags = flags_of(prot),
		.ioas_id = space->ioas,
		.user_va = (uintptr_t)space->machine->memory + leaf->gpa,
		.length = BENCH_PAGE_BYTES,
		.iova = leaf->iova,
	};
}

static void pages_list(struct ioctl_list *list, const struct bench_space *space,
		       const struct bench_script *script)
{
	for (size_t i = 0; i < script->n_steps; i++) {
		const struct bench_step *step = &script->steps[i];

		for (size_t k = 0; k < step->n_changes; k++)
			list_add_leaf(list, space, i, &script->changes[step->first_change + k]);
	}
}

void bench_by_page(struct bench_machine *machine, const struct bench_scripts *scripts,
		   struct bench_time *time)
{
	for (size_t s = 0; s < scripts->n; s++) {
		const struct bench_script *script = &scripts->scripts[s];
		struct ioctl_list list = {
			bench_alloc(2 * script->n_changes, sizeof(struct ioctl_call)), 0};
		struct bench_space space;

		bench_space_init(&space, machine, false);
		pages_list(&list, &space, script);
		list_run(machine, &list, time);
		time->mapped += script->mapped;
		time->unmapped += script->unmapped;
		bench_space_deinit(&space);
		free(list.calls);
	}
}
