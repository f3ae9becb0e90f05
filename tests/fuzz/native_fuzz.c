/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Packets of a native client against the whole daemon behind its socket: the real transport on a
 * socket pair, the real dispatcher, the real broker on the emulated backend.
 *
 * An input is a row of packets: {length as 16 bits, big-endian; descriptors to attach, one byte;
 * the packet}. A client cannot guess handles, and a fuzzer neither: the eight bytes "@GUEST@@",
 * "@MEMORY@", "@DEVICE@" and "@NESTED@" in a packet stand for the last ones that the daemon gave
 * out. After each packet its answers are awaited for a moment, so that one input can lead through
 * a guest's whole life. Memory files that are attached are memfds.
 */

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "iommubroker/v1/native.pb-c.h"
#include "rpc/dispatcher.h"
#include "rpc/native_packet.h"
#include "util/guest_read.h"

#define PACKETS_MAX       64
#define ROUNDS_MAX        400 /* of the loop, for an answer that may never come */
#define MEMORY_FILE_BYTES (4 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct broker *broker;
static struct loop *loop;
static struct dispatcher *dispatcher;
static struct native_transport *transport;
static struct peer peer;
static int memory_file;

enum handle { HANDLE_GUEST, HANDLE_MEMORY, HANDLE_DEVICE, HANDLE_NESTED, HANDLES };
static uint64_t handles[HANDLES];

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "native_fuzz: %s\n", what);
	abort();
}

static void no_log(enum log_level level, const char *text, const char (*fields)[LOG_FIELD_BYTES],
		   size_t n_fields)
{
	(void)level;
	(void)text;
	(void)fields;
	(void)n_fields;
}

static const struct {
	enum limit_level level;
	enum ledger_resource resource;
	uint64_t max;
} limits[] = {
	{LIMIT_HOST, LEDGER_PINNED_BYTES, 64 << 20},
	{LIMIT_GUEST, LEDGER_PINNED_BYTES, 16 << 20},
	{LIMIT_GUEST, LEDGER_MAPPINGS, 1 << 16},
	{LIMIT_SESSION, LEDGER_GUESTS, 4},
	{LIMIT_HOST, LEDGER_SESSIONS, 64},
	{LIMIT_GUEST, LEDGER_REGIONS, 64},
	{LIMIT_TENANT, LEDGER_MEMORY_FILES, 100},
	{LIMIT_GUEST, LEDGER_DEVICES, 4},
	{LIMIT_GUEST, LEDGER_NESTED, 8},
};

static void start(void)
{
	struct broker_settings model = {
		.nested_mappings_default = 1 << 10,
		.designations = S390_DESIGNATIONS_ALL,
		.threads_max = 4,
		.pin_slice_bytes = 1 << 20,
		.open_devices = true,
	};
	static const struct rpc_settings rpc = {
		.calls_per_connection_max = 64,
		.descriptors_waiting_max = 16,
		.first_request_ms = 60000,
		.descriptor_wait_ms = 60000,
	};
	struct iommu_backend *backend;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		model.limits[limits[i].level].max[limits[i].resource] =
			(struct limit_setting){.set = true, .max = limits[i].max};
	log_set_sink(no_log);
	must(!guest_read_init(), "no handler");
	must(!iommu_emulated_new(&backend, NULL, 0), "no backend");
	must(!broker_new(&broker, backend, &model), "no broker");
	must(!loop_new(&loop), "no loop");
	must(!dispatcher_new(&dispatcher, broker, loop, &rpc), "no dispatcher");
	must(!native_transport_new(&transport, dispatcher, loop), "no transport");
	peer = (struct peer){.pid = getpid(), .uid = geteuid(), .gid = getegid()};
	peer.pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	memory_file = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(peer.pidfd >= 0 && memory_file >= 0, "no descriptors");
	must(!posix_fallocate(memory_file, 0, MEMORY_FILE_BYTES), "no memory");
}

static void loop_turn(void)
{
	event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
}

static size_t calls_in_flight(void)
{
	size_t n;

	pthread_mutex_lock(&dispatcher->lock);
	n = dispatcher->in_flight;
	pthread_mutex_unlock(&dispatcher->lock);
	return n;
}

/* Each input begins with an empty daemon, and a leak is that of one input. */
static bool all_is_gone(void)
{
	struct broker_status status;

	sched_yield();
	broker_status(broker, &status);
	return !status.sessions && !status.guests && !calls_in_flight();
}

/* The handle that an answer gives out is its message's first field. */
static void learn(uint32_t method, const Iommubroker__V1__NativeAnswer *answer)
{
	enum handle handle;

	switch (method) {
	case IOMMUBROKER__V1__METHOD__METHOD_CREATE_GUEST:
		handle = HANDLE_GUEST;
		break;
	case IOMMUBROKER__V1__METHOD__METHOD_ADD_MEMORY_FILE:
		handle = HANDLE_MEMORY;
		break;
	case IOMMUBROKER__V1__METHOD__METHOD_OPEN_DEVICE:
		handle = HANDLE_DEVICE;
		break;
	case IOMMUBROKER__V1__METHOD__METHOD_CREATE_NESTED:
		handle = HANDLE_NESTED;
		break;
	default:
		return;
	}
	if (answer->message.len >= 9 && answer->message.data[0] == 0x09)
		memcpy(&handles[handle], answer->message.data + 1, sizeof(handles[handle]));
}

/* Every answer must be one: a client's parser relies on it. */
static void check_answer(const uint8_t *packet, size_t n_bytes)
{
	Iommubroker__V1__NativeAnswer *answer;

	must(n_bytes >= NATIVE_HEADER_BYTES, "an answer without header");
	answer = iommubroker__v1__native_answer__unpack(NULL, n_bytes - NATIVE_HEADER_BYTES,
							packet + NATIVE_HEADER_BYTES);
	must(answer && !answer->base.n_unknown_fields, "an answer that is none");
	must(!answer->status || answer->status->code, "a refusal that is none");
	learn((uint32_t)packet[0] | (uint32_t)packet[1] << 8, answer);
	iommubroker__v1__native_answer__free_unpacked(answer, NULL);
}

/* Take what has come. false: the connection ended. */
static bool drain(int socket, size_t *n_answers)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(RPC_DESCRIPTORS_MAX * sizeof(int))];
	static uint8_t packet[NATIVE_PACKET_BYTES_MAX];

	for (;;) {
		struct iovec data = {packet, sizeof(packet)};
		struct msghdr message = {.msg_iov = &data,
					 .msg_iovlen = 1,
					 .msg_control = control,
					 .msg_controllen = sizeof(control)};
		ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		struct cmsghdr *cmsg = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;

		if (n <= 0)
			return n < 0;
		if (cmsg)
			close(*(int *)CMSG_DATA(cmsg));
		check_answer(packet, (size_t)n);
		(*n_answers)++;
	}
}

static void send_packet(int socket, const uint8_t *bytes, size_t n_bytes, size_t n_fds)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(16 * sizeof(int))] = {0};
	struct iovec data = {(void *)bytes, n_bytes};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
	struct cmsghdr *cmsg = (struct cmsghdr *)control;

	if (n_fds) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		for (size_t i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &memory_file, sizeof(int));
	}
	sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* In the order of their names above; the packet is a copy. */
static void put_handles(uint8_t *packet, size_t n_bytes)
{
	static const char names[HANDLES][9] = {"@GUEST@@", "@MEMORY@", "@DEVICE@", "@NESTED@"};

	for (size_t i = 0; i + 8 <= n_bytes; i++)
		for (size_t h = 0; packet[i] == '@' && h < HANDLES; h++)
			if (!memcmp(packet + i, names[h], 8))
				memcpy(packet + i, &handles[h], 8);
}

static bool play_packet(int socket, const uint8_t *bytes, size_t n_bytes, size_t n_fds)
{
	uint8_t *packet = malloc(n_bytes + 1);
	size_t n_answers = 0;
	bool lives = true;

	must(packet, "no memory");
	memcpy(packet, bytes, n_bytes);
	put_handles(packet, n_bytes);
	send_packet(socket, packet, n_bytes, n_fds);
	free(packet);
	for (int i = 0; lives && !n_answers && i < ROUNDS_MAX; i++) {
		loop_turn();
		lives = drain(socket, &n_answers);
		if (calls_in_flight())
			sched_yield();
		else if (i > 2)
			break;
	}
	return lives;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int ends[2];

	if (!broker)
		start();
	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "no sockets");
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	memset(handles, 0, sizeof(handles));
	native_transport_accept(transport, ends[0], &peer);
	for (size_t n = 0; size >= 3 && n < PACKETS_MAX; n++) {
		size_t n_bytes = (size_t)data[0] << 8 | data[1], n_fds = data[2] % 12;

		data += 3;
		size -= 3;
		if (n_bytes > size)
			n_bytes = size;
		if (!play_packet(ends[1], data, n_bytes, n_fds))
			break;
		data += n_bytes;
		size -= n_bytes;
	}
	close(ends[1]);
	do
		loop_turn();
	while (!all_is_gone());
	return 0;
}
