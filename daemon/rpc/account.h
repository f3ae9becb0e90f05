/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_ACCOUNT_H
#define IB_RPC_ACCOUNT_H

/*
 * Who is charged for a client's connection and for its calls.
 *
 * A connection finds its tenant when it is accepted and is charged to it, as every call is while it
 * is in flight. Who has no room, or no rule that it could be charged by, is not turned away without
 * a word: a few connections beyond the limits are taken on, outside of the ledger, and each of
 * their calls is answered with the refusal. One that had no room gets in as soon as there is some,
 * and so does one that came too soon after others; one that came only a little too soon is served,
 * but its calls wait until it would have been its turn.
 *
 * Operators' connections have no account (NULL): the admin socket has a bound of its own.
 */

#include <stdint.h>

#include "broker/broker.h"
#include "rpc/dispatch.h"

/* Of connections that are only told why they are refused: of each user, and of all. */
#define ACCOUNT_REFUSED_PER_USER_MAX 4
#define ACCOUNT_REFUSED_MAX          64

struct rpc_account *rpc_account_ref(struct rpc_account *account);   /* NULL is fine */
struct rpc_account *rpc_account_unref(struct rpc_account *account); /* returns NULL */

/* One call more, or one fewer. account NULL: nothing is charged. 0 or REFUSED. */
int rpc_account_charge_call(struct rpc_account *account, struct refusal *refusal);
void rpc_account_refund_call(struct rpc_account *account);
/* It is what request says, of which the times are set here. *ret_due_ns (monotonic) is when it may
 * go on, 0: at once. REFUSED (RATE): not within RateDelayMax; but what gives_back is never refused.
 */
int rpc_account_pay(struct rpc_account *account, const struct rate_request *request,
		    uint64_t *ret_due_ns, struct refusal *refusal);
/* What else a call holds while it waits or runs; without an account at the host. 0 or REFUSED. */
int rpc_account_charge(struct broker *broker, struct rpc_account *account,
		       enum ledger_resource resource, uint64_t amount, struct refusal *refusal);
void rpc_account_refund(struct broker *broker, struct rpc_account *account,
			enum ledger_resource resource, uint64_t amount);

#endif
