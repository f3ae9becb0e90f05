/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is told to operators: log entries and guests' events, as events of the monitor. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "rpc/monitor.h"

static void text_of(const struct log_entry *entry, const char *field, char *ret, size_t ret_bytes)
{
	const char *value = log_field_value(entry, field);

	snprintf(ret, ret_bytes, "%s", value ? value : "");
}

static uint64_t number_of(const struct log_entry *entry, const char *field, int base)
{
	const char *value = log_field_value(entry, field);

	return value ? strtoull(value, NULL, base) : 0;
}

static const char *kind_of(const struct log_entry *entry)
{
	static const char *const levels[] = {[LOG_LEVEL_ERROR] = "error",
					     [LOG_LEVEL_WARNING] = "warning",
					     [LOG_LEVEL_INFO] = "info"};

	return entry->message ? log_message_row(entry->message)->kind : levels[entry->level];
}

void monitor_log(void *context, const struct log_entry *entry, const char *text)
{
	struct monitor *monitor = context;
	struct monitor_event event = {0};

	if (!monitor_watchers(monitor))
		return;
	snprintf(event.kind, sizeof(event.kind), "%s", kind_of(entry));
	text_of(entry, "IOMMUBROKER_TENANT", event.tenant, sizeof(event.tenant));
	text_of(entry, "IOMMUBROKER_GUEST_NAME", event.guest_name, sizeof(event.guest_name));
	event.guest = number_of(entry, "IOMMUBROKER_GUEST", 16);
	event.pid = number_of(entry, "IOMMUBROKER_PEER_PID", 10);
	event.uid = number_of(entry, "IOMMUBROKER_PEER_UID", 10);
	snprintf(event.text, sizeof(event.text), "%s", text);
	monitor_post(monitor, &event);
}

/* ── events of guests ─────────────────────────────────────────────────────────────────────── */

static const char *event_name(enum event_kind kind)
{
	static const char *const names[] = {
		[EVENT_TRANSLATION_ERROR] = "translation_error",
		[EVENT_LEAF_REFUSED] = "leaf_refused",
		[EVENT_MEMORY_LOST] = "memory_lost",
		[EVENT_DEVICE_FAULT] = "device_fault",
		[EVENT_DEVICE_BLOCKED] = "device_blocked",
		[EVENT_DEVICE_WANTED] = "device_wanted",
		[EVENT_QUOTA_HIGH] = "quota_high",
		[EVENT_REVOKED] = "revoked_guest",
		[EVENT_RESTARTING] = "restarting",
		[EVENT_RESUMED] = "resumed",
		[EVENT_GUEST_GONE] = "guest_gone",
	};
	size_t n = sizeof(names) / sizeof(names[0]);

	return (size_t)kind < n && names[kind] ? names[kind] : "event";
}

static void event_text(const struct event *event, char *ret, size_t ret_bytes)
{
	switch (event->kind) {
	case EVENT_TRANSLATION_ERROR:
		snprintf(ret, ret_bytes,
			 "the guest's tables are wrong: event code 0x%x at IOVA 0x%" PRIx64,
			 event->fault.code, event->fault.iova);
		break;
	case EVENT_LEAF_REFUSED:
		snprintf(ret, ret_bytes,
			 "a leaf was not installed: IOVA 0x%" PRIx64 ", guest address 0x%" PRIx64,
			 event->iova, event->gpa);
		break;
	case EVENT_MEMORY_LOST:
		snprintf(ret, ret_bytes, "memory was lost at guest address 0x%" PRIx64, event->gpa);
		break;
	default:
		ret[0] = '\0';
	}
}

void monitor_guest_event(void *context, const struct event *event,
			 const struct event_subject *subject)
{
	struct monitor *monitor = context;
	struct monitor_event told = {0};

	if (!monitor_watchers(monitor))
		return;
	snprintf(told.kind, sizeof(told.kind), "%s", event_name(event->kind));
	log_escape(told.tenant, sizeof(told.tenant), subject->tenant);
	log_escape(told.guest_name, sizeof(told.guest_name), subject->name);
	told.guest = event->guest;
	told.pid = (uint64_t)subject->pid;
	told.uid = subject->uid;
	event_text(event, told.text, sizeof(told.text));
	monitor_post(monitor, &told);
}
