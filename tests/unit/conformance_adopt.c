/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Conformance: a context and a device taken over from a process that was killed. */

#include "conformance_life.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void destroy(struct rig *rig, uint32_t id, int want)
{
	assert_int_equal(rig->ops->destroy(rig->context, id), want);
}

void conformance_adopt_shows_the_same(void **state)
{
	uint32_t ids[LIFE_IDS];
	struct rig *rig = life_second(life_of_a_guest, ids);

	rig_took_over(rig, ids[NESTED_TABLE], ids[NESTED]);
	life_is_there(rig, ids);
	/* To attach once more what is attached disturbs nothing. */
	rig_attach(rig, ids[NESTED_TABLE]);
	life_is_there(rig, ids);
	rig_free(rig);
}

/* With the process alive, while it is dead and nobody has taken over, in between, and after. */
void conformance_adopt_lets_dma_go_on(void **state)
{
	struct inheritance from;
	struct rig *rig = rig_begin();

	if (!rig->host->dma || rig->host->dma->took_over)
		rig_skip("the judge has no eyes of its own");
	rig_free(rig);
	rig = life_inherit(&from, life_of_a_guest, NULL);
	rig_dma_lands(rig, 1, 1);
	life_kill(&from);
	rig_dma_lands(rig, 2, 2);
	rig_dma_misses(rig, 18);
	assert_int_equal(rig->ops->context_adopt(rig->host->backend,
						 life_take_fd(&from, LIFE_CONTEXT), &rig->context),
			 0);
	rig_dma_lands(rig, 3, 3);
	rig_dma_misses(rig, 19);
	assert_int_equal(rig->ops->device_adopt(rig->host->backend,
						life_take_fd(&from, LIFE_DEVICE),
						&rig->host->device, rig->context,
						from.will.device_id, &rig->device),
			 0);
	life_is_there(rig, from.will.ids);
	rig_free(rig);
	life_end();
}

void conformance_adopt_goes_on(void **state)
{
	uint32_t ids[LIFE_IDS];
	struct rig *rig = life_second(life_of_a_guest, ids);

	rig_took_over(rig, ids[PARENT_TABLE], ids[PARENT]);
	rig_took_over(rig, ids[NESTED_TABLE], ids[NESTED]);
	/* areas are those that they were */
	rig_unmap(rig, ids[NESTED], 1, 3, ENOENT, 0);
	rig_unmap(rig, ids[NESTED], 16, 2, 0, 2);
	rig_unmap(rig, ids[PARENT], 0, 16, ENOENT, 0);
	rig_cut(rig, ids[NESTED], 2, 2, 2);
	rig_shows_nothing(rig, ids[NESTED], 2);
	rig_shows(rig, ids[NESTED], 1, 1);
	rig_shows(rig, ids[NESTED], 4, 4);
	rig_shows(rig, ids[NESTED], 20, 20);
	/* overlaps, sources and permissions */
	rig_copy(rig, ids[NESTED], 3, ids[PARENT], 0, 2, RW, EEXIST);
	rig_copy(rig, ids[NESTED], 2, ids[PARENT], 20, 2, RW, 0);
	rig_shows(rig, ids[NESTED], 3, 21);
	rig_copy(rig, ids[NESTED], 60, ids[PARENT], 30, 3, RW, ENOENT);
	rig_map(rig, ids[PARENT], 32, 100, 4, RW, 0);
	rig_copy(rig, ids[NESTED], 60, ids[PARENT], 30, 3, RW, 0);
	rig_shows(rig, ids[NESTED], 62, 100);
	rig_map(rig, ids[PARENT], 100, 200, 1, IOMMU_PROT_READ, 0);
	rig_copy(rig, ids[NESTED], 70, ids[PARENT], 100, 1, RW, EPERM);
	/* memory that was mapped writable may be written through a copy of what may not */
	rig_copy(rig, ids[NESTED], 80, ids[NESTED], 40, 1, RW, 0);
	rig_shows(rig, ids[NESTED], 80, 8);
	rig_cut(rig, ids[NESTED], 80, 1, 1);
	/* to the parent and back */
	rig_attach(rig, ids[PARENT_TABLE]);
	rig_shows(rig, ids[PARENT], 0, 0);
	rig_attach(rig, ids[NESTED_TABLE]);
	assert_int_equal(rig->ops->detach(rig->device), 0);
	rig_dma_misses(rig, 1);
	rig_attach(rig, ids[NESTED_TABLE]);
	rig_cut(rig, ids[NESTED], 0, 1000, 18 - 2 - 2 + 2 + 3);
	rig_free(rig);
}

void conformance_adopt_keeps_ids(void **state)
{
	uint32_t ids[LIFE_IDS], n, table;
	struct rig *rig = life_second(life_of_a_guest, ids);

	destroy(rig, ids[PARENT], EBUSY);
	destroy(rig, ids[NESTED], EBUSY);
	destroy(rig, ids[NESTED_TABLE], EBUSY);
	destroy(rig, rig->device_id, EBUSY);
	/* the lowest free one */
	destroy(rig, ids[SPARE], 0);
	destroy(rig, ids[SPARE], ENOENT);
	assert_int_equal(rig->ops->ioas_new(rig->context, true, &n), 0);
	assert_int_equal(n, ids[SPARE]);
	rig_took_over(rig, ids[NESTED_TABLE], ids[NESTED]);
	assert_int_equal(rig->ops->page_table_new(rig->context, rig->device, n, &table), 0);
	rig_attach(rig, table);
	rig_copy(rig, n, 5, ids[PARENT], 6, 1, RW, 0);
	rig_shows(rig, n, 5, 6);
	rig_dma_misses(rig, 0);
	/* what is used no more goes */
	destroy(rig, ids[NESTED_TABLE], 0);
	destroy(rig, ids[NESTED], 0);
	destroy(rig, ids[PARENT_TABLE], 0);
	destroy(rig, ids[PARENT], 0);
	rig_shows(rig, n, 5, 6);
	rig_free(rig);
}

void conformance_adopt_tells_devices(void **state)
{
	uint32_t ids[LIFE_IDS];
	struct rig *rig = life_second(life_of_a_guest, ids);
	bool is = false;

	assert_int_equal(rig->ops->context_has_device(rig->context, rig->device_id, &is), 0);
	assert_true(is);
	for (unsigned int i = 0; i <= SPARE; i++) {
		assert_int_equal(rig->ops->context_has_device(rig->context, ids[i], &is), 0);
		assert_false(is);
	}
	is = true;
	assert_int_equal(rig->ops->context_has_device(rig->context, 4000, &is), 0);
	assert_false(is);
	is = true;
	assert_int_equal(rig->ops->context_has_device(rig->context, 0, &is), 0);
	assert_false(is);
	/* Ended, its id is nobody's. */
	rig_close_device(rig);
	assert_int_equal(rig->ops->context_has_device(rig->context, rig->device_id, &is), 0);
	assert_false(is);
	rig_free(rig);
}

/* One whose record says not that it is bound: known by the id that no record has. */
void conformance_adopt_of_a_device_that_is_never_adopted(void **state)
{
	struct inheritance from;
	struct rig *rig = life_inherit(&from, life_of_a_guest, NULL);
	bool is = false;
	uint32_t id;

	life_kill(&from);
	assert_int_equal(rig->ops->context_adopt(rig->host->backend,
						 life_take_fd(&from, LIFE_CONTEXT), &rig->context),
			 0);
	assert_int_equal(rig->ops->context_has_device(rig->context, from.will.device_id, &is), 0);
	assert_true(is);
	destroy(rig, from.will.device_id, EBUSY);
	assert_int_equal(rig->ops->ioas_new(rig->context, false, &id), 0);
	assert_int_not_equal(id, from.will.device_id);
	life_end();
	rig_free(rig);
}

void conformance_adopt_keeps_the_device(void **state)
{
	struct iommu_device_info info;
	struct inheritance from;
	struct rig *rig = life_inherit(&from, life_of_a_guest, NULL);
	struct iommu_device *second;
	uint32_t id;
	int error;

	life_kill(&from);
	life_adopt(rig, &from);
	assert_int_equal(rig->ops->device_info(rig->device, &info), 0);
	assert_int_equal(info.kernel_device_id, from.will.device_id);
	assert_int_equal(info.fid, from.will.info.fid);
	assert_int_equal(info.has_fid, from.will.info.has_fid);
	assert_string_equal(info.pci_address, from.will.info.pci_address);
	assert_int_equal(info.vendor, from.will.info.vendor);
	assert_int_equal(info.device, from.will.info.device);
	assert_int_equal(info.dma_first, from.will.info.dma_first);
	assert_int_equal(info.dma_last, from.will.info.dma_last);
	assert_int_equal(info.designations, from.will.info.designations);
	assert_int_equal(info.page_sizes, from.will.info.page_sizes);
	assert_int_equal(info.refresh_required, from.will.info.refresh_required);
	assert_int_equal(info.hw_info_type, from.will.info.hw_info_type);
	assert_int_equal(info.hw_info_bytes, from.will.info.hw_info_bytes);
	assert_memory_equal(info.hw_info, from.will.info.hw_info, info.hw_info_bytes);
	assert_int_equal(rig->ops->device_bind(rig->device, rig->context, NULL, &id), EBUSY);
	/* nobody else's */
	error = rig->ops->device_open(rig->host->backend, &rig->host->device, &second);
	if (error) {
		assert_int_equal(error, EBUSY);
	} else {
		assert_int_not_equal(rig->ops->device_bind(second, rig->context, NULL, &id), 0);
		rig->ops->device_close(second);
	}
	rig_free(rig);
	life_end();
}

static void life_detached(struct rig *rig, uint32_t ids[LIFE_IDS])
{
	life_of_a_guest(rig, ids);
	assert_int_equal(rig->ops->detach(rig->device), 0);
}

void conformance_adopt_of_a_blocked_device(void **state)
{
	uint32_t ids[LIFE_IDS];
	struct rig *rig = life_second(life_detached, ids);

	rig_took_over(rig, ids[NESTED_TABLE], ids[NESTED]);
	rig_took_over(rig, 0, 0);
	rig_dma_misses(rig, 1);
	destroy(rig, ids[PARENT_TABLE], 0);
	rig_attach(rig, ids[NESTED_TABLE]);
	life_is_there(rig, ids);
	assert_int_equal(rig->ops->device_stop(rig->device), 0);
	rig_dma_misses(rig, 1);
	rig_free(rig);
}

/* The device of the rig is closed and opened anew: not bound. */
static void life_unbound(struct rig *rig, uint32_t ids[LIFE_IDS])
{
	ids[PARENT] = rig_space(rig, false, &ids[PARENT_TABLE]);
	rig_map(rig, ids[PARENT], 0, 0, 4, RW, 0);
	rig_close_device(rig);
	ids[SPARE] = rig->device_id; /* nobody's, now */
	rig->device_id = 0;
	assert_int_equal(
		rig->ops->device_open(rig->host->backend, &rig->host->device, &rig->device), 0);
	assert_int_equal(rig->ops->device_descriptor(rig->device, &rig->vmm_fd), 0);
}

void conformance_adopt_of_an_unbound_device(void **state)
{
	struct iommu_device_address address;
	struct inheritance from;
	struct rig *rig = life_inherit(&from, life_unbound, NULL);
	uint32_t id;
	bool is = true;

	address = life_address(&from.will.info);
	life_kill(&from);
	assert_int_equal(rig->ops->context_adopt(rig->host->backend,
						 life_take_fd(&from, LIFE_CONTEXT), &rig->context),
			 0);
	assert_int_equal(rig->ops->device_adopt(rig->host->backend,
						life_take_fd(&from, LIFE_DEVICE), &address, NULL, 0,
						&rig->device),
			 0);
	assert_int_equal(rig->ops->context_has_device(rig->context, from.will.ids[SPARE], &is), 0);
	assert_false(is);
	assert_int_equal(rig->ops->attach(rig->device, from.will.ids[PARENT_TABLE]), EINVAL);
	assert_int_equal(rig->ops->device_bind(rig->device, rig->context, NULL, &id), 0);
	assert_int_equal(id, from.will.ids[SPARE]);
	rig_open_dma(rig);
	rig_took_over(rig, from.will.ids[PARENT_TABLE], from.will.ids[PARENT]);
	rig_attach(rig, from.will.ids[PARENT_TABLE]);
	rig_shows(rig, from.will.ids[PARENT], 3, 3);
	rig_free(rig);
	life_end();
}

/* The pages stay pinned, are counted where they can be counted, and are given back. */
void conformance_adopt_keeps_pins(void **state)
{
	uint32_t ids[LIFE_IDS], table;
	struct rig *rig = rig_new();
	uint64_t before = rig_pinned(rig);
	struct iommu_features features;
	int error;

	rig_free(rig);
	rig = life_second(life_of_a_guest, ids);
	assert_int_equal(rig->ops->probe(rig->host->backend, &features), 0);
	error = rig->ops->context_change_process(rig->context);
	if (features.change_process && features.map_file)
		assert_int_equal(error, 0);
	else
		assert_int_equal(error, EOPNOTSUPP);
	if (error && !rig->host->counts_by_context)
		rig_skip("the kernel goes on counting with the process that died");
	assert_int_equal(rig_pinned(rig), before + 32);
	/* pinned anew, of memory that only the dead mapped */
	destroy(rig, ids[PARENT_TABLE], 0);
	assert_int_equal(rig_pinned(rig), before + 6 + 8 + 4);
	assert_int_equal(rig->ops->page_table_new(rig->context, rig->device, ids[PARENT],
						  &ids[PARENT_TABLE]),
			 0);
	assert_int_equal(rig_pinned(rig), before + 32);
	/* a copy keeps what its source gives up */
	rig_unmap(rig, ids[PARENT], 0, 32, 0, 32);
	assert_int_equal(rig_pinned(rig), before + 6 + 8 + 4);
	rig_cut(rig, ids[NESTED], 40, 4, 4);
	assert_int_equal(rig_pinned(rig), before + 6 + 8);
	rig_map(rig, ids[PARENT], 0, 0, 1, RW, 0);
	assert_int_equal(rig_pinned(rig), before + 6 + 8 + 1);
	rig_cut(rig, ids[NESTED], 0, 100, 6 + 8);
	assert_int_equal(rig_pinned(rig), before + 1);
	assert_int_equal(rig->ops->detach(rig->device), 0);
	destroy(rig, ids[NESTED_TABLE], 0);
	destroy(rig, ids[PARENT_TABLE], 0);
	assert_int_equal(rig_pinned(rig), before);
	assert_int_equal(rig->ops->page_table_new(rig->context, rig->device, ids[PARENT], &table),
			 0);
	assert_int_equal(rig_pinned(rig), before + 1);
	rig_free(rig);
}

/* Asked for at the end of a second life: who else holds the device. */
void conformance_adopt_tells_the_vmm(void **state)
{
	uint32_t ids[LIFE_IDS];

	for (int keep = 0; keep < 2; keep++) {
		struct rig *rig = life_second(life_of_a_guest, ids);
		bool is = !keep;

		if (rig->dma)
			rig->host->dma->close(rig->dma);
		rig->dma = NULL;
		if (!keep) {
			close(rig->vmm_fd);
			rig->vmm_fd = -1;
		}
		assert_int_equal(rig->ops->detach(rig->device), 0);
		assert_int_equal(rig->ops->device_held(rig->device, &is), 0);
		assert_int_equal(is, keep);
		rig_free(rig);
	}
}

/* A successor that dies as well, and so does the next. */
static void life_of_a_successor(struct rig *rig, uint32_t ids[LIFE_IDS])
{
	struct inheritance from;
	struct rig *second;

	rig_close_device(rig);
	rig->context = rig->ops->context_free(rig->context);
	second = life_inherit(&from, life_of_a_guest, NULL);
	life_kill(&from);
	life_adopt(second, &from);
	memcpy(ids, from.will.ids, sizeof(from.will.ids));
	rig_cut(second, ids[NESTED], 2, 1, 1);
	rig->context = second->context;
	rig->device = second->device;
	rig->device_id = second->device_id;
	rig->vmm_fd = second->vmm_fd;
}

void conformance_adopt_again(void **state)
{
	uint32_t ids[LIFE_IDS];
	struct rig *rig = life_second(life_of_a_successor, ids);

	rig_took_over(rig, ids[NESTED_TABLE], ids[NESTED]);
	rig_is_there(rig, ids[NESTED], 1);
	rig_is_gone(rig, ids[NESTED], 2);
	rig_dma_misses(rig, 2);
	rig_copy(rig, ids[NESTED], 2, ids[PARENT], 2, 1, RW, 0);
	rig_is_there(rig, ids[NESTED], 2);
	rig_cut(rig, ids[NESTED], 0, 100, 18);
	rig_free(rig);
}

void conformance_adopt_of_something_else(void **state)
{
	struct rig *rig = rig_new();
	const struct iommu_backend_ops *ops = rig->ops;
	struct iommu_backend *backend = rig->host->backend;
	struct iommu_context *context = NULL;
	struct iommu_device *device = NULL;
	int fds[2], fd;

	assert_int_equal(ops->context_adopt(backend, -1, &context), EINVAL);
	assert_int_equal(ops->device_adopt(backend, -1, &rig->host->device, rig->context,
					   rig->device_id, &device),
			 EINVAL);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(ops->context_adopt(backend, fds[0], &context), EINVAL);
	assert_int_equal(fcntl(fds[0], F_GETFD), -1); /* consumed */
	assert_int_equal(ops->device_adopt(backend, fds[1], &rig->host->device, NULL, 0, &device),
			 EINVAL);
	assert_int_equal(fcntl(fds[1], F_GETFD), -1);
	fd = memfd_create("of zeros", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, INT64_C(8) << 30), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	assert_int_equal(ops->context_adopt(backend, fd, &context), EINVAL);
	fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	assert_int_equal(ops->context_adopt(backend, fd, &context), EINVAL);
	/* one for the other */
	fd = dup(ops->device_fd(rig->device));
	assert_int_equal(ops->context_adopt(backend, fd, &context), EINVAL);
	fd = dup(ops->context_fd(rig->context));
	assert_int_equal(ops->device_adopt(backend, fd, &rig->host->device, NULL, 0, &device),
			 EINVAL);
	assert_null(context);
	assert_null(device);
	rig_free(rig);
}
