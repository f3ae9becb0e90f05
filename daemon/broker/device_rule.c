/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/device_rule.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

static bool fits_glob(const char *const *patterns, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (!fnmatch(patterns[i], text, 0))
			return true;
	return false;
}

static bool fits_user(const struct broker_device_rule *rule, uid_t uid)
{
	for (size_t i = 0; i < rule->n_users; i++)
		if (rule->users[i] == uid)
			return true;
	return false;
}

static bool rule_is_for(const struct broker_device_rule *rule, const struct device_client *client)
{
	return (!rule->n_tenants || fits_glob(rule->tenants, rule->n_tenants, client->tenant)) &&
	       (!rule->n_users || fits_user(rule, client->uid));
}

static bool fits_fid(const struct broker_device_rule *rule, const struct iommu_device_info *info)
{
	for (size_t i = 0; info->has_fid && i < rule->n_fids; i++)
		if (info->fid >= rule->fids[i].first && info->fid <= rule->fids[i].last)
			return true;
	return false;
}

/* A function of which nothing else is known has the ids 0 and 0, which no real one has. */
static bool fits_id(const struct broker_device_rule *rule, const struct iommu_device_info *info)
{
	for (size_t i = 0; (info->vendor || info->device) && i < rule->n_ids; i++) {
		const struct broker_device_id *id = &rule->ids[i];

		if ((id->any_vendor || id->vendor == info->vendor) &&
		    (id->any_device || id->device == info->device))
			return true;
	}
	return false;
}

static bool rule_covers(const struct broker_device_rule *rule, const struct iommu_device_info *info)
{
	return (!rule->n_addresses ||
		(info->pci_address[0] &&
		 fits_glob(rule->addresses, rule->n_addresses, info->pci_address))) &&
	       (!rule->n_fids || fits_fid(rule, info)) && (!rule->n_ids || fits_id(rule, info));
}

static void judge_by(const struct broker_device_rule *rule, bool passed,
		     struct device_judgement *ret)
{
	*ret = (struct device_judgement){.kind = DEVICE_ALLOWED, .relaxed = rule->relaxed};
	if (rule->deny)
		ret->kind = DEVICE_DENIED;
	else if (passed && !rule->passed_descriptor)
		ret->kind = DEVICE_NO_DESCRIPTOR;
	memcpy(ret->where, rule->where, sizeof(ret->where));
}

void device_judge(const struct broker_settings *settings, const struct device_client *client,
		  bool passed, const struct iommu_device_info *info, struct device_judgement *ret)
{
	if (settings->open_devices) {
		*ret = (struct device_judgement){.kind = DEVICE_ALLOWED, .relaxed = true};
		snprintf(ret->where, sizeof(ret->where), "open to all");
		return;
	}
	for (size_t i = 0; i < settings->n_device_rules; i++) {
		const struct broker_device_rule *rule = &settings->device_rules[i];

		if (!rule->by_name && !passed)
			continue;
		if (rule_is_for(rule, client) && rule_covers(rule, info)) {
			judge_by(rule, passed, ret);
			return;
		}
	}
	*ret = (struct device_judgement){.kind = DEVICE_NO_RULE};
}

bool device_may_pass(const struct broker_settings *settings, const struct device_client *client)
{
	bool may = settings->open_devices;

	for (size_t i = 0; !may && i < settings->n_device_rules; i++) {
		const struct broker_device_rule *rule = &settings->device_rules[i];

		may = rule->passed_descriptor && !rule->deny && rule_is_for(rule, client);
	}
	return may;
}

/* ── in words ──────────────────────────────────────────────────────────────────────────────── */

/* Address, function id and vendor:device, as far as they are known: what a rule can go by. */
static void function_name(const struct iommu_device_info *info, char *ret, size_t ret_bytes)
{
	char name[IOMMU_DEVICE_NAME_BYTES];

	iommu_device_name(info, name);
	if (info->vendor || info->device)
		snprintf(ret, ret_bytes, "%s, %04x:%04x", name, info->vendor, info->device);
	else
		snprintf(ret, ret_bytes, "%s", name);
}

int device_refuse_judgement(const struct device_judgement *judgement,
			    const struct device_client *client,
			    const struct iommu_device_info *info, struct refusal *refusal)
{
	char name[IOMMU_DEVICE_NAME_BYTES + sizeof(", ffff:ffff")];

	function_name(info, name, sizeof(name));
	if (judgement->kind == DEVICE_DENIED)
		refuse(refusal, REFUSAL_DENIED, "DEVICE_DENIED",
		       "the rule at %s denies %s to tenant '%s'", judgement->where, name,
		       client->tenant);
	else if (judgement->kind == DEVICE_NO_DESCRIPTOR)
		refuse(refusal, REFUSAL_DENIED, "DESCRIPTOR_DENIED",
		       "the rule at %s does not let tenant '%s' pass in a descriptor of %s",
		       judgement->where, client->tenant, name);
	else
		refuse(refusal, REFUSAL_DENIED, "NO_DEVICE_RULE",
		       "no device rule lets tenant '%s', user %lu, have %s", client->tenant,
		       (unsigned long)client->uid, name);
	snprintf(refusal->tenant, sizeof(refusal->tenant), "%s", client->tenant);
	snprintf(refusal->rule, sizeof(refusal->rule), "%s", judgement->where);
	return REFUSED;
}

void device_note(const struct iommu_device_info *info, struct refusal *refusal)
{
	char name[IOMMU_DEVICE_NAME_BYTES + sizeof(", ffff:ffff")];

	function_name(info, name, sizeof(name));
	snprintf(refusal->note, sizeof(refusal->note), "the function is %s", name);
}
