/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A VMM in one file: what one that passes a zPCI function through to an s390 guest does with
 * libiommubroker, from guest memory to the guest's last refresh. It plays both sides: comments say
 * "guest" where a real one would act, and "VMM" where its VMM would.
 *
 *   iommubroker-example-vmm [FD_SOCK [FUNCTION_ID]]
 *
 * The daemon has to run with --backend=emulated, whose functions have a DMA engine in software, so
 * that there is a device to be seen at work.
 */

#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "iommu/emulated/dma.h"
#include "iommubroker.h"

#define MEMORY_BYTES (16u << 20)

/* Where the guest keeps things, in guest physical addresses. */
#define REGION_TABLE  0x100000u
#define SEGMENT_TABLE 0x104000u
#define PAGE_TABLE    0x108000u
#define BUFFER        0x200000u

/* What the guest's driver maps, and for which its tables are. */
#define WINDOW_FIRST UINT64_C(0x100000000)
#define WINDOW_LAST  UINT64_C(0x17fffffff)
#define DMA_ADDRESS  WINDOW_FIRST

/* A vCPU stands still while its refresh is answered: not for longer than this. */
#define REFRESH_TIMEOUT_NS UINT64_C(500000000)

struct vmm {
	uint8_t *memory;
	int memory_fd, device_fd;
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	struct iommubroker_memory_file *file;
	struct iommubroker_device *device;
	struct iommubroker_nested *nested;
	struct emulated_dma *dma;
};

/* A refusal says what was wrong; a real VMM logs it with iommubroker_error_reason() and the rest.
 */
static void check(int result, const char *what, struct iommubroker_error *error)
{
	if (result == 0)
		return;
	fprintf(stderr, "%s: %s\n", what,
		error != NULL ? iommubroker_error_message(error) : strerrordesc_np(-result));
	iommubroker_error_free(error);
	exit(EXIT_FAILURE);
}

static void expect(int good, const char *what)
{
	printf("%-66s %s\n", what, good ? "yes" : "NO");
	if (!good)
		exit(EXIT_FAILURE);
}

/* VMM: guest memory is a memfd that cannot shrink under the daemon, and is there from the start. */
static void make_memory(struct vmm *vmm)
{
	vmm->memory_fd = memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (vmm->memory_fd < 0 || ftruncate(vmm->memory_fd, MEMORY_BYTES) < 0 ||
	    fallocate(vmm->memory_fd, 0, 0, MEMORY_BYTES) < 0 ||
	    fcntl(vmm->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
		perror("guest memory");
		exit(EXIT_FAILURE);
	}
	vmm->memory =
		mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vmm->memory_fd, 0);
	if (vmm->memory == MAP_FAILED) {
		perror("guest memory");
		exit(EXIT_FAILURE);
	}
}

/* VMM: all of it is mapped once, before anything uses it. Nothing after this needs a memory limit.
 */
static void connect_guest(struct vmm *vmm, const char *path)
{
	const struct iommubroker_guest_options options = {
		.struct_bytes = sizeof(options),
		.name = "example",
	};
	struct iommubroker_map map = {
		.length = MEMORY_BYTES,
		.access = IOMMUBROKER_ACCESS_READ_WRITE,
	};
	const struct iommubroker_memory_update update = {.n_map = 1, .map = &map};
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_session_open(path, "example-vmm", &vmm->session, &error);
	check(r, "session", error);
	r = iommubroker_guest_create(vmm->session, &options, &vmm->guest, &error);
	check(r, "guest", error);
	r = iommubroker_memory_file_add(vmm->guest, vmm->memory_fd, true, &vmm->file, &error);
	check(r, "memory file", error);
	map.file = vmm->file;
	r = iommubroker_memory_update(vmm->guest, &update, NULL, NULL, NULL, &error);
	check(r, "guest memory", error);
}

/* VMM: the descriptor gives no access before bind, which is when VFIO takes the KVM pointer:
 *
 *   struct kvm_device_attr attr = {
 *           .group = KVM_DEV_VFIO_FILE, .attr = KVM_DEV_VFIO_FILE_ADD,
 *           .addr = (uintptr_t)&vmm->device_fd,
 *   };
 *   ioctl(kvm_vfio_device_fd, KVM_SET_DEVICE_ATTR, &attr);
 *
 * Without it s390 does not interpret the guest's zPCI instructions. After bind the VMM uses the
 * descriptor for regions, interrupts and resets, as with plain VFIO. */
static void open_device(struct vmm *vmm, uint32_t function_id)
{
	struct iommubroker_device_info *info = NULL;
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_device_open_function(vmm->guest, function_id, &vmm->device, &vmm->device_fd,
					     &error);
	check(r, "open device", error);
	r = iommubroker_device_bind(vmm->device, NULL, NULL, NULL, &error);
	check(r, "bind device", error);
	r = iommubroker_device_info(vmm->device, &info, &error);
	check(r, "device info", error);
	printf("function 0x%x at %s, DMA from 0x%" PRIx64 "\n", info->function_id,
	       info->pci_address, info->dma_first);
	iommubroker_device_info_free(info);
	/* The device itself, in software. */
	check(emulated_dma_open(&vmm->dma, vmm->device_fd), "DMA engine", NULL);
	check(emulated_dma_add_memory(vmm->dma, vmm->memory_fd), "DMA engine", NULL);
}

/* Guest: entries are big-endian, and written in one piece, since they may be read at any time. */
static void write_entry(struct vmm *vmm, uint64_t gpa, uint64_t entry)
{
	__atomic_store_n((uint64_t *)(void *)(vmm->memory + gpa), htobe64(entry), __ATOMIC_RELEASE);
}

/* Guest: empty tables, but for the way down to one page table. */
static void make_tables(struct vmm *vmm)
{
	for (uint64_t i = 0; i < 2048; i++) {
		write_entry(vmm, REGION_TABLE + i * 8, 0x20);
		write_entry(vmm, SEGMENT_TABLE + i * 8, 0x20);
	}
	for (uint64_t i = 0; i < 256; i++)
		write_entry(vmm, PAGE_TABLE + i * 8, 0x400);
	/* Region-third: type 1, full length. The window begins at 2 * 2 GiB. */
	write_entry(vmm, REGION_TABLE + 2 * 8, SEGMENT_TABLE | 0x4 | 3);
	write_entry(vmm, SEGMENT_TABLE, PAGE_TABLE);
}

/* The guest issued "register I/O address translation parameters" (MPCIFC). */
static void register_anchor(struct vmm *vmm)
{
	const struct iommubroker_anchor anchor = {
		.iota = REGION_TABLE | 0x804,
		.pba = WINDOW_FIRST,
		.pal = WINDOW_LAST,
	};
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	int r;

	if (vmm->nested == NULL)
		r = iommubroker_nested_create_s390(vmm->device, &anchor, true, 0, &vmm->nested,
						   &registration, &error);
	else
		r = iommubroker_nested_replace(vmm->nested, &anchor, &registration, &error);
	check(r, "register", error);
	/* The guest's answer: an operand exception for OPERAND, else this condition code. */
	expect(registration.verdict == IOMMUBROKER_VERDICT_DONE, "the anchor is registered");
}

/* The guest issued "refresh PCI translations" (RPCIT), and its vCPU thread comes here. It needs no
 * lock, no event loop, no memory, and is back in time whatever becomes of the daemon. */
static void *run_vcpu(void *user_data)
{
	const struct iommubroker_range range = {.start = DMA_ADDRESS, .length = 4096};
	struct iommubroker_result result;
	struct vmm *vmm = user_data;

	check(iommubroker_refresh(vmm->nested, &range, 1, REFRESH_TIMEOUT_NS, &result), "refresh",
	      NULL);
	/* What the guest gets. A Linux guest tries again on condition code 2. */
	printf("refresh: verdict %u, condition code %u, status %u, %" PRIu64 " mapped, %" PRIu64
	       " unmapped\n",
	       result.verdict, result.condition_code, result.status, result.mapped,
	       result.unmapped);
	if (result.verdict == IOMMUBROKER_VERDICT_ERROR)
		printf("error event %u at 0x%" PRIx64 "\n", result.event_code, result.fault_iova);
	return NULL;
}

static void refresh_from_vcpu(struct vmm *vmm)
{
	pthread_t vcpu;

	check(-pthread_create(&vcpu, NULL, run_vcpu, vmm), "vCPU", NULL);
	pthread_join(vcpu, NULL);
}

static void show_dma(struct vmm *vmm)
{
	static const char message[] = "written by the device";
	struct emulated_dma_fault fault = {0};

	expect(emulated_dma_write(vmm->dma, DMA_ADDRESS, message, sizeof(message), &fault) ==
		       EMULATED_DMA_NOT_MAPPED,
	       "nothing is mapped: the device's write faults");

	write_entry(vmm, PAGE_TABLE, BUFFER);
	refresh_from_vcpu(vmm);
	expect(emulated_dma_write(vmm->dma, DMA_ADDRESS, message, sizeof(message), &fault) ==
			       EMULATED_DMA_OK &&
		       strcmp((char *)vmm->memory + BUFFER, message) == 0,
	       "the guest mapped a buffer: the write arrived there");

	/* The guest's kernel starts another, and registers the same tables again. */
	register_anchor(vmm);
	memset(vmm->memory + BUFFER, 0, sizeof(message));
	expect(emulated_dma_write(vmm->dma, DMA_ADDRESS, message, sizeof(message), &fault) ==
			       EMULATED_DMA_OK &&
		       strcmp((char *)vmm->memory + BUFFER, message) == 0,
	       "registered again: what both tables hold stayed mapped");

	write_entry(vmm, PAGE_TABLE, 0x400);
	refresh_from_vcpu(vmm);
	expect(emulated_dma_write(vmm->dma, DMA_ADDRESS, message, sizeof(message), &fault) ==
			       EMULATED_DMA_NOT_MAPPED &&
		       fault.iova == DMA_ADDRESS,
	       "the guest unmapped it: the write faults again");
}

/* Without all this the daemon does the same when the process dies. */
static void tear_down(struct vmm *vmm)
{
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_nested_destroy(vmm->nested, NULL, &error);
	check(r, "deregister", error);
	iommubroker_nested_free(vmm->nested);
	emulated_dma_close(vmm->dma);
	close(vmm->device_fd);
	r = iommubroker_device_close(vmm->device, NULL, &error);
	check(r, "close device", error);
	iommubroker_device_free(vmm->device);
	r = iommubroker_guest_destroy(vmm->guest, &error);
	check(r, "destroy guest", error);
	iommubroker_memory_file_free(vmm->file);
	iommubroker_guest_free(vmm->guest);
	iommubroker_session_free(vmm->session);
	munmap(vmm->memory, MEMORY_BYTES);
	close(vmm->memory_fd);
}

int main(int argc, char **argv)
{
	struct vmm vmm = {.device_fd = -1};

	make_memory(&vmm);
	connect_guest(&vmm, argc > 1 ? argv[1] : NULL);
	open_device(&vmm, argc > 2 ? strtoul(argv[2], NULL, 0) : 1);
	make_tables(&vmm);
	register_anchor(&vmm);
	show_dma(&vmm);
	tear_down(&vmm);
	return EXIT_SUCCESS;
}
