/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_TENANT_RULE_H
#define IB_BROKER_TENANT_RULE_H

/*
 * Who a client is charged to: the operator's rules, looked at in order, the first that matches
 * wins.
 *
 * Pure: what a client is was found out when it connected (rpc/peer_identity.h), what the rules are
 * when the configuration was read. A rule is for everyone who has all the properties that it names;
 * of each property it may name several values, of which one must fit. Values are globs
 * (fnmatch(3)).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "broker/broker.h"

#define TENANT_NAME_MAX      64  /* bytes, with the terminating 0 */
#define TENANT_RULE_NAME_MAX 24  /* likewise */
#define TENANT_GROUPS_MAX    256 /* supplementary groups of a client that are looked at */
#define TENANT_CGROUP_MAX    1024
#define TENANT_WHY_MAX       320 /* bytes of an explanation */
#define TENANT_PATTERNS_MAX  32  /* of one property in one rule */

/* What is known of a client. */
struct tenant_identity {
	uid_t uid;
	size_t n_groups;
	gid_t groups[TENANT_GROUPS_MAX]; /* with the primary one */
	/* In the unified hierarchy: "/machine.slice/machine-qemu\x2d7.scope". "": not known. */
	char cgroup[TENANT_CGROUP_MAX];
};

enum tenant_property {
	TENANT_USER,   /* a uid; names are made uids when the rules are read */
	TENANT_GROUP,  /* likewise, of any group that the client is in */
	TENANT_UNIT,   /* the .service or .scope that the client is in: the outermost */
	TENANT_SLICE,  /* a .slice that this is under */
	TENANT_CGROUP, /* the path of its cgroup, or of one above it; * does not cross a / */
	TENANT_PROPERTIES,
};

/* Whether all who match are one tenant, or each user, unit or slice is one. */
enum tenant_per { TENANT_PER_RULE, TENANT_PER_USER, TENANT_PER_UNIT, TENANT_PER_SLICE };

struct tenant_match {
	size_t n[TENANT_PROPERTIES]; /* 0: any */
	/* Of USER and GROUP: decimal numbers, or "*". Owned by whoever made the rule. */
	const char *patterns[TENANT_PROPERTIES][TENANT_PATTERNS_MAX];
};

struct tenant_rule {
	char name[TENANT_RULE_NAME_MAX]; /* the file's, without .conf and a number in front */
	const char *file;                /* its path, for people, or NULL; owned as the patterns */
	struct tenant_match match;
	enum tenant_per per;
	bool manager; /* may create guests on behalf of other processes, of whatever tenant */
	/* What it does not set is the settings' to say; LIMIT_HOST is not used. */
	struct limit_set limits[LIMIT_LEVELS];
};

bool tenant_match(const struct tenant_match *match, const struct tenant_identity *identity);
/* The same in words, of somebody of whom only the properties in known, a bit for each, are known:
 * "matches", or the first property that does not and what the client has. Of an identity of which
 * all is known, FITS is tenant_match(). */
enum tenant_fit { TENANT_FITS, TENANT_FITS_NOT, TENANT_FIT_UNKNOWN };
#define TENANT_KNOWN_ALL ((1u << TENANT_PROPERTIES) - 1)
enum tenant_fit tenant_match_explain(const struct tenant_match *match,
				     const struct tenant_identity *identity, unsigned int known,
				     char ret_why[TENANT_WHY_MAX]);
/* The first that matches, or NULL. */
const struct tenant_rule *tenant_rule_find(const struct tenant_rule *rules, size_t n,
					   const struct tenant_identity *identity);
/* The tenant's name by that rule, which matched: "prod", "users/1000", "vms/machine-a.scope". Two
 * different users, units or slices never have one name. */
void tenant_rule_name(const struct tenant_rule *rule, const struct tenant_identity *identity,
		      char ret[TENANT_NAME_MAX]);

#endif
