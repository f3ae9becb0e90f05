/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_COMMAND_H
#define IB_CTL_COMMAND_H

/* iommubrokerctl's commands. Each returns the exit status. */

#include "ctl/rpc.h"

#define EXIT_REFUSED   1
#define EXIT_BAD_USAGE 2
#define EXIT_NO_DAEMON 3

struct command_context {
	struct rpc *rpc;
	const char *socket_path;
	bool json;
	/* explain: */
	bool has_function_id, has_nested;
	uint32_t function_id;
	uint64_t nested;
};

int command_status(struct command_context *context, int argc, char **argv);
int command_list(struct command_context *context, int argc, char **argv);
int command_show(struct command_context *context, int argc, char **argv);
int command_explain(struct command_context *context, int argc, char **argv);
int command_dump(struct command_context *context, int argc, char **argv);
int command_reload(struct command_context *context, int argc, char **argv);
int command_config(struct command_context *context, int argc, char **argv);

/* Told on stderr if it is not OK. */
int command_outcome(const struct command_context *context, const struct rpc_status *status);

#endif
