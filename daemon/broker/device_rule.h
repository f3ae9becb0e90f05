/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_DEVICE_RULE_H
#define IB_BROKER_DEVICE_RULE_H

/*
 * Who may have which function: the operator's rules, looked at in order, the first that matches
 * wins, whether it allows or denies. Nothing that no rule allows is open to anybody.
 *
 * Pure: says what the settings say, touches no device.
 */

#include "broker/broker.h"

/* Whose guest the device is, or is to be, for. */
struct device_client {
	const char *tenant;
	uid_t uid;
};

enum device_judgement_kind {
	DEVICE_ALLOWED,
	DEVICE_NO_RULE,       /* none matches */
	DEVICE_DENIED,        /* the first that matches has Allow=no */
	DEVICE_NO_DESCRIPTOR, /* it does not let the function in as a descriptor */
};

struct device_judgement {
	enum device_judgement_kind kind;
	bool relaxed;   /* with DEVICE_ALLOWED: relaxed translation too */
	char where[96]; /* file:line of the rule; "" if none matches */
};

/* info: what is known of the function, of which only its names and ids are looked at; what is not
 * known fits no rule that asks for it. passed: as a descriptor that its client opened. */
void device_judge(const struct broker_settings *settings, const struct device_client *client,
		  bool passed, const struct iommu_device_info *info, struct device_judgement *ret);
/* Whether any rule lets this client pass in a descriptor of anything. */
bool device_may_pass(const struct broker_settings *settings, const struct device_client *client);

/* REFUSED, PERMISSION_DENIED, for a judgement that is not ALLOWED. */
int device_refuse_judgement(const struct device_judgement *judgement,
			    const struct device_client *client,
			    const struct iommu_device_info *info, struct refusal *refusal);
/* For the log of a refusal, of whose function the client is told the name that it gave and no more:
 * all of it that a rule could go by. */
void device_note(const struct iommu_device_info *info, struct refusal *refusal);

#endif
