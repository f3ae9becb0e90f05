/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Update rings: refreshes through memory that is shared with the daemon. How it is laid out, and
 * who stores what in which order, says iommubroker/ring_layout.h.
 *
 * A lane is one thread's: it knows by itself how far it has submitted and reaped, and takes nothing
 * from the shared memory but the daemon's indices and completions.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iommubroker/ring_layout.h"
#include "iommubroker/v1/fastpath.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/clock.h"
#include "lib/session.h"

typedef Iommubroker__V1__DescriptorRef DescriptorRef;
typedef Iommubroker__V1__CreateUpdateRingResponse CreateResponse;

#define CREATE_TRIES 10

struct lane {
	int doorbell;
	uint32_t submitted, reaped;
	char apart[RING_LINE_BYTES - 3 * sizeof(uint32_t)]; /* from the next thread's */
};

struct iommubroker_ring {
	struct iommubroker_session *session;
	uint64_t handle;
	uint32_t n_lanes, entries;
	void *memory;
	int doorbell;
	struct lane lanes[];
};

static uint32_t load(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void store(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

/* ---- made and given back --------------------------------------------------------------------- */

static int take_descriptor(struct iommubroker_session *session, const DescriptorRef *ref,
			   int *ret_fd, struct iommubroker_error **ret_error)
{
	Iommubroker__V1__TakeDescriptorRequest request =
		IOMMUBROKER__V1__TAKE_DESCRIPTOR_REQUEST__INIT;
	struct descriptors fds = {.n = 0};
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_TAKE_DESCRIPTOR,
		.request = &request.base,
		.response = &iommubroker__v1__take_descriptor_response__descriptor,
		.ret_fds = &fds,
	};
	int fd, r;

	if (ref == NULL || ref->source_case != IOMMUBROKER__V1__DESCRIPTOR_REF__SOURCE_TOKEN)
		return error_transport(-EBADMSG, ret_error);
	request.token = ref->token;
	r = exchange_run_only(session, &exchange, ret_error);
	if (r < 0)
		return r;
	fd = descriptors_take(&fds, 0);
	descriptors_close(&fds);
	if (fd < 0)
		return error_transport(-EBADMSG, ret_error);
	*ret_fd = fd;
	return 0;
}

static int map_memory(struct iommubroker_ring *ring, int consume_fd,
		      struct iommubroker_error **ret_error)
{
	size_t bytes = ring_memory_bytes(ring->n_lanes, ring->entries);
	struct stat status;
	void *memory = MAP_FAILED;

	if (fstat(consume_fd, &status) == 0 && status.st_size >= (off_t)bytes)
		memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, consume_fd, 0);
	close(consume_fd);
	if (memory == MAP_FAILED)
		return error_transport(-ENOMEM, ret_error);
	ring->memory = memory;
	return 0;
}

static int take_ends(struct iommubroker_ring *ring, const CreateResponse *response,
		     struct iommubroker_error **ret_error)
{
	int fd, r;

	if (response->n_complete_doorbells != ring->n_lanes)
		return error_transport(-EBADMSG, ret_error);
	r = take_descriptor(ring->session, response->memory, &fd, ret_error);
	if (r == 0)
		r = map_memory(ring, fd, ret_error);
	if (r == 0)
		r = take_descriptor(ring->session, response->submit_doorbell, &ring->doorbell,
				    ret_error);
	for (uint32_t i = 0; r == 0 && i < ring->n_lanes; i++)
		r = take_descriptor(ring->session, response->complete_doorbells[i],
				    &ring->lanes[i].doorbell, ret_error);
	return r;
}

static void lanes_init(struct iommubroker_ring *ring)
{
	ring->doorbell = -1;
	for (uint32_t i = 0; i < ring->n_lanes; i++)
		ring->lanes[i].doorbell = -1;
}

/* What was taken of a ring that is none. */
static void lanes_clear(struct iommubroker_ring *ring)
{
	if (ring->memory != NULL)
		munmap(ring->memory, ring_memory_bytes(ring->n_lanes, ring->entries));
	ring->memory = NULL;
	if (ring->doorbell >= 0)
		close(ring->doorbell);
	for (uint32_t i = 0; i < ring->n_lanes; i++)
		if (ring->lanes[i].doorbell >= 0)
			close(ring->lanes[i].doorbell);
	lanes_init(ring);
}

static struct iommubroker_ring *ring_new(struct iommubroker_session *session, uint32_t lanes,
					 uint32_t entries)
{
	struct iommubroker_ring *ring = calloc(1, sizeof(*ring) + lanes * sizeof(ring->lanes[0]));

	if (ring == NULL)
		return NULL;
	ring->session = session;
	ring->n_lanes = lanes;
	ring->entries = entries;
	lanes_init(ring);
	return ring;
}

static int create(struct iommubroker_ring *ring, struct iommubroker_guest *guest,
		  struct iommubroker_error **ret_error)
{
	Iommubroker__V1__CreateUpdateRingRequest request =
		IOMMUBROKER__V1__CREATE_UPDATE_RING_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_CREATE_UPDATE_RING,
		.request = &request.base,
		.response = &iommubroker__v1__create_update_ring_response__descriptor,
	};
	ProtobufCMessage *message = NULL;
	int r;

	request.request_id = session_request_id(guest->session);
	request.guest = guest->handle;
	request.lanes = ring->n_lanes;
	request.entries = ring->entries;
	r = exchange_run(guest->session, &exchange, &message, ret_error);
	if (r < 0)
		return r;
	ring->handle = ((const CreateResponse *)message)->ring;
	r = take_ends(ring, (const CreateResponse *)message, ret_error);
	protobuf_c_message_free_unpacked(message, NULL);
	if (r < 0)
		iommubroker_ring_destroy(ring, NULL);
	return r;
}

/* The daemon can have been another one in between, and what it had ready for us is lost with it:
 * then this ring is given back and another made. */
static int create_again(struct iommubroker_ring *ring, struct iommubroker_guest *guest,
			struct iommubroker_error **ret_error)
{
	struct iommubroker_error *error = NULL;
	int r = 0;

	for (int i = 0; i < CREATE_TRIES; i++) {
		error = iommubroker_error_free(error);
		lanes_clear(ring);
		ring->handle = 0;
		r = create(ring, guest, &error);
		if (ring->handle == 0 || (r != -EBADMSG && r != -ENOENT))
			break;
	}
	if (ret_error)
		*ret_error = error;
	else
		iommubroker_error_free(error);
	return r;
}

int iommubroker_ring_create(struct iommubroker_guest *guest, uint32_t lanes, uint32_t entries,
			    struct iommubroker_ring **ret_ring,
			    struct iommubroker_error **ret_error)
{
	struct iommubroker_ring *ring;
	int r;

	if (lanes < 1 || lanes > IOMMUBROKER_RING_LANES_MAX)
		return error_field(ret_error, "lanes", "%u lanes, not 1 to %d", lanes,
				   IOMMUBROKER_RING_LANES_MAX);
	if (entries < 1 || entries > IOMMUBROKER_RING_ENTRIES_MAX || (entries & (entries - 1)))
		return error_field(ret_error, "entries", "%u is no power of two up to %d", entries,
				   IOMMUBROKER_RING_ENTRIES_MAX);
	ring = ring_new(guest->session, lanes, entries);
	if (ring == NULL)
		return error_transport(-ENOMEM, ret_error);
	r = create_again(ring, guest, ret_error);
	if (r < 0)
		iommubroker_ring_free(ring);
	else
		*ret_ring = ring;
	return r;
}

int iommubroker_ring_destroy(struct iommubroker_ring *ring, struct iommubroker_error **ret_error)
{
	Iommubroker__V1__DestroyUpdateRingRequest request =
		IOMMUBROKER__V1__DESTROY_UPDATE_RING_REQUEST__INIT;
	const struct exchange exchange = {
		.method = IOMMUBROKER__V1__METHOD__METHOD_DESTROY_UPDATE_RING,
		.request = &request.base,
		.response = &iommubroker__v1__destroy_update_ring_response__descriptor,
		.takes_away = true,
	};

	request.request_id = session_request_id(ring->session);
	request.ring = ring->handle;
	return exchange_run_only(ring->session, &exchange, ret_error);
}

struct iommubroker_ring *iommubroker_ring_free(struct iommubroker_ring *ring)
{
	if (ring == NULL)
		return NULL;
	lanes_clear(ring);
	free(ring);
	return NULL;
}

/* ---- entries --------------------------------------------------------------------------------- */

static void put_entry(struct ring_submission *to, const struct iommubroker_ring_entry *from)
{
	*to = (struct ring_submission){
		.operation = from->operation,
		.nested = from->nested_index,
		.iova = from->iova,
		.length = from->length,
		.gpa = from->gpa,
		.user_data = from->user_data,
		.flags = from->writable ? RING_FLAG_WRITABLE : 0,
	};
}

/* The daemon's end can be gone, and the signal for that is not for a library's user. Full: it is
 * going to wake. */
static void ring_doorbell(const struct iommubroker_ring *ring)
{
	const struct ring_header *header = ring->memory;
	const struct timespec at_once = {0, 0};
	sigset_t pipe, before, pending;

	if (!load(&header->daemon_sleeps))
		return;
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	if (write(ring->doorbell, "", 1) < 0 && errno == EPIPE && !sigismember(&pending, SIGPIPE))
		sigtimedwait(&pipe, NULL, &at_once);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Why nothing comes any more: 0, -ECONNRESET (the ring has ended) or -EIO. */
static int lane_fault(const struct ring_lane *shared)
{
	switch (load(&shared->fault)) {
	case RING_FAULT_NONE:
		return 0;
	case RING_FAULT_ENDED:
		return -ECONNRESET;
	default:
		return -EIO;
	}
}

int iommubroker_ring_submit(struct iommubroker_ring *ring, uint32_t lane,
			    const struct iommubroker_ring_entry *entries, size_t n)
{
	struct ring_lane *shared;
	struct lane *own;
	uint32_t room;
	int r;

	if (lane >= ring->n_lanes)
		return -EINVAL;
	own = &ring->lanes[lane];
	shared = ring_lane_at(ring->memory, ring->entries, lane);
	r = lane_fault(shared);
	if (r < 0)
		return r;
	room = ring->entries - (own->submitted - own->reaped);
	if (n > room)
		n = room;
	for (uint32_t i = 0; i < n; i++)
		put_entry(ring_submission_at(shared, ring->entries, own->submitted + i),
			  &entries[i]);
	if (n == 0)
		return 0;
	own->submitted += (uint32_t)n;
	store(&shared->submit_tail, own->submitted);
	ring_doorbell(ring);
	return (int)n;
}

static void get_completion(struct iommubroker_ring_result *to, const struct ring_completion *from)
{
	*to = (struct iommubroker_ring_result){
		.user_data = from->user_data,
		.result =
			{
				.verdict = from->verdict,
				.condition_code = from->condition_code,
				.status = from->status,
				.event_code = from->event_code,
				.fault_iova = from->failing_iova,
				.mapped = from->mapped,
				.unmapped = from->unmapped,
			},
	};
}

int iommubroker_ring_reap(struct iommubroker_ring *ring, uint32_t lane,
			  struct iommubroker_ring_result *ret_results, size_t n_max)
{
	struct ring_lane *shared;
	struct lane *own;
	uint32_t ready;

	if (lane >= ring->n_lanes)
		return -EINVAL;
	own = &ring->lanes[lane];
	shared = ring_lane_at(ring->memory, ring->entries, lane);
	ready = load(&shared->complete_tail) - own->reaped;
	if (ready > own->submitted - own->reaped)
		return -EBADMSG;
	if (ready == 0)
		return lane_fault(shared);
	if (ready > n_max)
		ready = (uint32_t)n_max;
	for (uint32_t i = 0; i < ready; i++)
		get_completion(&ret_results[i],
			       ring_completion_at(shared, ring->entries, own->reaped + i));
	own->reaped += ready;
	store(&shared->complete_head, own->reaped);
	return (int)ready;
}

/* 1: something is there, or never will be. */
static int lane_ready(struct ring_lane *shared, const struct lane *own)
{
	return load(&shared->complete_tail) != own->reaped ||
	       load(&shared->fault) != RING_FAULT_NONE;
}

static int sleep_until(const struct lane *own, uint64_t deadline)
{
	char bytes[64];

	if (clock_poll(own->doorbell, POLLIN, deadline) == 0)
		return -ETIMEDOUT;
	if (read(own->doorbell, bytes, sizeof(bytes)) == 0)
		return -ECONNRESET;
	return 0;
}

int iommubroker_ring_wait(struct iommubroker_ring *ring, uint32_t lane, uint64_t timeout_ns)
{
	uint64_t deadline = clock_deadline(timeout_ns);
	struct ring_lane *shared;
	int r = 0;

	if (lane >= ring->n_lanes)
		return -EINVAL;
	shared = ring_lane_at(ring->memory, ring->entries, lane);
	store(&shared->client_sleeps, 1);
	while (r == 0 && !lane_ready(shared, &ring->lanes[lane]))
		r = sleep_until(&ring->lanes[lane], deadline);
	store(&shared->client_sleeps, 0);
	return r;
}
