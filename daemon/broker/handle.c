/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/handle.h"

#include <assert.h>
#include <errno.h>

#include "broker/delegation.h"
#include "broker/guest_record.h"
#include "broker/root.h"
#include "broker/session.h"
#include "util/random.h"

void object_init(struct object *object, enum object_type type, struct session *session,
		 struct guest *guest, void (*free_object)(struct object *))
{
	object->handle = 0;
	object->listed = false;
	object->type = type;
	object->stage = RECORD_LIVE;
	object->session = session;
	object->guest = guest;
	object->free = free_object;
	atomic_init(&object->refs, 1);
}

struct object *object_ref(struct object *object)
{
	atomic_fetch_add_explicit(&object->refs, 1, memory_order_relaxed);
	return object;
}

void object_unref(struct object *object)
{
	if (!object || atomic_fetch_sub_explicit(&object->refs, 1, memory_order_acq_rel) != 1)
		return;
	assert(!object->listed);
	object->free(object);
}

static struct object *table_find(struct broker *broker, uint64_t handle)
{
	struct object *object = NULL;

	HASH_FIND(hh, broker->handles, &handle, sizeof(handle), object);
	return object;
}

static int table_insert(struct broker *broker, struct object *object, uint64_t handle,
			struct refusal *refusal)
{
	object->handle = handle;
	HASH_ADD(hh, broker->handles, handle, sizeof(object->handle), object);
	object->listed = object->hh.tbl != NULL;
	if (object->listed)
		return 0;
	return refuse(refusal, REFUSAL_HOST_RESOURCES, "HOST_RESOURCES", "no memory for a handle");
}

/* Called with the broker's lock held. */
static int table_add(struct broker *broker, struct object *object, struct refusal *refusal)
{
	uint64_t handle;

	do {
		int error = random_handle(&handle);

		if (error)
			return error;
	} while (table_find(broker, handle));
	return table_insert(broker, object, handle, refusal);
}

int handle_publish(struct broker *broker, struct object *object, struct refusal *refusal)
{
	int status;

	pthread_mutex_lock(&broker->lock);
	status = table_add(broker, object, refusal);
	pthread_mutex_unlock(&broker->lock);
	return status;
}

int handle_publish_as(struct broker *broker, struct object *object, uint64_t handle,
		      struct refusal *refusal)
{
	int status = -EEXIST;

	pthread_mutex_lock(&broker->lock);
	if (handle && !table_find(broker, handle))
		status = table_insert(broker, object, handle, refusal);
	pthread_mutex_unlock(&broker->lock);
	return status;
}

void handle_withdraw(struct broker *broker, struct object *object)
{
	pthread_mutex_lock(&broker->lock);
	if (object->listed)
		HASH_DELETE(hh, broker->handles, object);
	object->listed = false;
	pthread_mutex_unlock(&broker->lock);
}

struct object *handle_find_any(struct broker *broker, struct session *session, uint64_t handle)
{
	struct object *object;

	pthread_mutex_lock(&broker->lock);
	object = table_find(broker, handle);
	if (object && session && object->session != session &&
	    !delegation_covers(session->delegation, object))
		object = NULL;
	if (object)
		object_ref(object);
	pthread_mutex_unlock(&broker->lock);
	return object;
}

static const char *object_type_name(enum object_type type)
{
	static const char *const names[] = {
		[OBJECT_GUEST] = "guest",      [OBJECT_MEMORY_FILE] = "memory file",
		[OBJECT_DEVICE] = "device",    [OBJECT_NESTED] = "nested domain",
		[OBJECT_RING] = "update ring",
	};

	return names[type];
}

struct object *handle_find(struct broker *broker, struct session *session, uint64_t handle,
			   enum object_type type, struct refusal *refusal)
{
	struct object *object = handle_find_any(broker, session, handle);

	if (object && object->type == type)
		return object;
	object_unref(object);
	if (refusal)
		refuse_not_found(refusal, object_type_name(type));
	return NULL;
}
