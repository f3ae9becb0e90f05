/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "config.h"
#include "options.h"
#include "service.h"
#include "util/log.h"

#define MENDING_SECONDS 5

static void mistakes_log(const struct config *config, int status)
{
	size_t n = config ? config->n_mistakes : 0;

	log_error("configuration: %s", config_error(config, status));
	for (size_t i = 1; i < n && i < CONFIG_MISTAKES_MAX; i++)
		log_error("configuration: %s", config->mistakes[i]);
	if (n > CONFIG_MISTAKES_MAX)
		log_error("configuration: and %zu more", n - CONFIG_MISTAKES_MAX);
}

/* systemd starts us again at once, and so as soon as the files are mended; but not ten times a
 * second meanwhile. */
static void mending_wait(const struct config *config, int status)
{
	if (!getenv("INVOCATION_ID"))
		return;
	sd_notifyf(0, "STATUS=configuration: %s", config_error(config, status));
	sleep(MENDING_SECONDS);
}

/* The configuration is wrong: nothing is served by half of it, nor by the defaults. */
static void mistakes_tell(const struct options *options, const struct config *config, int status)
{
	if (options->check_config) {
		config_print_mistakes(stderr, config, status);
	} else {
		mistakes_log(config, status);
		mending_wait(config, status);
	}
}

int main(int argc, char **argv)
{
	struct options options;
	struct config *config = NULL;
	int status;

	if (!options_parse(&options, argc, argv))
		return options.exit_status;
	log_init("iommubrokerd");
	status = config_load(&config, options.config_dirs, options.n_config_dirs);
	if (status)
		mistakes_tell(&options, config, status);
	else if (options.check_config)
		puts("no mistakes in any file");
	else
		status = service_run(&options, config);
	config_free(config);
	return status ? EXIT_FAILURE : EXIT_SUCCESS;
}
