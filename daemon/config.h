/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CONFIG_H
#define IB_CONFIG_H

/*
 * Configuration: one table of settings, from which the parser, the default file, the manual page
 * and the suggestions for misspelt keys are made.
 *
 * Files of one name are looked for in the folders in order of precedence; drop-ins of all folders
 * are applied in the order of their names, a name in a folder of higher precedence hiding those
 * below. A bad file is an error that names file, line and key; nothing is half applied.
 */

#include <stdio.h>

#include "broker/broker.h"
#include "broker/tenant_rule.h"
#include "rpc/dispatch.h"

#define CONFIG_DEVICE_RULES_MAX 4096
#define CONFIG_IDS_MAX          RPC_CLIENT_IDS_MAX

/* A text of a file that a rule borrows. */
struct config_text {
	struct config_text *next;
	char text[];
};

/* What the table fills. Ids and rules that the settings borrow live here. */
struct config {
	struct broker_settings broker;
	struct rpc_settings rpc;
	struct broker_device_rule *device_rules; /* on the heap */
	struct tenant_rule *tenant_rules;        /* likewise */
	struct config_text *texts;               /* that the rules borrow */
	size_t n_emulated;
	struct iommu_emulated_function emulated[IOMMU_EMULATED_FUNCTIONS_MAX];
	char error[512]; /* after a failure: "file:line: what was wrong" */
};

/* Read the configuration of config_dir, or (NULL) of /etc, /run and /usr/lib. 0; -EINVAL with
 * (*ret)->error set; or another negative errno. *ret is set in every case but -ENOMEM, and is the
 * caller's to free. */
int config_load(struct config **ret, const char *config_dir);
struct config *config_free(struct config *config);

/* A line for each setting of the one that was read which only another start of the daemon, which
 * runs with the other, would bring into effect. */
void config_print_pending(FILE *out, const struct config *running, const struct config *read);

/* The default file, every key commented out at its default. */
void config_print_default(FILE *out);
/* iommubrokerd.conf(5). */
void config_print_manual(FILE *out);

#endif
