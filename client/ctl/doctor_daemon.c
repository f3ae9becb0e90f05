/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What doctor looks at of the daemon: does it answer, its limits, what the kernel charges it. */

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/doctor_file.h"
#include "ctl/text.h"
#include "iommubroker/v1/admin.pb-c.h"

#define NOFILE_MIN          65536
#define CAP_IPC_LOCK_BIT    14
#define KERNEL_CHARGE_SLACK (UINT64_C(1) << 20) /* counted while guests come and go */

static bool take_status(void *user_data, const ProtobufCMessage *message)
{
	const Iommubroker__V1__GetStatusResponse *status = (const void *)message;
	struct doctor *doctor = user_data;

	doctor->answers = true;
	doctor->pid = status->pid;
	doctor->pinned_bytes = status->pinned_bytes;
	doctor->pinned_bytes_max = UINT64_MAX;
	doctor->stored = status->stored_descriptors;
	doctor->stored_max = status->stored_descriptors_max;
	if (status->takeover != NULL) {
		doctor->taken_over = status->takeover->guests;
		doctor->released = status->takeover->released;
	}
	doctor->emulated = status->info != NULL && strcmp(status->info->backend, "emulated") == 0;
	for (size_t i = 0; status->n_usage > 0 && i < status->usage[0]->n_usage; i++)
		if (strcmp(status->usage[0]->usage[i]->resource, "pinned_bytes") == 0)
			doctor->pinned_bytes_max = status->usage[0]->usage[i]->max;
	return true;
}

/* Its pid, or 0. */
static uint64_t find_process(const struct doctor *doctor)
{
	struct file_names *names = file_names(doctor, "proc");
	uint64_t pid = 0;

	for (size_t i = 0; names != NULL && i < names->n && pid == 0; i++) {
		char *name = NULL;

		if (isdigit((unsigned char)names->names[i][0]))
			name = file_read(doctor, "proc/%s/comm", names->names[i]);
		if (name != NULL && strcmp(name, "iommubrokerd\n") == 0)
			pid = strtoull(names->names[i], NULL, 10);
		free(name);
	}
	file_names_free(names);
	return pid;
}

static void tell_silent(struct doctor *doctor, const struct rpc_status *status)
{
	bool denied = access(doctor->socket_path, W_OK) != 0 && errno == EACCES;

	doctor->pid = find_process(doctor);
	if (denied)
		doctor_tell(doctor, DOCTOR_daemon, SEVERITY_NOTE,
			    "run it as root or as the daemon's user",
			    "the daemon could not be asked: %.200s is not open to us",
			    doctor->socket_path);
	else if (status->code != RPC_UNAVAILABLE)
		doctor_tell(doctor, DOCTOR_daemon, SEVERITY_SERIOUS,
			    "journalctl -u iommubrokerd says more",
			    "the daemon refuses to tell its status: %.200s",
			    text_safe(status->message, 200).bytes);
	else if (doctor->pid != 0)
		doctor_tell(doctor, DOCTOR_daemon, SEVERITY_SERIOUS,
			    "journalctl -u iommubrokerd says more; are its sockets active?",
			    "the daemon runs (pid %" PRIu64 "), but does not answer at %.200s",
			    doctor->pid, doctor->socket_path);
	else
		doctor_tell(doctor, DOCTOR_daemon, SEVERITY_SERIOUS,
			    "systemctl enable --now iommubrokerd-{broker,fd,admin}.socket",
			    "no daemon runs or answers at %.200s", doctor->socket_path);
}

void doctor_check_daemon(struct doctor *doctor)
{
	Iommubroker__V1__GetStatusRequest request = IOMMUBROKER__V1__GET_STATUS_REQUEST__INIT;
	struct rpc_status status;

	rpc_call(doctor->rpc, "GetStatus", &request.base,
		 &iommubroker__v1__get_status_response__descriptor, take_status, doctor, &status);
	if (!doctor->answers) {
		tell_silent(doctor, &status);
		return;
	}
	doctor_tell(doctor, DOCTOR_daemon, SEVERITY_OK, NULL, "it answers, pid %" PRIu64,
		    doctor->pid);
	if (doctor->emulated)
		doctor_tell(doctor, DOCTOR_daemon, SEVERITY_WARNING,
			    "start it without --backend=emulated",
			    "the daemon runs on the emulated backend: no device is translated for");
}

/* Soft and hard limit of a line of /proc/PID/limits; UINT64_MAX: unlimited. */
static bool read_limit(const struct doctor *doctor, const char *name, uint64_t *ret_soft,
		       uint64_t *ret_hard)
{
	char line[128], soft[32], hard[32];
	char *text;
	bool found;

	if (doctor->pid == 0)
		return false;
	text = file_read(doctor, "proc/%" PRIu64 "/limits", doctor->pid);
	found = text != NULL && text_line(text, name, line, sizeof(line)) &&
		sscanf(line, "%31s %31s", soft, hard) == 2;
	free(text);
	if (!found)
		return false;
	*ret_soft = strcmp(soft, "unlimited") == 0 ? UINT64_MAX : strtoull(soft, NULL, 10);
	*ret_hard = strcmp(hard, "unlimited") == 0 ? UINT64_MAX : strtoull(hard, NULL, 10);
	return true;
}

void doctor_check_memlock(struct doctor *doctor)
{
	uint64_t soft, hard;

	if (!read_limit(doctor, "Max locked memory", &soft, &hard))
		return;
	/* Without the daemon's word any finite limit of the unit's is suspect. */
	if (doctor->answers ? hard < doctor->pinned_bytes_max && soft < doctor->pinned_bytes_max
			    : hard != UINT64_MAX)
		doctor_tell(doctor, DOCTOR_memlock, SEVERITY_SERIOUS,
			    "set LimitMEMLOCK=infinity in the unit: the daemon lowers it itself",
			    "the daemon may lock %s, and its configuration lets guests pin %s",
			    text_size(soft).bytes,
			    doctor->pinned_bytes_max == UINT64_MAX || !doctor->answers
				    ? "any amount"
				    : text_size(doctor->pinned_bytes_max).bytes);
	else
		doctor_tell(doctor, DOCTOR_memlock, SEVERITY_OK, NULL, "%s",
			    soft == UINT64_MAX ? "unlimited" : text_size(soft).bytes);
}

void doctor_check_capability(struct doctor *doctor)
{
	char line[32];
	char *text =
		doctor->pid != 0 ? file_read(doctor, "proc/%" PRIu64 "/status", doctor->pid) : NULL;

	if (text == NULL || !text_line(text, "CapEff:", line, sizeof(line))) {
		free(text);
		return;
	}
	free(text);
	if (strtoull(line, NULL, 16) >> CAP_IPC_LOCK_BIT & 1)
		doctor_tell(doctor, DOCTOR_capability, SEVERITY_WARNING,
			    "run it by its unit, as its own user and without capabilities",
			    "the daemon has CAP_IPC_LOCK: the kernel charges nothing that it pins");
	else
		doctor_tell(doctor, DOCTOR_capability, SEVERITY_OK, NULL, "no CAP_IPC_LOCK");
}

void doctor_check_nofile(struct doctor *doctor)
{
	uint64_t soft, hard;

	if (!read_limit(doctor, "Max open files", &soft, &hard))
		return;
	if (soft < NOFILE_MIN)
		doctor_tell(doctor, DOCTOR_nofile, SEVERITY_WARNING,
			    "set LimitNOFILE=131072 in the unit",
			    "the daemon may open %" PRIu64 " descriptors only", soft);
	else
		doctor_tell(doctor, DOCTOR_nofile, SEVERITY_OK, NULL, "%" PRIu64 " descriptors",
			    soft);
}

/* What the kernel has charged a process, in bytes; 0 if it cannot be seen. */
static uint64_t charge_of(const struct doctor *doctor, const char *pid, uint32_t *ret_uid)
{
	char *text = file_read(doctor, "proc/%s/status", pid);
	uint64_t kib, uid;

	if (text == NULL)
		return 0;
	kib = text_line_number(text, "VmPin:");
	uid = text_line_number(text, "Uid:");
	free(text);
	*ret_uid = (uint32_t)uid;
	return kib != UINT64_MAX ? kib * 1024 : 0;
}

/* A predecessor's, or a VMM's of that uid: it counts against the same limit. */
static uint64_t charge_of_others(const struct doctor *doctor, uint32_t uid, uint64_t pid)
{
	struct file_names *names = file_names(doctor, "proc");
	uint64_t bytes = 0;

	for (size_t i = 0; names != NULL && i < names->n; i++) {
		uint32_t its_uid;
		uint64_t its;

		if (!isdigit((unsigned char)names->names[i][0]) ||
		    strtoull(names->names[i], NULL, 10) == pid)
			continue;
		its = charge_of(doctor, names->names[i], &its_uid);
		if (its > 0 && its_uid == uid)
			bytes += its;
	}
	file_names_free(names);
	return bytes;
}

void doctor_check_kernel_charge(struct doctor *doctor)
{
	uint64_t mine, others;
	char pid[24];
	uint32_t uid = 0;

	if (!doctor->answers || doctor->emulated)
		return;
	snprintf(pid, sizeof(pid), "%" PRIu64, doctor->pid);
	mine = charge_of(doctor, pid, &uid);
	others = charge_of_others(doctor, uid, doctor->pid);
	if (mine > doctor->pinned_bytes + KERNEL_CHARGE_SLACK)
		doctor_tell(
			doctor, DOCTOR_kernel_charge, SEVERITY_SERIOUS,
			"a VMM still holds devices of a former life of the daemon: end it, then "
			"drain and restart the daemon",
			"the kernel charges the daemon %s, and it knows of %s only",
			text_size(mine).bytes, text_size(doctor->pinned_bytes).bytes);
	else if (others > 0)
		doctor_tell(doctor, DOCTOR_kernel_charge, SEVERITY_WARNING,
			    "end the other processes of the daemon's user",
			    "other processes of the daemon's user have pinned %s, which count "
			    "against its limit",
			    text_size(others).bytes);
	else
		doctor_tell(doctor, DOCTOR_kernel_charge, SEVERITY_OK, NULL,
			    "%s charged, %s known of", text_size(mine).bytes,
			    text_size(doctor->pinned_bytes).bytes);
}

void doctor_check_store(struct doctor *doctor)
{
	if (!doctor->answers)
		return;
	if (doctor->stored_max == 0)
		doctor_tell(doctor, DOCTOR_store, SEVERITY_WARNING,
			    "start it by its unit, with FileDescriptorStoreMax= as it is shipped",
			    "nothing is stored with the service manager: every guest ends with the "
			    "daemon");
	else if (doctor->stored >= doctor->stored_max - doctor->stored_max / 10)
		doctor_tell(
			doctor, DOCTOR_store, SEVERITY_WARNING,
			"raise FileDescriptorStoreMax= of the unit, and DescriptorStoreMax= of the "
			"configuration with it",
			"%" PRIu64 " of %" PRIu64 " stored descriptors are used: what needs "
			"more is refused",
			doctor->stored, doctor->stored_max);
	else
		doctor_tell(doctor, DOCTOR_store, SEVERITY_OK, NULL,
			    "%" PRIu64 " of %" PRIu64 " stored descriptors", doctor->stored,
			    doctor->stored_max);
}

void doctor_check_takeover(struct doctor *doctor)
{
	if (!doctor->answers)
		return;
	if (doctor->released > 0)
		doctor_tell(doctor, DOCTOR_takeover, SEVERITY_WARNING,
			    "journalctl -u iommubrokerd names them and says why; start them again",
			    "%u guests could not be taken over when the daemon started",
			    doctor->released);
	else
		doctor_tell(doctor, DOCTOR_takeover, SEVERITY_OK, NULL, "%u guests taken over",
			    doctor->taken_over);
}
