/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory_fixture.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void memory_test_init(struct test *t, const struct broker_settings *settings)
{
	memset(t, 0, sizeof(*t));
	fixture_init_guest(&t->f, settings);
	t->fd = memfd_filled(OTHER, &t->host);
	t->file = file_add(&t->f, t->fd, true);
	t->function.fd = -1;
}

int memory_setup(void **state)
{
	static struct test t;
	struct broker_settings settings = settings_default();

	memory_test_init(&t, &settings);
	*state = &t;
	return 0;
}

int memory_teardown(void **state)
{
	struct test *t = *state;

	function_free(&t->function);
	fixture_deinit(&t->f);
	munmap(t->host, OTHER);
	close(t->fd);
	return 0;
}

/* A managed domain in which IOVA DMA_BASE + x shows what is asked for. */
void memory_bind(struct test *t)
{
	struct nested_created created;

	t->function = function_bind(&t->f, 1);
	assert_int_equal(emulated_dma_add_memory(t->function.dma, t->fd), 0);
	created = nested_make_managed(&t->f, t->function.device, DMA_BASE, DMA_LAST, true);
	assert_int_equal(created.verdict, VERDICT_DONE);
	t->nested = created.nested;
}

void memory_show(struct test *t, uint64_t iova, uint64_t gpa, uint64_t length)
{
	const struct nested_entry entry = {iova, length, gpa, true, true};
	struct range_result result;
	size_t n;

	assert_done(&t->f, nested_update(t->f.broker, t->f.session, t->nested, &entry, 1, &result,
					 &n, &t->f.refusal));
	assert_int_equal(result.verdict, VERDICT_DONE);
	assert_int_equal(result.mapped, length / PAGE);
}

enum emulated_dma_reason memory_write(struct test *t, uint64_t iova, uint8_t value)
{
	return emulated_dma_write(t->function.dma, iova, &value, 1, NULL);
}

void request_clear(struct test *t)
{
	memset(&t->request, 0, sizeof(t->request));
}

struct memory_map_entry *request_map(struct test *t, uint64_t file, uint64_t offset, uint64_t gpa,
				     uint64_t length)
{
	struct memory_map_entry *map = &t->request.map[t->request.n_map++];

	*map = (struct memory_map_entry){file, offset, gpa, length, 0, true};
	return map;
}

void request_unmap(struct test *t, uint64_t first, uint64_t last)
{
	t->request.unmap[t->request.n_unmap++] = (struct iommu_range){first, last};
}

int request_run(struct test *t)
{
	return memory_update(t->f.broker, t->f.session, t->f.guest, &t->request, NULL, &t->updated,
			     &t->f.refusal);
}

uint64_t pinned_bytes(struct test *t)
{
	return host_usage(&t->f, LEDGER_PINNED_BYTES).current;
}

size_t region_count(struct test *t)
{
	struct guest_description *description;
	size_t n;

	assert_done(&t->f, guest_describe(t->f.broker, t->f.session, t->f.guest, &description,
					  &t->f.refusal));
	n = description->n_regions;
	assert_int_equal(description->summary.region_bytes, pinned_bytes(t));
	guest_description_free(description);
	return n;
}
