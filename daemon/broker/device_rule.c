/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which user may open which function. Rules are looked at in order, the first that matches wins.
 *
 * A rule names a function by its zPCI id or by its PCI address, a request by either, and only the
 * opened device tells both. Opening a function takes it from everybody else for that moment, so it
 * is opened on a maybe only for a user whom some rule of the other kind concerns.
 */
#include <stdio.h>
#include <string.h>

#include "broker/device.h"

static bool rule_is_for(const struct broker_device_rule *rule, uid_t uid)
{
	return rule->any_user || rule->uid == uid;
}

static bool rule_names(const struct broker_device_rule *rule, const struct iommu_device_info *info)
{
	if (rule->any_function)
		return true;
	if (rule->by_fid)
		return info->has_fid && info->fid == rule->fid;
	return info->pci_address[0] && !strcmp(info->pci_address, rule->pci_address);
}

bool device_rule_may_open(const struct broker_settings *settings, uid_t uid,
			  const struct device_open_request *request, bool *ret_certain)
{
	const struct iommu_device_address *address = &request->address;
	bool maybe = false;

	*ret_certain = true;
	if (settings->open_devices)
		return true;
	for (size_t i = 0; i < settings->n_device_rules; i++) {
		const struct broker_device_rule *rule = &settings->device_rules[i];

		if (!rule_is_for(rule, uid))
			continue;
		if (request->by_descriptor) {
			maybe |= rule->passed_descriptor;
			continue;
		}
		if (rule->any_function)
			return true;
		if (rule->by_fid != address->by_fid)
			maybe = true;
		else if (rule->by_fid ? rule->fid == address->fid
				      : !strcmp(rule->pci_address, address->pci_address))
			return true;
	}
	*ret_certain = false;
	return maybe;
}

bool device_rule_match(const struct broker_settings *settings, uid_t uid, bool by_descriptor,
		       const struct iommu_device_info *info, struct device_grant *ret)
{
	if (settings->open_devices) {
		*ret = (struct device_grant){.relaxed = true};
		snprintf(ret->where, sizeof(ret->where), "open devices");
		return true;
	}
	for (size_t i = 0; i < settings->n_device_rules; i++) {
		const struct broker_device_rule *rule = &settings->device_rules[i];

		if (!rule_is_for(rule, uid) || !rule_names(rule, info))
			continue;
		/* The first that matches wins, also when it does not let descriptors in. */
		if (by_descriptor && !rule->passed_descriptor)
			return false;
		*ret = (struct device_grant){.relaxed = rule->relaxed};
		snprintf(ret->where, sizeof(ret->where), "%s", rule->where);
		return true;
	}
	return false;
}
