/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reload.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <systemd/sd-daemon.h>

#include "rpc/log_revoked.h"
#include "util/clock.h"
#include "util/log.h"

void reload_memlock(uint64_t pinned_bytes_max)
{
	static rlim_t at_start;
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return;
	if (!at_start)
		at_start = limit.rlim_cur;
	limit.rlim_cur = pinned_bytes_max < at_start ? pinned_bytes_max : at_start;
	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		log_as(LOG_LEVEL_WARNING, LOG_MESSAGE_MEMLOCK,
		       "cannot set the locked-memory limit to PinnedMemoryMax=: %s",
		       strerror(errno));
}

static void config_release(void *context)
{
	config_free(context);
}

static char *notes_of(const struct config *start, const struct config *config)
{
	char *notes = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&notes, &bytes);

	if (!out)
		return NULL;
	config_print_pending(out, start, config);
	fclose(out);
	return notes;
}

static struct config *current_ref(struct reload *reload)
{
	struct config *config;

	pthread_mutex_lock(&reload->current_lock);
	config = config_ref(reload->current);
	pthread_mutex_unlock(&reload->current_lock);
	return config;
}

static void current_set(struct reload *reload, struct config *consume_config)
{
	struct config *before;

	pthread_mutex_lock(&reload->current_lock);
	before = reload->current;
	reload->current = consume_config;
	pthread_mutex_unlock(&reload->current_lock);
	config_free(before);
}

static void on_revoked(void *context, const struct revoked *revoked, size_t n)
{
	(void)context;
	for (size_t i = 0; i < n; i++)
		log_revoked(&revoked[i], "no device rule gives it any more");
}

/* Goes on on the guests' lanes when the configuration holds. */
static void unruled_revoke(struct reload *reload, const struct broker_settings *settings)
{
	const struct revoke_request request = {.what = REVOKE_UNRULED};
	struct refusal refusal;

	if (settings->rule_lost == BROKER_RULE_LOST_REVOKE &&
	    broker_revoke(reload->broker, &request, on_revoked, NULL, &refusal))
		log_error("devices without a rule are not revoked: %s; reload again",
			  refusal.message);
}

/* From here on the broker owns the configuration. */
static int config_take(struct reload *reload, struct config *consume_config,
		       struct refusal *refusal)
{
	struct config *config = consume_config;
	const struct rpc_settings rpc = config->rpc;
	uint64_t pinned_bytes_max = config->broker.limits[LIMIT_HOST].max[LEDGER_PINNED_BYTES].max;
	int status;

	config_ref(config);
	status = broker_set_settings(reload->broker, &config->broker, config_release, config);
	if (status) {
		config_free(config);
		config_free(config);
		return refuse_errno(refusal, -status, "taking the configuration");
	}
	current_set(reload, config);
	dispatcher_set_settings(reload->dispatcher, &rpc);
	unruled_revoke(reload, &config->broker);
	if (!reload->options->emulated)
		reload_memlock(pinned_bytes_max);
	return 0;
}

/* With all mistakes as notes, and the first as the sentence of the refusal. */
static int refuse_configuration(const struct config *config, int status, char **ret_notes,
				struct refusal *refusal)
{
	size_t bytes = 0;
	FILE *out = open_memstream(ret_notes, &bytes);

	if (out) {
		config_print_mistakes(out, config, status);
		fclose(out);
	}
	if (config && config->n_mistakes > 1)
		return refuse(refusal, REFUSAL_PRECONDITION, "BAD_CONFIGURATION",
			      "%.220s (and %zu more)", config_error(config, status),
			      config->n_mistakes - 1);
	return refuse(refusal, REFUSAL_PRECONDITION, "BAD_CONFIGURATION", "%s",
		      config_error(config, status));
}

static int config_read(struct reload *reload, struct config **ret, char **ret_notes,
		       struct refusal *refusal)
{
	struct config *config = NULL;
	int status =
		config_load(&config, reload->options->config_dirs, reload->options->n_config_dirs);

	if (!status) {
		config->broker.open_devices =
			reload->options->emulated && !config->broker.n_device_rules;
		*ret = config;
		return 0;
	}
	status = refuse_configuration(config, status, ret_notes, refusal);
	config_free(config);
	return status;
}

/* Each mistake on a line of its own; the first one is the refusal's sentence. */
static void kept_log(const struct refusal *refusal, const char *notes)
{
	log_as(LOG_LEVEL_ERROR, LOG_MESSAGE_RELOAD_REFUSED,
	       "the configuration is kept as it was: %s", refusal->message);
	for (const char *at = notes ? strchr(notes, '\n') : NULL; at && at[1];
	     at = strchr(at + 1, '\n'))
		log_error("configuration: %.*s", (int)strcspn(at + 1, "\n"), at + 1);
}

static int reload_configure(void *context, bool apply, char **ret_notes, struct refusal *refusal)
{
	struct reload *reload = context;
	struct config *config = NULL;
	int status;

	pthread_mutex_lock(&reload->lock);
	if (reload->stopped)
		status = refuse(refusal, REFUSAL_PRECONDITION, "ENDING", "the daemon is ending");
	else
		status = config_read(reload, &config, ret_notes, refusal);
	if (!status) {
		*ret_notes = notes_of(reload->start, config);
		if (apply)
			status = config_take(reload, config, refusal);
		else
			config_free(config);
	}
	pthread_mutex_unlock(&reload->lock);
	if (apply && !status)
		log_as(LOG_LEVEL_INFO, LOG_MESSAGE_RELOADED,
		       "the configuration was read again, and holds");
	else if (apply)
		kept_log(refusal, *ret_notes);
	return status;
}

static bool job_run(struct pool_job *job)
{
	struct reload *reload = (struct reload *)((char *)job - offsetof(struct reload, job));
	struct refusal refusal;
	char *notes = NULL;

	reload->asked = false;
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
		   (unsigned long long)(clock_monotonic_ns() / 1000));
	if (!reload_configure(reload, true, &notes, &refusal) && notes && notes[0])
		log_warning("%.*s", (int)strcspn(notes, "\n"), notes);
	free(notes);
	sd_notify(0, "READY=1");
	return false;
}

/* ── to be seen ────────────────────────────────────────────────────────────────────────────── */

struct show {
	struct config *running, *read;
	size_t at;
};

static void *show_begin(void *context)
{
	struct reload *reload = context;
	struct show *show = calloc(1, sizeof(*show));

	if (!show)
		return NULL;
	show->running = config_ref(reload->start);
	show->read = current_ref(reload);
	return show;
}

static bool show_next(void *shown, struct operator_setting *ret)
{
	struct show *show = shown;

	return config_show_next(show->running, show->read, &show->at, ret);
}

static void show_end(void *shown)
{
	struct show *show = shown;

	config_free(show->running);
	config_free(show->read);
	free(show);
}

const struct operator_ops reload_operator = {
	.configure = reload_configure,
	.show_begin = show_begin,
	.show_next = show_next,
	.show_end = show_end,
};

void reload_init(struct reload *reload, const struct options *options, struct config *start,
		 struct broker *broker, struct dispatcher *dispatcher)
{
	*reload = (struct reload){
		.options = options,
		.start = start,
		.current = config_ref(start),
		.broker = broker,
		.dispatcher = dispatcher,
	};
	reload->job.run = job_run;
	pthread_mutex_init(&reload->lock, NULL);
	pthread_mutex_init(&reload->current_lock, NULL);
}

/* A worker may hold what SIGHUP asked for, of which neither dispatcher nor transports know. */
void reload_stop(struct reload *reload)
{
	if (!reload->broker)
		return;
	pthread_mutex_lock(&reload->lock);
	reload->stopped = true;
	pthread_mutex_unlock(&reload->lock);
}

void reload_deinit(struct reload *reload)
{
	if (!reload->broker)
		return;
	config_free(reload->current);
	pthread_mutex_destroy(&reload->current_lock);
	pthread_mutex_destroy(&reload->lock);
}

/* Asked again while it runs, it runs again. */
void reload_later(struct reload *reload)
{
	if (!atomic_exchange(&reload->asked, true))
		pool_submit(broker_pool(reload->broker), &reload->job);
}
