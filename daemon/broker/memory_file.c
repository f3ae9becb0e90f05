/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/memory_file.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <utlist.h>

#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/root.h"
#include "util/crash_point.h"
#include "util/fd.h"

static void memory_file_object_free(struct object *object)
{
	struct memory_file *file = (struct memory_file *)object;

	if (file->host)
		munmap((void *)(uintptr_t)file->host, file->length_bytes);
	fd_close(file->fd);
	guest_unref(file->object.guest);
	free(file);
}

/* consume_fd: also on failure. NULL: no memory. */
static struct memory_file *memory_file_alloc(struct guest *guest, int consume_fd)
{
	struct memory_file *file = calloc(1, sizeof(*file));

	if (!file) {
		fd_close(consume_fd);
		return NULL;
	}
	object_init(&file->object, OBJECT_MEMORY_FILE, guest->session, guest_ref(guest),
		    memory_file_object_free);
	file->fd = consume_fd;
	return file;
}

/* What we need of our own mapping: reading, for walks. Where the kernel pins through it, for want
 * of MAP_FILE, it pins for a device's writes only what we could write ourselves. */
static int memory_file_protection(const struct memory_file *file)
{
	if (file->writable && !file->object.guest->broker->features.map_file)
		return PROT_READ | PROT_WRITE;
	return PROT_READ;
}

/* What it shows can shrink at any time. */
static int memory_file_map(struct memory_file *file, const struct file_facts *facts,
			   struct refusal *refusal)
{
	void *host;

	if (facts->length_bytes > SIZE_MAX)
		return refuse_field(refusal, "descriptor", "the file is too long for this machine");
	host = mmap(NULL, facts->length_bytes, memory_file_protection(file),
		    MAP_SHARED | MAP_NORESERVE, file->fd, 0);
	if (host == MAP_FAILED)
		return refuse_errno(refusal, errno, "mapping the memory file");
	file->host = host;
	file->length_bytes = facts->length_bytes;
	file->page_bytes = facts->page_bytes;
	file->huge = facts->huge;
	return 0;
}

static void memory_file_list_add(struct guest *guest, struct memory_file *file)
{
	pthread_mutex_lock(&guest->lock);
	DL_APPEND(guest->files, file);
	guest->n_files++;
	pthread_mutex_unlock(&guest->lock);
}

static int memory_file_make(struct memory_file *file, bool writable, struct refusal *refusal)
{
	struct guest *guest = file->object.guest;
	struct policy *policy = policy_get(guest->broker);
	enum broker_seals seals = policy->settings.require_seals;
	struct file_facts facts;
	int status;

	policy_unref(policy);
	if (file_check(file->fd, writable, seals, &facts, refusal))
		return REFUSED;
	file->writable = writable;
	if (memory_file_map(file, &facts, refusal))
		return REFUSED;
	CRASH_POINT(FILE_MAPPED);
	if (save_memory_file(file, refusal))
		return REFUSED;
	CRASH_POINT(FILE_STORED);
	status = handle_publish(guest->broker, &file->object, refusal);
	CRASH_POINT(FILE_LISTED);
	if (status)
		save_forget_memory_file(file);
	return status;
}

static int memory_file_add_in(struct guest *guest, int consume_fd, bool writable,
			      struct memory_file_added *ret, struct refusal *refusal)
{
	struct memory_file *file = memory_file_alloc(guest, consume_fd);
	struct ledger *ledger = &guest->broker->ledger;
	int status;

	if (!file)
		return refuse_errno(refusal, ENOMEM, "memory file");
	status = ledger_charge_one(ledger, &guest->account, LEDGER_MEMORY_FILES, 1, refusal);
	if (!status) {
		status = memory_file_make(file, writable, refusal);
		if (status)
			ledger_refund_one(ledger, &guest->account, LEDGER_MEMORY_FILES, 1);
	}
	if (status) {
		object_unref(&file->object);
		return status;
	}
	memory_file_list_add(guest, file);
	*ret = (struct memory_file_added){
		.memory_file = file->object.handle,
		.length_bytes = file->length_bytes,
		.page_bytes = file->page_bytes,
	};
	return 0;
}

int memory_file_add(struct broker *broker, struct session *session, uint64_t guest_handle,
		    int consume_fd, bool writable, struct memory_file_added *ret,
		    struct refusal *refusal)
{
	struct guest *guest = guest_find(broker, session, guest_handle, refusal);
	int status;

	if (!guest) {
		fd_close(consume_fd);
		return REFUSED;
	}
	status = memory_file_add_in(guest, consume_fd, writable, ret, refusal);
	guest_unref(guest);
	return status;
}

uint64_t memory_file_inode(int borrow_fd)
{
	struct stat stat;

	return fstat(borrow_fd, &stat) ? 0 : stat.st_ino;
}

/* What it was found to be when it was handed over, it is still: what its sender made of it since
 * then is met where it is read. */
int memory_file_restore(struct guest *guest, const struct record_file *record, int consume_fd,
			struct refusal *refusal)
{
	struct ledger_amounts one = {.amount[LEDGER_MEMORY_FILES] = 1};
	struct memory_file *file = memory_file_alloc(guest, consume_fd);
	const struct file_facts facts = {
		.length_bytes = record->length_bytes,
		.page_bytes = record->page_bytes,
		.huge = record->huge,
	};
	int status;

	if (!file)
		return refuse_errno(refusal, ENOMEM, "memory file");
	file->writable = record->writable;
	file->index = record->index;
	status = record->inode && record->inode != memory_file_inode(file->fd)
			 ? refuse_errno(refusal, ESTALE, "what is stored is another file")
			 : memory_file_map(file, &facts, refusal);
	if (!status)
		status = handle_publish_as(guest->broker, &file->object, record->handle, refusal);
	if (status) {
		object_unref(&file->object);
		return status;
	}
	ledger_take_over(&guest->broker->ledger, &guest->account, &one);
	memory_file_list_add(guest, file);
	return 0;
}

struct memory_file *memory_file_find(struct guest *guest, uint64_t handle, struct refusal *refusal)
{
	struct object *object =
		handle_find(guest->broker, guest->session, handle, OBJECT_MEMORY_FILE, refusal);

	bool ours;

	if (!object)
		return NULL;
	/* Looked at before the reference goes: a file of another guest can be dropped on that
	 * guest's lane at any moment. One of ours the guest's list holds as long as the lane is. */
	ours = object->guest == guest;
	object_unref(object);
	if (ours)
		return (struct memory_file *)object;
	refuse_not_found(refusal, "memory file");
	return NULL;
}

void memory_file_drop(struct memory_file *file)
{
	struct guest *guest = file->object.guest;

	handle_withdraw(guest->broker, &file->object);
	pthread_mutex_lock(&guest->lock);
	DL_DELETE(guest->files, file);
	guest->n_files--;
	pthread_mutex_unlock(&guest->lock);
	CRASH_POINT(FILE_WITHDRAWN);
	/* No record may name what is not stored any more. */
	save_now(guest);
	CRASH_POINT(FILE_UNWRITTEN);
	save_forget_memory_file(file);
	CRASH_POINT(FILE_FORGOTTEN);
	object_unref(&file->object);
	ledger_refund_one(&guest->broker->ledger, &guest->account, LEDGER_MEMORY_FILES, 1);
}

static int memory_file_remove_in(struct guest *guest, uint64_t handle, struct refusal *refusal)
{
	struct memory_file *file = memory_file_find(guest, handle, refusal);

	if (!file)
		return REFUSED;
	if (file->n_regions)
		return refuse(refusal, REFUSAL_PRECONDITION, "MEMORY_FILE_IN_USE",
			      "%zu regions of guest memory use the file: unmap them first",
			      file->n_regions);
	memory_file_drop(file);
	return 0;
}

int memory_file_remove(struct broker *broker, struct session *session, uint64_t guest_handle,
		       uint64_t handle, struct refusal *refusal)
{
	struct guest *guest = guest_find(broker, session, guest_handle, refusal);
	int status;

	if (!guest)
		return REFUSED;
	status = memory_file_remove_in(guest, handle, refusal);
	guest_unref(guest);
	return status;
}
