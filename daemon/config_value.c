/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Values of settings: text into typed fields, with a sentence for whoever wrote them wrong. */

#include "config_table.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "config.h"

static int bad(char *error, size_t error_bytes, const char *text, const char *wanted)
{
	snprintf(error, error_bytes, "'%.64s' is not %s", text, wanted);
	return -EINVAL;
}

/* Digits, 0x allowed; *rest is what follows. false: no number, or above 2^64 - 1. */
static bool number_parse(const char *text, uint64_t *ret, const char **rest)
{
	char *end;
	unsigned long long value;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	value = strtoull(text, &end, text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10);
	if (errno || end == text)
		return false;
	*ret = value;
	*rest = end;
	return true;
}

static bool host_memory_percent(uint64_t percent, uint64_t *ret)
{
	long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);

	if (percent > 100 || pages <= 0 || page_bytes <= 0)
		return false;
	*ret = (uint64_t)pages / 100 * percent * (uint64_t)page_bytes;
	return true;
}

static bool bytes_parse(const char *text, uint64_t *ret)
{
	static const char suffixes[] = "KMGTPE";
	const char *rest, *suffix;
	unsigned int shift;
	uint64_t value;

	if (!strcmp(text, "infinity")) {
		*ret = UINT64_MAX;
		return true;
	}
	if (!number_parse(text, &value, &rest))
		return false;
	if (!strcmp(rest, "%"))
		return host_memory_percent(value, ret);
	if (*rest) {
		suffix = strchr(suffixes, toupper((unsigned char)*rest));
		if (!suffix || (rest[1] && strcmp(rest + 1, "iB")))
			return false;
		shift = 10 * (unsigned int)(suffix - suffixes + 1);
		if (value > UINT64_MAX >> shift)
			return false;
		value <<= shift;
	}
	*ret = value;
	return true;
}

static bool count_parse(const char *text, uint64_t *ret)
{
	const char *rest;

	if (!strcmp(text, "infinity")) {
		*ret = UINT64_MAX;
		return true;
	}
	return number_parse(text, ret, &rest) && !*rest;
}

static bool rate_parse(const char *text, uint64_t *ret)
{
	const char *rest;

	if (!strcmp(text, "infinity")) {
		*ret = UINT64_MAX;
		return true;
	}
	return number_parse(text, ret, &rest) && !strcmp(rest, "/s");
}

static bool milliseconds_parse(const char *text, uint64_t *ret)
{
	const char *rest;
	uint64_t value;

	if (!number_parse(text, &value, &rest))
		return false;
	if (!strcmp(rest, "s")) {
		if (value > UINT64_MAX / 1000)
			return false;
		value *= 1000;
	} else if (strcmp(rest, "ms")) {
		return false;
	}
	*ret = value;
	return true;
}

static bool bool_parse(const char *text, bool *ret)
{
	if (!strcasecmp(text, "yes") || !strcasecmp(text, "true") || !strcmp(text, "1"))
		*ret = true;
	else if (!strcasecmp(text, "no") || !strcasecmp(text, "false") || !strcmp(text, "0"))
		*ret = false;
	else
		return false;
	return true;
}

static bool designation_parse(const char *word, uint32_t *set)
{
	static const char *const names[] = {"ST", "RT", "RS", "RF"};

	for (unsigned int i = 0; i < 4; i++) {
		if (!strcasecmp(word, names[i])) {
			*set |= 1u << i;
			return true;
		}
	}
	return false;
}

static bool user_parse(const char *word, uid_t *ret)
{
	const struct passwd *entry;
	const char *rest;
	uint64_t value;

	if (number_parse(word, &value, &rest) && !*rest) {
		*ret = (uid_t)value;
		return value < UINT32_MAX;
	}
	entry = getpwnam(word);
	if (entry)
		*ret = entry->pw_uid;
	return entry;
}

static bool group_parse(const char *word, gid_t *ret)
{
	const struct group *entry;
	const char *rest;
	uint64_t value;

	if (number_parse(word, &value, &rest) && !*rest) {
		*ret = (gid_t)value;
		return value < UINT32_MAX;
	}
	entry = getgrnam(word);
	if (entry)
		*ret = entry->gr_gid;
	return entry;
}

static bool list_item_parse(const struct setting *setting, const char *word, void *target, size_t n)
{
	switch (setting->type) {
	case SETTING_USERS:
		return n < CONFIG_IDS_MAX && user_parse(word, (uid_t *)target + n);
	case SETTING_GROUPS:
		return n < CONFIG_IDS_MAX && group_parse(word, (gid_t *)target + n);
	default:
		return designation_parse(word, target);
	}
}

/* Lists replace what an earlier file said; an empty value empties the list. */
static int list_parse(const struct setting *setting, const char *text, void *target,
		      size_t *n_target, char *error, size_t error_bytes)
{
	bool ids = setting->type == SETTING_USERS || setting->type == SETTING_GROUPS;
	char copy[1024], *save = NULL;
	size_t n = 0;

	if (strlen(text) >= sizeof(copy))
		return bad(error, error_bytes, text, "a list of at most 1,023 characters");
	strcpy(copy, text);
	if (setting->type == SETTING_DESIGNATIONS)
		*(uint32_t *)target = 0;
	for (char *word = strtok_r(copy, " \t,", &save); word;
	     word = strtok_r(NULL, " \t,", &save)) {
		bool optional = ids && word[0] == '-';

		if (list_item_parse(setting, word + optional, target, n)) {
			n++;
			continue;
		}
		/* A name that begins with - need not exist, as in units. */
		if (!optional || n == CONFIG_IDS_MAX)
			return bad(error, error_bytes, word,
				   setting->type == SETTING_USERS    ? "a user of this host"
				   : setting->type == SETTING_GROUPS ? "a group of this host"
								     : "one of ST, RT, RS, RF");
	}
	if (setting->type == SETTING_DESIGNATIONS && !n)
		return bad(error, error_bytes, text, "a set of ST, RT, RS, RF");
	if (n_target)
		*n_target = n;
	return 0;
}

static int choice_parse(const struct setting *setting, const char *text, int *target, char *error,
			size_t error_bytes)
{
	for (int i = 0; setting->choices[i]; i++) {
		if (!strcmp(text, setting->choices[i])) {
			*target = i;
			return 0;
		}
	}
	snprintf(error, error_bytes, "'%.64s' is not one of", text);
	for (int i = 0; setting->choices[i]; i++) {
		size_t used = strlen(error);

		snprintf(error + used, error_bytes - used, "%s %s", i ? "," : "",
			 setting->choices[i]);
	}
	return -EINVAL;
}

static bool pci_address_parse(const char *text, char ret[16])
{
	unsigned int domain, bus, slot, function;
	char rest;

	if (strlen(text) != 12 ||
	    sscanf(text, "%4x:%2x:%2x.%1x%c", &domain, &bus, &slot, &function, &rest) != 4 ||
	    slot > 0x1f || function > 7)
		return false;
	snprintf(ret, 16, "%04x:%02x:%02x.%x", domain & 0xffff, bus & 0xff, slot, function);
	return true;
}

static const char *type_text(enum setting_type type)
{
	switch (type) {
	case SETTING_BYTES:
		return "a size: bytes, K, M, G, T, a percentage of memory, or infinity";
	case SETTING_MILLISECONDS:
		return "a time with its unit, ms or s";
	case SETTING_RATE:
		return "so many a second: 500/s, or infinity";
	case SETTING_BOOL:
		return "yes or no";
	case SETTING_PCI_ADDRESS:
		return "a PCI address like 0000:00:04.0";
	default:
		return "a number";
	}
}

static bool scalar_parse(enum setting_type type, const char *text, uint64_t *ret)
{
	switch (type) {
	case SETTING_BYTES:
		return bytes_parse(text, ret);
	case SETTING_MILLISECONDS:
		return milliseconds_parse(text, ret);
	case SETTING_RATE:
		return rate_parse(text, ret);
	default:
		return count_parse(text, ret);
	}
}

static void scalar_store(const struct setting *setting, uint64_t value, void *target)
{
	switch (setting->type) {
	case SETTING_COUNT32:
	case SETTING_MILLISECONDS:
		*(uint32_t *)target = (uint32_t)value;
		break;
	case SETTING_HEX16:
		*(uint16_t *)target = (uint16_t)value;
		break;
	default:
		*(uint64_t *)target = value;
		break;
	}
}

static int number_setting_parse(const struct setting *setting, const char *text, void *target,
				char *error, size_t error_bytes)
{
	bool narrow = setting->type == SETTING_COUNT32 || setting->type == SETTING_MILLISECONDS;
	uint64_t max = setting->max ? setting->max : narrow ? UINT32_MAX : UINT64_MAX;
	uint64_t value;

	if (!scalar_parse(setting->type, text, &value))
		return bad(error, error_bytes, text, type_text(setting->type));
	if (value < setting->min || value > max) {
		snprintf(error, error_bytes, "'%.64s' is not between %llu and %llu", text,
			 (unsigned long long)setting->min, (unsigned long long)max);
		return -EINVAL;
	}
	scalar_store(setting, value, target);
	return 0;
}

int setting_parse(const struct setting *setting, const char *text, void *target, size_t *n_target,
		  char *error, size_t error_bytes)
{
	switch (setting->type) {
	case SETTING_USERS:
	case SETTING_GROUPS:
	case SETTING_DESIGNATIONS:
		return list_parse(setting, text, target, n_target, error, error_bytes);
	case SETTING_CHOICE:
		return choice_parse(setting, text, target, error, error_bytes);
	case SETTING_BOOL:
		return bool_parse(text, target)
			       ? 0
			       : bad(error, error_bytes, text, type_text(setting->type));
	case SETTING_PCI_ADDRESS:
		return pci_address_parse(text, target)
			       ? 0
			       : bad(error, error_bytes, text, type_text(setting->type));
	default:
		return number_setting_parse(setting, text, target, error, error_bytes);
	}
}

/* Edit distance of two short words, letters' case apart. */
static unsigned int distance(const char *a, const char *b)
{
	unsigned int row[65];
	size_t length = strlen(b);

	if (length > 64 || strlen(a) > 64)
		return 64;
	for (unsigned int j = 0; j <= length; j++)
		row[j] = j;
	for (unsigned int i = 1; a[i - 1]; i++) {
		unsigned int diagonal = row[0];

		row[0] = i;
		for (unsigned int j = 1; j <= length; j++) {
			bool same = tolower((unsigned char)a[i - 1]) ==
				    tolower((unsigned char)b[j - 1]);
			unsigned int best = diagonal + (same ? 0 : 1);

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[length];
}

const char *setting_suggest(const char *written, const char *const *names, size_t n)
{
	unsigned int best = (unsigned int)strlen(written) / 3 + 1;
	const char *suggestion = NULL;

	for (size_t i = 0; i < n; i++) {
		unsigned int d = distance(written, names[i]);

		if (d <= best && (!suggestion || d < best)) {
			best = d;
			suggestion = names[i];
		}
	}
	return suggestion;
}
