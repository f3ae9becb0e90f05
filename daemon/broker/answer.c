/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/answer.h"

#include <stdlib.h>
#include <string.h>

#include "broker/guest_record.h"

struct kept_answer {
	uint64_t session;
	struct broker_answer answer; /* its bytes are ours */
	uint8_t *bytes;
};

struct kept_answers {
	size_t n, first; /* a ring */
	size_t n_bytes;
	struct kept_answer items[ANSWERS_KEPT];
};

static void drop_oldest(struct kept_answers *answers)
{
	struct kept_answer *oldest = &answers->items[answers->first];

	answers->n_bytes -= oldest->answer.n_bytes;
	free(oldest->bytes);
	*oldest = (struct kept_answer){0};
	answers->first = (answers->first + 1) % ANSWERS_KEPT;
	answers->n--;
}

static void add(struct kept_answers *answers, const struct kept_answer *consume_answer)
{
	while (answers->n == ANSWERS_KEPT ||
	       (answers->n &&
		answers->n_bytes + consume_answer->answer.n_bytes > ANSWERS_BYTES_MAX))
		drop_oldest(answers);
	answers->items[(answers->first + answers->n++) % ANSWERS_KEPT] = *consume_answer;
	answers->n_bytes += consume_answer->answer.n_bytes;
}

void answers_add(struct kept_answers **answers, uint64_t session,
		 const struct broker_answer *answer)
{
	struct kept_answer kept = {.session = session, .answer = *answer};

	if (answer->n_bytes > ANSWER_BYTES_MAX)
		return;
	if (!*answers)
		*answers = calloc(1, sizeof(**answers));
	kept.bytes = malloc(answer->n_bytes ? answer->n_bytes : 1);
	if (!*answers || !kept.bytes) {
		free(kept.bytes);
		return;
	}
	if (answer->n_bytes)
		memcpy(kept.bytes, answer->bytes, answer->n_bytes);
	kept.answer.bytes = kept.bytes;
	add(*answers, &kept);
}

void answers_put(const struct kept_answers *answers, struct record_writer *writer)
{
	for (size_t i = 0; answers && i < answers->n; i++) {
		const struct kept_answer *kept =
			&answers->items[(answers->first + i) % ANSWERS_KEPT];
		struct record_answer record = {
			.session = kept->session,
			.request_id = kept->answer.request_id,
			.method = kept->answer.method,
			.code = kept->answer.code,
		};

		memcpy(record.digest, kept->answer.digest, sizeof(record.digest));
		/* A version that does not know it does a repeated request again. */
		record_put(writer, RECORD_ANSWER, 0, &record, sizeof(record), kept->bytes,
			   (uint32_t)kept->answer.n_bytes);
	}
}

void answers_each(const struct kept_answers *answers, uint64_t session,
		  void (*each)(void *context, const struct broker_answer *answer), void *context)
{
	for (size_t i = 0; answers && i < answers->n; i++) {
		const struct kept_answer *kept =
			&answers->items[(answers->first + i) % ANSWERS_KEPT];

		if (kept->session == session)
			each(context, &kept->answer);
	}
}

struct kept_answers *answers_free(struct kept_answers *answers)
{
	while (answers && answers->n)
		drop_oldest(answers);
	free(answers);
	return NULL;
}
