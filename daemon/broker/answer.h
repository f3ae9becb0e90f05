/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_ANSWER_H
#define IB_BROKER_ANSWER_H

/*
 * What the last requests about a guest were answered, for a client that did not hear it and asks a
 * successor of this process. Guest's lane.
 */

#include "broker/broker.h"
#include "state/record.h"

/* Of one guest. A longer answer is not kept; then its request, repeated, is done again. */
#define ANSWERS_KEPT      64
#define ANSWER_BYTES_MAX  1024
#define ANSWERS_BYTES_MAX (16 * 1024)

struct kept_answers; /* NULL: none */

/* Add one; the oldest go. *answers is made if it is NULL. Without memory it is not kept. */
void answers_add(struct kept_answers **answers, uint64_t session,
		 const struct broker_answer *answer);
void answers_put(const struct kept_answers *answers, struct record_writer *writer);
/* Oldest first; answer->bytes are borrowed until the next change. */
void answers_each(const struct kept_answers *answers, uint64_t session,
		  void (*each)(void *context, const struct broker_answer *answer), void *context);
struct kept_answers *answers_free(struct kept_answers *answers); /* returns NULL */

#endif
