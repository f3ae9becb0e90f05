/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/tenant_rule.h"

#include <fnmatch.h>
#include <sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGEST_SHOWN 8 /* bytes */

/* As fnmatch(), most of whose time is spent before it sees that the beginnings differ. */
static bool glob_fits(const char *pattern, const char *text, int flags)
{
	size_t literal = strcspn(pattern, "*?[\\");

	if (strncmp(pattern, text, literal))
		return false;
	return pattern[literal] ? !fnmatch(pattern, text, flags) : !text[literal];
}

static bool fits(const struct tenant_match *match, enum tenant_property property, const char *text,
		 int flags)
{
	for (size_t i = 0; i < match->n[property]; i++)
		if (glob_fits(match->patterns[property][i], text, flags))
			return true;
	return false;
}

static bool number_fits(const char *pattern, unsigned long number)
{
	char text[24], *end;

	if (pattern[0] >= '1' && pattern[0] <= '9') {
		unsigned long wanted = strtoul(pattern, &end, 10);

		if (!*end)
			return wanted == number;
	}
	snprintf(text, sizeof(text), "%lu", number);
	return !fnmatch(pattern, text, 0);
}

static bool fits_number(const struct tenant_match *match, enum tenant_property property,
			unsigned long number)
{
	for (size_t i = 0; i < match->n[property]; i++)
		if (number_fits(match->patterns[property][i], number))
			return true;
	return false;
}

static bool fits_group(const struct tenant_match *match, const struct tenant_identity *identity)
{
	if (!match->n[TENANT_GROUP])
		return false;
	for (size_t i = 0; i < identity->n_groups; i++)
		if (fits_number(match, TENANT_GROUP, identity->groups[i]))
			return true;
	return false;
}

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), end_length = strlen(end);

	return length > end_length && !strcmp(text + length - end_length, end);
}

static bool is_unit(const char *name)
{
	return ends_with(name, ".service") || ends_with(name, ".scope");
}

static bool is_slice(const char *name)
{
	return ends_with(name, ".slice");
}

/* The next slice of a path, or the unit that ends its slices; from *at on. What is below a unit is
 * named by whoever the unit was given to, such as a user's own manager: nothing to go by. false:
 * there is no more, or it is too long for a cgroup's name. */
static bool path_next(const char *path, size_t *at, char ret_name[256])
{
	size_t length;

	*at += strspn(path + *at, "/");
	length = strcspn(path + *at, "/");
	if (!length || length > 255)
		return false;
	memcpy(ret_name, path + *at, length);
	ret_name[length] = '\0';
	*at = is_slice(ret_name) ? *at + length : strlen(path);
	return true;
}

static bool fits_name(const struct tenant_match *match, enum tenant_property property,
		      const char *path)
{
	char name[256];
	size_t at = 0;

	while (path_next(path, &at, name)) {
		if (property == TENANT_UNIT ? !is_unit(name) : !is_slice(name))
			continue;
		if (fits(match, property, name, 0))
			return true;
	}
	return false;
}

/* Its cgroup or one above, up to the first below the root. */
static bool fits_path(const struct tenant_match *match, const char *path)
{
	char above[TENANT_CGROUP_MAX], *end;

	snprintf(above, sizeof(above), "%s", path);
	while ((end = strrchr(above, '/'))) {
		if (fits(match, TENANT_CGROUP, above, FNM_PATHNAME))
			return true;
		*end = '\0';
	}
	return false;
}

static bool fits_property(const struct tenant_match *match, enum tenant_property property,
			  const struct tenant_identity *identity)
{
	switch (property) {
	case TENANT_USER:
		return fits_number(match, property, identity->uid);
	case TENANT_GROUP:
		return fits_group(match, identity);
	case TENANT_UNIT:
	case TENANT_SLICE:
		return fits_name(match, property, identity->cgroup);
	case TENANT_CGROUP:
		return fits_path(match, identity->cgroup);
	case TENANT_PROPERTIES:
		break;
	}
	return false;
}

bool tenant_match(const struct tenant_match *match, const struct tenant_identity *identity)
{
	for (int i = 0; i < TENANT_PROPERTIES; i++)
		if (match->n[i] && !fits_property(match, (enum tenant_property)i, identity))
			return false;
	return true;
}

const struct tenant_rule *tenant_rule_find(const struct tenant_rule *rules, size_t n,
					   const struct tenant_identity *identity)
{
	for (size_t i = 0; i < n; i++)
		if (tenant_match(&rules[i].match, identity))
			return &rules[i];
	return NULL;
}

/* The innermost slice, or the unit; "" if there is none. */
static void innermost(const char *path, bool (*is_kind)(const char *name), char ret_name[256])
{
	char name[256];
	size_t at = 0;

	ret_name[0] = '\0';
	while (path_next(path, &at, name))
		if (is_kind(name))
			strcpy(ret_name, name);
}

/* Of a name that is too long its end, for that is where units differ, after a digest of all of it:
 * nobody can become another tenant by choosing a name. */
static void shorten(char name[256], size_t room)
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	char copy[256], *to = name;
	size_t length = strlen(name);
	SHA2_CTX context;

	if (length <= room)
		return;
	strcpy(copy, name);
	SHA256Init(&context);
	SHA256Update(&context, (const uint8_t *)name, length);
	SHA256Final(digest, &context);
	for (size_t i = 0; i < DIGEST_SHOWN; i++)
		to += sprintf(to, "%02x", digest[i]);
	sprintf(to, "~%s", copy + length - (room - 2 * DIGEST_SHOWN - 1));
}

void tenant_rule_name(const struct tenant_rule *rule, const struct tenant_identity *identity,
		      char ret[TENANT_NAME_MAX])
{
	char one[256] = "";

	switch (rule->per) {
	case TENANT_PER_USER:
		snprintf(one, sizeof(one), "%lu", (unsigned long)identity->uid);
		break;
	case TENANT_PER_UNIT:
		innermost(identity->cgroup, is_unit, one);
		break;
	case TENANT_PER_SLICE:
		innermost(identity->cgroup, is_slice, one);
		break;
	case TENANT_PER_RULE:
		break;
	}
	if (one[0]) {
		shorten(one, TENANT_NAME_MAX - TENANT_RULE_NAME_MAX - 1);
		snprintf(ret, TENANT_NAME_MAX, "%s/%s", rule->name, one);
	} else {
		snprintf(ret, TENANT_NAME_MAX, "%s", rule->name);
	}
}

/* ── in words ──────────────────────────────────────────────────────────────────────────────── */

static const char *property_name(enum tenant_property property)
{
	static const char *const names[TENANT_PROPERTIES] = {
		[TENANT_USER] = "User",   [TENANT_GROUP] = "Group",   [TENANT_UNIT] = "Unit",
		[TENANT_SLICE] = "Slice", [TENANT_CGROUP] = "CGroup",
	};

	return property < TENANT_PROPERTIES ? names[property] : "";
}

/* How a client is called that has nothing of it; NULL: each has something. */
static const char *nothing_of(enum tenant_property property)
{
	switch (property) {
	case TENANT_UNIT:
		return "in no unit";
	case TENANT_SLICE:
		return "in no slice";
	case TENANT_CGROUP:
		return "in no cgroup below the root";
	default:
		return NULL;
	}
}

/* One word more, or, once it is too long, that there are others. */
static void word_add(char *text, size_t text_bytes, const char *word)
{
	size_t used = strlen(text), length = strlen(word);
	static const char more[] = " ...";

	if (used >= sizeof(more) && !strcmp(text + used - strlen(more), more))
		return;
	if (used + length + 1 + sizeof(more) > text_bytes)
		snprintf(text + used, text_bytes - used, "%s", more);
	else
		snprintf(text + used, text_bytes - used, "%s%s", used ? " " : "", word);
}

static void names_tell(const char *path, enum tenant_property property, char *text,
		       size_t text_bytes)
{
	char name[256];
	size_t at = 0;

	while (path_next(path, &at, name))
		if (property == TENANT_UNIT ? is_unit(name) : is_slice(name))
			word_add(text, text_bytes, name);
}

/* What the client has of a property. */
static void property_tell(const struct tenant_identity *identity, enum tenant_property property,
			  char *text, size_t text_bytes)
{
	char number[24];

	text[0] = '\0';
	switch (property) {
	case TENANT_USER:
		snprintf(text, text_bytes, "%lu", (unsigned long)identity->uid);
		break;
	case TENANT_GROUP:
		for (size_t i = 0; i < identity->n_groups; i++) {
			snprintf(number, sizeof(number), "%lu", (unsigned long)identity->groups[i]);
			word_add(text, text_bytes, number);
		}
		break;
	case TENANT_UNIT:
	case TENANT_SLICE:
		names_tell(identity->cgroup, property, text, text_bytes);
		break;
	case TENANT_CGROUP:
	case TENANT_PROPERTIES:
		word_add(text, text_bytes, identity->cgroup);
		break;
	}
}

static void miss_tell(const struct tenant_match *match, const struct tenant_identity *identity,
		      enum tenant_property property, bool known, char why[TENANT_WHY_MAX])
{
	char wanted[TENANT_WHY_MAX / 2 - 32] = "", has[TENANT_WHY_MAX / 2 - 32];

	for (size_t i = 0; i < match->n[property]; i++)
		word_add(wanted, sizeof(wanted), match->patterns[property][i]);
	property_tell(identity, property, has, sizeof(has));
	if (!known)
		snprintf(why, TENANT_WHY_MAX, "%s= is %s, which is not known here",
			 property_name(property), wanted);
	else if (!has[0] && nothing_of(property))
		snprintf(why, TENANT_WHY_MAX, "%s= is %s, the client is %s",
			 property_name(property), wanted, nothing_of(property));
	else
		snprintf(why, TENANT_WHY_MAX, "%s= is %s, the client is %s%s",
			 property_name(property), wanted, property == TENANT_USER ? "" : "in ",
			 has);
}

enum tenant_fit tenant_match_explain(const struct tenant_match *match,
				     const struct tenant_identity *identity, unsigned int known,
				     char ret_why[TENANT_WHY_MAX])
{
	enum tenant_property unknown = TENANT_PROPERTIES; /* none */

	for (enum tenant_property property = 0; property < TENANT_PROPERTIES; property++) {
		if (!match->n[property])
			continue;
		if (!(known & 1u << property)) {
			unknown = unknown < TENANT_PROPERTIES ? unknown : property;
		} else if (!fits_property(match, property, identity)) {
			miss_tell(match, identity, property, true, ret_why);
			return TENANT_FITS_NOT;
		}
	}
	if (unknown < TENANT_PROPERTIES) {
		miss_tell(match, identity, unknown, false, ret_why);
		return TENANT_FIT_UNKNOWN;
	}
	snprintf(ret_why, TENANT_WHY_MAX, "matches");
	return TENANT_FITS;
}
