/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker_fixture.h"

#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/guest_read.h"

const char *limit_place(enum limit_level level)
{
	static const char *const places[LIMIT_LEVELS] = {
		[LIMIT_HOST] = "limit of the host",
		[LIMIT_TENANT] = "limit of a tenant",
		[LIMIT_GUEST] = "limit of a guest",
		[LIMIT_SESSION] = "limit of a session",
	};

	return places[level];
}

void limit_set(struct broker_settings *settings, enum limit_level level,
	       enum ledger_resource resource, uint64_t max)
{
	struct limit_setting *limit = &settings->limits[level].max[resource];

	limit->set = true;
	limit->max = max;
	snprintf(limit->where, sizeof(limit->where), "%s", limit_place(level));
}

struct broker_settings settings_default(void)
{
	struct broker_settings settings = {
		.nested_mappings_default = 65536,
		.designations = S390_DESIGNATIONS_ALL,
		.delegation_claim_ms = 3600000,
		.require_seals = BROKER_SEALS_OFF,
		.unpopulated_memory = BROKER_UNPOPULATED_REJECT,
		.threads_max = 4,
		.pin_slice_bytes = 1 * MIB,
		.open_devices = true,
	};

	limit_set(&settings, LIMIT_GUEST, LEDGER_MAPPINGS, 1 << 20);
	limit_set(&settings, LIMIT_SESSION, LEDGER_GUESTS, 16);
	limit_set(&settings, LIMIT_HOST, LEDGER_SESSIONS, 64);
	limit_set(&settings, LIMIT_TENANT, LEDGER_SESSIONS, 64);
	limit_set(&settings, LIMIT_GUEST, LEDGER_REGIONS, 4096);
	limit_set(&settings, LIMIT_HOST, LEDGER_MEMORY_FILES, 200);
	limit_set(&settings, LIMIT_TENANT, LEDGER_MEMORY_FILES, 100);
	limit_set(&settings, LIMIT_GUEST, LEDGER_MEMORY_FILES, 64);
	limit_set(&settings, LIMIT_GUEST, LEDGER_DEVICES, 8);
	limit_set(&settings, LIMIT_GUEST, LEDGER_NESTED, 8);
	return settings;
}

struct session *session_make(struct fixture *f)
{
	struct session *session = NULL;

	assert_done(f, session_new(&session, f->broker, &f->peer, "test", f->secret, &f->refusal));
	return session;
}

void fixture_init_functions(struct fixture *f, const struct broker_settings *settings,
			    const struct iommu_emulated_function *functions, size_t n)
{
	memset(f, 0, sizeof(*f));
	f->memory_fd = -1;
	assert_int_equal(guest_read_init(), 0);
	assert_int_equal(iommu_emulated_new(&f->backend, functions, n), 0);
	assert_int_equal(broker_new(&f->broker, f->backend, settings), 0);
	f->peer = (struct peer){
		.pid = getpid(),
		.uid = getuid(),
		.gid = getgid(),
		.pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0),
	};
	assert_true(f->peer.pidfd >= 0);
}

void fixture_init_broker(struct fixture *f, const struct broker_settings *settings)
{
	fixture_init_functions(f, settings, NULL, 0);
}

void fixture_init(struct fixture *f, const struct broker_settings *settings)
{
	fixture_init_broker(f, settings);
	f->session = session_make(f);
}

void fixture_deinit(struct fixture *f)
{
	session_unref(f->session);
	broker_free(f->broker);
	close(f->peer.pidfd);
	if (f->memory)
		munmap(f->memory, MEMORY_BYTES);
	if (f->memory_fd >= 0)
		close(f->memory_fd);
}

int guest_make(struct fixture *f, uint64_t *ret)
{
	const struct guest_create_request request = {.name = "guest"};

	return guest_create(f->broker, f->session, &request, ret, f->guest_secret, &f->refusal);
}

/* Every page written, so that it is populated. */
int memfd_filled(uint64_t bytes, uint8_t **ret_host)
{
	int fd = memfd_create("guest memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint8_t *host;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	host = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(host != MAP_FAILED);
	for (uint64_t at = 0; at < bytes; at += PAGE)
		host[at] = 0;
	if (ret_host)
		*ret_host = host;
	else
		munmap(host, bytes);
	return fd;
}

uint64_t file_add(struct fixture *f, int borrow_fd, bool writable)
{
	struct memory_file_added added = {0};

	assert_done(f, memory_file_add(f->broker, f->session, f->guest,
				       fcntl(borrow_fd, F_DUPFD_CLOEXEC, 0), writable, &added,
				       &f->refusal));
	return added.memory_file;
}

static int update_one(struct fixture *f, const struct memory_map_entry *map,
		      const struct iommu_range *unmap)
{
	struct memory_update_request *request = calloc(1, sizeof(*request));
	struct memory_updated updated;
	int status;

	if (map)
		request->map[request->n_map++] = *map;
	if (unmap)
		request->unmap[request->n_unmap++] = *unmap;
	status = memory_update(f->broker, f->session, f->guest, request, NULL, &updated,
			       &f->refusal);
	free(request);
	return status;
}

int memory_map_one(struct fixture *f, uint64_t file, uint64_t offset, uint64_t gpa, uint64_t length,
		   bool writable)
{
	const struct memory_map_entry map = {
		.memory_file = file,
		.offset = offset,
		.gpa = gpa,
		.length = length,
		.writable = writable,
	};

	return update_one(f, &map, NULL);
}

int memory_map_granule(struct fixture *f, uint64_t file, uint64_t offset, uint64_t gpa,
		       uint64_t length, uint64_t granule)
{
	const struct memory_map_entry map = {
		.memory_file = file,
		.offset = offset,
		.gpa = gpa,
		.length = length,
		.granule = granule,
		.writable = true,
	};

	return update_one(f, &map, NULL);
}

int memory_unmap_one(struct fixture *f, uint64_t first, uint64_t last)
{
	const struct iommu_range unmap = {first, last};

	return update_one(f, NULL, &unmap);
}

void fixture_init_guest(struct fixture *f, const struct broker_settings *settings)
{
	fixture_init(f, settings);
	assert_done(f, guest_make(f, &f->guest));
	f->memory_fd = memfd_filled(MEMORY_BYTES, &f->memory);
	f->memory_file = file_add(f, f->memory_fd, true);
	assert_done(f, memory_map_one(f, f->memory_file, 0, 0, MEMORY_BYTES, true));
	f->table_next = TABLES_GPA;
}

/* ── functions ─────────────────────────────────────────────────────────────────────────────── */

struct function function_open(struct fixture *f, uint32_t fid)
{
	const struct device_open_request request = {
		.consume_fd = -1,
		.address = {.by_fid = true, .fid = fid},
	};
	struct function function = {.fd = -1};

	assert_done(f, device_open(f->broker, f->session, f->guest, &request, &function.device,
				   &function.fd, &f->refusal));
	return function;
}

struct function function_bind(struct fixture *f, uint32_t fid)
{
	struct function function = function_open(f, fid);
	struct device_description description;

	assert_done(f, device_bind(f->broker, f->session, function.device, NULL, NULL, &description,
				   &f->refusal));
	assert_int_equal(emulated_dma_open(&function.dma, function.fd), 0);
	if (f->memory_fd >= 0)
		assert_int_equal(emulated_dma_add_memory(function.dma, f->memory_fd), 0);
	return function;
}

void function_free(struct function *function)
{
	function->dma = emulated_dma_close(function->dma);
	if (function->fd >= 0)
		close(function->fd);
	function->fd = -1;
}

/* ── tables ────────────────────────────────────────────────────────────────────────────────── */

#define ENTRY_INVALID      0x20ull
#define ENTRY_PAGE_INVALID 0x400ull
#define ENTRY_PROTECTED    0x200ull
#define ENTRY_REGION_THIRD 0x7ull /* type 0x4, length 3 */
#define REGION_ENTRIES     2048
#define PAGE_ENTRIES       256

static _Atomic uint64_t *table_word(struct fixture *f, uint64_t table, uint64_t index)
{
	return (_Atomic uint64_t *)(f->memory + table + index * 8);
}

static uint64_t table_new(struct fixture *f, uint64_t entries, uint64_t fill)
{
	uint64_t bytes = entries * 8;
	uint64_t table = (f->table_next + bytes - 1) & ~(bytes - 1);

	assert_true(table + bytes <= MEMORY_BYTES);
	for (uint64_t i = 0; i < entries; i++)
		atomic_store(table_word(f, table, i), htobe64(fill));
	f->table_next = table + bytes;
	return table;
}

uint64_t table_root(struct fixture *f)
{
	return table_new(f, REGION_ENTRIES, ENTRY_INVALID);
}

uint64_t anchor_of(uint64_t root)
{
	return root | 0x804;
}

/* The table below an entry; made if it is not there. */
static uint64_t table_below(struct fixture *f, uint64_t table, uint64_t index, uint64_t entries,
			    uint64_t fill, uint64_t type, uint64_t mask)
{
	uint64_t entry = be64toh(atomic_load(table_word(f, table, index)));

	if (!(entry & ENTRY_INVALID))
		return entry & mask;
	entry = table_new(f, entries, fill);
	atomic_store(table_word(f, table, index), htobe64(entry | type));
	return entry;
}

static uint64_t segment_table(struct fixture *f, uint64_t root, uint64_t iova)
{
	return table_below(f, root, iova >> 31 & 0x7ff, REGION_ENTRIES, ENTRY_INVALID,
			   ENTRY_REGION_THIRD, ~0x3fffull);
}

static void table_put(struct fixture *f, uint64_t root, uint64_t iova, uint64_t entry)
{
	uint64_t segment = segment_table(f, root, iova);
	uint64_t page = table_below(f, segment, iova >> 20 & 0x7ff, PAGE_ENTRIES,
				    ENTRY_PAGE_INVALID, 0, ~0x7ffull);

	atomic_store(table_word(f, page, iova >> 12 & 0xff), htobe64(entry));
}

void table_map(struct fixture *f, uint64_t root, uint64_t iova, uint64_t gpa, bool writable)
{
	table_put(f, root, iova, gpa | (writable ? 0 : ENTRY_PROTECTED));
}

void table_unmap(struct fixture *f, uint64_t root, uint64_t iova)
{
	table_put(f, root, iova, ENTRY_PAGE_INVALID);
}

void table_break(struct fixture *f, uint64_t root, uint64_t iova)
{
	atomic_store(table_word(f, root, iova >> 31 & 0x7ff), 0);
}

/* ── nested domains ────────────────────────────────────────────────────────────────────────── */

struct nested_created nested_make_s390(struct fixture *f, uint64_t device, uint64_t root,
				       uint64_t first, uint64_t last, bool attach)
{
	const struct nested_create_request request = {
		.device = device,
		.attach = attach,
		.format = NESTED_S390,
		.iota = anchor_of(root),
		.first = first,
		.last = last,
	};
	struct nested_created created = {0};

	assert_done(f, nested_create(f->broker, f->session, &request, &created, &f->refusal));
	return created;
}

struct nested_created nested_make_managed(struct fixture *f, uint64_t device, uint64_t first,
					  uint64_t last, bool attach)
{
	const struct nested_create_request request = {
		.device = device,
		.attach = attach,
		.format = NESTED_MANAGED,
		.first = first,
		.last = last,
	};
	struct nested_created created = {0};

	assert_done(f, nested_create(f->broker, f->session, &request, &created, &f->refusal));
	return created;
}

struct waiting_refresh {
	struct refresh refresh;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool done;
	int status;
};

static void refresh_done(struct refresh *refresh, int status)
{
	struct waiting_refresh *waiting = (struct waiting_refresh *)refresh;

	pthread_mutex_lock(&waiting->lock);
	waiting->done = true;
	waiting->status = status;
	pthread_cond_signal(&waiting->ended);
	pthread_mutex_unlock(&waiting->lock);
}

/* Runs the ranges of *refresh and copies the answer back. */
int refresh_status(struct fixture *f, struct refresh *refresh)
{
	struct waiting_refresh waiting = {.refresh = *refresh};

	pthread_mutex_init(&waiting.lock, NULL);
	pthread_cond_init(&waiting.ended, NULL);
	waiting.refresh.done = refresh_done;
	broker_refresh_run(f->broker, f->session, &waiting.refresh);
	pthread_mutex_lock(&waiting.lock);
	while (!waiting.done)
		pthread_cond_wait(&waiting.ended, &waiting.lock);
	pthread_mutex_unlock(&waiting.lock);
	pthread_cond_destroy(&waiting.ended);
	pthread_mutex_destroy(&waiting.lock);
	*refresh = waiting.refresh;
	return waiting.status;
}

struct range_result refresh_one(struct fixture *f, uint64_t nested, uint64_t start, uint64_t length)
{
	struct refresh refresh = {.nested = nested, .n_ranges = 1, .ranges = {{start, length}}};

	if (refresh_status(f, &refresh))
		fail_msg("%s", refresh.refusal.message);
	return refresh.results[0];
}

/* ── what is left ──────────────────────────────────────────────────────────────────────────── */

struct usage host_usage(struct fixture *f, enum ledger_resource resource)
{
	struct usage_report report;

	assert_done(f, usage_report(f->broker, NULL, &report, &f->refusal));
	return report.usage[resource];
}

void assert_ledger_empty(struct fixture *f)
{
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		assert_int_equal(host_usage(f, i).current, i == LEDGER_SESSIONS ? 1 : 0);
}

size_t descriptors_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}
