/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Configure and ShowConfiguration. What a configuration is, is not known here: struct operator_ops
 * reads it and tells it, one key at a time.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iommubroker/v1/admin.pb-c.h"
#include "rpc/dispatcher.h"
#include "rpc/handler.h"
#include "rpc/stream.h"
#include "util/utf8.h"

static int refuse_without_operator(struct call *call)
{
	return refuse_unimplemented(&call->refusal, "CONFIGURE",
				    "this daemon has no configuration to read again");
}

/* ── Configure ────────────────────────────────────────────────────────────────────────────── */

/* Lines, cut in place. */
static int notes_split(struct call *call, char *text, char ***ret, size_t *ret_n)
{
	size_t n = 0, lines = 1;

	utf8_repair(text);
	for (const char *at = text; *at; at++)
		lines += *at == '\n';
	*ret = call_array(call, lines, sizeof(**ret));
	if (!*ret)
		return call_refuse_memory(call);
	for (char *line; (line = strsep(&text, "\n"));)
		if (*line)
			(*ret)[n++] = line;
	*ret_n = n;
	return 0;
}

/* All mistakes, for the details of the refusal, which says the first one. */
static void mistakes_keep(struct call *call, const char *notes)
{
	size_t bytes = strlen(notes) + 1;
	char *copy = call_array(call, bytes, 1);

	if (copy)
		call->refusal.lines = memcpy(copy, notes, bytes);
}

int handle_configure(struct call *call)
{
	const Iommubroker__V1__ConfigureRequest *request =
		(const Iommubroker__V1__ConfigureRequest *)call->request;
	Iommubroker__V1__ConfigureResponse response = IOMMUBROKER__V1__CONFIGURE_RESPONSE__INIT;
	struct dispatcher *dispatcher = call->dispatcher;
	char *notes = NULL;
	int status;

	if (!dispatcher->operator_ops)
		return refuse_without_operator(call);
	status = dispatcher->operator_ops->configure(dispatcher->operator_context,
						     !request->check_only, &notes, &call->refusal);
	if (status == REFUSED && notes && request->tell_all)
		status = notes_split(call, notes, &response.mistakes, &response.n_mistakes);
	else if (status == REFUSED && notes)
		mistakes_keep(call, notes);
	else if (!status && notes)
		status = notes_split(call, notes, &response.notes, &response.n_notes);
	if (!status)
		status = call_answer(call, &response.base);
	free(notes);
	return status;
}

/* ── ShowConfiguration ────────────────────────────────────────────────────────────────────── */

struct configuration_source {
	struct stream_source base;
	const struct operator_ops *ops;
	void *shown;
	struct operator_setting setting;
};

static int configuration_next(struct stream_source *base, struct call *call)
{
	struct configuration_source *source = (struct configuration_source *)base;
	struct operator_setting *setting = &source->setting;
	Iommubroker__V1__ShowConfigurationResponse response =
		IOMMUBROKER__V1__SHOW_CONFIGURATION_RESPONSE__INIT;

	if (!source->ops->show_next(source->shown, setting))
		return STREAM_END;
	utf8_repair(setting->section);
	utf8_repair(setting->value);
	utf8_repair(setting->from);
	utf8_repair(setting->pending);
	response.section = setting->section;
	response.key = (char *)setting->key;
	response.value = setting->value;
	response.from = setting->from;
	response.default_value = (char *)setting->default_value;
	response.at_start = setting->at_start;
	response.pending = setting->pending;
	return call_answer(call, &response.base) ? STREAM_REFUSED : STREAM_MESSAGE;
}

static void configuration_end(struct stream_source *base)
{
	struct configuration_source *source = (struct configuration_source *)base;

	source->ops->show_end(source->shown);
	free(source);
}

static int source_new(struct call *call, struct configuration_source **ret)
{
	struct dispatcher *dispatcher = call->dispatcher;
	struct configuration_source *source = calloc(1, sizeof(*source));

	if (!source)
		return refuse_errno(&call->refusal, ENOMEM, "showing the configuration");
	source->base.next = configuration_next;
	source->base.end = configuration_end;
	source->ops = dispatcher->operator_ops;
	source->shown = source->ops->show_begin(dispatcher->operator_context);
	if (!source->shown) {
		free(source);
		return refuse_errno(&call->refusal, ENOMEM, "showing the configuration");
	}
	*ret = source;
	return 0;
}

int handle_show_configuration(struct call *call)
{
	struct configuration_source *source = NULL;
	struct stream *stream;
	int status;

	if (!call->dispatcher->operator_ops)
		return refuse_without_operator(call);
	status = source_new(call, &source);
	if (status)
		return status;
	stream = stream_new(call);
	if (!stream) {
		configuration_end(&source->base);
		return REFUSED;
	}
	stream_begin(stream, &source->base);
	return CALL_PENDING;
}
