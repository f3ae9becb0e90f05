/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a guest is made of, as the fake broker has it: memory, devices, domains. */

#include "fake_broker.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/fd.h"

/* ── what outlives the process ────────────────────────────────────────────────────────────── */

struct guest *broker_guest_of(struct broker *broker, struct session *session, uint64_t handle)
{
	(void)broker;
	(void)session;
	return handle && handle < 100 ? (struct guest *)&fake : NULL;
}

void broker_settle(struct guest *consume_guest, struct session *session,
		   const struct broker_answer *answer, bool holds_lane)
{
	(void)consume_guest;
	(void)session;
	fake.settled++;
	fake.settled_on_lane = holds_lane;
	if (!answer)
		return;
	fake.settled_answer = *answer;
	fake.settled_answer.bytes = NULL;
}

void broker_answers(struct broker *broker, struct session *session, uint64_t guest,
		    void (*each)(void *context, const struct broker_answer *answer), void *context)
{
	(void)broker;
	(void)session;
	for (size_t i = 0; guest == 1 && i < fake.n_kept; i++)
		each(context, &fake.kept[i]);
}

/* ── handover ─────────────────────────────────────────────────────────────────────────────── */

int guest_prepare_handover(struct broker *broker, struct session *session, uint64_t guest,
			   uint32_t seconds, bool block_dma, struct refusal *refusal)
{
	(void)broker;
	(void)session;
	fake.handover_seconds = seconds;
	fake.handover_blocks = block_dma;
	return fake_known(guest, "guest", refusal);
}

int guest_resume(struct broker *broker, struct session *session, const uint8_t *secret,
		 uint64_t *ret_guest, struct refusal *refusal)
{
	(void)broker;
	(void)session;
	if (secret[0] != 0x5a)
		return refuse_not_found(refusal, "guest");
	*ret_guest = 5;
	return 0;
}

struct pool_lane *broker_lane_of_secret(struct broker *broker, const uint8_t *secret)
{
	return secret[0] == 0x5a ? broker_lane(broker, NULL, 5) : NULL;
}

void broker_on_handover(struct broker *broker, void (*tell)(void *context), void *context)
{
	(void)broker;
	(void)tell;
	(void)context;
}

struct session *broker_unclaimed_session(struct broker *broker)
{
	(void)broker;
	return NULL;
}

uint64_t broker_expire_handovers(struct broker *broker)
{
	(void)broker;
	return UINT64_MAX;
}

/* ── memory ───────────────────────────────────────────────────────────────────────────────── */

int memory_file_add(struct broker *broker, struct session *session, uint64_t guest, int consume_fd,
		    bool writable, struct memory_file_added *ret, struct refusal *refusal)
{
	int status = fake_known(guest, "guest", refusal);
	off_t length = lseek(consume_fd, 0, SEEK_END);

	(void)broker;
	(void)session;
	(void)writable;
	close(consume_fd);
	if (!status)
		*ret = (struct memory_file_added){11, (uint64_t)length, 4096};
	return status;
}

int memory_file_remove(struct broker *broker, struct session *session, uint64_t guest,
		       uint64_t memory_file, struct refusal *refusal)
{
	(void)broker;
	(void)session;
	(void)guest;
	return fake_known(memory_file, "memory file", refusal);
}

int memory_update(struct broker *broker, struct session *session, uint64_t guest,
		  const struct memory_update_request *request, struct operation *operation,
		  struct memory_updated *ret, struct refusal *refusal)
{
	int status = fake_known(guest, "guest", refusal);

	(void)broker;
	(void)session;
	if (status)
		return status;
	fake.updates++;
	if (guest != FAKE_NO_LANE) /* without a lane they run at once */
		fake.update = *request;
	fake.updating++;
	if (operation->progress)
		operation->progress(operation, 1, 2);
	while (fake.hold_updates && !operation->cancelled)
		clock_sleep_ns(1000000);
	if (operation->cancelled)
		status = refuse(refusal, REFUSAL_CANCELLED, "CANCELLED", "cancelled");
	else
		*ret = (struct memory_updated){.pinned = true, .region_bytes = 0x3000};
	fake.updating--;
	return status;
}

/* ── devices ──────────────────────────────────────────────────────────────────────────────── */

static void describe(uint64_t device, struct device_description *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->device = device;
	ret->info.fid = 0x12;
	ret->info.has_fid = true;
	strcpy(ret->info.pci_address, "0000:00:04.0");
	ret->n_iova_ranges = 1;
	ret->iova_ranges[0] = (struct iommu_range){0, 0xffffffff};
}

int device_open(struct broker *broker, struct session *session, uint64_t guest,
		const struct device_open_request *request, uint64_t *ret_device, int *ret_fd,
		struct refusal *refusal)
{
	int status = fake_known(guest, "guest", refusal);

	(void)broker;
	(void)session;
	fake.opens++;
	fake.open = *request;
	fd_close(request->by_descriptor ? request->consume_fd : -1);
	if (status)
		return status;
	*ret_device = 21;
	*ret_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return 0;
}

int device_bind(struct broker *broker, struct session *session, uint64_t device,
		const uint8_t *vf_token, struct operation *operation,
		struct device_description *ret, struct refusal *refusal)
{
	int status = fake_known(device, "device", refusal);

	(void)broker;
	(void)session;
	(void)vf_token;
	if (status)
		return status;
	operation->progress(operation, 5, 10);
	describe(device, ret);
	return 0;
}

int device_describe(struct broker *broker, struct session *session, uint64_t device,
		    struct device_description *ret, struct refusal *refusal)
{
	int status = fake_known(device, "device", refusal);

	(void)broker;
	(void)session;
	if (!status)
		describe(device, ret);
	return status;
}

int device_descriptor(struct broker *broker, struct session *session, uint64_t device, int *ret_fd,
		      struct refusal *refusal)
{
	int status = fake_known(device, "device", refusal);

	(void)broker;
	(void)session;
	if (!status)
		*ret_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return status;
}

int device_close(struct broker *broker, struct session *session, uint64_t device,
		 bool *ret_still_held, struct refusal *refusal)
{
	int status = fake_known(device, "device", refusal);

	(void)broker;
	(void)session;
	if (!status)
		*ret_still_held = true;
	return status;
}

/* ── domains ──────────────────────────────────────────────────────────────────────────────── */

int nested_create(struct broker *broker, struct session *session,
		  const struct nested_create_request *request, struct nested_created *ret,
		  struct refusal *refusal)
{
	int status = fake_known(request->device, "device", refusal);

	(void)broker;
	(void)session;
	if (status)
		return status;
	fake.nested = *request;
	*ret = (struct nested_created){.nested = 31, .index = 5, .verdict = VERDICT_DONE};
	ret->walk.verdict = VERDICT_DONE;
	ret->walk.mapped = 17;
	if (request->iota == 0xbad) {
		*ret = (struct nested_created){.verdict = VERDICT_OPERAND,
					       .anchor_fault = S390_ANCHOR_PBA_ABOVE_PAL};
	}
	return 0;
}

int nested_replace(struct broker *broker, struct session *session, uint64_t nested, uint64_t iota,
		   uint64_t pba, uint64_t pal, struct nested_created *ret, struct refusal *refusal)
{
	int status = fake_known(nested, "nested domain", refusal);

	(void)broker;
	(void)session;
	(void)iota;
	(void)pba;
	(void)pal;
	if (!status)
		*ret = (struct nested_created){.verdict = VERDICT_RESOURCES};
	return status;
}

int nested_destroy(struct broker *broker, struct session *session, uint64_t nested,
		   uint64_t *ret_leaves_dropped, struct refusal *refusal)
{
	int status = fake_known(nested, "nested domain", refusal);

	(void)broker;
	(void)session;
	if (!status)
		*ret_leaves_dropped = 9;
	return status;
}

int device_attach(struct broker *broker, struct session *session, uint64_t device,
		  enum attachment to, uint64_t nested, struct range_result *ret_walk,
		  struct refusal *refusal)
{
	int status = fake_known(device, "device", refusal);

	(void)broker;
	(void)session;
	(void)nested;
	if (!status && to == ATTACHMENT_NESTED)
		*ret_walk = (struct range_result){.verdict = VERDICT_DONE};
	return status;
}

int nested_update(struct broker *broker, struct session *session, uint64_t nested,
		  const struct nested_entry *entries, size_t n, struct range_result *ret,
		  size_t *ret_n, struct refusal *refusal)
{
	int status = fake_known(nested, "nested domain", refusal);

	(void)broker;
	(void)session;
	if (status)
		return status;
	memcpy(fake.entries, entries, n * sizeof(*entries));
	fake.n_entries = n;
	for (size_t i = 0; i < n; i++)
		ret[i] = (struct range_result){.verdict = VERDICT_DONE, .mapped = i};
	*ret_n = n;
	return 0;
}

static bool refresh_later(struct pool_job *job)
{
	struct refresh *refresh = (struct refresh *)((char *)job - offsetof(struct refresh, priv));

	refresh->done(refresh, 0);
	return false;
}

void broker_refresh_run(struct broker *broker, struct session *session, struct refresh *refresh)
{
	struct pool_job *job = (struct pool_job *)refresh->priv;
	int status = fake_known(refresh->nested, "nested domain", &refresh->refusal);

	(void)session;
	for (size_t i = 0; i < refresh->n_ranges; i++) {
		refresh->results[i] = (struct range_result){
			.verdict = VERDICT_DONE, .mapped = refresh->ranges[i].length / 4096};
		if (refresh->nested == FAKE_NESTED_ERROR) {
			refresh->results[i].verdict = VERDICT_ERROR;
			refresh->results[i].fault = (struct s390_fault){
				.code = S390_PEC_TT,
				.level = S390_LEVEL_SEGMENT,
				.iova = UINT64_MAX - i,
				.entry = UINT64_MAX,
				.outside_memory = true,
			};
			refresh->results[i].mapped = refresh->results[i].unmapped = UINT64_MAX;
		}
	}
	if (refresh->nested == FAKE_NESTED_BUSY)
		status = refuse(&refresh->refusal, REFUSAL_RATE, "RATE", "too fast");
	if (status || refresh->nested != FAKE_NESTED_LATER) {
		refresh->done(refresh, status);
		return;
	}
	*job = (struct pool_job){.run = refresh_later};
	pool_submit(broker_pool(broker), job);
}

int nested_explain(struct broker *broker, struct session *session, uint64_t nested, uint64_t iova,
		   struct explanation *ret, struct refusal *refusal)
{
	int status = fake_known(nested, "nested domain", refusal);

	(void)broker;
	(void)session;
	if (status)
		return status;
	memset(ret, 0, sizeof(*ret));
	ret->iova = iova;
	ret->tables.n_steps = 1;
	ret->tables.steps[0] = (struct s390_step){.level = S390_LEVEL_PAGE, .note = "valid"};
	ret->tables.present = ret->tables.in_memory = true;
	ret->tables.gpa = nested;
	ret->installed = ret->consistent = true;
	return 0;
}
