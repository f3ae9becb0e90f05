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
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring/ring_internal.h"
#include "util/fd.h"

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
	fd_close(ring->memory_fd);
	fd_close(ring->submit_fd);
	fds_close(ring->complete_fds, RING_LANES_MAX);
	free(ring->lanes);
	free(ring->own_state);
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
	ring->memory_fd = ring->submit_fd = -1;
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

/* What it costs the daemon. */
static uint64_t ring_bytes(uint32_t lanes, uint32_t entries)
{
	return ring_memory_bytes(lanes, entries) + lanes * sizeof(struct ring_lane_work) +
	       sizeof(struct ring) + sizeof(struct ring_state);
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

static int ring_map(struct ring *ring)
{
	void *memory = mmap(NULL, ring->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			    ring->memory_fd, 0);

	if (memory == MAP_FAILED)
		return errno;
	ring->memory = memory;
	return 0;
}

static int memory_make(struct ring *ring, uint32_t lanes, uint32_t entries)
{
	ring->memory_bytes = ring_memory_bytes(lanes, entries);
	ring->memory_fd = memfd_create("iommubroker-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (ring->memory_fd < 0 || ftruncate(ring->memory_fd, (off_t)ring->memory_bytes) ||
	    fcntl(ring->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return errno;
	return ring_map(ring);
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

static int ring_make(struct ring *ring, const struct ring_request *request,
		     struct ring_state *state, struct ring_ends *ends)
{
	int error = memory_make(ring, request->lanes, request->entries);

	ends->lanes = request->lanes;
	ends->memory = ends->submit = -1;
	fds_clear(ends->complete, RING_LANES_MAX);
	if (!error && !state) {
		state = ring->own_state = calloc(1, sizeof(*state));
		error = state ? 0 : ENOMEM;
	}
	if (!error)
		error = doorbells_make(ring, request->lanes, ends);
	if (!error) {
		ends->memory = fd_duplicate(ring->memory_fd);
		error = ends->memory < 0 ? -ends->memory : 0;
	}
	if (error)
		ends_close(ends);
	else
		queue_init(&ring->queue, ring->memory, request->lanes, request->entries, state);
	return error;
}

/* It is claimed already: nobody hears of it. */
static int ring_undo(struct ring *ring, uint64_t handle, int error, struct refusal *refusal)
{
	struct refusal ignored;

	ring_release(ring->server->broker, ring->session, handle, &ignored);
	ring_unref(ring);
	return refuse_errno(refusal, error, "update ring");
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
		const struct ring_request *request, struct ring_state *state, uint64_t *ret_ring,
		struct ring_ends *ret_ends, struct refusal *refusal)
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
	status = ring_make(ring, request, state, &ends);
	if (status)
		return ring_undo(ring, handle, status, refusal);
	server_serve(server, ring);
	*ret_ring = handle;
	*ret_ends = ends;
	return 0;
}

int ring_destroy(struct ring_server *server, struct session *session, uint64_t handle,
		 struct refusal *refusal)
{
	return ring_release(server->broker, session, handle, refusal);
}

/* ── adopted ──────────────────────────────────────────────────────────────────────────────── */

static int refuse_state(struct refusal *refusal)
{
	return refuse(refusal, REFUSAL_PRECONDITION, "RING_STATE",
		      "the state of the ring is damaged, or of another version");
}

static int kept_size(const struct ring_kept *kept, uint64_t *ret_bytes)
{
	off_t bytes = lseek(kept->memory, 0, SEEK_END);
	int seals = fcntl(kept->memory, F_GET_SEALS);

	if (bytes <= 0 || seals < 0 || !(seals & F_SEAL_SHRINK))
		return EBADMSG;
	*ret_bytes = (uint64_t)bytes;
	return 0;
}

static void kept_close(const struct ring_kept *kept, uint32_t lanes)
{
	fd_close(kept->memory);
	fd_close(kept->submit);
	for (uint32_t i = 0; i < lanes; i++)
		fd_close(kept->complete[i]);
}

/* The descriptors are the ring's from here on. */
static void ring_take_kept(struct ring *ring, const struct ring_kept *kept, uint32_t lanes)
{
	ring->memory_fd = kept->memory;
	ring->submit_fd = kept->submit;
	memcpy(ring->complete_fds, kept->complete, lanes * sizeof(kept->complete[0]));
}

static bool ring_go_on(struct ring *ring, const struct ring_kept *kept)
{
	return !kept_size(kept, &ring->memory_bytes) && !ring_map(ring) &&
	       queue_adopt(&ring->queue, ring->memory, ring->memory_bytes, kept->state);
}

int ring_adopt(struct ring_server *server, struct session *session,
	       const struct ring_kept *consume_kept, uint64_t *ret_ring, struct refusal *refusal)
{
	const struct ring_kept *kept = consume_kept;
	const struct ring_state *state = kept->state;
	const struct ring_request shape = {kept->guest, state->lanes, state->entries};
	struct ring *ring = NULL;
	uint64_t handle;
	int status = request_check(&shape, refusal) ? refuse_state(refusal) : 0;

	if (!status) {
		ring = ring_alloc(server, session, kept->guest, shape.lanes);
		status = ring ? 0 : refuse_errno(refusal, ENOMEM, "update ring");
	}
	if (!status)
		status = ring_claim_it(ring, shape.lanes, shape.entries, &handle, refusal);
	if (status) {
		kept_close(kept, shape.lanes <= RING_LANES_MAX ? shape.lanes : RING_LANES_MAX);
		return status;
	}
	ring_take_kept(ring, kept, shape.lanes);
	if (!ring_go_on(ring, kept)) {
		ring_undo(ring, handle, EBADMSG, refusal);
		return refuse_state(refusal);
	}
	for (uint32_t i = 0; i < shape.lanes; i++)
		lane_ring(&ring->lanes[i]);
	server_serve(server, ring);
	*ret_ring = handle;
	return 0;
}
