/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See fake_service.h. */

#include "fake_service.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"

#define METHOD(name)     IOMMUBROKER__V1__METHOD__METHOD_##name
#define CODE_UNAVAILABLE 14
#define CODE_NO_SESSION  16

static const uint8_t secret[16] = "0123456789abcde";

static void must(bool good, const char *what)
{
	if (good)
		return;
	perror(what);
	abort();
}

/* ── requests ─────────────────────────────────────────────────────────────────────────────── */

uint64_t fake_request_id(const struct fake_request *request)
{
	uint64_t id = 0;
	unsigned int shift = 0;

	/* Field 1 comes first: a varint. */
	if (request->n_message < 2 || request->message[0] != 0x08)
		return 0;
	for (size_t i = 1; i < request->n_message; i++, shift += 7) {
		id |= (uint64_t)(request->message[i] & 0x7f) << shift;
		if (!(request->message[i] & 0x80))
			break;
	}
	return id;
}

bool fake_service_did(struct fake_service *service, uint64_t request_id)
{
	for (size_t i = 0; i < service->n_done; i++)
		if (service->done[i] == request_id)
			return true;
	must(service->n_done < FAKE_IDS_MAX, "ids");
	service->done[service->n_done++] = request_id;
	return false;
}

static void open_session(struct fake_service *service, const struct fake_request *request)
{
	Iommubroker__V1__OpenSessionResponse opened = IOMMUBROKER__V1__OPEN_SESSION_RESPONSE__INIT;

	opened.tenant = (char *)"tenant-a";
	opened.secret = (ProtobufCBinaryData){sizeof(secret), (uint8_t *)secret};
	service->joined = true;
	fake_answer(&service->daemon, request, &opened.base);
}

static void join_session(struct fake_service *service, const struct fake_request *request)
{
	Iommubroker__V1__JoinSessionRequest *join = iommubroker__v1__join_session_request__unpack(
		NULL, request->n_message, request->message);

	if (join == NULL || join->secret.len != sizeof(secret) ||
	    memcmp(join->secret.data, secret, sizeof(secret)) != 0)
		service->broken = true;
	iommubroker__v1__join_session_request__free_unpacked(join, NULL);
	service->joins++;
	if (service->silent)
		return;
	if (service->forgets) {
		fake_refuse(&service->daemon, request, CODE_NO_SESSION, "no session", NULL, 0);
	} else if (service->joins_refused > 0) {
		service->joins_refused--;
		fake_refuse(&service->daemon, request, CODE_UNAVAILABLE, "later", NULL, 0);
	} else {
		service->joined = true;
		fake_answer(&service->daemon, request, NULL);
	}
}

static void serve(struct fake_daemon *daemon, const struct fake_request *request, void *user_data)
{
	struct fake_service *service = user_data;

	if (request->method == METHOD(OPEN_SESSION))
		open_session(service, request);
	else if (request->method == METHOD(JOIN_SESSION))
		join_session(service, request);
	else if (!service->joined)
		service->broken = true;
	else
		service->serve(daemon, request, service->user_data);
	/* With the next one in the socket, and unread. */
	if (service->dies_unread && service->joined) {
		struct pollfd poll_fd = {daemon->fd, POLLIN, 0};

		poll(&poll_fd, 1, -1);
		service->dies_unread = false;
		fake_service_die(service);
	}
}

/* ── lives ────────────────────────────────────────────────────────────────────────────────── */

static void listen_again(struct fake_service *service)
{
	unlink(service->address.sun_path);
	service->listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	must(service->listening >= 0, "socket");
	must(bind(service->listening, (struct sockaddr *)&service->address,
		  sizeof(service->address)) == 0,
	     "bind");
	must(listen(service->listening, 8) == 0, "listen");
}

/* -1: no more. */
static int next_life(struct fake_service *service)
{
	int fd;

	for (;;) {
		pthread_mutex_lock(&service->lock);
		while (service->hidden && !service->stopping)
			pthread_cond_wait(&service->changed, &service->lock);
		if (service->stopping) {
			pthread_mutex_unlock(&service->lock);
			return -1;
		}
		fd = service->listening;
		pthread_mutex_unlock(&service->lock);
		fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0 && !service->hangs_up)
			return fd;
		if (fd >= 0)
			close(fd);
	}
}

static void *live(void *user_data)
{
	struct fake_service *service = user_data;
	int fd;

	while ((fd = next_life(service)) >= 0) {
		pthread_mutex_lock(&service->lock);
		service->daemon.fd = fd;
		service->daemon.dead = false;
		if (service->stopping)
			shutdown(fd, SHUT_RDWR);
		pthread_mutex_unlock(&service->lock);
		service->joined = false;
		service->lives++;
		fake_run(&service->daemon, true);
		pthread_mutex_lock(&service->lock);
		service->daemon.fd = -1;
		pthread_mutex_unlock(&service->lock);
		close(fd);
	}
	return NULL;
}

void fake_service_start(struct fake_service *service, fake_serve_fn serve_fn, void *user_data)
{
	memset(service, 0, sizeof(*service));
	service->daemon = (struct fake_daemon){.fd = -1, .serve = serve, .user_data = service};
	service->serve = serve_fn;
	service->user_data = user_data;
	pthread_mutex_init(&service->lock, NULL);
	pthread_cond_init(&service->changed, NULL);
	strcpy(service->dir, "/tmp/fake-service-XXXXXX");
	must(mkdtemp(service->dir) != NULL, "mkdtemp");
	service->address.sun_family = AF_UNIX;
	snprintf(service->address.sun_path, sizeof(service->address.sun_path), "%s/fd.sock",
		 service->dir);
	listen_again(service);
	must(pthread_create(&service->thread, NULL, live, service) == 0, "pthread_create");
}

void fake_service_stop(struct fake_service *service)
{
	pthread_mutex_lock(&service->lock);
	service->stopping = true;
	if (service->listening >= 0)
		shutdown(service->listening, SHUT_RDWR);
	if (service->daemon.fd >= 0)
		fake_die(&service->daemon);
	pthread_cond_signal(&service->changed);
	pthread_mutex_unlock(&service->lock);
	pthread_join(service->thread, NULL);
	if (service->listening >= 0)
		close(service->listening);
	unlink(service->address.sun_path);
	rmdir(service->dir);
	pthread_cond_destroy(&service->changed);
	pthread_mutex_destroy(&service->lock);
}

void fake_service_die(struct fake_service *service)
{
	pthread_mutex_lock(&service->lock);
	if (service->daemon.fd >= 0)
		fake_die(&service->daemon);
	pthread_mutex_unlock(&service->lock);
}

void fake_service_hide(struct fake_service *service)
{
	pthread_mutex_lock(&service->lock);
	service->hidden = true;
	shutdown(service->listening, SHUT_RDWR);
	unlink(service->address.sun_path);
	pthread_mutex_unlock(&service->lock);
}

void fake_service_show(struct fake_service *service)
{
	pthread_mutex_lock(&service->lock);
	close(service->listening);
	listen_again(service);
	service->hidden = false;
	pthread_cond_signal(&service->changed);
	pthread_mutex_unlock(&service->lock);
}
