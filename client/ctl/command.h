/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CTL_COMMAND_H
#define IB_CTL_COMMAND_H

/* iommubrokerctl's commands. Each returns the exit status. */

#include <stdio.h>

#include "ctl/command_table.h"
#include "ctl/exit_status.h"
#include "ctl/rpc.h"

#define COMMAND_ADMIN_DIR "/run/iommubroker-admin"

struct command_context {
	struct rpc *rpc;
	const char *socket_path;
	const struct options *options;
};

/* argv: what follows the command's name, without options; as many as its row says. */
typedef int (*command_fn)(struct command_context *context, int argc, char **argv);

int command_status(struct command_context *context, int argc, char **argv);
int command_list(struct command_context *context, int argc, char **argv);
int command_show(struct command_context *context, int argc, char **argv);
int command_top(struct command_context *context, int argc, char **argv);
int command_monitor(struct command_context *context, int argc, char **argv);
int command_explain(struct command_context *context, int argc, char **argv);
int command_dump(struct command_context *context, int argc, char **argv);
int command_quota(struct command_context *context, int argc, char **argv);
int command_quota_explain(struct command_context *context, int argc, char **argv);
int command_check_fit(struct command_context *context, int argc, char **argv);
int command_config_check(struct command_context *context, int argc, char **argv);
int command_config_show(struct command_context *context, int argc, char **argv);
int command_reload(struct command_context *context, int argc, char **argv);
int command_revoke(struct command_context *context, int argc, char **argv);
int command_drain(struct command_context *context, int argc, char **argv);
int command_doctor(struct command_context *context, int argc, char **argv);
int command_metrics(struct command_context *context, int argc, char **argv);
int command_names(struct command_context *context, int argc, char **argv);

/* Told on stderr if it is not OK, as JSON if that was asked for. */
int command_outcome(const struct command_context *context, const struct rpc_status *status);
/* A mistake in the usage that is found while the command runs. */
int command_bad_usage(const struct command_context *context, const char *message);
/* An error that is ours to tell. code: as in the API, "INVALID_ARGUMENT". */
void command_tell(const struct options *options, enum exit_status exit_status, const char *code,
		  const char *message);

/* rpc_message_fn: the message as JSON, or what it holds; user_data is not looked at. */
bool command_print_json(void *user_data, const ProtobufCMessage *message);
/* The same on one line, told at once. */
bool command_print_json_line(void *user_data, const ProtobufCMessage *message);

void usage_print(FILE *to);
void usage_print_command(FILE *to, const struct command_row *row);
/* Whether commands of two words begin with it, and if so what is missing: "config takes check or
 * show". */
bool usage_find_group(const char *word, char mistake[OPTION_MISTAKE_BYTES]);
/* They and what they do; false: there are none. */
bool usage_print_group(FILE *to, const char *word);

/* The whole program, but for the process. */
int ctl_main(int argc, char **argv);

#endif
