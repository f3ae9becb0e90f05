/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Quota rules: a file of quota.d is one rule, its [Match] says for whom, its [Quota] how much. The
 * first file that matches wins, in the order of their names.
 */

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "config_file.h"
#include "config_table.h"

#define QUOTA_KEYS_MAX 96

static struct tenant_rule *rule_of(struct config_file *file)
{
	return &file->config->tenant_rules[file->config->broker.n_tenant_rules - 1];
}

/* ── the file ──────────────────────────────────────────────────────────────────────────────── */

/* "/etc/iommubroker/quota.d/50-prod.conf" is rule "prod". */
static int rule_name(struct config_file *file, char ret[TENANT_RULE_NAME_MAX])
{
	const char *base = strrchr(file->path, '/');
	const char *name = base ? base + 1 : file->path;
	size_t digits = strspn(name, "0123456789"), length;

	if (digits && name[digits] == '-' && strcmp(name + digits + 1, ".conf"))
		name += digits + 1;
	length = strlen(name) - strlen(".conf");
	if (length >= TENANT_RULE_NAME_MAX)
		return config_file_error(file, "the rule's name, '%.64s', has more than %d bytes",
					 name, TENANT_RULE_NAME_MAX - 1);
	memcpy(ret, name, length);
	ret[length] = '\0';
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)ret[i]) && !strchr("-_.", ret[i]))
			return config_file_error(
				file, "the rule's name may have letters, digits and - _ . only");
	return 0;
}

int config_quota_begin(struct config_file *file)
{
	struct config *config = file->config;
	size_t n = config->broker.n_tenant_rules;
	struct tenant_rule *rules, rule = {0};
	int status = rule_name(file, rule.name);

	if (status)
		return status;
	for (size_t i = 0; i < n; i++)
		if (!strcmp(config->tenant_rules[i].name, rule.name))
			return config_file_error(file, "another file's rule is called '%s' too",
						 rule.name);
	rules = reallocarray(config->tenant_rules, n + 1, sizeof(*rules));
	if (!rules)
		return -ENOMEM;
	rule.file = file->path;
	rules[n] = rule;
	config->tenant_rules = rules;
	config->broker.tenant_rules = rules;
	config->broker.n_tenant_rules = n + 1;
	return 0;
}

static bool names_anyone(const struct tenant_match *match)
{
	for (int i = 0; i < TENANT_PROPERTIES; i++)
		if (match->n[i])
			return true;
	return false;
}

/* A rule without [Match] would be for everybody who may connect; that is to be said. */
int config_quota_end(struct config_file *file)
{
	if (names_anyone(&rule_of(file)->match))
		return 0;
	file->line = 0;
	return config_file_error(file, "[Match] names nobody; User=* is everybody");
}

/* ── [Match] ───────────────────────────────────────────────────────────────────────────────── */

static int pattern_add(struct config_file *file, enum tenant_property property, const char *text)
{
	struct tenant_match *match = &rule_of(file)->match;
	const char *kept;

	if (match->n[property] == TENANT_PATTERNS_MAX)
		return config_file_error(file, "more than %d patterns", TENANT_PATTERNS_MAX);
	kept = config_text_keep(file->config, text);
	if (!kept)
		return -ENOMEM;
	match->patterns[property][match->n[property]++] = kept;
	return 0;
}

static int number_add(struct config_file *file, enum tenant_property property, unsigned long number)
{
	char text[24];

	snprintf(text, sizeof(text), "%lu", number);
	return pattern_add(file, property, text);
}

static bool is_glob(const char *word)
{
	return strpbrk(word, "*?[") != NULL;
}

/* Names are made numbers now, so that no client's connection waits for a user database; so a glob
 * of names is not for users who are made later. */
static int users_expand(struct config_file *file, const char *glob)
{
	struct passwd *entry;
	int status = 0;
	bool any = false;

	setpwent();
	while (!status && (entry = getpwent())) {
		if (fnmatch(glob, entry->pw_name, 0))
			continue;
		any = true;
		status = number_add(file, TENANT_USER, entry->pw_uid);
	}
	endpwent();
	if (!status && !any)
		return config_file_error(file, "User=: no user's name matches '%.64s'", glob);
	return status;
}

static int groups_expand(struct config_file *file, const char *glob)
{
	struct group *entry;
	int status = 0;
	bool any = false;

	setgrent();
	while (!status && (entry = getgrent())) {
		if (fnmatch(glob, entry->gr_name, 0))
			continue;
		any = true;
		status = number_add(file, TENANT_GROUP, entry->gr_gid);
	}
	endgrent();
	if (!status && !any)
		return config_file_error(file, "Group=: no group's name matches '%.64s'", glob);
	return status;
}

static int id_add(struct config_file *file, enum tenant_property property, const char *word)
{
	bool user = property == TENANT_USER;
	struct setting setting = {.type = user ? SETTING_USERS : SETTING_GROUPS};
	char error[256];
	size_t n = 0;
	id_t id[2];

	/* "*", or a glob of numbers. */
	if (is_glob(word) && !word[strspn(word, "0123456789*?[]-")])
		return pattern_add(file, property, word);
	if (is_glob(word))
		return user ? users_expand(file, word) : groups_expand(file, word);
	if (setting_parse(&setting, word, id, &n, error, sizeof(error)))
		return config_file_error(file, "%s=: %s", user ? "User" : "Group", error);
	/* One that need not exist, and does not: no number looks like its name. */
	return n ? number_add(file, property, id[0]) : pattern_add(file, property, word);
}

static int words_add(struct config_file *file, enum tenant_property property, const char *key,
		     const char *value)
{
	char copy[1024], *save = NULL;
	int status = 0;

	snprintf(copy, sizeof(copy), "%s", value);
	if (!copy[strspn(copy, " \t")])
		return config_file_error(file, "%s=: names nothing; * is any", key);
	for (char *word = strtok_r(copy, " \t", &save); word && !status;
	     word = strtok_r(NULL, " \t", &save)) {
		if (property == TENANT_CGROUP && word[0] != '/')
			return config_file_error(file, "CGroup=: '%.64s' does not begin with /",
						 word);
		if (property == TENANT_USER || property == TENANT_GROUP)
			status = id_add(file, property, word);
		else
			status = pattern_add(file, property, word);
	}
	return status;
}

static int per_parse(struct config_file *file, const char *value)
{
	static const char *const choices[] = {"rule", "user", "unit", "slice", NULL};

	for (int i = 0; choices[i]; i++) {
		if (strcmp(value, choices[i]))
			continue;
		rule_of(file)->per = (enum tenant_per)i;
		return 0;
	}
	return config_file_error(file, "TenantPer=: '%.64s' is not one of rule, user, unit, slice",
				 value);
}

static int key_unknown(struct config_file *file, const struct rule_key *keys, size_t n,
		       const char *key)
{
	const char *names[QUOTA_KEYS_MAX], *near;

	for (size_t i = 0; i < n; i++)
		names[i] = keys[i].name;
	near = setting_suggest(key, names, n);
	if (near)
		return config_file_error(file, "unknown key '%.64s'; did you mean %s?", key, near);
	return config_file_error(file, "unknown key '%.64s'", key);
}

static int manager_parse(struct config_file *file, const char *value)
{
	if (strcmp(value, "yes") && strcmp(value, "no"))
		return config_file_error(file, "Manager=: '%.64s' is neither yes nor no", value);
	rule_of(file)->manager = !strcmp(value, "yes");
	return 0;
}

static int match_key(struct config_file *file, const char *key, const char *value)
{
	static const char *const properties[TENANT_PROPERTIES] = {
		[TENANT_USER] = "User",   [TENANT_GROUP] = "Group",   [TENANT_UNIT] = "Unit",
		[TENANT_SLICE] = "Slice", [TENANT_CGROUP] = "CGroup",
	};

	for (int i = 0; i < TENANT_PROPERTIES; i++)
		if (!strcmp(key, properties[i]))
			return words_add(file, (enum tenant_property)i, key, value);
	if (!strcmp(key, "TenantPer"))
		return per_parse(file, value);
	if (!strcmp(key, "Manager"))
		return manager_parse(file, value);
	return key_unknown(file, match_rule_keys, n_match_rule_keys, key);
}

/* ── [Quota] ───────────────────────────────────────────────────────────────────────────────── */

static int quota_key_unknown(struct config_file *file, const char *key)
{
	struct rule_key keys[QUOTA_KEYS_MAX];
	size_t n = n_quota_rule_keys < QUOTA_KEYS_MAX ? n_quota_rule_keys : QUOTA_KEYS_MAX;

	for (size_t i = 0; i < n; i++)
		keys[i] = quota_rule_keys[i].key;
	return key_unknown(file, keys, n, key);
}

static const struct quota_key *quota_find(const char *key)
{
	for (size_t i = 0; i < n_quota_rule_keys; i++)
		if (!strcmp(quota_rule_keys[i].key.name, key))
			return &quota_rule_keys[i];
	return NULL;
}

static struct limit_setting *quota_limit(struct limit_set *set, const struct quota_key *quota)
{
	if (quota->is_rate)
		return &set->rate[quota->rate];
	return &(quota->high ? set->high : set->max)[quota->resource];
}

static int quota_key(struct config_file *file, const char *key, const char *value)
{
	const struct quota_key *quota = quota_find(key);
	struct limit_setting *limit;
	char error[256];

	if (!quota)
		return quota_key_unknown(file, key);
	limit = quota_limit(&rule_of(file)->limits[quota->level], quota);
	if (setting_parse(
		    &(struct setting){.type = quota->type, .min = quota->min, .max = quota->max},
		    value, &limit->max, NULL, error, sizeof(error)))
		return config_file_error(file, "%s=: %s", key, error);
	config_limit_place(file, key, limit);
	return 0;
}

/* Of a path that is too long the end: there stands the name of the file. */
void config_limit_place(const struct config_file *file, const char *name,
			struct limit_setting *limit)
{
	size_t length = strlen(file->path), shown = sizeof(limit->where) - 16;
	const char *path = file->path + (length > shown ? length - shown : 0);

	limit->set = true;
	if (file->line)
		snprintf(limit->where, sizeof(limit->where), "%.80s:%d", path, file->line);
	else
		snprintf(limit->where, sizeof(limit->where), "setting %.64s= (default)", name);
}

int config_quota_key(struct config_file *file, const char *section, const char *key,
		     const char *value)
{
	return !strcmp(section, "Match") ? match_key(file, key, value)
					 : quota_key(file, key, value);
}
