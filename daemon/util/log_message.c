/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/log_message.h"

const struct log_message_row *log_message_row(enum log_message message)
{
	static const struct log_message_row rows[] = {
#define X(name, id, kind, subject, text) [LOG_MESSAGE_##name] = {id, kind, subject, text},
		LOG_MESSAGES(X)
#undef X
	};

	return &rows[message];
}
