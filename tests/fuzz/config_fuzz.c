/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The parser of configuration files over any bytes: it ends, every mistake is one line of text, and
 * what it took can be shown.
 *
 * Input: a byte that says which kind of file (0: iommubrokerd.conf, 1: quota.d, 2: device.d, of
 * three), then the file.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const paths[] = {"/etc/iommubroker/iommubrokerd.conf",
				    "/etc/iommubroker/quota.d/50-fuzz.conf",
				    "/etc/iommubroker/device.d/fuzz.conf"};

static void require(bool good)
{
	if (!good)
		abort();
}

static void mistakes_check(const struct config *config)
{
	for (size_t i = 0; i < config->n_mistakes && i < CONFIG_MISTAKES_MAX; i++) {
		const char *text = config->mistakes[i];

		require(!strncmp(text, "/etc/iommubroker/", 17));
		require(strlen(text) < CONFIG_MISTAKE_BYTES);
		for (; *text; text++)
			require((unsigned char)*text >= 0x20 && *text != 0x7f);
	}
}

/* Each key that was taken is shown once, with its file and a line of it. */
static void show_check(const struct config *config)
{
	struct operator_setting row;
	size_t at = 0, n = 0;

	while (config_show_next(config, config, &at, &row)) {
		require(row.key[0] && !row.pending[0]);
		n += !strncmp(row.from, "/etc/iommubroker/", 17);
	}
	require(n >= config->n_entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const nowhere[] = {"/nonexistent"};
	const enum config_kind kind = size ? (enum config_kind)(data[0] % 3) : CONFIG_MAIN;
	struct config *config = NULL;
	FILE *stream;

	if (size < 2)
		return 0;
	/* Only to have one with its defaults. */
	config_load(&config, nowhere, 1);
	require(config);
	config->n_mistakes = 0;
	stream = fmemopen((void *)(uintptr_t)(data + 1), size - 1, "r");
	require(stream);
	require(!config_file_parse(config, kind, paths[kind], stream));
	fclose(stream);
	mistakes_check(config);
	if (!config->n_mistakes)
		show_check(config);
	config_free(config);
	return 0;
}
