/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Refusals as google.rpc.Status: the code and the details of every kind, and that nothing a refusal
 * can hold makes a status that a client's library would not take.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "google/rpc/error_details.pb-c.h"
#include "rpc/verdict.h"
#include "rpc_fixture.h"
#include "util/utf8.h"

static struct rpc_status packed;

static Google__Rpc__Status *status_of(const struct refusal *refusal)
{
	Google__Rpc__Status *status;

	memset(&packed, 0xee, sizeof(packed));
	rpc_status_from_refusal(&packed, refusal);
	status = google__rpc__status__unpack(NULL, packed.details_bytes, packed.details);
	assert_non_null(status);
	assert_int_equal(status->code, packed.code);
	assert_string_equal(status->message, packed.message);
	return status;
}

static const char *metadata(const Google__Rpc__ErrorInfo *info, const char *key)
{
	for (size_t i = 0; i < info->n_metadata; i++)
		if (!strcmp(info->metadata[i]->key, key))
			return info->metadata[i]->value;
	return NULL;
}

static void test_codes(void **state)
{
	static const struct {
		enum refusal_kind kind;
		int code;
	} codes[] = {
		{REFUSAL_INVALID, 3},
		{REFUSAL_NOT_FOUND, 5},
		{REFUSAL_EXISTS, 6},
		{REFUSAL_DENIED, 7},
		{REFUSAL_UNAUTHENTICATED, 16},
		{REFUSAL_PRECONDITION, 9},
		{REFUSAL_QUOTA, 8},
		{REFUSAL_HOST_MEMLOCK, 8},
		{REFUSAL_HOST_RESOURCES, 8},
		{REFUSAL_RATE, 8},
		{REFUSAL_BUSY, 14},
		{REFUSAL_CANCELLED, 1},
		{REFUSAL_UNIMPLEMENTED, 12},
		{REFUSAL_HOST, 13},
	};

	(void)state;
	/* a kind that is added must be added here */
	assert_int_equal(sizeof(codes) / sizeof(codes[0]), REFUSAL_HOST);
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		Google__Rpc__Status *status;
		Google__Rpc__ErrorInfo *info;
		struct refusal refusal;

		refuse(&refusal, codes[i].kind, "REASON", "what went wrong");
		status = status_of(&refusal);
		assert_int_equal(status->code, codes[i].code);
		assert_string_equal(status->message, "what went wrong");
		info = status_detail(status, "ErrorInfo", &google__rpc__error_info__descriptor);
		assert_string_equal(info->domain, "iommubroker");
		assert_string_equal(info->reason, codes[i].kind == REFUSAL_HOST_MEMLOCK
							  ? "HOST_MEMLOCK"
							  : "REASON");
		protobuf_c_message_free_unpacked(&info->base, NULL);
		google__rpc__status__free_unpacked(status, NULL);
	}
}

static void test_quota(void **state)
{
	Google__Rpc__QuotaFailure *quota;
	Google__Rpc__ErrorInfo *info;
	Google__Rpc__Status *status;
	struct refusal refusal;

	(void)state;
	refuse_quota(&refusal, "pinned_bytes", 100, 90, UINT64_MAX, "tenant-a", "a.conf:7");
	status = status_of(&refusal);
	quota = status_detail(status, "QuotaFailure", &google__rpc__quota_failure__descriptor);
	assert_string_equal(quota->violations[0]->subject, "tenant-a");
	assert_non_null(strstr(quota->violations[0]->description, "90 of 100"));
	protobuf_c_message_free_unpacked(&quota->base, NULL);
	info = status_detail(status, "ErrorInfo", &google__rpc__error_info__descriptor);
	assert_string_equal(metadata(info, "resource"), "pinned_bytes");
	assert_string_equal(metadata(info, "limit"), "100");
	assert_string_equal(metadata(info, "used"), "90");
	assert_string_equal(metadata(info, "requested"), "18446744073709551615");
	assert_string_equal(metadata(info, "tenant"), "tenant-a");
	assert_string_equal(metadata(info, "rule"), "a.conf:7");
	protobuf_c_message_free_unpacked(&info->base, NULL);
	google__rpc__status__free_unpacked(status, NULL);
}

static void test_retry(void **state)
{
	static const enum refusal_kind kinds[] = {REFUSAL_BUSY, REFUSAL_RATE};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		Google__Rpc__RetryInfo *retry;
		Google__Rpc__Status *status;
		struct refusal refusal;

		refuse(&refusal, kinds[i], "LATER", "later");
		refusal.retry_after_ms = 1250;
		status = status_of(&refusal);
		retry = status_detail(status, "RetryInfo", &google__rpc__retry_info__descriptor);
		assert_int_equal(retry->retry_delay->seconds, 1);
		assert_int_equal(retry->retry_delay->nanos, 250000000);
		protobuf_c_message_free_unpacked(&retry->base, NULL);
		google__rpc__status__free_unpacked(status, NULL);
	}
}

static void test_precondition_and_not_found(void **state)
{
	Google__Rpc__PreconditionFailure *failure;
	Google__Rpc__ResourceInfo *resource;
	Google__Rpc__Status *status;
	struct refusal refusal;

	(void)state;
	refuse(&refusal, REFUSAL_PRECONDITION, "UNPOPULATED", "holes");
	strcpy(refusal.field, "map[3]");
	status = status_of(&refusal);
	failure = status_detail(status, "PreconditionFailure",
				&google__rpc__precondition_failure__descriptor);
	assert_string_equal(failure->violations[0]->type, "UNPOPULATED");
	assert_string_equal(failure->violations[0]->subject, "map[3]");
	protobuf_c_message_free_unpacked(&failure->base, NULL);
	google__rpc__status__free_unpacked(status, NULL);
	refuse_not_found(&refusal, "device");
	status = status_of(&refusal);
	resource = status_detail(status, "ResourceInfo", &google__rpc__resource_info__descriptor);
	assert_string_equal(resource->resource_type, "device");
	protobuf_c_message_free_unpacked(&resource->base, NULL);
	google__rpc__status__free_unpacked(status, NULL);
}

static void test_kernel_feature(void **state)
{
	Google__Rpc__ErrorInfo *info;
	Google__Rpc__Status *status;
	struct refusal refusal;

	(void)state;
	refuse_unimplemented(&refusal, "KERNEL", "the kernel lacks it");
	strcpy(refusal.resource, "IOMMU_IOAS_MAP_FILE");
	status = status_of(&refusal);
	info = status_detail(status, "ErrorInfo", &google__rpc__error_info__descriptor);
	assert_string_equal(metadata(info, "kernel_feature"), "IOMMU_IOAS_MAP_FILE");
	protobuf_c_message_free_unpacked(&info->base, NULL);
	google__rpc__status__free_unpacked(status, NULL);
}

static void fill(char *text, size_t bytes, const char *with)
{
	size_t n = strlen(with);

	for (size_t i = 0; i + 1 < bytes; i++)
		text[i] = with[i % n];
	text[bytes - 1] = '\0';
}

/* Every text at its longest and cut within a character: it fits, with all its details, and is
 * UTF-8. */
static void test_longest(void **state)
{
	Google__Rpc__ErrorInfo *info;
	Google__Rpc__Status *status;
	struct refusal refusal;

	(void)state;
	memset(&refusal, 0, sizeof(refusal));
	fill(refusal.reason, sizeof(refusal.reason), "\xe2\x82\xac");
	fill(refusal.field, sizeof(refusal.field), "\xf0\x9f\x99\x82");
	fill(refusal.resource, sizeof(refusal.resource), "\xff");
	fill(refusal.tenant, sizeof(refusal.tenant), "\xe2\x82\xac");
	fill(refusal.rule, sizeof(refusal.rule), "x\xc3\xa4");
	fill(refusal.message, sizeof(refusal.message), "\xf0\x9f\x99\x82");
	refusal.limit = refusal.used = refusal.requested = UINT64_MAX;
	refusal.host_errno = 12;
	for (refusal.kind = REFUSAL_INVALID; refusal.kind <= REFUSAL_HOST; refusal.kind++) {
		status = status_of(&refusal);
		assert_true(utf8_is_text((const uint8_t *)packed.message, strlen(packed.message)));
		info = status_detail(status, "ErrorInfo", &google__rpc__error_info__descriptor);
		for (size_t i = 0; i < info->n_metadata; i++)
			assert_true(utf8_is_text((const uint8_t *)info->metadata[i]->value,
						 strlen(info->metadata[i]->value)));
		assert_true(utf8_is_text((const uint8_t *)info->reason, strlen(info->reason)));
		if (refusal.kind == REFUSAL_QUOTA) {
			assert_int_equal(status->n_details, 3);
			assert_int_equal(info->n_metadata, 7);
		}
		protobuf_c_message_free_unpacked(&info->base, NULL);
		google__rpc__status__free_unpacked(status, NULL);
	}
}

/* What a VMM tells its guest. */
static void test_verdicts(void **state)
{
	static const struct {
		enum verdict verdict;
		uint32_t condition_code, status;
	} told[] = {
		{VERDICT_DONE, 0, 0},       {VERDICT_OPERAND, 0, 0}, {VERDICT_SEQUENCE, 1, 24},
		{VERDICT_RESOURCES, 1, 16}, {VERDICT_ERROR, 1, 8},   {VERDICT_BUSY, 2, 0},
		{VERDICT_GONE, 3, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
		struct verdict_answer answer = verdict_answer(told[i].verdict);

		assert_int_equal(answer.verdict, told[i].verdict);
		assert_int_equal(answer.condition_code, told[i].condition_code);
		assert_int_equal(answer.status, told[i].status);
	}
	assert_int_equal(verdict_table_level(S390_LEVEL_NONE),
			 IOMMUBROKER__V1__TABLE_LEVEL__TABLE_LEVEL_ANCHOR);
	assert_int_equal(verdict_table_level(S390_LEVEL_REGION_FIRST),
			 IOMMUBROKER__V1__TABLE_LEVEL__TABLE_LEVEL_REGION_FIRST);
	assert_int_equal(verdict_table_level(S390_LEVEL_PAGE),
			 IOMMUBROKER__V1__TABLE_LEVEL__TABLE_LEVEL_PAGE);
}

/* The broker's numbers are the API's. */
static void test_event_kinds(void **state)
{
	(void)state;
	assert_int_equal(EVENT_TRANSLATION_ERROR,
			 IOMMUBROKER__V1__EVENT_KIND__EVENT_KIND_TRANSLATION_ERROR);
	assert_int_equal(EVENT_LOST, IOMMUBROKER__V1__EVENT_KIND__EVENT_KIND_LOST);
	assert_int_equal(EVENT_GUEST_GONE, IOMMUBROKER__V1__EVENT_KIND__EVENT_KIND_GUEST_GONE);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_codes),
		cmocka_unit_test(test_quota),
		cmocka_unit_test(test_retry),
		cmocka_unit_test(test_precondition_and_not_found),
		cmocka_unit_test(test_kernel_feature),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_event_kinds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
