/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names of stored descriptors: the guest's number, a letter for the kind, the index. Digits are
 * capitals, letters of kinds and the names of sockets are not, so that none is taken for another;
 * numbers have no leading zeros, so that each descriptor has one name.
 */
#include <assert.h>
#include <string.h>

#include "state/fd_store.h"

#define BASE       36
#define DIGITS_MAX 3

static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
static const char kinds[] = {
	FD_STATE, FD_CONTEXT, FD_MEMORY, FD_DEVICE, FD_RING, FD_DOORBELL, FD_LISTENER, 0,
};

static char *put_number(char *at, uint32_t number)
{
	if (number >= BASE)
		at = put_number(at, number / BASE);
	*at = digits[number % BASE];
	return at + 1;
}

void fd_name_format(const struct fd_name *name, char ret[FD_NAME_BYTES])
{
	char *at;

	assert(name->guest < FD_NAME_GUESTS_MAX && name->index < FD_NAME_INDICES_MAX);
	at = put_number(ret, name->guest);
	*at++ = (char)name->kind;
	at = put_number(at, name->index);
	*at = 0;
}

/* What is behind the number, or NULL: there is none. */
static const char *get_number(const char *at, uint32_t *ret)
{
	size_t n = strspn(at, digits);
	uint32_t number = 0;

	if (!n || n > DIGITS_MAX || (*at == '0' && n > 1))
		return NULL;
	for (size_t i = 0; i < n; i++)
		number = number * BASE + (uint32_t)(strchr(digits, at[i]) - digits);
	*ret = number;
	return at + n;
}

bool fd_name_parse(const char *text, struct fd_name *ret)
{
	struct fd_name name;
	const char *at = get_number(text, &name.guest);

	if (!at || !*at || !strchr(kinds, *at))
		return false;
	name.kind = (enum fd_kind) * at;
	at = get_number(at + 1, &name.index);
	if (!at || *at)
		return false;
	*ret = name;
	return true;
}
