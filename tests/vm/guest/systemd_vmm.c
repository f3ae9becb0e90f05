/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A VMM under systemd: an ordinary user's process, which knows the installed service by its default
 * socket only. What it saw is told in lines "ok WHAT" and "FAILED WHAT: WHY", which the suite
 * counts.
 *
 *	systemd_vmm connect         open a session, and say what came of it
 *	systemd_vmm guest [KIB]     and a guest with so much memory (16 MiB): say what came of it
 *	systemd_vmm open PCI        and a guest, and this device: say what came of it
 *	systemd_vmm job PCI         the main job, with the device's DMA as the judge
 *	systemd_vmm hold PCI        the same, but say "holding" before the end, and let the device
 *	                            write and the guest refresh until SIGTERM, whatever becomes of
 *	                            the daemon
 */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "engine.h"
#include "iommubroker.h"

#define MEMORY_BYTES (16u << 20)

/* In guest physical addresses. */
#define REGION_TABLE  0x100000u
#define SEGMENT_TABLE 0x104000u
#define PAGE_TABLE    0x108000u
#define WORKSPACE     0x200000u
#define BUFFER        0x300000u

#define WINDOW_FIRST  UINT64_C(0x100000000)
#define WINDOW_LAST   UINT64_C(0x17fffffff)
#define BUFFER_PAGE   16u /* of the window; the workspace's are the first */
#define BUFFER_IOVA   (WINDOW_FIRST + BUFFER_PAGE * UINT64_C(4096))
#define INVALID_ENTRY 0x400u

#define REFRESH_TIMEOUT_NS UINT64_C(20000000000)
#define PATTERN_BYTES      64u

struct vmm {
	uint8_t *memory;
	int memory_fd, device_fd;
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	struct iommubroker_memory_file *file;
	struct iommubroker_device *device;
	struct iommubroker_nested *nested;
	struct engine *engine;
	uint8_t pattern; /* of the last write */
};

static bool failed;

__attribute__((format(printf, 3, 4))) static bool tell(bool good, const char *what, const char *why,
						       ...)
{
	va_list arguments;

	printf("%s %s", good ? "ok" : "FAILED", what);
	if (!good) {
		fputs(": ", stdout);
		va_start(arguments, why);
		vprintf(why, arguments);
		va_end(arguments);
		failed = true;
	}
	putchar('\n');
	fflush(stdout);
	return good;
}

/* A call of the library that must succeed. */
static void done(int result, const char *what, struct iommubroker_error *error)
{
	if (tell(result == 0, what, "%s: %s", strerrorname_np(-result),
		 result ? iommubroker_error_message(error) : ""))
		return;
	iommubroker_error_free(error);
	exit(EXIT_FAILURE);
}

/* And one that may be refused: what came of it is told, and ends the program. */
static void refused(int result, struct iommubroker_error *error)
{
	printf("%s %s %s\n", strerrorname_np(-result), iommubroker_error_reason(error),
	       iommubroker_error_message(error));
	iommubroker_error_free(error);
	exit(EXIT_SUCCESS);
}

static void memory_make(struct vmm *vmm)
{
	vmm->memory_fd = memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (vmm->memory_fd < 0 || ftruncate(vmm->memory_fd, MEMORY_BYTES) < 0 ||
	    fallocate(vmm->memory_fd, 0, 0, MEMORY_BYTES) < 0 ||
	    fcntl(vmm->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		done(-errno, "guest memory", NULL);
	vmm->memory =
		mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vmm->memory_fd, 0);
	if (vmm->memory == MAP_FAILED)
		done(-errno, "guest memory", NULL);
}

static void session_make(struct vmm *vmm)
{
	struct iommubroker_error *error = NULL;
	int r = iommubroker_session_open(NULL, "systemd-vmm", &vmm->session, &error);

	if (r < 0)
		refused(r, error);
}

/* A call of which either is fine. */
static void done_or_refused(int result, const char *what, struct iommubroker_error *error)
{
	(void)what;
	if (result < 0)
		refused(result, error);
}

typedef void (*judge_fn)(int result, const char *what, struct iommubroker_error *error);

static void guest_make(struct vmm *vmm, uint64_t bytes, judge_fn judge)
{
	const struct iommubroker_guest_options options = {
		.struct_bytes = sizeof(options),
		.name = "systemd-guest",
	};
	struct iommubroker_map map = {
		.length = bytes,
		.access = IOMMUBROKER_ACCESS_READ_WRITE,
	};
	const struct iommubroker_memory_update update = {.n_map = 1, .map = &map};
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_guest_create(vmm->session, &options, &vmm->guest, &error);
	judge(r, "a guest is made", error);
	r = iommubroker_memory_file_add(vmm->guest, vmm->memory_fd, true, &vmm->file, &error);
	judge(r, "its memory file is taken", error);
	map.file = vmm->file;
	r = iommubroker_memory_update(vmm->guest, &update, NULL, NULL, NULL, &error);
	judge(r, "its memory is mapped", error);
}

static void device_make(struct vmm *vmm, const char *address)
{
	const struct engine_workspace workspace = {
		.iova = WINDOW_FIRST,
		.host = vmm->memory + WORKSPACE,
	};
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_device_open_pci(vmm->guest, address, &vmm->device, &vmm->device_fd, &error);
	if (r < 0)
		refused(r, error);
	r = iommubroker_device_bind(vmm->device, NULL, NULL, NULL, &error);
	done(r, "the device is opened by rule and bound", error);
	done(engine_open(&vmm->engine, vmm->device_fd, &workspace), "its registers are reached",
	     NULL);
}

/* ── the guest ────────────────────────────────────────────────────────────────────────────── */

static void entry_write(struct vmm *vmm, uint64_t gpa, uint64_t entry)
{
	__atomic_store_n((uint64_t *)(void *)(vmm->memory + gpa), htobe64(entry), __ATOMIC_RELEASE);
}

static void page_write(struct vmm *vmm, unsigned int page, uint64_t entry)
{
	entry_write(vmm, PAGE_TABLE + page * 8u, entry);
}

static void tables_make(struct vmm *vmm)
{
	for (unsigned int i = 0; i < 2048; i++) {
		entry_write(vmm, REGION_TABLE + i * 8u, 0x20);
		entry_write(vmm, SEGMENT_TABLE + i * 8u, 0x20);
	}
	for (unsigned int i = 0; i < 256; i++)
		page_write(vmm, i, INVALID_ENTRY);
	for (unsigned int i = 0; i < ENGINE_WORKSPACE_PAGES; i++)
		page_write(vmm, i, WORKSPACE + i * 4096u);
	entry_write(vmm, REGION_TABLE + 2 * 8, SEGMENT_TABLE | 0x4 | 3);
	entry_write(vmm, SEGMENT_TABLE, PAGE_TABLE);
}

static void anchor_register(struct vmm *vmm)
{
	const struct iommubroker_anchor anchor = {
		.iota = REGION_TABLE | 0x804,
		.pba = WINDOW_FIRST,
		.pal = WINDOW_LAST,
	};
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_nested_create_s390(vmm->device, &anchor, true, 0, &vmm->nested,
					   &registration, &error);
	done(r, "the guest's tables are registered", error);
	tell(registration.verdict == IOMMUBROKER_VERDICT_DONE &&
		     registration.walk.mapped == ENGINE_WORKSPACE_PAGES,
	     "what they mapped is mapped", "verdict %u, %u pages", registration.verdict,
	     (unsigned int)registration.walk.mapped);
}

static void page_refresh(struct vmm *vmm, unsigned int mapped, unsigned int unmapped,
			 const char *what)
{
	const struct iommubroker_range range = {.start = BUFFER_IOVA, .length = 4096};
	struct iommubroker_result result = {0};
	int r = iommubroker_refresh(vmm->nested, &range, 1, REFRESH_TIMEOUT_NS, &result);

	tell(r == 0 && result.verdict == IOMMUBROKER_VERDICT_DONE && result.mapped == mapped &&
		     result.unmapped == unmapped,
	     what, "result %d, verdict %u, %u mapped, %u unmapped", r, result.verdict,
	     (unsigned int)result.mapped, (unsigned int)result.unmapped);
}

/* Whether a write of the device arrives; each has bytes of its own. */
static bool write_lands(struct vmm *vmm)
{
	uint8_t bytes[PATTERN_BYTES];
	int r;

	memset(bytes, ++vmm->pattern ? vmm->pattern : ++vmm->pattern, sizeof(bytes));
	memset(vmm->memory + BUFFER, 0, sizeof(bytes));
	r = engine_write(vmm->engine, BUFFER_IOVA, bytes, sizeof(bytes));
	if (r < 0)
		printf("the device: %s\n", strerrorname_np(-r));
	return !memcmp(vmm->memory + BUFFER, bytes, sizeof(bytes));
}

static void job_begin(struct vmm *vmm, const char *address)
{
	memory_make(vmm);
	session_make(vmm);
	tell(true, "a member of the group connects", "%s", "");
	guest_make(vmm, MEMORY_BYTES, done);
	device_make(vmm, address);
	tables_make(vmm);
	anchor_register(vmm);
	done(engine_start(vmm->engine), "the device is started", NULL);
	tell(!write_lands(vmm), "where nothing is mapped the device's write does not land",
	     "it landed");
	page_write(vmm, BUFFER_PAGE, BUFFER);
	page_refresh(vmm, 1, 0, "the guest maps a page and refreshes");
	tell(write_lands(vmm), "the device's write lands", "it did not");
}

static void job_end(struct vmm *vmm)
{
	struct iommubroker_error *error = NULL;
	bool held = true;

	page_write(vmm, BUFFER_PAGE, INVALID_ENTRY);
	page_refresh(vmm, 0, 1, "the guest unmaps it and refreshes");
	tell(!write_lands(vmm), "the device's write does not land any more", "it landed");
	vmm->engine = engine_close(vmm->engine);
	done(iommubroker_nested_destroy(vmm->nested, NULL, &error), "deregistered", error);
	close(vmm->device_fd);
	done(iommubroker_device_close(vmm->device, &held, &error), "the device is closed", error);
	tell(!held, "nobody holds it any more", "somebody does");
	done(iommubroker_guest_destroy(vmm->guest, &error), "the guest is taken down", error);
}

/* ── without the daemon ───────────────────────────────────────────────────────────────────── */

static bool is_bus_master(const struct vmm *vmm)
{
	struct vfio_region_info region = {
		.argsz = sizeof(region),
		.index = VFIO_PCI_CONFIG_REGION_INDEX,
	};
	uint16_t command = 0xffff;

	if (ioctl(vmm->device_fd, VFIO_DEVICE_GET_REGION_INFO, &region) < 0 ||
	    pread(vmm->device_fd, &command, sizeof(command), (off_t)region.offset + 4) !=
		    sizeof(command))
		return true;
	return le16toh(command) & 4;
}

static volatile sig_atomic_t ends;

static void on_terminate(int number)
{
	(void)number;
	ends = 1;
}

/* What a vCPU does meanwhile: the daemon may be restarting, then the guest asks again. */
static bool refresh_works(struct vmm *vmm)
{
	const struct iommubroker_range range = {.start = BUFFER_IOVA, .length = 4096};
	struct iommubroker_result result = {0};
	int r = iommubroker_refresh(vmm->nested, &range, 1, REFRESH_TIMEOUT_NS, &result);

	return r == 0 && (result.verdict == IOMMUBROKER_VERDICT_DONE ||
			  result.verdict == IOMMUBROKER_VERDICT_BUSY);
}

/* Whatever becomes of the daemon, until it is asked to end. */
static void hold(struct vmm *vmm)
{
	unsigned int lost = 0, refused = 0;

	signal(SIGTERM, on_terminate);
	tell(is_bus_master(vmm), "the device may do DMA", "it may not");
	puts("holding");
	fflush(stdout);
	while (!ends) {
		lost += !write_lands(vmm);
		refused += !refresh_works(vmm);
	}
	tell(!lost, "every write of the device landed", "%u did not", lost);
	tell(!refused, "no refresh was refused", "%u were", refused);
	job_end(vmm);
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "", *address = argc > 2 ? argv[2] : "";
	struct vmm vmm = {.device_fd = -1};

	if (!strcmp(verb, "connect")) {
		session_make(&vmm);
		puts("connected");
		return EXIT_SUCCESS;
	}
	if (!strcmp(verb, "guest")) {
		memory_make(&vmm);
		session_make(&vmm);
		guest_make(&vmm, *address ? strtoull(address, NULL, 10) << 10 : MEMORY_BYTES,
			   done_or_refused);
		printf("made %s\n", iommubroker_session_tenant(vmm.session));
		return EXIT_SUCCESS;
	}
	job_begin(&vmm, address);
	if (!strcmp(verb, "open"))
		puts("opened");
	else if (!strcmp(verb, "job"))
		job_end(&vmm);
	else
		hold(&vmm);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
