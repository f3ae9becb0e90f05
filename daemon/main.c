/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>
#include <stdlib.h>

#include "config.h"
#include "options.h"
#include "service.h"
#include "util/log.h"

static void check_print(const struct config *config, int status)
{
	if (status)
		config_print_mistakes(stderr, config, status);
	else
		puts("no mistakes in any file");
}

static void mistakes_log(const struct config *config, int status)
{
	size_t n = config ? config->n_mistakes : 0;

	log_error("configuration: %s", config_error(config, status));
	for (size_t i = 1; i < n && i < CONFIG_MISTAKES_MAX; i++)
		log_error("configuration: %s", config->mistakes[i]);
	if (n > CONFIG_MISTAKES_MAX)
		log_error("configuration: and %zu more", n - CONFIG_MISTAKES_MAX);
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
	if (options.check_config)
		check_print(config, status);
	else if (status)
		mistakes_log(config, status);
	else
		status = service_run(&options, config);
	config_free(config);
	return status ? EXIT_FAILURE : EXIT_SUCCESS;
}
