/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_MESSAGE_ARENA_H
#define IB_RPC_MESSAGE_ARENA_H

/*
 * Memory of one call, bounded, given back at once.
 *
 * protobuf-c unpacks a message into up to 45 times its size, so what a stranger's bytes may take
 * is bounded here: over the bound the allocator answers NULL and unpacking fails. The first bytes
 * lie in the arena itself, so that a small call allocates nothing.
 */

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#define ARENA_INLINE_BYTES 2048
#define ARENA_CHUNK_BYTES  16384

struct message_arena_chunk;

struct message_arena {
	ProtobufCAllocator allocator;   /* for protobuf-c; free does nothing */
	size_t bound_bytes, used_bytes; /* of all that was handed out, rounded up to 16 */
	bool over_bound;                /* an allocation was refused because of the bound */
	bool out_of_memory;             /* an allocation was refused because malloc() was */
	uint8_t *next;
	size_t left_bytes; /* in the current chunk */
	struct message_arena_chunk *chunks;
	alignas(16) uint8_t inline_bytes[ARENA_INLINE_BYTES];
};

void message_arena_init(struct message_arena *arena, size_t bound_bytes);
void message_arena_deinit(struct message_arena *arena);
/* Give everything back and begin again. */
void message_arena_reset(struct message_arena *arena);
/* Aligned to 16, not initialised. NULL: see over_bound and out_of_memory. */
void *message_arena_alloc(struct message_arena *arena, size_t bytes);
/* n elements of bytes each, zeroed. n == 0 answers memory that may not be used. */
void *message_arena_array(struct message_arena *arena, size_t n, size_t bytes);

#endif
