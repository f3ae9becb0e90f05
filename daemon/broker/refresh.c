/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Refreshes: the hot path.
 *
 * A batch runs on the thread that brought it if the nested domain is free, for as long as a small
 * budget lasts; what is left goes on as a job in the domain's lane, by turns with other tenants'
 * and with a larger budget a slice. Nothing is allocated: all state lies in the caller's struct
 * refresh.
 *
 * The caller's thread can be the event loop, on which all others wait. A step ends between two
 * leaves, also of one table; but the call that spends the budget can weigh far more than it, where
 * a page is shown at many places: what a domain overspent there is kept, and its next batches go to
 * the pool at once, each for what one may spend. So a batch costs the loop on average no more than
 * the budget, whatever the tables hold.
 * Blocking a device whose domain could not be emptied is always left to the pool, and the answer
 * waits for it.
 *
 * A sweep that a batch made due is part of the batch, before its answer: a guest whose processor
 * stands still meanwhile then never sees one at work, and what it unmapped is in the last result.
 */
#include <assert.h>
#include <stdalign.h>

#include "broker/guest.h"
#include "broker/nested.h"
#include "broker/root.h"

/* Of a batch on its caller's thread: some hundred tables that did not change, or some ioctls. */
#define INLINE_UNITS 256

struct refresh_work {
	struct pool_job job;
	struct refresh *refresh;
	struct nested *nested; /* a reference */
	size_t at;             /* range that is being worked on */
	bool begun;            /* its operation has begun */
	bool stepped;          /* and is complete; only its result is still to be taken */
	bool swept;            /* the sweep is done or not due */
	struct shadow_op op;
};

static_assert(sizeof(struct refresh_work) <= sizeof(((struct refresh *)0)->priv),
	      "struct refresh has too little room for the broker");
static_assert(alignof(struct refresh_work) <= alignof(uint64_t), "");

static struct refresh_work *refresh_work(struct refresh *refresh)
{
	return (struct refresh_work *)refresh->priv;
}

/* One step, paid from the slice's budget, which can fall below 0: however little there was to do, a
 * range costs something. true: there is more. */
static bool refresh_step(struct refresh_work *work, int64_t *budget)
{
	uint64_t before = work->op.cost;
	bool more = nested_step(work->nested, &work->op, (unsigned int)*budget);

	*budget -= (int64_t)(work->op.cost - before) + 1;
	return more;
}

/* One range, as far as the budget goes; true: it is complete. With the lane held. */
static bool refresh_range(struct refresh_work *work, int64_t *budget, bool may_wait)
{
	const struct refresh_range *range = &work->refresh->ranges[work->at];

	if (!work->begun)
		shadow_op_refresh(&work->op, range->start, range->length);
	work->begun = true;
	if (!work->stepped && refresh_step(work, budget))
		return false;
	work->stepped = true;
	if (work->op.result.verdict == SHADOW_BROKEN && !may_wait)
		return false;
	nested_result(work->nested, &work->op, &work->refresh->results[work->at]);
	work->begun = work->stepped = false;
	return true;
}

/* The sweep, if one is due; true: complete. Never an error to the guest, but if the device had to
 * be blocked that is told. With the lane held. */
static bool refresh_sweep(struct refresh_work *work, int64_t *budget, bool may_wait)
{
	struct range_result *last = &work->refresh->results[work->refresh->n_ranges - 1];
	struct range_result result;

	if (work->swept || (!work->begun && !nested_sweep_begin(work->nested, &work->op)))
		return true;
	work->begun = true;
	if (!work->stepped && (*budget <= 0 || refresh_step(work, budget)))
		return false;
	work->stepped = true;
	if (work->op.result.verdict == SHADOW_BROKEN && !may_wait)
		return false;
	nested_result(work->nested, &work->op, &result);
	last->unmapped += result.unmapped;
	if (result.verdict == VERDICT_GONE)
		*last = result;
	work->swept = true;
	return true;
}

/* Work for a slice; true: the batch is complete. With the lane held. */
static bool refresh_slice(struct refresh_work *work, int64_t *budget, bool may_wait)
{
	struct refresh *refresh = work->refresh;

	for (; work->at < refresh->n_ranges; work->at++)
		if (*budget <= 0 || !refresh_range(work, budget, may_wait))
			return false;
	return refresh_sweep(work, budget, may_wait);
}

/* The caller may free the refresh in done(). */
static void refresh_finish(struct refresh_work *work)
{
	struct refresh *refresh = work->refresh;

	nested_unref(work->nested);
	refresh->done(refresh, 0);
}

static bool refresh_run(struct pool_job *job)
{
	struct refresh_work *work = (struct refresh_work *)job;
	int64_t budget = NESTED_STEP_UNITS;

	if (!refresh_slice(work, &budget, true))
		return true;
	refresh_finish(work);
	return false;
}

/* false: this batch is one of those that pay for what was overspent. With the lane held. */
static bool inline_allowed(struct nested *nested)
{
	if (!nested->overspent)
		return true;
	nested->overspent -= nested->overspent < INLINE_UNITS ? nested->overspent : INLINE_UNITS;
	return false;
}

/* true: complete. */
static bool refresh_try_inline(struct refresh_work *work)
{
	struct nested *nested = work->nested;
	int64_t budget = INLINE_UNITS;
	bool complete = false;

	if (!pool_lane_try_enter(nested->lane))
		return false;
	if (inline_allowed(nested)) {
		complete = refresh_slice(work, &budget, false);
		nested->overspent = budget < 0 ? (uint64_t)-budget : 0;
	}
	nested_lane_leave(nested);
	return complete;
}

static int refresh_begin(struct broker *broker, struct session *session, struct refresh *refresh)
{
	struct refresh_work *work = refresh_work(refresh);
	struct nested *nested;

	if (!refresh->n_ranges || refresh->n_ranges > BROKER_REFRESH_RANGES_MAX)
		return refuse_field(&refresh->refusal, "ranges", "has %zu entries, not 1 to %d",
				    refresh->n_ranges, BROKER_REFRESH_RANGES_MAX);
	nested = nested_find(broker, session, refresh->nested, &refresh->refusal);
	if (!nested)
		return REFUSED;
	work->refresh = refresh;
	work->nested = nested;
	work->at = 0;
	work->begun = work->stepped = work->swept = false;
	work->job = (struct pool_job){
		.run = refresh_run,
		.lane = nested->lane,
		.share = session->share,
	};
	return 0;
}

void broker_refresh_run(struct broker *broker, struct session *session, struct refresh *refresh)
{
	struct refresh_work *work = refresh_work(refresh);
	int status = refresh_begin(broker, session, refresh);

	if (status)
		refresh->done(refresh, status);
	else if (refresh_try_inline(work))
		refresh_finish(work);
	else
		pool_submit(broker->pool, &work->job);
}
