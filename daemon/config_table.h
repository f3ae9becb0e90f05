/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CONFIG_TABLE_H
#define IB_CONFIG_TABLE_H

/* The table of settings itself, shared by the parser and the documentation that is made from it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/broker.h"

enum setting_type {
	SETTING_BYTES,        /* uint64_t: 4096, 512M, 16G, infinity, or 80% of the host's memory */
	SETTING_COUNT64,      /* uint64_t, or infinity */
	SETTING_COUNT32,      /* uint32_t */
	SETTING_MILLISECONDS, /* uint32_t: 500ms, 10s */
	SETTING_RATE,         /* uint64_t: 500/s, or infinity */
	SETTING_CHOICE,       /* int, one of .choices */
	SETTING_BOOL,
	SETTING_HEX64,        /* uint64_t, 0x… or decimal */
	SETTING_HEX16,        /* uint16_t */
	SETTING_DESIGNATIONS, /* uint32_t, set of ST RT RS RF */
	SETTING_USERS,        /* names or numbers, blank between them */
	SETTING_GROUPS,
	SETTING_PCI_ADDRESS, /* char[16] */
};

struct setting {
	const char *section, *name;
	enum setting_type type;
	size_t offset; /* into struct config, or the section's own struct */
	const char *default_text;
	uint64_t min, max;          /* of numbers; max 0: none */
	const char *const *choices; /* NULL-terminated, value is the index */
	const char *doc;            /* one or two sentences */
	bool at_start;              /* a reload does not change it */
	bool limit;                 /* a struct limit_setting: where it stands is kept with it */
};

/* Settings of iommubrokerd.conf, in the order in which they are documented. */
extern const struct setting config_settings[];
extern const size_t n_config_settings;
/* Keys of an [EmulatedFunction] section; offsets into struct iommu_emulated_function. */
extern const struct setting emulated_settings[];
extern const size_t n_emulated_settings;

/* A key of a [Device] section of device.d/ *.conf, which is a rule of several lines. */
struct rule_key {
	const char *name, *default_text, *doc;
};
extern const struct rule_key device_rule_keys[];
extern const size_t n_device_rule_keys;
/* Keys of [Match] and of [Quota] in quota.d. */
extern const struct rule_key match_rule_keys[];
extern const size_t n_match_rule_keys;
struct quota_key {
	struct rule_key key;
	enum setting_type type; /* BYTES, COUNT64 or RATE */
	enum limit_level level;
	enum ledger_resource resource;
	bool high;    /* a soft limit */
	bool is_rate; /* of this kind, and of no resource */
	enum rate_kind rate;
	uint64_t min, max; /* max 0: none */
};
extern const struct quota_key quota_rule_keys[];
extern const size_t n_quota_rule_keys;

/* The value's text into *target. 0, or -EINVAL with what was wrong in error. USERS and GROUPS
 * take the list at target and its count at n_target. */
int setting_parse(const struct setting *setting, const char *text, void *target, size_t *n_target,
		  char *error, size_t error_bytes);

/* The value's text, which setting_parse() would read as the same value. n: of USERS and GROUPS. */
void setting_format(const struct setting *setting, const void *target, size_t n, char *text,
		    size_t text_bytes);

/* The name in the list that is nearest to what was written, or NULL if none is near. */
const char *setting_suggest(const char *written, const char *const *names, size_t n);

#endif
