/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The fake broker's answers to an operator who takes away. */
#include <string.h>

#include "fake_broker.h"

static _Atomic bool draining;

/* As many as fake.revoke_n says. */
int broker_revoke(struct broker *broker, const struct revoke_request *request,
		  void (*done)(void *context, const struct revoked *revoked, size_t n),
		  void *context, struct refusal *refusal)
{
	static struct revoked revoked[FAKE_REVOKED_MAX];

	(void)broker;
	if (fake.refuse_revokes) {
		*refusal = fake.refusal;
		return REFUSED;
	}
	fake.revoke = *request;
	for (size_t i = 0; i < fake.revoke_n; i++) {
		revoked[i] = (struct revoked){
			.kind = request->what == REVOKE_DEVICE ? REVOKED_DEVICE : REVOKED_GUEST,
			.guest = i + 1,
			.info = {.has_fid = true, .fid = 0x12, .pci_address = "0000:00:04.0"},
			.still_held = i % 2,
		};
		strcpy(revoked[i].name, "guest");
		strcpy(revoked[i].tenant, "tenant-a");
	}
	done(context, revoked, fake.revoke_n);
	return 0;
}

bool broker_set_draining(struct broker *broker, bool now)
{
	(void)broker;
	return atomic_exchange(&draining, now) != now;
}

bool broker_draining(struct broker *broker)
{
	(void)broker;
	return atomic_load(&draining);
}
