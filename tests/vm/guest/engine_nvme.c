/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * An NVM Express controller (base specification 1.4) as a DMA engine, polled: an admin queue pair
 * and one for input and output. Commands go one at a time.
 *
 * A namespace takes whole blocks, but what we are asked for are single bytes. So each transfer is a
 * scatter-gather list of the bytes in question and of as much of the workspace as is missing to
 * whole blocks. What the device reads from memory goes to its first blocks, and from there on.
 *
 * Where an access is blocked on s390 the function goes into error state: its registers read as all
 * ones until the kernel has recovered it, and then as those of a controller that is switched off.
 */

#include "engine_device.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define REG_CAPABILITIES  0x00
#define REG_CONFIGURATION 0x14
#define REG_STATUS        0x1c
#define REG_ADMIN_SIZES   0x24
#define REG_ADMIN_TAIL    0x28
#define REG_ADMIN_HEAD    0x30
#define REG_DOORBELLS     0x1000

#define CAPABILITY_STRIDE(value) ((unsigned int)((value) >> 32) & 0xfu)
/* On, entries of 64 and 16 bytes, pages of 4 KiB, the NVM command set. */
#define CONFIGURATION_ON (1u | 6u << 16 | 4u << 20)
#define STATUS_READY     0x1u
#define STATUS_FATAL     0x2u

#define ADMIN_NEW_COMMANDS 0x01u
#define ADMIN_NEW_ANSWERS  0x05u
#define ADMIN_IDENTIFY     0x06u
#define IO_WRITE           0x01u
#define IO_READ            0x02u
#define USES_LIST          (1u << 14) /* scatter-gather, in the first word of a command */
#define LIST_DATA          (0x0u << 28)
#define LIST_LAST_SEGMENT  (0x3u << 28)
#define QUEUE_CONTIGUOUS   1u
#define NAMESPACE          1u

#define NVME_QUEUE_ENTRIES 16u
#define COMMAND_WORDS      16u
#define ANSWER_WORDS       4u

enum workspace_page {
	ADMIN_COMMANDS_PAGE,
	ADMIN_ANSWERS_PAGE,
	IO_COMMANDS_PAGE,
	IO_ANSWERS_PAGE,
	LIST_PAGE,
	DATA_PAGE,
	FILL_PAGE,
};

#define READY_LIMIT_NS UINT64_C(10000000000)
#define READY_SLEEP_NS UINT64_C(1000000)
/* Long, for machines whose clock runs ahead while QEMU waits for its own threads (-icount). */
#define COMMAND_LIMIT_NS UINT64_C(60000000000)
#define COMMAND_SLEEP_NS UINT64_C(100000)

struct command {
	uint32_t opcode;
	uint32_t name_space;
	uint64_t data[2];
	uint32_t words[3]; /* 10 to 12 */
};

static int status_is(struct engine *engine, uint32_t *ret)
{
	int r = engine_get32(engine, REG_STATUS, ret);

	if (r < 0)
		return r;
	return *ret & STATUS_FATAL ? -EIO : 0; /* so are all ones */
}

static int ready_wait(struct engine *engine, uint32_t want)
{
	struct engine_patience patience = engine_patience(READY_LIMIT_NS, READY_SLEEP_NS);
	uint32_t status;
	int r;

	do {
		r = status_is(engine, &status);
		if (r < 0 || (status & STATUS_READY) == want)
			return r;
	} while (engine_patience_left(&patience));
	return -ETIMEDOUT;
}

/* A controller that failed still obeys this, and only this. */
static int switch_off(struct engine *engine)
{
	uint32_t status;
	int r = engine_get32(engine, REG_STATUS, &status);

	if (r < 0)
		return r;
	if (status == UINT32_MAX)
		return -EIO;
	r = engine_put32(engine, REG_CONFIGURATION, 0);
	return r < 0 ? r : ready_wait(engine, 0);
}

static void queue_init(struct engine *engine, struct nvme_queue *queue, unsigned int id,
		       unsigned int page)
{
	memset(engine_page(engine, page), 0, ENGINE_PAGE_BYTES);
	memset(engine_page(engine, page + 1), 0, ENGINE_PAGE_BYTES);
	*queue = (struct nvme_queue){
		.id = id,
		.commands = engine_page(engine, page),
		.answers = engine_page(engine, page + 1),
		.phase = 1,
	};
}

static int doorbell(struct engine *engine, unsigned int index, unsigned int value)
{
	return engine_put32(engine, REG_DOORBELLS + index * engine->nvme.doorbell_bytes, value);
}

static void command_write(struct engine *engine, struct nvme_queue *queue,
			  const struct command *command)
{
	uint32_t *words = queue->commands + queue->tail * COMMAND_WORDS;

	memset(words, 0, COMMAND_WORDS * sizeof(*words));
	words[0] = htole32(command->opcode | (uint32_t)++engine->nvme.command_id << 16);
	words[1] = htole32(command->name_space);
	for (unsigned int i = 0; i < 2; i++) {
		words[6 + 2 * i] = htole32((uint32_t)command->data[i]);
		words[7 + 2 * i] = htole32((uint32_t)(command->data[i] >> 32));
	}
	for (unsigned int i = 0; i < 3; i++)
		words[10 + i] = htole32(command->words[i]);
	queue->tail = (queue->tail + 1) % NVME_QUEUE_ENTRIES;
}

/* Whether the next answer is there; its last word. */
static bool answer_look(struct nvme_queue *queue, uint32_t *ret)
{
	const uint32_t *last = queue->answers + queue->head * ANSWER_WORDS + 3;
	uint32_t word = le32toh(__atomic_load_n(last, __ATOMIC_ACQUIRE));

	if ((word >> 16 & 1) != queue->phase)
		return false;
	*ret = word;
	return true;
}

static int answer_take(struct engine *engine, struct nvme_queue *queue, uint32_t word)
{
	int r;

	queue->head = (queue->head + 1) % NVME_QUEUE_ENTRIES;
	if (!queue->head)
		queue->phase ^= 1;
	r = doorbell(engine, 2 * queue->id + 1, queue->head);
	if (r < 0)
		return r;
	if ((word & 0xffff) != engine->nvme.command_id || word >> 17)
		return -EIO;
	return 0;
}

static int answer_wait(struct engine *engine, struct nvme_queue *queue)
{
	struct engine_patience patience = engine_patience(COMMAND_LIMIT_NS, COMMAND_SLEEP_NS);
	uint32_t word, status;
	int r;

	do {
		if (answer_look(queue, &word))
			return answer_take(engine, queue, word);
		r = status_is(engine, &status);
		if (r < 0 || !(status & STATUS_READY))
			return r < 0 ? r : -EIO;
	} while (engine_patience_left(&patience));
	return -ETIMEDOUT;
}

static int command_run(struct engine *engine, struct nvme_queue *queue,
		       const struct command *command)
{
	int r;

	command_write(engine, queue, command);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	r = doorbell(engine, 2 * queue->id, queue->tail);
	return r < 0 ? r : answer_wait(engine, queue);
}

static int switch_on(struct engine *engine)
{
	uint32_t sizes = (NVME_QUEUE_ENTRIES - 1) << 16 | (NVME_QUEUE_ENTRIES - 1);
	uint64_t capabilities;
	int r = engine_get64(engine, REG_CAPABILITIES, &capabilities);

	if (r < 0)
		return r;
	engine->nvme.doorbell_bytes = 4u << CAPABILITY_STRIDE(capabilities);
	queue_init(engine, &engine->nvme.admin, 0, ADMIN_COMMANDS_PAGE);
	queue_init(engine, &engine->nvme.io, 1, IO_COMMANDS_PAGE);
	r = engine_put32(engine, REG_ADMIN_SIZES, sizes);
	if (!r)
		r = engine_put64(engine, REG_ADMIN_TAIL,
				 engine_page_iova(engine, ADMIN_COMMANDS_PAGE));
	if (!r)
		r = engine_put64(engine, REG_ADMIN_HEAD,
				 engine_page_iova(engine, ADMIN_ANSWERS_PAGE));
	if (!r)
		r = engine_put32(engine, REG_CONFIGURATION, CONFIGURATION_ON);
	return r < 0 ? r : ready_wait(engine, STATUS_READY);
}

static int make_io_queue(struct engine *engine)
{
	struct nvme *nvme = &engine->nvme;
	uint32_t size_and_id = (NVME_QUEUE_ENTRIES - 1) << 16 | nvme->io.id;
	struct command answers = {
		.opcode = ADMIN_NEW_ANSWERS,
		.data = {engine_page_iova(engine, IO_ANSWERS_PAGE)},
		.words = {size_and_id, QUEUE_CONTIGUOUS},
	};
	struct command commands = {
		.opcode = ADMIN_NEW_COMMANDS,
		.data = {engine_page_iova(engine, IO_COMMANDS_PAGE)},
		.words = {size_and_id, nvme->io.id << 16 | QUEUE_CONTIGUOUS},
	};
	int r = command_run(engine, &nvme->admin, &answers);

	return r < 0 ? r : command_run(engine, &nvme->admin, &commands);
}

/* The size of a block is in the namespace's format. */
static int learn_blocks(struct engine *engine)
{
	struct command command = {
		.opcode = ADMIN_IDENTIFY,
		.name_space = NAMESPACE,
		.data = {engine_page_iova(engine, DATA_PAGE)},
	};
	const uint8_t *seen = engine_page(engine, DATA_PAGE);
	unsigned int power;
	int r = command_run(engine, &engine->nvme.admin, &command);

	if (r < 0)
		return r;
	power = seen[128 + 4 * (seen[26] & 0xf) + 2];
	if (power < 9 || power > 12)
		return -ENODEV;
	engine->nvme.block_bytes = 1u << power;
	return 0;
}

static int nvme_start(struct engine *engine)
{
	int r = switch_off(engine);

	if (!r)
		r = switch_on(engine);
	if (!r)
		r = learn_blocks(engine);
	if (!r)
		r = make_io_queue(engine);
	return r;
}

static void list_set(struct engine *engine, unsigned int at, uint64_t iova, uint32_t n)
{
	uint32_t *words = (uint32_t *)engine_page(engine, LIST_PAGE) + 4 * (size_t)at;

	words[0] = htole32((uint32_t)iova);
	words[1] = htole32((uint32_t)(iova >> 32));
	words[2] = htole32(n);
	words[3] = htole32(LIST_DATA);
}

/* n bytes at iova from or to the first blocks. */
static int transfer(struct engine *engine, uint32_t opcode, uint64_t iova, size_t n)
{
	unsigned int block = engine->nvme.block_bytes;
	unsigned int blocks = ((unsigned int)n + block - 1) / block;
	uint32_t fill = blocks * block - (uint32_t)n;
	uint64_t list_bytes = fill ? 32 : 16;
	struct command command = {
		.opcode = opcode | USES_LIST,
		.name_space = NAMESPACE,
		.data = {engine_page_iova(engine, LIST_PAGE),
			 (uint64_t)LIST_LAST_SEGMENT << 32 | list_bytes},
		.words = {0, 0, blocks - 1},
	};

	list_set(engine, 0, iova, (uint32_t)n);
	list_set(engine, 1, engine_page_iova(engine, FILL_PAGE), fill);
	return command_run(engine, &engine->nvme.io, &command);
}

static int nvme_move(struct engine *engine, uint64_t from, uint64_t to, size_t n)
{
	int r = transfer(engine, IO_WRITE, from, n);

	return r < 0 ? r : transfer(engine, IO_READ, to, n);
}

static int nvme_write(struct engine *engine, uint64_t iova, const void *bytes, size_t n)
{
	memcpy(engine_page(engine, DATA_PAGE), bytes, n);
	return nvme_move(engine, engine_page_iova(engine, DATA_PAGE), iova, n);
}

static int nvme_read(struct engine *engine, uint64_t iova, void *ret_bytes, size_t n)
{
	int r = nvme_move(engine, iova, engine_page_iova(engine, DATA_PAGE), n);

	if (!r)
		memcpy(ret_bytes, engine_page(engine, DATA_PAGE), n);
	return r;
}

const struct engine_kind engine_nvme = {
	.name = "nvme",
	.vendor = 0x1b36,
	.device = 0x0010,
	.start = nvme_start,
	.write = nvme_write,
	.read = nvme_read,
};
