/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "left_guests.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/ring.h"
#include "state/state_file.h"
#include "util/fd.h"

#define NAME_BYTES 16
#define STORE_MAX  LEFT_FDS_MAX

/* ── their life ────────────────────────────────────────────────────────────────────────────── */

struct life {
	struct fixture f;
	struct left *left;
	struct manager *manager;
	struct fd_store *store;
	struct ring_server *rings;
};

static void life_settle(struct life *life, uint64_t request_id)
{
	const struct broker_answer answer = {
		.request_id = request_id,
		.method = 7,
		.digest = {1, 2, 3},
		.bytes = (const uint8_t *)"what it was answered",
		.n_bytes = 20,
	};
	struct guest *guest = broker_guest_of(life->f.broker, life->f.session, life->f.guest);

	assert_non_null(guest);
	broker_settle(guest, life->f.session, &answer, false);
}

static void life_create(struct life *life, const char *name, uint64_t *ret)
{
	struct guest_create_request request = {
		.has_uuid = true,
		.uuid = {1, 2, 3},
		.n_labels = 2,
		.labels = {{"rack", "seven"}, {"kind", "test"}},
		.pinned_bytes_max = 1024 * MIB,
		.mappings_max = 1 << 20,
	};
	struct fixture *f = &life->f;

	strcpy(request.name, name);
	assert_done(f, guest_create(f->broker, f->session, &request, &f->guest, f->guest_secret,
				    &f->refusal));
	*ret = f->guest;
}

static void life_memory(struct life *life)
{
	struct fixture *f = &life->f;
	uint64_t file = file_add(f, life->left->memory_fd, true);
	uint64_t rom = file_add(f, life->left->rom_fd, false);

	assert_done(f, memory_map_one(f, file, 0, 0, LEFT_GRANULE_GPA, true));
	assert_done(f, memory_map_granule(f, file, LEFT_GRANULE_GPA, LEFT_GRANULE_GPA,
					  LEFT_MAPPED_BYTES - LEFT_GRANULE_GPA, 64 * KIB));
	assert_done(f, memory_map_one(f, rom, 0, LEFT_ROM_GPA, LEFT_ROM_BYTES, false));
	life_settle(life, 2);
	assert_done(f, memory_map_one(f, file, LEFT_MAPPED_BYTES, 512 * MIB, MIB, true));
	life_settle(life, 3);
	assert_done(f, memory_unmap_one(f, 512 * MIB, 513 * MIB - 1));
	life_settle(life, 4);
}

static uint64_t life_bind(struct life *life, uint32_t fid)
{
	struct function function = function_bind(&life->f, fid);

	function_free(&function);
	life_settle(life, 10 + fid);
	return function.device;
}

/* Pages 0 to 63 in order, and one of the read-only file. */
static uint64_t life_shadow(struct life *life, uint64_t device)
{
	struct fixture *f = &life->f;
	uint64_t root = table_root(f);
	struct nested_created created;

	for (uint64_t i = 0; i < 64; i++)
		table_map(f, root, DMA_BASE + i * 3 * PAGE, i * PAGE, i % 2);
	table_map(f, root, DMA_BASE + 512 * MIB, LEFT_ROM_GPA, false);
	created = nested_make_s390(f, device, root, DMA_BASE, DMA_BASE + 4096 * MIB - 1, true);
	assert_int_equal(created.verdict, VERDICT_DONE);
	life_settle(life, 20);
	return created.nested;
}

static uint64_t life_managed(struct life *life, uint64_t device)
{
	const struct nested_entry entries[] = {
		{.iova = DMA_BASE, .length = 8 * PAGE, .gpa = MIB, .map = true, .writable = true},
		{.iova = DMA_BASE + MIB, .length = PAGE, .gpa = LEFT_ROM_GPA, .map = true},
	};
	struct range_result walks[BROKER_MANAGED_ENTRIES_MAX];
	struct nested_created created =
		nested_make_managed(&life->f, device, DMA_BASE, DMA_BASE + 16 * MIB - 1, true);
	size_t n;

	assert_int_equal(created.verdict, VERDICT_DONE);
	assert_done(&life->f, nested_update(life->f.broker, life->f.session, created.nested,
					    entries, 2, walks, &n, &life->f.refusal));
	assert_int_equal(n, 2);
	life_settle(life, 21);
	return created.nested;
}

/* Its parts cannot be destroyed, as long as this process lives: what is left is written down. */
static void life_leftover(struct life *life, uint64_t device)
{
	struct fixture *f = &life->f;
	struct nested_created created =
		nested_make_managed(f, device, DMA_BASE, DMA_BASE + MIB - 1, false);
	uint64_t dropped;

	iommu_emulated_fail_every(f->backend, IOMMU_EMULATED_DESTROY, EBUSY);
	assert_done(f,
		    nested_destroy(f->broker, f->session, created.nested, &dropped, &f->refusal));
	life_settle(life, 22);
}

static void life_delegate(struct life *life)
{
	const struct delegation_request request = {
		.guest = life->f.guest,
		.rights = 1u << GUEST_RIGHT_REFRESH | 1u << GUEST_RIGHT_EVENTS,
		.n_devices = 1,
		.devices = {life->left->told->devices[0]},
		.peer = &life->left->peer,
	};
	struct session *session;
	uint64_t delegation;

	assert_done(&life->f, delegation_new(&session, life->f.broker, life->f.session, &request,
					     &delegation, &life->f.refusal));
	session_unref(session);
	life_settle(life, 23);
}

static void life_ring(struct life *life)
{
	const struct ring_request request = {life->f.guest, LEFT_RING_LANES, LEFT_RING_ENTRIES};
	struct ring_ends ends;
	uint64_t ring;

	assert_done(&life->f, ring_create(life->rings, life->f.session, &request, &ring, &ends,
					  &life->f.refusal));
	life_settle(life, 24);
}

static void life_attach(struct life *life, uint64_t device, enum attachment to)
{
	struct range_result walk;

	assert_done(&life->f, device_attach(life->f.broker, life->f.session, device, to, 0, &walk,
					    &life->f.refusal));
	life_settle(life, 25 + to);
}

static void life_victim(struct life *life)
{
	struct left_told *told = life->left->told;
	struct fixture *f = &life->f;

	f->session = session_make(f);
	memcpy(told->victim_secret, f->secret, BROKER_SECRET_BYTES);
	f->memory_fd = life->left->memory_fd;
	f->memory = life->left->memory;
	f->table_next = TABLES_GPA;
	life_create(life, "victim", &told->victim);
	life_memory(life);
	for (uint32_t i = 0; i < LEFT_FUNCTIONS - 1; i++)
		told->devices[i] = life_bind(life, i + 1);
	told->devices[LEFT_FUNCTIONS - 1] = function_open(f, LEFT_FUNCTIONS).device;
	told->shadow = life_shadow(life, told->devices[0]);
	told->managed = life_managed(life, told->devices[1]);
	life_attach(life, told->devices[2], ATTACHMENT_RELAXED);
	life_attach(life, told->devices[3], ATTACHMENT_PARENT);
	life_leftover(life, told->devices[3]);
	life_delegate(life);
	life_ring(life);
}

static void life_neighbour(struct life *life)
{
	struct left_told *told = life->left->told;
	struct fixture *f = &life->f;
	uint64_t root;

	f->session = session_make(f);
	memcpy(told->neighbour_secret, f->secret, BROKER_SECRET_BYTES);
	f->memory_fd = life->left->neighbour_fd;
	f->memory = life->left->neighbour;
	f->table_next = TABLES_GPA;
	life_create(life, "neighbour", &told->neighbour);
	assert_done(f,
		    memory_map_one(f, file_add(f, f->memory_fd, true), 0, 0, MEMORY_BYTES, true));
	told->neighbour_device = life_bind(life, LEFT_FUNCTIONS + 1);
	root = table_root(f);
	table_map(f, root, DMA_BASE, PAGE, true);
	nested_make_s390(f, told->neighbour_device, root, DMA_BASE, DMA_BASE + MIB - 1, true);
	life_settle(life, 1);
}

/* ── from one process to the other ─────────────────────────────────────────────────────────── */

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static void fd_send(int socket, const char *name, int fd)
{
	union control control = {{0}};
	struct iovec part = {.iov_base = (char *)name, .iov_len = NAME_BYTES};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	assert_int_equal(sendmsg(socket, &message, 0), NAME_BYTES);
}

static bool fd_receive(int socket, char ret_name[NAME_BYTES], int *ret_fd)
{
	union control control;
	struct iovec part = {.iov_base = ret_name, .iov_len = NAME_BYTES};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *header;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != NAME_BYTES)
		return false;
	header = CMSG_FIRSTHDR(&message);
	assert_non_null(header);
	memcpy(ret_fd, CMSG_DATA(header), sizeof(*ret_fd));
	return true;
}

static void life_leave(struct life *life, int socket)
{
	size_t n;

	broker_leave(life->f.broker);
	assert_int_equal(fd_store_barrier(life->store), 0);
	n = manager_stored(life->manager);
	assert_int_equal(n, fd_store_count(life->store));
	for (size_t i = 0; i < n; i++) {
		char name[NAME_BYTES] = "";
		int fd = manager_get(life->manager, i, name);

		fd_send(socket, name, fd);
	}
	life->left->told->made = true;
}

/* Number 4 has a window of which all that its guest has is within. */
#define FUNCTION_OF_PARENT 4
void left_functions(struct iommu_emulated_function ret[LEFT_FUNCTIONS + 1])
{
	for (uint32_t i = 0; i <= LEFT_FUNCTIONS; i++) {
		ret[i] = (struct iommu_emulated_function){
			.fid = i + 1,
			.dma_first = i + 1 == FUNCTION_OF_PARENT ? 0 : DMA_BASE,
			.dma_last = DMA_LAST,
			.designations = 0xf,
		};
		snprintf(ret[i].pci_address, sizeof(ret[i].pci_address), "0000:00:%02x.0", i + 1);
	}
}

static void life_run(struct left *left, int socket)
{
	struct broker_settings settings = settings_default();
	struct iommu_emulated_function functions[LEFT_FUNCTIONS + 1];
	static struct life life;

	life.left = left;
	life.manager = manager_start(STORE_MAX);
	left_functions(functions);
	fixture_init_functions(&life.f, &settings, functions, LEFT_FUNCTIONS + 1);
	close(life.f.peer.pidfd);
	life.f.peer = left->peer;
	assert_int_equal(fd_store_new(&life.store, STORE_MAX), 0);
	broker_set_store(life.f.broker, life.store);
	assert_int_equal(ring_server_new(&life.rings, life.f.broker, 1), 0);
	life_victim(&life);
	life_neighbour(&life);
	life_leave(&life, socket);
}

static void descriptors_take(struct left *left, int socket)
{
	char name[NAME_BYTES];
	int fd;

	while (fd_receive(socket, name, &fd)) {
		assert_true(left->n < LEFT_FDS_MAX);
		assert_true(fd_name_parse(name, &left->fds[left->n].name));
		left->fds[left->n++].fd = fd;
	}
}

/* Neither of the two that look at it: to user emulation a process of its own looks different. */
static void client_start(struct peer *ret)
{
	const pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (true)
			pause();
	}
	*ret = (struct peer){.pid = pid, .uid = getuid(), .gid = getgid()};
	ret->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	assert_true(ret->pidfd >= 0);
}

static void client_end(struct peer *peer)
{
	kill(peer->pid, SIGKILL);
	waitpid(peer->pid, NULL, 0);
	close(peer->pidfd);
}

void left_make(struct left *ret)
{
	int sockets[2], status;
	pid_t pid;

	memset(ret, 0, sizeof(*ret));
	ret->told = mmap(NULL, sizeof(*ret->told), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(ret->told != MAP_FAILED);
	ret->memory_fd = memfd_filled(MEMORY_BYTES, &ret->memory);
	ret->rom_fd = memfd_filled(LEFT_ROM_BYTES, &ret->rom);
	ret->neighbour_fd = memfd_filled(MEMORY_BYTES, &ret->neighbour);
	client_start(&ret->peer);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		close(sockets[0]);
		life_run(ret, sockets[1]);
		_exit(0);
	}
	close(sockets[1]);
	descriptors_take(ret, sockets[0]);
	close(sockets[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(ret->told->made);
}

void left_free(struct left *left)
{
	left_copy_close(left->fds, left->n);
	munmap(left->told, sizeof(*left->told));
	munmap(left->memory, MEMORY_BYTES);
	munmap(left->rom, LEFT_ROM_BYTES);
	munmap(left->neighbour, MEMORY_BYTES);
	close(left->memory_fd);
	close(left->rom_fd);
	close(left->neighbour_fd);
	client_end(&left->peer);
}

/* ── copies ────────────────────────────────────────────────────────────────────────────────── */

static void copy_range(int from, int to, off_t at, off_t end)
{
	static uint8_t bytes[1 << 16];

	while (at < end) {
		size_t n = (size_t)(end - at) < sizeof(bytes) ? (size_t)(end - at) : sizeof(bytes);

		assert_int_equal(pread(from, bytes, n, at), n);
		assert_int_equal(pwrite(to, bytes, n, at), n);
		at += (off_t)n;
	}
}

/* A sparse file, with its seals, opened as its former process had it; of a guest's state that tells
 * whose it is. */
static int file_copy(int from)
{
	char name[STATE_FILE_NAME_BYTES], label[sizeof(name) + 32];
	int to, fd;
	off_t at = 0, end;
	struct stat stat;

	state_file_name(from, name);
	snprintf(label, sizeof(label), "iommubroker guest %s", name);
	to = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(to >= 0);
	assert_int_equal(fstat(from, &stat), 0);
	assert_int_equal(ftruncate(to, stat.st_size), 0);
	while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
		end = lseek(from, at, SEEK_HOLE);
		copy_range(from, to, at, end);
		at = end;
	}
	if (fcntl(from, F_GET_SEALS) > 0)
		assert_int_equal(fcntl(to, F_ADD_SEALS, fcntl(from, F_GET_SEALS)), 0);
	fd = fd_reopen(to);
	assert_true(fd >= 0);
	close(to);
	return fd;
}

void left_copy(const struct left *left, struct stored_fd *ret)
{
	for (size_t i = 0; i < left->n; i++) {
		const struct stored_fd *from = &left->fds[i];
		const enum fd_kind kind = from->name.kind;

		ret[i].name = from->name;
		ret[i].fd = kind == FD_MEMORY || kind == FD_DOORBELL ? fd_duplicate(from->fd)
								     : file_copy(from->fd);
	}
}

void left_copy_close(struct stored_fd *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fds[i].fd = fd_close(fds[i].fd);
}

struct stored_fd *left_find(struct stored_fd *fds, size_t n, uint32_t guest, enum fd_kind kind,
			    uint32_t index)
{
	for (size_t i = 0; i < n; i++)
		if (fds[i].name.guest == guest && fds[i].name.kind == kind &&
		    fds[i].name.index == index)
			return &fds[i];
	return NULL;
}
