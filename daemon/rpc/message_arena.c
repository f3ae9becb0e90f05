/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/message_arena.h"

#include <stdlib.h>
#include <string.h>

struct message_arena_chunk {
	struct message_arena_chunk *next;
	alignas(16) uint8_t bytes[];
};

static void *allocator_alloc(void *data, size_t bytes)
{
	return message_arena_alloc(data, bytes);
}

static void allocator_free(void *data, void *pointer)
{
	(void)data;
	(void)pointer;
}

void message_arena_init(struct message_arena *arena, size_t bound_bytes)
{
	arena->allocator = (ProtobufCAllocator){allocator_alloc, allocator_free, arena};
	arena->bound_bytes = bound_bytes;
	arena->used_bytes = 0;
	arena->over_bound = false;
	arena->out_of_memory = false;
	arena->next = arena->inline_bytes;
	arena->left_bytes = sizeof(arena->inline_bytes);
	arena->chunks = NULL;
}

void message_arena_deinit(struct message_arena *arena)
{
	while (arena->chunks) {
		struct message_arena_chunk *chunk = arena->chunks;

		arena->chunks = chunk->next;
		free(chunk);
	}
}

void message_arena_reset(struct message_arena *arena)
{
	message_arena_deinit(arena);
	message_arena_init(arena, arena->bound_bytes);
}

/* What is left of the chunk before is wasted; the bound counts what was asked for. */
static bool message_arena_grow(struct message_arena *arena, size_t bytes)
{
	size_t chunk_bytes = bytes > ARENA_CHUNK_BYTES ? bytes : ARENA_CHUNK_BYTES;
	struct message_arena_chunk *chunk = malloc(sizeof(*chunk) + chunk_bytes);

	if (!chunk) {
		arena->out_of_memory = true;
		return false;
	}
	chunk->next = arena->chunks;
	arena->chunks = chunk;
	arena->next = chunk->bytes;
	arena->left_bytes = chunk_bytes;
	return true;
}

void *message_arena_alloc(struct message_arena *arena, size_t bytes)
{
	void *ret;

	/* used_bytes never exceeds bound_bytes, so nothing here wraps. */
	if (bytes > arena->bound_bytes - arena->used_bytes) {
		arena->over_bound = true;
		return NULL;
	}
	bytes = (bytes + 15) & ~(size_t)15;
	if (bytes > arena->bound_bytes - arena->used_bytes) {
		arena->over_bound = true;
		return NULL;
	}
	if (bytes > arena->left_bytes && !message_arena_grow(arena, bytes))
		return NULL;
	ret = arena->next;
	arena->next += bytes;
	arena->left_bytes -= bytes;
	arena->used_bytes += bytes;
	return ret;
}

void *message_arena_array(struct message_arena *arena, size_t n, size_t bytes)
{
	size_t total;
	void *ret;

	if (__builtin_mul_overflow(n, bytes, &total)) {
		arena->over_bound = true;
		return NULL;
	}
	ret = message_arena_alloc(arena, total);
	if (ret)
		memset(ret, 0, total);
	return ret;
}
