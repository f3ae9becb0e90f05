/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reload.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <systemd/sd-daemon.h>

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
		log_warning("cannot set the locked-memory limit to PinnedMemoryMax=: %s",
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

/* From here on the broker owns the configuration. */
static int config_take(struct reload *reload, struct config *consume_config,
		       struct refusal *refusal)
{
	struct config *config = consume_config;
	const struct rpc_settings rpc = config->rpc;
	uint64_t pinned_bytes_max = config->broker.limits[LIMIT_HOST].max[LEDGER_PINNED_BYTES].max;
	int status = broker_set_settings(reload->broker, &config->broker, config_release, config);

	if (status) {
		config_free(config);
		return refuse_errno(refusal, -status, "taking the configuration");
	}
	dispatcher_set_settings(reload->dispatcher, &rpc);
	if (!reload->options->emulated)
		reload_memlock(pinned_bytes_max);
	return 0;
}

static int config_read(struct reload *reload, struct config **ret, struct refusal *refusal)
{
	struct config *config = NULL;
	int status = config_load(&config, reload->options->config_dir);

	if (!status) {
		config->broker.open_devices =
			reload->options->emulated && !config->broker.n_device_rules;
		*ret = config;
		return 0;
	}
	refuse(refusal, REFUSAL_PRECONDITION, "BAD_CONFIGURATION", "%s",
	       config && config->error[0] ? config->error : strerror(-status));
	config_free(config);
	return REFUSED;
}

static int reload_configure(void *context, bool apply, char **ret_notes, struct refusal *refusal)
{
	struct reload *reload = context;
	struct config *config;
	int status;

	pthread_mutex_lock(&reload->lock);
	status = config_read(reload, &config, refusal);
	if (!status) {
		*ret_notes = notes_of(reload->start, config);
		if (apply)
			status = config_take(reload, config, refusal);
		else
			config_free(config);
	}
	pthread_mutex_unlock(&reload->lock);
	if (apply && !status)
		log_info("the configuration was read again, and holds");
	else if (apply)
		log_error("the configuration is kept as it was: %s", refusal->message);
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

const struct operator_ops reload_operator = {.configure = reload_configure};

void reload_init(struct reload *reload, const struct options *options, const struct config *start,
		 struct broker *broker, struct dispatcher *dispatcher)
{
	*reload = (struct reload){
		.options = options,
		.start = start,
		.broker = broker,
		.dispatcher = dispatcher,
	};
	reload->job.run = job_run;
	pthread_mutex_init(&reload->lock, NULL);
}

void reload_deinit(struct reload *reload)
{
	if (reload->broker)
		pthread_mutex_destroy(&reload->lock);
}

/* Asked again while it runs, it runs again. */
void reload_later(struct reload *reload)
{
	if (!atomic_exchange(&reload->asked, true))
		pool_submit(broker_pool(reload->broker), &reload->job);
}
