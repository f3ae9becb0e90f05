/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_UTF8_H
#define IB_UTIL_UTF8_H

/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at text (1 to 4), or 0 if there is no valid one within bytes. */
size_t utf8_character(const uint8_t *text, size_t bytes);
/* Whether all of it is valid and holds no NUL. */
bool utf8_is_text(const uint8_t *text, size_t bytes);
/* Overwrite what is not valid with '?', in place, up to the terminating zero: what was cut to a
 * fixed length may end within a character. */
void utf8_repair(char *text);

#endif
