/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_REPLAY_INPUT_H
#define IB_REPLAY_INPUT_H

/* Files of recorded guests: plain, .gz or .xz, told apart by their content. */

#include <stddef.h>
#include <stdint.h>

struct input {
	uint8_t *bytes;
	size_t n_bytes;
};

/* All of it, unpacked; at most 1 GiB. 0 or a negative errno (-EBADMSG: damaged). */
int input_read(const char *path, struct input *ret);
void input_free(struct input *input);

uint32_t input_le32(const uint8_t *from);
uint64_t input_le64(const uint8_t *from);

#endif
