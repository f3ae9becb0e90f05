/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/domain.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "broker/backend_call.h"
#include "broker/device.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/root.h"
#include "util/crash_point.h"

struct leftover {
	bool has_page_table;
	uint32_t ioas, page_table;
	struct leftover *next; /* guest->lock */
};

static bool leftover_destroy(struct guest *guest, struct leftover *leftover)
{
	if (leftover->has_page_table)
		leftover->has_page_table = !backend_destroy(guest, leftover->page_table);
	CRASH_POINT(DOMAIN_HALF);
	return !leftover->has_page_table && backend_destroy(guest, leftover->ioas);
}

static struct leftover *leftover_take(struct guest *guest)
{
	struct leftover *first;

	pthread_mutex_lock(&guest->lock);
	first = guest->leftovers;
	if (first)
		LL_DELETE(guest->leftovers, first);
	pthread_mutex_unlock(&guest->lock);
	return first;
}

static void leftover_put(struct guest *guest, struct leftover *leftover)
{
	pthread_mutex_lock(&guest->lock);
	LL_PREPEND(guest->leftovers, leftover);
	pthread_mutex_unlock(&guest->lock);
}

/* Whether none is left. Stops at the first that stays: the guest gets nothing new anyway. */
static bool leftovers_clear(struct guest *guest)
{
	struct leftover *leftover;

	while ((leftover = leftover_take(guest))) {
		if (!leftover_destroy(guest, leftover)) {
			leftover_put(guest, leftover);
			return false;
		}
		free(leftover);
	}
	return true;
}

static int domain_make(struct guest *guest, struct device *device, bool cuttable, const char *what,
		       struct domain *domain, struct refusal *refusal)
{
	const struct iommu_backend_ops *ops = broker_ops(guest->broker);
	int error = ops->ioas_new(guest->context, cuttable, &domain->ioas);

	if (error)
		return parent_refuse_errno(guest, error, what, refusal);
	save_note_id(guest, domain->ioas);
	CRASH_POINT(NESTED_IOAS);
	error = ops->page_table_new(guest->context, device->backend, domain->ioas,
				    &domain->page_table);
	if (!error) {
		save_note_id(guest, domain->page_table);
		CRASH_POINT(NESTED_PAGE_TABLE);
		return 0;
	}
	backend_destroy(guest, domain->ioas);
	return parent_refuse_errno(guest, error, what, refusal);
}

int domain_new(struct guest *guest, struct device *device, bool cuttable, const char *what,
	       struct domain *ret, struct refusal *refusal)
{
	struct domain domain = {.made = true};

	if (!leftovers_clear(guest))
		return refuse(refusal, REFUSAL_PRECONDITION, "DOMAIN_STILL_ATTACHED",
			      "a domain of this guest that was destroyed is still attached: one of "
			      "its devices was attached through its own descriptor; detach it");
	domain.leftover = calloc(1, sizeof(*domain.leftover));
	if (!domain.leftover)
		return refuse_errno(refusal, ENOMEM, what);
	if (domain_make(guest, device, cuttable, what, &domain, refusal)) {
		free(domain.leftover);
		return REFUSED;
	}
	*ret = domain;
	return 0;
}

int domain_restore(struct domain *ret, uint32_t ioas, uint32_t page_table, struct refusal *refusal)
{
	struct leftover *leftover = calloc(1, sizeof(*leftover));

	if (!leftover)
		return refuse_errno(refusal, ENOMEM, "domain");
	*ret = (struct domain){
		.made = true,
		.ioas = ioas,
		.page_table = page_table,
		.leftover = leftover,
	};
	return 0;
}

int domain_restore_leftover(struct guest *guest, uint32_t ioas, uint32_t page_table,
			    bool has_page_table, struct refusal *refusal)
{
	struct leftover *leftover = calloc(1, sizeof(*leftover));

	if (!leftover)
		return refuse_errno(refusal, ENOMEM, "domain");
	*leftover = (struct leftover){
		.has_page_table = has_page_table,
		.ioas = ioas,
		.page_table = page_table,
	};
	leftover_put(guest, leftover);
	return 0;
}

/* Without the page table nothing translates any more, and without the address space nothing is
 * shown; that is one call each, however much is installed. */
static void leftover_end(struct guest *guest, struct leftover *consume_leftover)
{
	if (leftover_destroy(guest, consume_leftover)) {
		free(consume_leftover);
		return;
	}
	backend_unmap(guest, consume_leftover->ioas, 0, UINT64_MAX);
	leftover_put(guest, consume_leftover);
}

static struct leftover *leftover_of(struct domain *domain)
{
	struct leftover *leftover = domain->leftover;

	*leftover = (struct leftover){
		.has_page_table = true,
		.ioas = domain->ioas,
		.page_table = domain->page_table,
	};
	*domain = (struct domain){0};
	return leftover;
}

void domain_end(struct guest *guest, struct domain *domain)
{
	if (domain->made)
		leftover_end(guest, leftover_of(domain));
}

void domain_end_settled(struct guest *guest, struct domain *domain)
{
	if (!fd_store_keeps(guest->broker->store))
		domain_end(guest, domain);
	else if (domain->made)
		leftover_put(guest, leftover_of(domain));
}

void domain_settle(struct guest *guest)
{
	struct leftover *all, *leftover;

	pthread_mutex_lock(&guest->lock);
	all = guest->leftovers;
	guest->leftovers = NULL;
	pthread_mutex_unlock(&guest->lock);
	while ((leftover = all)) {
		LL_DELETE(all, leftover);
		leftover_end(guest, leftover);
	}
}

void domain_put_leftovers(struct guest *guest)
{
	const struct leftover *leftover;

	pthread_mutex_lock(&guest->lock);
	LL_FOREACH(guest->leftovers, leftover)
	{
		const struct record_leftover record = {
			.ioas = leftover->ioas,
			.page_table = leftover->page_table,
			.has_page_table = leftover->has_page_table,
		};

		record_put(&guest->kept.writer, RECORD_LEFTOVER, RECORD_MUST_KNOW, &record,
			   sizeof(record), NULL, 0);
	}
	pthread_mutex_unlock(&guest->lock);
}

void domain_drop_leftovers(struct guest *guest)
{
	struct leftover *leftover;

	while ((leftover = leftover_take(guest))) {
		leftover_destroy(guest, leftover);
		free(leftover);
	}
}
