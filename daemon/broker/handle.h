/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_HANDLE_H
#define IB_BROKER_HANDLE_H

/*
 * Objects that clients name: guests, memory files, devices, nested domains, update rings.
 *
 * A handle is a random 64-bit number that means something only to the session that owns the object,
 * and to those that it delegated the guest to (delegation.h).
 * One table holds them all, guarded by the broker's lock. An object is found there, or it is not
 * there for its owner either; the table holds no reference, the object's owner (a list of its
 * guest) does, and takes the handle out before it gives that up.
 */

#include <stdatomic.h>
#include <stdint.h>

/* Without memory for its buckets an insertion is undone and refused, never an abort. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "broker/broker.h"

enum object_type {
	OBJECT_GUEST,
	OBJECT_MEMORY_FILE,
	OBJECT_DEVICE,
	OBJECT_NESTED,
	OBJECT_RING,
};

struct guest;

struct object {
	uint64_t handle; /* fixed once it was published; 0 before */
	bool listed;     /* it is in the table; broker's lock */
	enum object_type type;
	uint8_t stage;           /* enum record_stage; guest's lane */
	struct session *session; /* who made the guest; borrowed from the guest's reference */
	struct guest *guest;     /* the guest it belongs to, or is */
	atomic_uint refs;
	void (*free)(struct object *object); /* when the last reference goes */
	UT_hash_handle hh;
};

void object_init(struct object *object, enum object_type type, struct session *session,
		 struct guest *guest, void (*free_object)(struct object *));
struct object *object_ref(struct object *object);
void object_unref(struct object *object); /* NULL is fine */

/* Give it a handle. 0, REFUSED (no memory) or a negative errno. */
int handle_publish(struct broker *broker, struct object *object, struct refusal *refusal);
/* The handle that it had in a process before this one. 0, REFUSED (no memory), or -EEXIST. */
int handle_publish_as(struct broker *broker, struct object *object, uint64_t handle,
		      struct refusal *refusal);
/* Take it out of the table; nothing if it is not there. */
void handle_withdraw(struct broker *broker, struct object *object);

/* A reference to the object of that handle, owner and type. session NULL: anyone's. NULL: there is
 * none, refusal (may be NULL) says NOT_FOUND. */
struct object *handle_find(struct broker *broker, struct session *session, uint64_t handle,
			   enum object_type type, struct refusal *refusal);
/* The same for any type; no refusal. */
struct object *handle_find_any(struct broker *broker, struct session *session, uint64_t handle);

#endif
