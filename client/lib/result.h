/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_RESULT_H
#define IB_CLIENT_RESULT_H

/* RangeResult, straight from the wire into the caller's struct. */

#include "iommubroker/v1/common.pb-c.h"
#include "iommubroker.h"

/* A message whose field 1 is repeated RangeResult (RefreshNested, UpdateNested): at most n_max of
 * them. 0 or -EBADMSG. Writes ret_results in any case. */
int results_parse(const uint8_t *message, size_t n_message, struct iommubroker_result *ret_results,
		  size_t n_max, size_t *ret_n);

/* The same from protobuf-c; NULL: all zero. */
void result_from_message(const Iommubroker__V1__RangeResult *message,
			 struct iommubroker_result *ret);

#endif
