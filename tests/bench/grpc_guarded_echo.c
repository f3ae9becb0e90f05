/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The daemon's gRPC transport with an echo behind it: what the frame guard and a server for each
 * connection cost over a bare echo, without any broker.
 *
 *   grpc_guarded_echo SOCKET      until its standard input ends
 */

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_dispatcher.h"
#include "rpc/listener.h"

static void on_input(evutil_socket_t fd, short what, void *context)
{
	char byte;

	(void)what;
	if (read(fd, &byte, 1) <= 0)
		loop_exit(context, 0);
}

int main(int argc, char **argv)
{
	static const struct rpc_settings settings = {
		.calls_per_connection_max = 64,
		.first_request_ms = 10000,
	};
	struct dispatcher *dispatcher = fake_dispatcher_new(&settings);
	struct grpc_transport *transport;
	struct listener *listener;
	struct event *input;
	struct loop *loop;

	if (argc != 2 || loop_new(&loop) ||
	    grpc_transport_new(&transport, dispatcher, loop, RPC_DOOR_CLIENT) ||
	    listener_new(&listener, loop, argv[1], SOCK_STREAM, grpc_transport_accept, transport))
		return 1;
	input = event_new(loop_base(loop), STDIN_FILENO, EV_READ | EV_PERSIST, on_input, loop);
	if (!input || event_add(input, NULL))
		return 1;
	puts("ready");
	fflush(stdout);
	loop_run(loop);
	listener_free(listener);
	grpc_transport_free(transport);
	event_free(input);
	loop_free(loop);
	fake_dispatcher_free(dispatcher);
	return 0;
}
