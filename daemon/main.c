/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "options.h"
#include "service.h"
#include "util/log.h"

int main(int argc, char **argv)
{
	struct options options;
	struct config *config = NULL;
	int status;

	if (!options_parse(&options, argc, argv))
		return options.exit_status;
	log_init("iommubrokerd");
	status = config_load(&config, options.config_dir);
	if (status)
		log_error("configuration: %s",
			  config && config->error[0] ? config->error : strerror(-status));
	else
		status = service_run(&options, config);
	config_free(config);
	return status ? EXIT_FAILURE : EXIT_SUCCESS;
}
