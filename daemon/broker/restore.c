/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Taking over the guests of a process before this one.
 *
 * For each guest: its records are read and checked as a whole (restore_plan.c); then everything
 * that they name is built again over the stored descriptors, as it is, while the guest's devices go
 * on with their DMA; then what was under way is resolved, what no record names is destroyed, and
 * every nested domain is brought in line with the guest's tables in place. A guest of which
 * something cannot be taken over is taken down in good order, and said so; the others do not
 * notice.
 *
 * Nobody calls yet while this runs, so lanes are free; what asks for one is given it all the same.
 */
#include "broker/restore.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/memory.h"
#include "broker/nested.h"
#include "broker/root.h"
#include "util/clock.h"
#include "util/fd.h"
#include "util/log.h"
#include "util/trace.h"

#define IDS_UNKNOWN 4096u /* where no record can be read */

/* ── descriptors ───────────────────────────────────────────────────────────────────────────── */

/* The caller's, or -1. */
int restore_fd_take(struct restoring *r, enum fd_kind kind, uint32_t index)
{
	for (size_t i = 0; i < r->n_fds; i++) {
		struct stored_fd *stored = &r->fds[i];
		int fd = stored->fd;

		if (stored->name.kind != kind || stored->name.index != index || fd < 0)
			continue;
		stored->fd = -1;
		return fd;
	}
	return -1;
}

void restore_fd_give_back(struct restoring *r, enum fd_kind kind, uint32_t index, int consume_fd)
{
	for (size_t i = 0; i < r->n_fds; i++)
		if (r->fds[i].name.kind == kind && r->fds[i].name.index == index)
			r->fds[i].fd = consume_fd;
}

/* What nobody took is stored no more. */
static void fds_drop(struct restoring *r)
{
	for (size_t i = 0; i < r->n_fds; i++) {
		if (r->fds[i].fd < 0)
			continue;
		fd_store_remove(r->broker->store, &r->fds[i].name);
		r->fds[i].fd = fd_close(r->fds[i].fd);
	}
}

int restore_fail(struct restoring *r, const char *what)
{
	snprintf(r->why, sizeof(r->why), "%s", what);
	return -EBADMSG;
}

int restore_fail_refused(struct restoring *r, const char *what)
{
	snprintf(r->why, sizeof(r->why), "%s: %.160s", what, r->refusal.message);
	return -EBADMSG;
}

int restore_fail_missing(struct restoring *r, const char *what, uint32_t index)
{
	snprintf(r->why, sizeof(r->why), "the descriptor of %s %u is not in the store", what,
		 index);
	return -EBADMSG;
}

int restore_step(const struct restoring *r, const char *step, int status)
{
	TRACE(restore__step, r->number, r->name, step, -status);
	return status;
}

/* ── one that cannot be taken over ─────────────────────────────────────────────────────────── */

static bool stop_as(struct restoring *r, struct iommu_context *context, uint32_t id, int borrow_fd)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);
	const struct iommu_device_address unknown = {.by_fid = true};
	struct iommu_device *device;
	int fd = fd_duplicate(borrow_fd);

	if (fd < 0 ||
	    ops->device_adopt(r->broker->backend, fd, &unknown, id ? context : NULL, id, &device))
		return false;
	ops->device_stop(device);
	ops->detach(device);
	ops->device_close(device);
	return true;
}

/* As what it is bound is not known, or told by nobody to be trusted: whatever it can be. */
static void stop_device(struct restoring *r, struct iommu_context *context, int borrow_fd)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);
	bool is_device;

	for (uint32_t id = 1; context && id < IDS_UNKNOWN; id++)
		if (!ops->context_has_device(context, id, &is_device) && is_device &&
		    stop_as(r, context, id, borrow_fd))
			return;
	stop_as(r, NULL, 0, borrow_fd);
}

/* Every device of which there is a descriptor that was not taken over is stopped and blocked. */
static void stop_rest(struct restoring *r, struct iommu_context *context)
{
	if (r->stopped)
		return;
	r->stopped = true;
	for (size_t i = 0; i < r->n_fds; i++)
		if (r->fds[i].name.kind == FD_DEVICE && r->fds[i].fd >= 0)
			stop_device(r, context, r->fds[i].fd);
}

/* Without records: devices first, then all that the kernel has goes. */
static void release_context(struct restoring *r)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);
	struct iommu_context *context = NULL;
	int fd = restore_fd_take(r, FD_CONTEXT, 0);
	uint64_t unmapped;

	if (fd >= 0 && ops->context_adopt(r->broker->backend, fd, &context))
		context = NULL;
	stop_rest(r, context);
	for (int pass = 0; context && pass < 2; pass++)
		for (uint32_t id = IDS_UNKNOWN; id; id--)
			if (ops->destroy(context, id))
				ops->unmap(context, id, 0, UINT64_MAX, &unmapped);
	if (context)
		ops->context_free(context);
}

static void names_forget(struct restoring *r)
{
	for (size_t i = 0; i < r->n_fds; i++)
		fd_store_remove(r->broker->store, &r->fds[i].name);
}

/* On its lane: its rings' ends have it written down once more, by whoever has that next. */
static void take_down(struct restoring *r)
{
	struct pool_lane *lane = pool_lane_ref(r->guest->lane);

	pool_lane_enter(lane);
	guest_take_down(guest_ref(r->guest));
	r->guest = NULL;
	pool_lane_leave(r->broker->pool, lane);
	pool_lane_unref(lane);
}

static void release(struct restoring *r, int status)
{
	/* One that was being taken down anyway, and one that its client was not told of, are
	 * nobody's loss. */
	if (status && r->promised && r->plan.guest.stage == RECORD_LIVE)
		log_as(LOG_LEVEL_ERROR, LOG_MESSAGE_NOT_RESTORED,
		       "guest %u '%s' of the process before this one is not taken over but "
		       "released: %s",
		       r->number, r->name, r->why);
	if (r->guest) {
		if (r->guest->context)
			stop_rest(r, r->guest->context);
		if (r->guest->kept.numbered)
			r->owns_number = false; /* goes with it */
		take_down(r);
	}
	if (r->owns_number)
		save_number_put(r->broker, r->number);
	release_context(r);
	names_forget(r);
	state_file_free(r->state);
}

/* ── all ───────────────────────────────────────────────────────────────────────────────────── */

static void regions_clear(struct restoring *r)
{
	for (size_t i = 0; !r->owned && i < r->live.n; i++)
		frame_counters_put(r->live.items[i].counters);
	for (size_t i = 0; !r->owned && i < r->going.n; i++)
		frame_counters_put(r->going.items[i].counters);
	region_list_clear(&r->live);
	region_list_clear(&r->going);
	region_list_clear(&r->making);
}

static void tell_taken_over(const struct restoring *r, struct restore_report *report)
{
	const struct nested *nested;

	report->guests++;
	report->regions += r->guest->regions.n;
	DL_FOREACH (r->guest->nested, nested)
		report->mappings += nested->stats.leaves;
}

static void restore_one(struct restoring *r, struct restore_report *report)
{
	int status = restore_guest(r);

	if (!status && r->plan.guest.stage == RECORD_LIVE) {
		stop_rest(r, r->guest->context); /* what no record names */
		status = restore_settle(r);
	}
	if (status || r->plan.guest.stage == RECORD_GOING) {
		release(r, status);
		restore_step(r, "released", status);
		report->released += status && r->promised;
	} else {
		tell_taken_over(r, report);
	}
	fds_drop(r);
	regions_clear(r);
	restore_plan_clear(&r->plan);
}

static int compare_fds(const void *a, const void *b)
{
	const struct stored_fd *left = a, *right = b;

	return left->name.guest < right->name.guest ? -1 : left->name.guest > right->name.guest;
}

/* Their processes ended, or they did, while nobody looked. */
static void sessions_end(struct broker *broker)
{
	struct session *session = NULL;

	do {
		session_unref(session);
		pthread_mutex_lock(&broker->lock);
		DL_FOREACH (broker->sessions, session)
			if (session->gone && !session->closed)
				break;
		if (session)
			session_ref(session);
		pthread_mutex_unlock(&broker->lock);
		if (session)
			session_close(session, NULL, NULL);
	} while (session);
}

/* All of them, side by side on the pool. */
struct restoration {
	struct restoring *guests;
	size_t n_guests;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t one_less;
	size_t left;
	struct restore_report report;
};

static bool restore_run(struct pool_job *job)
{
	struct restoring *r = (struct restoring *)((char *)job - offsetof(struct restoring, job));
	struct restoration *all = r->all;
	struct restore_report report = {0};

	restore_one(r, &report);
	pthread_mutex_lock(&all->lock);
	all->report.guests += report.guests;
	all->report.released += report.released;
	all->report.regions += report.regions;
	all->report.mappings += report.mappings;
	all->left--;
	pthread_cond_signal(&all->one_less);
	pthread_mutex_unlock(&all->lock);
	return false;
}

/* Descriptors, sorted, become guests. */
static void gather(struct restoration *all, struct broker *broker, struct stored_fd *fds, size_t n)
{
	struct restoring *r = NULL;

	for (size_t i = 0; i < n; i++) {
		if (!r || r->number != fds[i].name.guest) {
			r = &all->guests[all->n_guests++];
			r->broker = broker;
			r->number = fds[i].name.guest;
			r->fds = &fds[i];
			r->all = all;
			r->job.run = restore_run;
			save_number_claim(broker, r->number);
			r->owns_number = true;
		}
		r->n_fds++;
	}
}

static void run_all(struct restoration *all, struct pool *pool)
{
	all->left = all->n_guests;
	for (size_t i = 0; i < all->n_guests; i++)
		pool_submit(pool, &all->guests[i].job);
	pthread_mutex_lock(&all->lock);
	while (all->left)
		pthread_cond_wait(&all->one_less, &all->lock);
	pthread_mutex_unlock(&all->lock);
}

int broker_restore(struct broker *broker, struct stored_fd *consume, size_t n,
		   struct restore_report *ret)
{
	uint64_t begun_ns = clock_monotonic_ns();
	struct restoration all = {
		.guests = calloc(n ? n : 1, sizeof(*all.guests)),
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.one_less = PTHREAD_COND_INITIALIZER,
	};

	if (!all.guests)
		return -ENOMEM;
	if (n)
		qsort(consume, n, sizeof(*consume), compare_fds);
	gather(&all, broker, consume, n);
	run_all(&all, broker->pool);
	restore_pins_compare(broker, all.guests, all.n_guests, &all.report);
	free(all.guests);
	sessions_end(broker);
	all.report.ns = clock_monotonic_ns() - begun_ns;
	broker->restored = all.report;
	*ret = all.report;
	return 0;
}
