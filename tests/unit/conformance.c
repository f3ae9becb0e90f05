/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The conformance suite's rig, see conformance.h. The cases are in the other conformance_*.c. */

#include "conformance_life.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct conformance_host *suite_host;
static struct rig *current_rig; /* of the case that runs */
static pid_t suite_process;

/* What the device's DMA was asked to judge, in all cases. */
static struct {
	unsigned int landed, missed;
	unsigned int unseen; /* nothing could be said */
} judged;

static void rig_open_memory(struct rig *rig)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
	int fd = memfd_create("conformance", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, MEMORY_PAGES * PAGE), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	rig->memory = mmap(NULL, MEMORY_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(rig->memory != MAP_FAILED);
	rig->file = (struct iommu_file){
		.fd = fd,
		.host = rig->memory,
		.bytes = MEMORY_PAGES * PAGE,
	};
}

struct rig *rig_begin(void)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	current_rig = rig;
	rig->vmm_fd = -1;
	rig->host = suite_host;
	rig->ops = suite_host->backend->ops;
	rig_open_memory(rig);
	return rig;
}

void rig_window(struct rig *rig, const struct iommu_device_info *info)
{
	rig->info = *info;
	/* Not at the beginning: cases also look just below, and a judge may need room. */
	rig->base = info->dma_first + (UINT64_C(16) << 20);
	assert_true(info->dma_last - rig->base >= ROOM_PAGES * PAGE);
}

void rig_make(struct rig *rig)
{
	struct iommu_device_info info;

	assert_int_equal(rig->ops->context_new(suite_host->backend, &rig->context), 0);
	assert_int_equal(
		rig->ops->device_open(suite_host->backend, &suite_host->device, &rig->device), 0);
	assert_int_equal(rig->ops->device_descriptor(rig->device, &rig->vmm_fd), 0);
	assert_int_equal(rig->ops->device_bind(rig->device, rig->context, NULL, &rig->device_id),
			 0);
	assert_int_equal(rig->ops->device_info(rig->device, &info), 0);
	rig_window(rig, &info);
}

void rig_open_dma(struct rig *rig)
{
	if (!rig->host->dma)
		return;
	rig->dma = rig->host->dma->open(rig->vmm_fd);
	assert_non_null(rig->dma);
	rig->host->dma->add_memory(rig->dma, rig->file.fd);
}

struct rig *rig_new(void)
{
	struct rig *rig = rig_begin();

	rig_make(rig);
	rig_open_dma(rig);
	return rig;
}

void rig_took_over(struct rig *rig, uint32_t page_table, uint32_t ioas)
{
	if (rig->dma && rig->host->dma->took_over)
		rig->host->dma->took_over(rig->context, rig->device, page_table, ioas);
}

void rig_close_device(struct rig *rig)
{
	if (rig->dma)
		rig->host->dma->close(rig->dma);
	rig->dma = NULL;
	if (rig->vmm_fd >= 0)
		close(rig->vmm_fd);
	rig->vmm_fd = -1;
	if (rig->device)
		rig->ops->detach(rig->device);
	rig->device = rig->ops->device_close(rig->device);
}

void rig_free(struct rig *rig)
{
	rig_close_device(rig);
	rig->ops->context_free(rig->context);
	munmap(rig->memory, MEMORY_PAGES * PAGE);
	close(rig->file.fd);
	free(rig);
	current_rig = NULL;
}

/* A case that failed must not take those after it along. */
static int rig_teardown(void **state)
{
	/* A child's failure is not another case's matter. */
	if (getpid() != suite_process)
		_exit(EXIT_FAILURE);
	life_end();
	if (current_rig)
		rig_free(current_rig);
	return 0;
}

void rig_attach(struct rig *rig, uint32_t page_table)
{
	assert_int_equal(rig->ops->attach(rig->device, page_table), 0);
}

uint32_t rig_space(struct rig *rig, bool cuttable, uint32_t *ret_page_table)
{
	uint32_t ioas, page_table;

	assert_int_equal(rig->ops->ioas_new(rig->context, cuttable, &ioas), 0);
	assert_int_equal(rig->ops->page_table_new(rig->context, rig->device, ioas, &page_table), 0);
	rig_attach(rig, page_table);
	if (ret_page_table)
		*ret_page_table = page_table;
	return ioas;
}

void rig_map(struct rig *rig, uint32_t ioas, uint64_t at, uint64_t memory_page, uint64_t n,
	     unsigned int prot, int want)
{
	assert_int_equal(rig->ops->map_file(rig->context, ioas, &rig->file, memory_page * PAGE,
					    n * PAGE, rig->base + at * PAGE, prot),
			 want);
}

void rig_copy(struct rig *rig, uint32_t dst, uint64_t dst_at, uint32_t src, uint64_t src_at,
	      uint64_t n, unsigned int prot, int want)
{
	assert_int_equal(rig->ops->copy(rig->context, dst, rig->base + dst_at * PAGE, src,
					rig->base + src_at * PAGE, n * PAGE, prot),
			 want);
}

void rig_unmap(struct rig *rig, uint32_t ioas, uint64_t at, uint64_t n, int want,
	       uint64_t want_pages)
{
	uint64_t unmapped = 1;

	assert_int_equal(
		rig->ops->unmap(rig->context, ioas, rig->base + at * PAGE, n * PAGE, &unmapped),
		want);
	assert_int_equal(unmapped, want_pages * PAGE);
}

void rig_cut(struct rig *rig, uint32_t ioas, uint64_t at, uint64_t n, uint64_t want_pages)
{
	uint64_t unmapped = 1;

	assert_int_equal(
		rig->ops->cut(rig->context, ioas, rig->base + at * PAGE, n * PAGE, &unmapped), 0);
	assert_int_equal(unmapped, want_pages * PAGE);
}

/* Whether that page can be copied. */
bool rig_has(struct rig *rig, uint32_t ioas, uint64_t at)
{
	uint64_t unmapped;
	int error;

	if (!rig->probe_ioas)
		assert_int_equal(rig->ops->ioas_new(rig->context, false, &rig->probe_ioas), 0);
	error = rig->ops->copy(rig->context, rig->probe_ioas, rig->base, ioas,
			       rig->base + at * PAGE, PAGE, IOMMU_PROT_READ);
	if (error == ENOENT)
		return false;
	assert_int_equal(error, 0);
	assert_int_equal(rig->ops->unmap(rig->context, rig->probe_ioas, rig->base, PAGE, &unmapped),
			 0);
	return true;
}

static uint64_t *rig_word(struct rig *rig, uint64_t memory_page)
{
	return &rig->memory[memory_page * PAGE / sizeof(uint64_t)];
}

static uint64_t rig_word_read(struct rig *rig, uint64_t memory_page)
{
	return __atomic_load_n(rig_word(rig, memory_page), __ATOMIC_RELAXED);
}

static bool rig_dma_can_tell(struct rig *rig, uint64_t iova)
{
	const struct conformance_dma_ops *dma = rig->host->dma;

	if (!rig->dma)
		return false;
	if (!dma->sees || dma->sees(rig->dma, iova))
		return true;
	judged.unseen++;
	return false;
}

void rig_dma_reads(struct rig *rig, uint64_t at, uint64_t memory_page)
{
	uint64_t iova = rig->base + at * PAGE, seen;

	if (!rig_dma_can_tell(rig, iova))
		return;
	__atomic_store_n(rig_word(rig, memory_page), ++rig->stamp, __ATOMIC_RELAXED);
	assert_true(rig->host->dma->read(rig->dma, iova, &seen));
	assert_int_equal(seen, rig->stamp);
	judged.landed++;
}

void rig_dma_lands(struct rig *rig, uint64_t at, uint64_t memory_page)
{
	uint64_t iova = rig->base + at * PAGE;

	if (!rig_dma_can_tell(rig, iova))
		return;
	assert_true(rig->host->dma->write(rig->dma, iova, ++rig->stamp));
	assert_int_equal(rig_word_read(rig, memory_page), rig->stamp);
	judged.landed++;
	rig_dma_reads(rig, at, memory_page);
}

/* Every page holds another word than any that the device was given, so that what arrives is seen
 * wherever it does. */
void rig_dma_misses(struct rig *rig, uint64_t at)
{
	uint64_t first = rig->stamp + 1;

	if (!rig->dma)
		return;
	for (unsigned int page = 0; page < MEMORY_PAGES; page++)
		__atomic_store_n(rig_word(rig, page), ++rig->stamp, __ATOMIC_RELAXED);
	rig->host->dma->write(rig->dma, rig->base + at * PAGE, ++rig->stamp);
	for (unsigned int page = 0; page < MEMORY_PAGES; page++)
		assert_int_equal(rig_word_read(rig, page), first + page);
	judged.missed++;
}

void rig_shows(struct rig *rig, uint32_t ioas, uint64_t at, uint64_t memory_page)
{
	rig_is_there(rig, ioas, at);
	rig_dma_lands(rig, at, memory_page);
}

void rig_is_there(struct rig *rig, uint32_t ioas, uint64_t at)
{
	assert_true(rig_has(rig, ioas, at));
}

void rig_is_gone(struct rig *rig, uint32_t ioas, uint64_t at)
{
	assert_false(rig_has(rig, ioas, at));
}

void rig_shows_nothing(struct rig *rig, uint32_t ioas, uint64_t at)
{
	rig_is_gone(rig, ioas, at);
	rig_dma_misses(rig, at);
}

void rig_skip(const char *why)
{
	print_message("%s\n", why);
	skip();
}

uint64_t rig_pinned(struct rig *rig)
{
	if (!rig->host->pinned_pages)
		rig_skip("what is pinned is told nowhere");
	return rig->host->pinned_pages(rig->context);
}

int conformance_run(const struct conformance_host *host)
{
#define CONFORMANCE_TEST(name) cmocka_unit_test_teardown(conformance_##name, rig_teardown),
	const struct CMUnitTest tests[] = {
		/* clang-format off */
		CONFORMANCE_MEMORY_CASES(CONFORMANCE_TEST)
		CONFORMANCE_CUT_CASES(CONFORMANCE_TEST)
		CONFORMANCE_DEVICE_CASES(CONFORMANCE_TEST)
		CONFORMANCE_ERROR_CASES(CONFORMANCE_TEST)
		CONFORMANCE_ADOPT_CASES(CONFORMANCE_TEST)
		/* clang-format on */
	};
#undef CONFORMANCE_TEST

	int failed;

	suite_host = host;
	suite_process = getpid();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (!host->dma)
		return failed;
	print_message("DMA: %u landed, %u missed, %u could not be told\n", judged.landed,
		      judged.missed, judged.unseen);
	return failed || (judged.landed && judged.missed) ? failed : 1;
}
