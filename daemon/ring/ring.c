/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rings made, adopted and freed.
 *
 * A doorbell is a pipe of which each side has its own end: the flags of an eventfd would be the
 * client's, too, who could let a write of ours wait.
 */
#include "ring/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring/ring_internal.h"
#include "util/crash_point.h"
#include "util/fd.h"
#include "util/log.h"

_Static_assert(BROKER_RING_LANES_MAX == RING_LANES_MAX, "the broker keeps as many doorbells");

#define STATE_BYTES 4096

static void fds_close(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fds[i] = fd_close(fds[i]);
}

static void fds_clear(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fds[i] = -1;
}

/* ── life ─────────────────────────────────────────────────────────────────────────────────── */

static void ring_free(struct ring *ring)
{
	broker_tenant_unref(ring->server->broker, ring->tenant);
	session_unref(ring->session);
	if (ring->memory)
		munmap(ring->memory, ring->memory_bytes);
	if (ring->state)
		munmap(ring->state, STATE_BYTES);
	fd_close(ring->memory_fd);
	fd_close(ring->state_fd);
	fd_close(ring->submit_fd);
	fds_close(ring->complete_fds, RING_LANES_MAX);
	free(ring->lanes);
	free(ring);
}

void ring_unref(struct ring *ring)
{
	if (atomic_fetch_sub(&ring->refs, 1) == 1)
		ring_free(ring);
}

/* The broker's claim is over: its thread stops serving it, once nothing is under way. */
static void ring_end(void *context)
{
	struct ring *ring = context;
	struct ring_server *server = ring->server;
	struct ring_thread *thread;

	atomic_fetch_add(&server->n_waking, 1);
	atomic_store(&ring->ending, true);
	thread = __atomic_load_n(&ring->thread, __ATOMIC_SEQ_CST);
	if (thread)
		thread_wake(thread);
	ring_unref(ring);
	atomic_fetch_sub(&server->n_waking, 1);
}

/* With two references: its maker's, and the broker's once it has the claim. */
static struct ring *ring_alloc(struct ring_server *server, struct session *session, uint64_t guest,
			       uint32_t lanes)
{
	struct ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return NULL;
	ring->server = server;
	ring->session = session_ref(session);
	ring->tenant = broker_tenant_of(server->broker, session);
	ring->guest = guest;
	atomic_init(&ring->refs, 2);
	ring->memory_fd = ring->state_fd = ring->submit_fd = -1;
	fds_clear(ring->complete_fds, RING_LANES_MAX);
	ring->lanes = calloc(lanes, sizeof(*ring->lanes));
	for (uint32_t i = 0; ring->lanes && i < lanes; i++) {
		ring->lanes[i].ring = ring;
		ring->lanes[i].index = i;
	}
	if (ring->lanes)
		return ring;
	ring_free(ring);
	return NULL;
}

uint64_t ring_bytes(uint32_t lanes, uint32_t entries)
{
	return ring_memory_bytes(lanes, entries) + lanes * sizeof(struct ring_lane_work) +
	       sizeof(struct ring) + STATE_BYTES;
}

/* Charge it, and have it end with its session and guest. Then both references are to be given up by
 * their holders; on failure the ring is gone. */
static int ring_claim_it(struct ring *ring, uint32_t lanes, uint32_t entries, uint64_t *ret_ring,
			 struct refusal *refusal)
{
	const struct ring_claim claim = {
		.guest = ring->guest,
		.bytes = ring_bytes(lanes, entries),
		.end = ring_end,
		.context = ring,
	};
	int status = ring_claim(ring->server->broker, ring->session, &claim, ret_ring, refusal);

	if (status)
		ring_free(ring);
	return status;
}

/* ── memory and doorbells ─────────────────────────────────────────────────────────────────── */

static int file_map(int fd, uint64_t bytes, void **ret)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return errno;
	*ret = memory;
	return 0;
}

static int file_make(const char *name, uint64_t bytes, int *ret_fd, void **ret_memory)
{
	*ret_fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*ret_fd < 0 || ftruncate(*ret_fd, (off_t)bytes) ||
	    fcntl(*ret_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return errno;
	return file_map(*ret_fd, bytes, ret_memory);
}

/* The positions have a file of their own, which no client sees. */
static int memory_make(struct ring *ring, uint32_t lanes, uint32_t entries)
{
	int error;

	ring->memory_bytes = ring_memory_bytes(lanes, entries);
	error = file_make("iommubroker-ring", ring->memory_bytes, &ring->memory_fd, &ring->memory);
	return error ? error
		     : file_make("iommubroker-ring-state", STATE_BYTES, &ring->state_fd,
				 (void **)&ring->state);
}

/* ours, theirs: read end and write end, or the other way round. */
static int doorbell_make(int *ret_read, int *ret_write)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return errno;
	*ret_read = fds[0];
	*ret_write = fds[1];
	return 0;
}

static int doorbells_make(struct ring *ring, uint32_t lanes, struct ring_ends *ends)
{
	int error = doorbell_make(&ring->submit_fd, &ends->submit);

	for (uint32_t i = 0; !error && i < lanes; i++)
		error = doorbell_make(&ends->complete[i], &ring->complete_fds[i]);
	return error;
}

static void ends_close(struct ring_ends *ends)
{
	ends->memory = fd_close(ends->memory);
	ends->submit = fd_close(ends->submit);
	fds_close(ends->complete, ends->lanes);
}

/* A part of what a session is known by, whatever its number is. */
static uint32_t owner_of(struct session *session)
{
	uint8_t secret[BROKER_SECRET_BYTES];
	uint32_t owner;

	session_secret(session, secret);
	memcpy(&owner, secret, sizeof(owner));
	explicit_bzero(secret, sizeof(secret));
	return owner;
}

static int ring_make(struct ring *ring, const struct ring_request *request, struct ring_ends *ends)
{
	int error = memory_make(ring, request->lanes, request->entries);

	ends->lanes = request->lanes;
	ends->memory = ends->submit = -1;
	fds_clear(ends->complete, RING_LANES_MAX);
	if (!error)
		error = doorbells_make(ring, request->lanes, ends);
	if (!error) {
		ends->memory = fd_duplicate(ring->memory_fd);
		error = ends->memory < 0 ? -ends->memory : 0;
	}
	if (error) {
		ends_close(ends);
		return error;
	}
	queue_init(&ring->queue, ring->memory, request->lanes, request->entries, ring->state);
	ring->state->owner = owner_of(ring->session);
	return 0;
}

/* What outlives this process, where anything does. */
static int ring_store(struct ring *ring, uint64_t handle, struct refusal *refusal)
{
	struct ring_parts parts = {
		.lanes = ring->queue.lanes,
		.entries = ring->queue.entries,
		.memory = ring->memory_fd,
		.state = ring->state_fd,
		.submit = ring->submit_fd,
	};

	memcpy(parts.complete, ring->complete_fds, sizeof(parts.complete));
	CRASH_POINT(RING_MADE);
	return ring_keep(ring->server->broker, ring->session, handle, &parts, refusal);
}

/* It is claimed already: nobody hears of it. */
static void ring_undo(struct ring *ring, uint64_t handle)
{
	struct refusal ignored;

	ring_release(ring->server->broker, ring->session, handle, &ignored);
	ring_unref(ring);
}

/* Charged and with a handle; all that it has, and served. On failure the caller undoes it. */
static int ring_complete(struct ring *ring, const struct ring_request *request, uint64_t handle,
			 struct ring_ends *ends, struct refusal *refusal)
{
	int error = ring_make(ring, request, ends), status;

	if (error)
		return refuse_errno(refusal, error, "update ring");
	status = ring_store(ring, handle, refusal);
	error = status ? 0 : server_serve(ring->server, ring);
	if (error)
		status = refuse_errno(refusal, error, "update ring");
	if (status)
		ends_close(ends);
	return status;
}

static int request_check(const struct ring_request *request, struct refusal *refusal)
{
	if (!request->lanes || request->lanes > RING_LANES_MAX)
		return refuse_field(refusal, "lanes", "lanes: %u, not 1 to %d", request->lanes,
				    RING_LANES_MAX);
	if (!request->entries || request->entries > RING_ENTRIES_MAX ||
	    request->entries & (request->entries - 1))
		return refuse_field(refusal, "entries", "entries: %u is no power of two up to %d",
				    request->entries, RING_ENTRIES_MAX);
	return 0;
}

int ring_create(struct ring_server *server, struct session *session,
		const struct ring_request *request, uint64_t *ret_ring, struct ring_ends *ret_ends,
		struct refusal *refusal)
{
	struct ring_ends ends;
	struct ring *ring;
	uint64_t handle;
	int status = request_check(request, refusal);

	if (status)
		return status;
	ring = ring_alloc(server, session, request->guest, request->lanes);
	if (!ring)
		return refuse_errno(refusal, ENOMEM, "update ring");
	status = ring_claim_it(ring, request->lanes, request->entries, &handle, refusal);
	if (status)
		return status;
	status = ring_complete(ring, request, handle, &ends, refusal);
	if (status) {
		ring_undo(ring, handle);
		return status;
	}
	*ret_ring = handle;
	*ret_ends = ends;
	return 0;
}

int ring_destroy(struct ring_server *server, struct session *session, uint64_t handle,
		 struct refusal *refusal)
{
	return ring_release(server->broker, session, handle, refusal);
}

/* ── of a process before this one ─────────────────────────────────────────────────────────── */

/* It was made with that length, and can have no other. */
static bool file_holds(int fd, uint64_t bytes)
{
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && seals & F_SEAL_SHRINK && lseek(fd, 0, SEEK_END) == (off_t)bytes;
}

static bool doorbells_are_there(const struct ring *ring, uint32_t lanes)
{
	for (uint32_t i = 0; i < lanes; i++)
		if (ring->complete_fds[i] < 0)
			return false;
	return ring->submit_fd >= 0;
}

/* The descriptors are the ring's from here on. */
static void ring_take_parts(struct ring *ring, const struct ring_parts *parts)
{
	ring->memory_fd = parts->memory;
	ring->state_fd = parts->state;
	ring->submit_fd = parts->submit;
	memcpy(ring->complete_fds, parts->complete, parts->lanes * sizeof(parts->complete[0]));
}

/* No other session's, which may be allowed more. */
static bool state_is_of(const struct ring_state *state, const struct ring_request *shape,
			struct session *session)
{
	return state->lanes == shape->lanes && state->entries == shape->entries &&
	       (!state->owner || state->owner == owner_of(session));
}

static bool ring_go_on(struct ring *ring, const struct ring_request *shape)
{
	ring->memory_bytes = ring_memory_bytes(shape->lanes, shape->entries);
	return file_holds(ring->memory_fd, ring->memory_bytes) &&
	       !file_map(ring->memory_fd, ring->memory_bytes, &ring->memory) &&
	       file_holds(ring->state_fd, STATE_BYTES) && doorbells_are_there(ring, shape->lanes) &&
	       !file_map(ring->state_fd, STATE_BYTES, (void **)&ring->state) &&
	       state_is_of(ring->state, shape, ring->session) &&
	       queue_adopt(&ring->queue, ring->memory, ring->memory_bytes, ring->state);
}

/* Where its memory is sound, who only polls learns that it has ended. */
static void ring_tell_end(struct ring *ring, const struct ring_request *shape)
{
	if (!ring->memory)
		return;
	ring->queue = (struct ring_queue){ring->memory, shape->lanes, shape->entries, NULL};
	queue_end(&ring->queue);
}

/* What it is, and no more than can be. NULL: it cannot be taken over. */
static struct ring *ring_of_left(struct ring_server *server, const struct ring_left *left)
{
	const struct ring_request shape = {left->guest, left->parts.lanes, left->parts.entries};
	struct refusal refusal;
	struct ring *ring = NULL;

	if (!request_check(&shape, &refusal))
		ring = ring_alloc(server, left->session, left->guest, shape.lanes);
	if (!ring) {
		ring_parts_close(&left->parts);
		return NULL;
	}
	ring_take_parts(ring, &left->parts);
	if (ring_go_on(ring, &shape))
		return ring;
	ring_tell_end(ring, &shape);
	ring_free(ring);
	return NULL;
}

static bool ring_adopt(struct ring_server *server, const struct ring_left *left)
{
	struct ring *ring = ring_of_left(server, left);
	uint32_t lanes = left->parts.lanes;

	if (!ring)
		return false;
	if (!ring_serve_left(server->broker, left->ring, ring_bytes(lanes, left->parts.entries),
			     ring_end, ring)) {
		queue_end(&ring->queue);
		ring_free(ring);
		return false;
	}
	/* Who slept when the former process died may have missed its bell. */
	for (uint32_t i = 0; i < lanes; i++)
		lane_ring(&ring->lanes[i]);
	if (!server_serve(server, ring))
		return true;
	queue_end(&ring->queue);
	ring_undo(ring, left->ring);
	return false;
}

size_t ring_server_adopt(struct ring_server *server)
{
	struct refusal refusal;
	struct ring_left left;
	size_t n = 0;

	while (ring_take_left(server->broker, &left)) {
		if (ring_adopt(server, &left)) {
			n++;
		} else {
			ring_release(server->broker, left.session, left.ring, &refusal);
			log_error("session %" PRIu64 ": an update ring of the process before this "
				  "one cannot be served: it has ended",
				  session_id(left.session));
		}
		session_unref(left.session);
	}
	return n;
}
