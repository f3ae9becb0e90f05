/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What clients of this socket can do, and what bounds it. Anybody on the host may be one:
 *
 *   connect          CONNECTIONS_MAX at a time; the others wait in the socket's queue
 *   say nothing, or  a connection ends DEADLINE_S after it began, whatever it does; half of that
 *   read slowly      without a byte ends it too
 *   ask for much     a request line and headers of HEADER_BYTES_MAX, no body; one request a
 *                    connection
 *   ask often        the text is made at most once in TEXT_NS; until then the last one is given
 *
 * evhttp does not tell when a connection that never asked for anything ends. So we refer to each
 * one's bufferevent as well, and look a few times a second which of them evhttp has let go: those
 * have no callbacks any more. (Their clients saw the end at once: evhttp shuts the socket down.)
 */

#include "rpc/metrics_http.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/listener.h>

#include "rpc/loop.h"
#include "rpc/metrics_gather.h"
#include "util/clock.h"
#include "util/fd.h"

#define CONNECTIONS_MAX  16
#define DEADLINE_S       20
#define DEADLINE_NS      (DEADLINE_S * UINT64_C(1000000000))
#define SWEEP_US         100000
#define HEADER_BYTES_MAX 8192
#define TEXT_NS          UINT64_C(100000000)

#define OPENMETRICS "application/openmetrics-text; version=1.0.0; charset=utf-8"

struct connection {
	struct bufferevent *socket; /* a reference, or NULL: no connection here */
	uint64_t began_ns;
	bool shut;
};

struct metrics_http {
	struct dispatcher *dispatcher;
	struct loop *loop;
	struct evhttp *http;
	struct evconnlistener *listener; /* http's */
	struct event *sweep;
	pthread_t thread;
	bool running;
	unsigned int n_connections;
	struct connection connections[CONNECTIONS_MAX];
	char *text; /* the last one, or NULL */
	size_t text_bytes;
	uint64_t text_made_ns;
};

/* ── connections ──────────────────────────────────────────────────────────────────────────── */

static bool let_go(struct bufferevent *socket)
{
	bufferevent_data_cb read, write;
	bufferevent_event_cb event;
	void *context;

	bufferevent_getcb(socket, &read, &write, &event, &context);
	return !read && !write && !event;
}

/* Shut down, evhttp finds it closed as if the client had done it. */
static void connection_look(struct metrics_http *http, struct connection *connection,
			    uint64_t now_ns)
{
	if (let_go(connection->socket)) {
		bufferevent_decref(connection->socket);
		connection->socket = NULL;
		http->n_connections--;
	} else if (!connection->shut && now_ns - connection->began_ns > DEADLINE_NS) {
		shutdown(bufferevent_getfd(connection->socket), SHUT_RDWR);
		connection->shut = true;
	}
}

static void on_sweep(evutil_socket_t fd, short what, void *context)
{
	static const struct timeval interval = {.tv_usec = SWEEP_US};
	struct metrics_http *http = context;
	uint64_t now_ns = clock_monotonic_ns();

	(void)fd;
	(void)what;
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (http->connections[i].socket)
			connection_look(http, &http->connections[i], now_ns);
	if (http->n_connections < CONNECTIONS_MAX)
		evconnlistener_enable(http->listener);
	if (http->n_connections)
		event_add(http->sweep, &interval);
}

static void connection_add(struct metrics_http *http, struct bufferevent *socket)
{
	struct connection *place = http->connections;

	while (place->socket)
		place++;
	bufferevent_incref(socket);
	*place = (struct connection){.socket = socket, .began_ns = clock_monotonic_ns()};
}

/* evhttp asks for one while it accepts. While all places are taken it does not. */
static struct bufferevent *connection_new(struct event_base *base, void *context)
{
	static const struct timeval interval = {.tv_usec = SWEEP_US};
	struct metrics_http *http = context;
	struct bufferevent *socket = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);

	if (!socket) /* then evhttp tries it, as vainly */
		return NULL;
	connection_add(http, socket);
	if (!http->n_connections++)
		event_add(http->sweep, &interval);
	if (http->n_connections == CONNECTIONS_MAX)
		evconnlistener_disable(http->listener);
	return socket;
}

/* ── answering ────────────────────────────────────────────────────────────────────────────── */

static bool text_make(struct metrics_http *http)
{
	uint64_t now_ns = clock_monotonic_ns();
	char *text;
	size_t n;

	if (http->text && now_ns - http->text_made_ns < TEXT_NS)
		return true;
	if (metrics_gather(http->dispatcher, &text, &n))
		return false;
	free(http->text);
	http->text = text;
	http->text_bytes = n;
	http->text_made_ns = now_ns;
	return true;
}

/* Not evhttp_send_error(), which drops the headers. */
static void answer_error(struct evhttp_request *request, int code, const char *reason)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);

	evhttp_add_header(headers, "Connection", "close");
	evhttp_add_header(headers, "Content-Type", "text/plain");
	if (code == HTTP_BADMETHOD)
		evhttp_add_header(headers, "Allow", "GET");
	evbuffer_add_printf(evhttp_request_get_output_buffer(request), "%s\n", reason);
	evhttp_send_reply(request, code, reason, NULL);
}

static void on_metrics(struct evhttp_request *request, void *context)
{
	struct metrics_http *http = context;
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);

	if (evhttp_request_get_command(request) != EVHTTP_REQ_GET) {
		answer_error(request, HTTP_BADMETHOD, "Method Not Allowed");
		return;
	}
	if (!text_make(http) ||
	    evbuffer_add(evhttp_request_get_output_buffer(request), http->text, http->text_bytes)) {
		answer_error(request, HTTP_SERVUNAVAIL, "Service Unavailable");
		return;
	}
	evhttp_add_header(headers, "Connection", "close");
	evhttp_add_header(headers, "Content-Type", OPENMETRICS);
	evhttp_send_reply(request, HTTP_OK, "OK", NULL);
}

static void on_other(struct evhttp_request *request, void *context)
{
	(void)context;
	answer_error(request, HTTP_NOTFOUND, "Not Found");
}

/* ── life ─────────────────────────────────────────────────────────────────────────────────── */

static bool is_listening_stream(int fd)
{
	int type = 0, listening = 0;
	socklen_t n_type = sizeof(type), n_listening = sizeof(listening);

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n_type) && type == SOCK_STREAM &&
	       !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n_listening) && listening;
}

static int http_listen(struct metrics_http *http, int consume_fd)
{
	struct evhttp_bound_socket *bound = NULL;

	http->http = evhttp_new(loop_base(http->loop));
	http->sweep = evtimer_new(loop_base(http->loop), on_sweep, http);
	if (http->http && http->sweep && !evutil_make_socket_nonblocking(consume_fd))
		bound = evhttp_accept_socket_with_handle(http->http, consume_fd);
	if (!bound) {
		fd_close(consume_fd);
		return -ENOMEM;
	}
	http->listener = evhttp_bound_socket_get_listener(bound);
	evhttp_set_bevcb(http->http, connection_new, http);
	evhttp_set_max_headers_size(http->http, HEADER_BYTES_MAX);
	evhttp_set_max_body_size(http->http, 0);
	evhttp_set_timeout(http->http, DEADLINE_S / 2);
	/* Those are answered as HTTP says, by us; any other is no method that evhttp knows. */
	evhttp_set_allowed_methods(http->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST |
						       EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
						       EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
	evhttp_set_gencb(http->http, on_other, http);
	return evhttp_set_cb(http->http, "/metrics", on_metrics, http) ? -ENOMEM : 0;
}

static void *http_thread(void *context)
{
	struct metrics_http *http = context;

	loop_run(http->loop);
	return NULL;
}

/* Signals are the main thread's. */
static int http_start(struct metrics_http *http)
{
	sigset_t all, saved;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	error = pthread_create(&http->thread, NULL, http_thread, http);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	http->running = !error;
	return -error;
}

int metrics_http_new(struct metrics_http **ret, struct dispatcher *dispatcher, int consume_fd)
{
	struct metrics_http *http = calloc(1, sizeof(*http));
	int status = -ENOMEM;

	if (http) {
		http->dispatcher = dispatcher;
		status = is_listening_stream(consume_fd) ? loop_new(&http->loop) : -EINVAL;
	}
	if (status) {
		fd_close(consume_fd);
		free(http);
		return status;
	}
	status = http_listen(http, consume_fd);
	if (!status)
		status = http_start(http);
	if (status)
		metrics_http_free(http);
	else
		*ret = http;
	return status;
}

static void connections_drop(struct metrics_http *http)
{
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (http->connections[i].socket)
			bufferevent_decref(http->connections[i].socket);
}

struct metrics_http *metrics_http_free(struct metrics_http *http)
{
	if (!http)
		return NULL;
	if (http->running) {
		loop_exit(http->loop, 0);
		pthread_join(http->thread, NULL);
	}
	if (http->http)
		evhttp_free(http->http);
	connections_drop(http);
	if (http->sweep)
		event_free(http->sweep);
	loop_free(http->loop);
	free(http->text);
	free(http);
	return NULL;
}
