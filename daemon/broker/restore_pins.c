/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the kernel counts as pinned by this process, against the ledger.
 *
 * The kernel counts twice: by user, which it tells nobody, and by process, which it goes on doing
 * with the dead one until the pins are handed over (IOMMU_IOAS_CHANGE_PROCESS). Where they were,
 * all that is pinned by what records say is counted with us, and nothing else is: a page that
 * nobody would unpin any more shows here.
 */
#include "broker/restore.h"

#include <errno.h>

#include "broker/root.h"
#include "util/process.h"

static uint64_t region_bytes(const struct guest *guest)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < guest->regions.n; i++)
		bytes += guest->regions.items[i].length;
	return bytes;
}

/* Guests without a device are charged, but nothing of theirs is pinned. */
static uint64_t unpinned_bytes(const struct restoring *guests, size_t n)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < n; i++)
		if (guests[i].guest && !guests[i].guest->pinned)
			bytes += region_bytes(guests[i].guest);
	return bytes;
}

/* Where the kernel has no such call it is the same for all; any other error is told rather. */
static int uncounted_error(const struct restoring *guests, size_t n)
{
	int error = 0;

	for (size_t i = 0; i < n; i++)
		if (guests[i].guest && guests[i].uncounted_error && (!error || error == EOPNOTSUPP))
			error = guests[i].uncounted_error;
	return error;
}

void restore_pins_compare(struct broker *broker, const struct restoring *guests, size_t n,
			  struct restore_report *report)
{
	struct usage host[LEDGER_RESOURCES];
	uint64_t kernel, ledger;

	report->uncounted_error = uncounted_error(guests, n);
	if (report->uncounted_error || !process_pinned_bytes(&kernel))
		return;
	ledger_usage(&broker->ledger, &broker->host, host);
	ledger = host[LEDGER_PINNED_BYTES].current - unpinned_bytes(guests, n);
	report->pins_compared = true;
	report->kernel_pinned_bytes = kernel;
	report->ledger_pinned_bytes = ledger;
}
