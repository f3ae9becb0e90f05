/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_DOMAIN_H
#define IB_BROKER_DOMAIN_H

/*
 * An address space with a page table over it, for a device to be attached to.
 *
 * A VMM holds its device's descriptor and can attach the device with it, also to a page table that
 * is about to be destroyed, and the kernel destroys nothing that is attached. Such a domain is
 * emptied, so that it shows nothing and pins nothing, and left over; it is tried again before
 * another one is made, and until it is gone none is. So a guest has never more domains in the
 * kernel than it once had with the broker's consent.
 */

#include <stdbool.h>
#include <stdint.h>

struct guest;
struct device;
struct leftover;
struct refusal;

struct domain {
	bool made;
	uint32_t ioas, page_table;
	struct leftover *leftover; /* set aside, so that the end needs no memory */
};

/* On the guest's lane. cuttable: for cut(). what: for people. */
int domain_new(struct guest *guest, struct device *device, bool cuttable, const char *what,
	       struct domain *ret, struct refusal *refusal);
/* One of a process before this one, by its ids. 0 or REFUSED. */
int domain_restore(struct domain *ret, uint32_t ioas, uint32_t page_table, struct refusal *refusal);
/* The same of one that was left over. */
int domain_restore_leftover(struct guest *guest, uint32_t ioas, uint32_t page_table,
			    bool has_page_table, struct refusal *refusal);
/* It shows nothing afterwards, and is not made; harmless on one that is not. */
void domain_end(struct guest *guest, struct domain *domain);
/* The same, but by domain_settle(), where records outlive this process: until the call is settled
 * they name it, and a successor attaches the device to it again. */
void domain_end_settled(struct guest *guest, struct domain *domain);
void domain_settle(struct guest *guest);
/* Write down what is left over. */
void domain_put_leftovers(struct guest *guest);
/* The guest's devices are closed: what is left over goes, or goes with the context. */
void domain_drop_leftovers(struct guest *guest);

#endif
