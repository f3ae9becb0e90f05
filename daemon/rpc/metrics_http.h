/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_METRICS_HTTP_H
#define IB_RPC_METRICS_HTTP_H

/*
 * GET /metrics over HTTP, for Prometheus: on a listening socket that the service manager made, on
 * a thread and an event loop of its own, so that whoever can reach the socket costs nobody else
 * anything.
 */

struct dispatcher;
struct metrics_http;

/* consume_fd: a listening stream socket; taken also on failure. 0 or a negative errno. */
int metrics_http_new(struct metrics_http **ret, struct dispatcher *dispatcher, int consume_fd);
/* Ends its connections and its thread. NULL is fine; returns NULL. */
struct metrics_http *metrics_http_free(struct metrics_http *http);

#endif
