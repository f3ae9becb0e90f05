/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_ERROR_H
#define IB_CLIENT_ERROR_H

#include "iommubroker.h"
#include "lib/packet.h"

/* Each makes *ret_error, unless ret_error is NULL, and returns the negative errno. */

/* What the daemon refused; answer->code is not 0. */
int error_from_answer(const struct answer *answer, struct iommubroker_error **ret_error);
/* It says that what was named is not there. */
bool error_is_not_found(const struct answer *answer);
/* What the library found itself; result is a negative errno. */
int error_local(int result, struct iommubroker_error **ret_error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int error_field(struct iommubroker_error **ret_error, const char *field, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* What became of the connection or of waiting: -ECONNRESET, -EBADMSG, -ETIMEDOUT. */
int error_transport(int result, struct iommubroker_error **ret_error);

#endif
