/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * QEMU's "edu" (docs/specs/edu.rst): one DMA channel between memory and a buffer of its own.
 *
 * A copy takes it 100 ms of the machine's time, and it never tells whether memory let it through.
 */

#include "engine_device.h"

#include <errno.h>
#include <string.h>

#define EDU_SOURCE      0x80
#define EDU_DESTINATION 0x88
#define EDU_COUNT       0x90
#define EDU_COMMAND     0x98
#define EDU_RUN         0x1u
#define EDU_TO_MEMORY   0x2u
#define EDU_BUFFER      UINT64_C(0x40000)
/* The buffer is a page, but the device refuses a copy up to its very end. */
#define EDU_COPY_BYTES 2048u

#define COPY_NS    UINT64_C(100000000)
#define LIMIT_NS   UINT64_C(20000000000)
#define BETWEEN_NS UINT64_C(1000000)

#define DATA_PAGE 0u

static int edu_wait(struct engine *engine)
{
	struct engine_patience patience = engine_patience(LIMIT_NS, BETWEEN_NS);
	uint64_t command;
	int r;

	do {
		r = engine_get64(engine, EDU_COMMAND, &command);
		if (r < 0 || !(command & EDU_RUN))
			return r;
	} while (engine_patience_left(&patience));
	return -ETIMEDOUT;
}

static int edu_run(struct engine *engine, uint64_t source, uint64_t destination, size_t n,
		   uint64_t command)
{
	int r = engine_put64(engine, EDU_SOURCE, source);

	if (!r)
		r = engine_put64(engine, EDU_DESTINATION, destination);
	if (!r)
		r = engine_put64(engine, EDU_COUNT, n);
	if (!r)
		r = engine_put64(engine, EDU_COMMAND, command | EDU_RUN);
	if (r < 0)
		return r;
	engine_sleep(COPY_NS);
	return edu_wait(engine);
}

static int edu_move(struct engine *engine, uint64_t from, uint64_t to, size_t n)
{
	int r = 0;

	for (size_t done = 0, part; !r && done < n; done += part) {
		part = n - done < EDU_COPY_BYTES ? n - done : EDU_COPY_BYTES;
		r = edu_run(engine, from + done, EDU_BUFFER, part, 0);
		if (!r)
			r = edu_run(engine, EDU_BUFFER, to + done, part, EDU_TO_MEMORY);
	}
	return r;
}

/* There is nothing to be made ready; what a former owner began comes to its end. */
static int edu_start(struct engine *engine)
{
	return edu_wait(engine);
}

static int edu_write(struct engine *engine, uint64_t iova, const void *bytes, size_t n)
{
	memcpy(engine_page(engine, DATA_PAGE), bytes, n);
	return edu_move(engine, engine_page_iova(engine, DATA_PAGE), iova, n);
}

static int edu_read(struct engine *engine, uint64_t iova, void *ret_bytes, size_t n)
{
	int r = edu_move(engine, iova, engine_page_iova(engine, DATA_PAGE), n);

	if (!r)
		memcpy(ret_bytes, engine_page(engine, DATA_PAGE), n);
	return r;
}

const struct engine_kind engine_edu = {
	.name = "edu",
	.vendor = 0x1234,
	.device = 0x11e8,
	.start = edu_start,
	.write = edu_write,
	.read = edu_read,
};
