/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The entries of a lane, in their order: neighbours that refresh the same nested domain are one
 * refresh of the broker's, entries of managed domains are done one by one on the guest's lane.
 * While the broker is at it on another thread, the lane waits, and the ring's other lanes go on.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "ring/ring_internal.h"
#include "util/clock.h"
#include "util/crash_point.h"

static struct broker *broker_of(const struct ring_lane_work *lane)
{
	return lane->ring->server->broker;
}

/* ── answers ──────────────────────────────────────────────────────────────────────────────── */

/* What the guest is told: as over the calls. */
static void completion_set_verdict(struct ring_completion *completion, enum verdict verdict)
{
	static const uint8_t cc[] = {
		[VERDICT_SEQUENCE] = 1, [VERDICT_RESOURCES] = 1, [VERDICT_ERROR] = 1,
		[VERDICT_BUSY] = 2,     [VERDICT_GONE] = 3,      [VERDICT_DONE] = 0};
	static const uint8_t status[] = {[VERDICT_SEQUENCE] = 24,
					 [VERDICT_RESOURCES] = 16,
					 [VERDICT_ERROR] = 8,
					 [VERDICT_GONE] = 0};

	completion->verdict = verdict;
	completion->condition_code = cc[verdict];
	completion->status = status[verdict];
}

static struct ring_completion completion_of(const struct ring_submission *entry,
					    const struct range_result *result)
{
	struct ring_completion completion = {
		.user_data = entry->user_data,
		.mapped = result->mapped,
		.unmapped = result->unmapped,
	};

	completion_set_verdict(&completion, result->verdict);
	if (result->verdict == VERDICT_ERROR) {
		completion.event_code = result->fault.code;
		completion.failing_iova = result->fault.iova;
	}
	return completion;
}

static enum verdict verdict_of(const struct refusal *refusal)
{
	switch (refusal->kind) {
	case REFUSAL_BUSY:
	case REFUSAL_RATE:
		return VERDICT_BUSY;
	case REFUSAL_NOT_FOUND:
		return VERDICT_GONE;
	default:
		return VERDICT_OPERAND;
	}
}

void lane_ring(struct ring_lane_work *lane)
{
	/* Full, or nobody reads: then there is no need, or no use. */
	ssize_t n = write(lane->ring->complete_fds[lane->index], "", 1);

	(void)n;
}

/* Its thread alone adds. */
static void count_add(uint64_t *count, uint64_t n)
{
	__atomic_store_n(count, *count + n, __ATOMIC_RELAXED);
}

static void lane_count(struct ring_lane_work *lane)
{
	struct refresh_counts *counts = &lane->ring->thread->counts;

	for (size_t i = 0; lane->batch[0].operation == RING_REFRESH && i < lane->n; i++) {
		const struct range_result *result = &lane->refresh.results[i];

		count_add(&counts->verdicts[result->verdict], 1);
		count_add(&counts->mapped, result->mapped);
		count_add(&counts->unmapped, result->unmapped);
	}
}

/* The first n of the batch were answered. */
static void lane_complete(struct ring_lane_work *lane, size_t n)
{
	struct ring_queue *queue = &lane->ring->queue;
	struct ring_completion completions[LANE_BATCH];

	for (size_t i = 0; i < n; i++)
		completions[i] = completion_of(&lane->batch[i], &lane->refresh.results[i]);
	queue_write(queue, lane->index, completions, n);
	CRASH_POINT(RING_WRITTEN);
	queue_commit(queue, lane->index, n);
	CRASH_POINT(RING_COMMITTED);
	queue_publish(queue, lane->index);
	CRASH_POINT(RING_PUBLISHED);
	if (queue_client_sleeps(queue, lane->index))
		lane_ring(lane);
}

static void answer_all(struct ring_lane_work *lane, enum verdict verdict)
{
	for (size_t i = 0; i < lane->n; i++)
		lane->refresh.results[i] = (struct range_result){.verdict = verdict};
}

/* What the broker finished: a result for each entry. */
static void lane_settle(struct ring_lane_work *lane)
{
	if (lane->status == REFUSED)
		answer_all(lane, verdict_of(&lane->refresh.refusal));
	else if (lane->status)
		answer_all(lane, VERDICT_RESOURCES);
	lane->status = 0;
}

/* From any thread. Once finished is set the ring can be gone; its thread is not, while who wakes it
 * is counted. */
static void lane_done(struct ring_lane_work *lane, int status)
{
	struct ring_thread *thread = lane->ring->thread;
	struct ring_server *server = thread->server;

	lane->status = status;
	if (pthread_equal(pthread_self(), thread->id)) {
		lane->finished = true;
		return;
	}
	atomic_fetch_add(&server->n_waking, 1);
	atomic_store(&lane->finished, true);
	thread_wake(thread);
	atomic_fetch_sub(&server->n_waking, 1);
}

/* ── work ─────────────────────────────────────────────────────────────────────────────────── */

static void refresh_done(struct refresh *refresh, int status)
{
	lane_done((struct ring_lane_work *)((char *)refresh -
					    offsetof(struct ring_lane_work, refresh)),
		  status);
}

static void refresh_start(struct ring_lane_work *lane)
{
	struct refresh *refresh = &lane->refresh;

	refresh->nested = lane->nested;
	refresh->n_ranges = lane->n;
	refresh->done = refresh_done;
	for (size_t i = 0; i < lane->n; i++)
		refresh->ranges[i] =
			(struct refresh_range){lane->batch[i].iova, lane->batch[i].length};
	broker_refresh_run(broker_of(lane), lane->ring->session, refresh);
}

static bool managed_run(struct pool_job *job)
{
	struct ring_lane_work *lane =
		(struct ring_lane_work *)((char *)job - offsetof(struct ring_lane_work, job));
	const struct ring_submission *entry = &lane->batch[0];
	const struct nested_entry asked = {
		.iova = entry->iova,
		.length = entry->length,
		.gpa = entry->gpa,
		.map = entry->operation == RING_MAP,
		.writable = entry->flags & RING_FLAG_WRITABLE,
	};
	struct range_result result[BROKER_MANAGED_ENTRIES_MAX];
	int status = nested_update(broker_of(lane), lane->ring->session, lane->nested, &asked, 1,
				   result, &lane->n_results, &lane->refresh.refusal);

	if (!status)
		lane->refresh.results[0] = result[0];
	lane_done(lane, status);
	return false;
}

/* On the guest's lane, as the call. */
static void managed_start(struct ring_lane_work *lane)
{
	struct session *session = lane->ring->session;

	lane->job = (struct pool_job){
		.run = managed_run,
		.lane = broker_lane(broker_of(lane), session, lane->nested),
		.share = session_share(session),
	};
	if (lane->job.lane) {
		pool_submit(broker_pool(broker_of(lane)), &lane->job);
		return;
	}
	answer_all(lane, VERDICT_GONE);
	lane_done(lane, 0);
}

static void batch_start(struct ring_lane_work *lane)
{
	if (lane->batch[0].operation == RING_REFRESH)
		refresh_start(lane);
	else
		managed_start(lane);
}

/* ── what may be done ─────────────────────────────────────────────────────────────────────── */

/* Entries at the front that are one piece of work. */
static size_t batch_length(const struct ring_lane_work *lane, size_t n)
{
	size_t i = 1;

	if (lane->batch[0].operation != RING_REFRESH)
		return 1;
	while (i < n && lane->batch[i].operation == RING_REFRESH &&
	       lane->batch[i].nested == lane->batch[0].nested)
		i++;
	return i;
}

static bool rate_take(struct ring_lane_work *lane, size_t n)
{
	struct ring *ring = lane->ring;
	const struct rate_request request = {
		.kind = RATE_REFRESHES,
		.n = n,
		.now_ns = clock_monotonic_ns(),
		.handle = ring->guest,
		.session = ring->session,
	};
	struct refusal refusal;
	uint64_t wait_ns;

	if (!ring->tenant || !broker_rate_limited(broker_of(lane), ring->tenant, &request))
		return true;
	return !broker_rate_take(broker_of(lane), ring->tenant, &request, &wait_ns, &refusal);
}

/* All of the batch, or of it what there is room for now, one at least. */
static bool batch_pay(struct ring_lane_work *lane)
{
	if (rate_take(lane, lane->n))
		return true;
	if (lane->n == 1)
		return false;
	lane->n = 1;
	return rate_take(lane, 1);
}

static bool batch_find(struct ring_lane_work *lane)
{
	struct ring *ring = lane->ring;
	uint32_t index = lane->batch[0].nested;

	lane->looked_up = !lane->nested || lane->nested_index != index;
	if (lane->looked_up)
		lane->nested = nested_of_index(broker_of(lane), ring->session, ring->guest, index);
	lane->nested_index = index;
	return lane->nested;
}

/* 0: it may be done; else what it is answered with. */
static enum verdict batch_check(struct ring_lane_work *lane)
{
	uint32_t operation = lane->batch[0].operation;
	unsigned int rights = session_rights(lane->ring->session);

	if (operation < RING_REFRESH || operation > RING_UNMAP)
		return VERDICT_OPERAND;
	if (!(rights &
	      1u << (operation == RING_REFRESH ? GUEST_RIGHT_REFRESH : GUEST_RIGHT_DOMAIN)))
		return VERDICT_OPERAND;
	if (!batch_pay(lane))
		return VERDICT_BUSY;
	return batch_find(lane) ? 0 : VERDICT_GONE;
}

/* Take what waits and begin it. false: nothing waits. */
static bool lane_begin(struct ring_lane_work *lane)
{
	size_t n = queue_load(&lane->ring->queue, lane->index, lane->batch, LANE_BATCH);
	enum verdict refused;

	if (!n)
		return false;
	CRASH_POINT(RING_LOADED);
	lane->n = batch_length(lane, n);
	lane->finished = false;
	refused = batch_check(lane);
	if (refused) {
		answer_all(lane, refused);
		lane->status = 0;
		lane->looked_up = true;
		lane->finished = true;
	} else {
		batch_start(lane);
	}
	return true;
}

/* Handles are not used twice, indices are: where the domain of an earlier batch has gone, its index
 * can have been another's when this one was submitted, whose it is then. Paid for already. */
static void lane_begin_again(struct ring_lane_work *lane)
{
	uint64_t before = lane->nested;

	lane->nested = 0;
	if (lane->looked_up || lane->ring->ending || !batch_find(lane) || lane->nested == before)
		return;
	lane->job.lane = pool_lane_unref(lane->job.lane);
	lane->finished = false;
	batch_start(lane);
}

/* What is under way, if it is finished. */
static bool lane_collect(struct ring_lane_work *lane)
{
	if (!lane->running || !atomic_load(&lane->finished))
		return false;
	lane_settle(lane);
	if (lane->refresh.results[0].verdict == VERDICT_GONE)
		lane_begin_again(lane);
	if (!atomic_load(&lane->finished))
		return true;
	lane->running = false;
	lane->ring->n_running--;
	lane->job.lane = pool_lane_unref(lane->job.lane);
	lane_settle(lane);
	lane_count(lane);
	lane_complete(lane, lane->n);
	return true;
}

bool lane_turn(struct ring_lane_work *lane, size_t *budget)
{
	enum ring_fault before = queue_fault(&lane->ring->queue, lane->index);
	bool worked = lane_collect(lane);

	while (!lane->running && !lane->ring->ending && *budget && lane_begin(lane)) {
		*budget -= *budget < lane->n ? *budget : lane->n;
		lane->running = true;
		lane->ring->n_running++;
		worked = true;
		lane_collect(lane);
	}
	if (!before && queue_fault(&lane->ring->queue, lane->index))
		lane_ring(lane);
	return worked;
}
