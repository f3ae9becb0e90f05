/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A device's DMA for tests: what is the same for every kind of device, see engine.h. */

#include "engine.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "engine_device.h"
#include "iommu/iommufd/uapi.h"

#define PCI_IDS            0
#define PCI_COMMAND        4
#define PCI_COMMAND_ENABLE 0x6 /* memory space and bus mastering */
#define PCI_STATUS         6

/* While somebody else has the function locked, as the kernel when it recovers it, a reset is
 * refused. */
#define RESET_LIMIT_NS UINT64_C(10000000000)
#define RESET_SLEEP_NS UINT64_C(10000000)
#define RESETS_MAX     3u
/* How long the kernel may take to recover a function from error state. */
#define RECOVERY_LIMIT_NS UINT64_C(2000000000)
#define RECOVERY_SLEEP_NS UINT64_C(2000000)

static const struct engine_kind *const kinds[] = {&engine_edu, &engine_nvme};

static int read_all(int fd, uint64_t at, void *ret_bytes, size_t n)
{
	ssize_t done = pread(fd, ret_bytes, n, (off_t)at);

	if (done < 0)
		return -errno;
	return (size_t)done == n ? 0 : -EIO;
}

static int write_all(int fd, uint64_t at, const void *bytes, size_t n)
{
	ssize_t done = pwrite(fd, bytes, n, (off_t)at);

	if (done < 0)
		return -errno;
	return (size_t)done == n ? 0 : -EIO;
}

int engine_get32(struct engine *engine, unsigned int at, uint32_t *ret)
{
	uint32_t raw;
	int r = read_all(engine->fd, engine->registers + at, &raw, sizeof(raw));

	if (!r)
		*ret = le32toh(raw);
	return r;
}

int engine_put32(struct engine *engine, unsigned int at, uint32_t value)
{
	uint32_t raw = htole32(value);

	return write_all(engine->fd, engine->registers + at, &raw, sizeof(raw));
}

int engine_get64(struct engine *engine, unsigned int at, uint64_t *ret)
{
	uint64_t raw;
	int r = read_all(engine->fd, engine->registers + at, &raw, sizeof(raw));

	if (!r)
		*ret = le64toh(raw);
	return r;
}

int engine_put64(struct engine *engine, unsigned int at, uint64_t value)
{
	uint64_t raw = htole64(value);

	return write_all(engine->fd, engine->registers + at, &raw, sizeof(raw));
}

int engine_enable(struct engine *engine, bool on)
{
	uint64_t at = engine->config + PCI_COMMAND;
	uint16_t raw;
	int r = read_all(engine->fd, at, &raw, sizeof(raw));

	if (r < 0)
		return r;
	if (on)
		raw |= htole16(PCI_COMMAND_ENABLE);
	else
		raw &= htole16((uint16_t)~PCI_COMMAND_ENABLE);
	return write_all(engine->fd, at, &raw, sizeof(raw));
}

uint64_t engine_page_iova(const struct engine *engine, unsigned int page)
{
	return engine->workspace.iova + (uint64_t)page * ENGINE_PAGE_BYTES;
}

void *engine_page(const struct engine *engine, unsigned int page)
{
	return engine->workspace.host + (size_t)page * ENGINE_PAGE_BYTES;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void engine_sleep(uint64_t ns)
{
	struct timespec t = {
		.tv_sec = (time_t)(ns / 1000000000),
		.tv_nsec = (long)(ns % 1000000000),
	};

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

struct engine_patience engine_patience(uint64_t limit_ns, uint64_t sleep_ns)
{
	return (struct engine_patience){.deadline_ns = now_ns() + limit_ns, .sleep_ns = sleep_ns};
}

bool engine_patience_left(const struct engine_patience *patience)
{
	if (now_ns() >= patience->deadline_ns)
		return false;
	engine_sleep(patience->sleep_ns);
	return true;
}

static int region(int fd, uint32_t index, uint64_t *ret)
{
	struct uapi_vfio_region_info info = {.argsz = sizeof(info), .index = index};

	if (ioctl(fd, UAPI_VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
		return -errno;
	*ret = info.offset;
	return 0;
}

static const struct engine_kind *kind_of(uint16_t vendor, uint16_t device)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (kinds[i]->vendor == vendor && kinds[i]->device == device)
			return kinds[i];
	}
	return NULL;
}

bool engine_knows(uint16_t vendor, uint16_t device)
{
	return kind_of(vendor, device);
}

static int find_kind(struct engine *engine)
{
	uint16_t ids[2];
	int r = read_all(engine->fd, engine->config + PCI_IDS, ids, sizeof(ids));

	if (r < 0)
		return r;
	engine->kind = kind_of(le16toh(ids[0]), le16toh(ids[1]));
	return engine->kind ? 0 : -ENODEV;
}

int engine_open(struct engine **ret, int borrow_device_fd, const struct engine_workspace *workspace)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int r;

	if (!engine)
		return -ENOMEM;
	engine->fd = borrow_device_fd;
	engine->workspace = *workspace;
	r = region(engine->fd, 0, &engine->registers);
	if (!r)
		r = region(engine->fd, UAPI_VFIO_PCI_CONFIG_REGION, &engine->config);
	if (!r)
		r = find_kind(engine);
	if (r < 0) {
		engine_close(engine);
		return r;
	}
	*ret = engine;
	return 0;
}

struct engine *engine_close(struct engine *engine)
{
	free(engine);
	return NULL;
}

const char *engine_name(const struct engine *engine)
{
	return engine->kind->name;
}

int engine_start(struct engine *engine)
{
	int r;

	engine->ready = false;
	r = engine_enable(engine, true);
	if (!r)
		r = engine->kind->start(engine);
	engine->ready = !r;
	return r;
}

static bool is_in_one_page(uint64_t iova, size_t n)
{
	return n >= 8 && n <= ENGINE_PAGE_BYTES &&
	       iova % ENGINE_PAGE_BYTES + n <= ENGINE_PAGE_BYTES;
}

/* After an error nothing is known of what the device has still in hand. */
static int engine_done(struct engine *engine, int r)
{
	if (r < 0)
		engine->ready = false;
	return r;
}

int engine_write(struct engine *engine, uint64_t iova, const void *bytes, size_t n)
{
	if (!is_in_one_page(iova, n))
		return -EINVAL;
	if (!engine->ready)
		return -EIO;
	return engine_done(engine, engine->kind->write(engine, iova, bytes, n));
}

int engine_read(struct engine *engine, uint64_t iova, void *ret_bytes, size_t n)
{
	if (!is_in_one_page(iova, n))
		return -EINVAL;
	if (!engine->ready)
		return -EIO;
	return engine_done(engine, engine->kind->read(engine, iova, ret_bytes, n));
}

static int has_reset(struct engine *engine, bool *ret)
{
	struct uapi_vfio_device_info info = {.argsz = sizeof(info)};

	if (ioctl(engine->fd, UAPI_VFIO_DEVICE_GET_INFO, &info) < 0)
		return -errno;
	*ret = info.flags & UAPI_VFIO_DEVICE_FLAG_RESET;
	return 0;
}

/* The status is read because VFIO does not answer for the device there. */
static bool answers(struct engine *engine)
{
	uint16_t status;

	return !read_all(engine->fd, engine->config + PCI_STATUS, &status, sizeof(status)) &&
	       status != UINT16_MAX;
}

/* A function in error state answers nothing. Its reset would lock the kernel's recovery out, and
 * wait a minute for the function to come back by itself. */
static void recovery_wait(struct engine *engine)
{
	struct engine_patience patience = engine_patience(RECOVERY_LIMIT_NS, RECOVERY_SLEEP_NS);

	while (!answers(engine) && engine_patience_left(&patience))
		;
}

static int reset_once(struct engine *engine)
{
	struct engine_patience patience = engine_patience(RESET_LIMIT_NS, RESET_SLEEP_NS);

	recovery_wait(engine);
	while (ioctl(engine->fd, UAPI_VFIO_DEVICE_RESET) < 0) {
		if (errno != EAGAIN && errno != EBUSY)
			return -errno;
		if (!engine_patience_left(&patience))
			return -ETIMEDOUT;
	}
	return answers(engine) ? 0 : -EIO;
}

int engine_reset(struct engine *engine)
{
	bool can_reset = false;
	int r = has_reset(engine, &can_reset);

	engine->ready = false;
	if (r < 0)
		return r;
	if (!can_reset)
		return engine_enable(engine, false);
	r = -EIO;
	/* What the device had still under way can put it into error state once more, just then. */
	for (unsigned int i = 0; r < 0 && i < RESETS_MAX; i++)
		r = reset_once(engine);
	return r;
}
