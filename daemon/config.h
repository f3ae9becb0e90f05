/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CONFIG_H
#define IB_CONFIG_H

/*
 * Configuration: one table of settings, from which the parser, the default file, the manual page
 * and the suggestions for misspelt keys are made.
 *
 * Files of one name are looked for in the folders in order of precedence; drop-ins of all folders
 * are applied in the order of their names, a name in a folder of higher precedence hiding those
 * below, and an empty file or a link to /dev/null there being as good as none. Reading goes on
 * after a mistake, so that all of them can be told, each with file, line and key; but what has one
 * mistake is no configuration, and nothing of it is applied.
 */

#include <stdatomic.h>
#include <stdio.h>

#include "broker/broker.h"
#include "broker/tenant_rule.h"
#include "rpc/dispatch.h"

#define CONFIG_DEVICE_RULES_MAX 4096
#define CONFIG_IDS_MAX          RPC_CLIENT_IDS_MAX
#define CONFIG_MISTAKES_MAX     64 /* that are told; more are counted */
#define CONFIG_MISTAKE_BYTES    512
#define CONFIG_SETTINGS_MAX     160
#define CONFIG_ENTRIES_MAX      32768 /* keys of all rule files */
#define CONFIG_FILES_MAX        4096  /* in one folder */
#define CONFIG_FILE_BYTES_MAX   (1 << 20)
#define CONFIG_FOLDERS_MAX      8

/* A text of a file that a rule borrows. */
struct config_text {
	struct config_text *next;
	char text[];
};

/* Which files a key can stand in. */
enum config_kind { CONFIG_MAIN, CONFIG_QUOTA, CONFIG_DEVICE };

/* A key as somebody wrote it. The texts are the configuration's. */
struct config_entry {
	enum config_kind kind;
	unsigned int set;     /* a rule file and its drop-ins have one number */
	unsigned int section; /* the how many-th section of the set it stands in */
	const char *title;    /* "quota.d/50-prod.conf" */
	const char *section_name, *key, *value;
	const char *file; /* NULL: nobody wrote it */
	int line;
};

/* What the table fills. Ids and rules that the settings borrow live here. */
struct config {
	atomic_uint refs;
	struct broker_settings broker;
	struct rpc_settings rpc;
	uint32_t ring_threads;                   /* 1 .. 8 */
	uint32_t descriptor_store_max;           /* 0: nothing is stored */
	struct broker_device_rule *device_rules; /* on the heap */
	struct tenant_rule *tenant_rules;        /* likewise */
	struct config_text *texts;               /* that the rules borrow */
	size_t n_emulated;
	struct iommu_emulated_function emulated[IOMMU_EMULATED_FUNCTIONS_MAX];
	/* Where it all comes from: of each setting by its place in the table, and every key of the
	 * rule files and of [EmulatedFunction], in the order in which they were read. */
	struct config_entry origins[CONFIG_SETTINGS_MAX];
	struct config_entry *entries; /* on the heap */
	size_t n_entries, entries_room;
	unsigned int n_sets;
	/* "file:line: key: what was wrong" */
	size_t n_mistakes; /* counts those that are not told, too */
	char mistakes[CONFIG_MISTAKES_MAX][CONFIG_MISTAKE_BYTES];
};

/* Read the configuration of these folders, that of the highest precedence first; or (0) of /etc,
 * /run and /usr/lib. 0; -EINVAL with all mistakes in *ret; or another negative errno. *ret is set
 * in every case but -ENOMEM, and is a reference of the caller's. */
int config_load(struct config **ret, const char *const *folders, size_t n_folders);
struct config *config_ref(struct config *config);
/* One reference fewer; returns NULL. NULL is fine. Any thread. */
struct config *config_free(struct config *config);

/* Why config_load() failed with this status: the first mistake. */
const char *config_error(const struct config *config, int status);
/* All of them, a line each, and how many more there are. */
void config_print_mistakes(FILE *out, const struct config *config, int status);

/* A line for each setting of the one that was read which only another start of the daemon, which
 * runs with the other, would bring into effect. */
void config_print_pending(FILE *out, const struct config *running, const struct config *read);

/* Everything that holds, one row at a time, for an operator to see. *at is 0 before the first.
 * running: what the daemon started with; read: what it read last. What a row points at lives as
 * long as both of them. false: there are no more. */
bool config_show_next(const struct config *running, const struct config *read, size_t *at,
		      struct operator_setting *ret);

/* The default file, every key commented out at its default. */
void config_print_default(FILE *out);
/* iommubrokerd.conf(5). */
void config_print_manual(FILE *out);

#endif
