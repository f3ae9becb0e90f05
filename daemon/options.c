/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "util/crash_point.h"

static const struct option long_options[] = {
	{"backend", required_argument, NULL, 'b'},
	{"runtime-dir", required_argument, NULL, 'r'},
	{"admin-dir", required_argument, NULL, 'a'},
	{"config-dir", required_argument, NULL, 'c'},
	{"check-config", no_argument, NULL, 'C'},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{"crash-points", no_argument, NULL, 'P'},
	{NULL, 0, NULL, 0},
};

static void help_print(void)
{
	puts("Usage: iommubrokerd [OPTION]...\n"
	     "Map guests' memory and translate for their devices, for VMMs without privilege.\n"
	     "\n"
	     "  --backend=iommufd|emulated  the kernel's iommufd (default), or the same in "
	     "software\n"
	     "  --runtime-dir=DIR           client sockets (default /run/iommubroker)\n"
	     "  --admin-dir=DIR             admin socket (default /run/iommubroker-admin, or\n"
	     "                              DIR/admin with --runtime-dir=DIR)\n"
	     "  --config-dir=DIR            read only this folder (default /etc/iommubroker,\n"
	     "                              /run/iommubroker, /usr/lib/iommubroker); of several,\n"
	     "                              files of the first take precedence\n"
	     "  --check-config              tell all mistakes in the configuration, and end\n"
	     "  --version\n"
	     "  --help");
}

static bool mistake(struct options *ret, const char *what, const char *value)
{
	fprintf(stderr, "iommubrokerd: %s%s%s\n", what, value ? ": " : "", value ? value : "");
	ret->exit_status = 2;
	return false;
}

static bool option_apply(struct options *ret, int option, const char **admin_dir)
{
	switch (option) {
	case 'b':
		ret->emulated = !strcmp(optarg, "emulated");
		return ret->emulated || !strcmp(optarg, "iommufd") ||
		       mistake(ret, "--backend is neither iommufd nor emulated", optarg);
	case 'r':
		ret->runtime_dir = optarg;
		return true;
	case 'a':
		*admin_dir = optarg;
		return true;
	case 'c':
		if (ret->n_config_dirs == OPTIONS_CONFIG_DIRS_MAX)
			return mistake(ret, "too many folders", optarg);
		ret->config_dirs[ret->n_config_dirs++] = optarg;
		return true;
	case 'C':
		ret->check_config = true;
		return true;
	case 'h':
		help_print();
		return false;
	case 'V':
		puts("iommubrokerd " IB_VERSION);
		return false;
	case 'P': /* for tests; empty where the build has none */
		crash_points_print();
		return false;
	default:
		ret->exit_status = 2;
		return false;
	}
}

bool options_parse(struct options *ret, int argc, char **argv)
{
	const char *admin_dir = NULL;
	int option, length;

	*ret = (struct options){0};
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0)
		if (!option_apply(ret, option, &admin_dir))
			return false;
	if (optind < argc)
		return mistake(ret, "unexpected argument", argv[optind]);
	if (admin_dir)
		length = snprintf(ret->admin_dir, sizeof(ret->admin_dir), "%s", admin_dir);
	else if (ret->runtime_dir)
		length = snprintf(ret->admin_dir, sizeof(ret->admin_dir), "%s/admin",
				  ret->runtime_dir);
	else
		length = snprintf(ret->admin_dir, sizeof(ret->admin_dir), "/run/iommubroker-admin");
	if (length >= (int)sizeof(ret->admin_dir))
		return mistake(ret, "folder name too long",
			       admin_dir ? admin_dir : ret->runtime_dir);
	if (!ret->runtime_dir)
		ret->runtime_dir = "/run/iommubroker";
	return true;
}
