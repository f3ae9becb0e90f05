/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See input.h. */

#include "replay/input.h"

#include <endian.h>
#include <errno.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define INPUT_BYTES_MAX      (1u << 30)
#define INPUT_BYTES_AT_FIRST (1u << 20)
#define XZ_MEMORY_MAX        (128u << 20)

static const uint8_t xz_magic[] = {0xfd, '7', 'z', 'X', 'Z', 0};

/* Room for more. */
static int grow(struct input *input, size_t *capacity)
{
	size_t n_bytes = *capacity == 0 ? INPUT_BYTES_AT_FIRST : *capacity * 2;
	uint8_t *bytes;

	if (n_bytes > INPUT_BYTES_MAX)
		return -EFBIG;
	bytes = realloc(input->bytes, n_bytes);
	if (bytes == NULL)
		return -ENOMEM;
	input->bytes = bytes;
	*capacity = n_bytes;
	return 0;
}

/* zlib reads plain files as they are. */
static int read_gz(const char *path, struct input *input)
{
	gzFile file = gzopen(path, "rb");
	size_t capacity = 0;
	int r = 0, n = 0;

	if (file == NULL)
		return errno != 0 ? -errno : -ENOMEM;
	do {
		input->n_bytes += n;
		if (input->n_bytes == capacity)
			r = grow(input, &capacity);
		if (r == 0)
			n = gzread(file, input->bytes + input->n_bytes, capacity - input->n_bytes);
	} while (r == 0 && n > 0);
	if (r == 0 && n < 0)
		r = -EBADMSG;
	if (gzclose_r(file) != Z_OK && r == 0)
		r = -EBADMSG;
	return r;
}

static int unpack_xz(struct input *packed, struct input *input)
{
	lzma_stream stream = LZMA_STREAM_INIT;
	lzma_ret code = LZMA_OK;
	size_t capacity = 0;
	int r = 0;

	if (lzma_stream_decoder(&stream, XZ_MEMORY_MAX, LZMA_CONCATENATED) != LZMA_OK)
		return -ENOMEM;
	stream.next_in = packed->bytes;
	stream.avail_in = packed->n_bytes;
	while (r == 0 && code == LZMA_OK) {
		r = grow(input, &capacity);
		if (r < 0)
			break;
		stream.next_out = input->bytes + input->n_bytes;
		stream.avail_out = capacity - input->n_bytes;
		code = lzma_code(&stream, LZMA_FINISH);
		input->n_bytes = capacity - stream.avail_out;
	}
	lzma_end(&stream);
	return r == 0 && code != LZMA_STREAM_END ? -EBADMSG : r;
}

int input_read(const char *path, struct input *ret)
{
	struct input file = {0}, unpacked = {0};
	bool is_xz;
	int r;

	r = read_gz(path, &file);
	is_xz = r == 0 && file.n_bytes >= sizeof(xz_magic) &&
		memcmp(file.bytes, xz_magic, sizeof(xz_magic)) == 0;
	if (is_xz) {
		r = unpack_xz(&file, &unpacked);
		input_free(&file);
		file = unpacked;
	}
	if (r < 0)
		input_free(&file);
	else
		*ret = file;
	return r;
}

void input_free(struct input *input)
{
	free(input->bytes);
	*input = (struct input){0};
}

uint32_t input_le32(const uint8_t *from)
{
	uint32_t value;

	memcpy(&value, from, sizeof(value));
	return le32toh(value);
}

uint64_t input_le64(const uint8_t *from)
{
	uint64_t value;

	memcpy(&value, from, sizeof(value));
	return le64toh(value);
}
