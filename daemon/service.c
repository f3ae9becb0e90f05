/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Wiring: store → backend → broker → dispatcher → transports → listeners, built in that order and
 * taken down in the opposite one, so that nothing is ever called after it is gone. Where guests
 * outlive the process nothing is taken down: it ends as it is.
 */

#include "service.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "passed.h"
#include "reload.h"
#include "ring_glue.h"
#include "rpc/grpc_log.h"
#include "rpc/listener.h"
#include "rpc/metrics_http.h"
#include "rpc/metrics_lag.h"
#include "status_line.h"
#include "util/fd.h"
#include "util/guest_read.h"
#include "util/log.h"
#include "watchdog.h"

#define PATH_BYTES     300
#define STATUS_SECONDS 2 /* how old the line that systemd shows may be */

struct service {
	const struct options *options;
	struct config *config;
	struct passed passed;
	struct fd_store *store;
	struct broker *broker;
	struct ring_server *rings;
	struct loop *loop;
	struct dispatcher *dispatcher;
	struct native_transport *native;
	struct grpc_transport *grpc, *grpc_admin;
	struct listener *broker_listener, *fd_listener, *admin_listener;
	struct metrics_http *metrics;
	struct metrics_lag lag;
	struct event *terminate, *interrupt, *hangup, *status;
	struct watchdog watchdog;
	struct status_line status_line;
	struct reload reload;
	int signal; /* that told to stop */
};

static int broke(const char *what, int status)
{
	log_error("%s: %s", what, strerror(-status));
	return status;
}

static int backend_start(struct service *service, struct iommu_backend **ret)
{
	struct config *config = service->config;
	int status;

	if (service->options->emulated) {
		config->broker.open_devices = !config->broker.n_device_rules;
		status = iommu_emulated_new(ret, config->emulated, config->n_emulated);
		return status ? broke("cannot start the emulated backend", status) : 0;
	}
	status = iommu_iommufd_new(ret, "/dev/iommu", "/dev/vfio", "/sys");
	if (status == -ENOENT)
		log_as(LOG_LEVEL_ERROR, LOG_MESSAGE_BACKEND,
		       "no /dev/iommu: this kernel has no IOMMUFD, or the module is not loaded");
	else if (status == -EACCES || status == -EPERM)
		log_as(LOG_LEVEL_ERROR, LOG_MESSAGE_BACKEND,
		       "may not open /dev/iommu: the daemon's group must own it, see the udev "
		       "rule");
	if (status)
		return broke("cannot start the iommufd backend", status);
	return 0;
}

/* What the manager keeps, if it says so, or less. */
static size_t store_max(const struct service *service)
{
	const char *text = getenv("FDSTORE");
	size_t max = service->config->descriptor_store_max;
	char *end = NULL;
	unsigned long long kept = text ? strtoull(text, &end, 10) : 0;

	return text && end != text && !*end && kept < max ? kept : max;
}

static int store_start(struct service *service)
{
	int status = fd_store_new(&service->store, store_max(service));

	if (status)
		return broke("cannot keep a descriptor store", status);
	status = passed_take(&service->passed, service->store);
	return status ? broke("cannot read what systemd passed", status) : 0;
}

/* Where the configuration says by now that nothing is stored, this process alone has it. */
static void stored_withdraw(const struct service *service)
{
	const struct passed *passed = &service->passed;
	char name[FD_NAME_BYTES];

	for (size_t i = 0; !fd_store_keeps(service->store) && i < passed->n_stored; i++) {
		fd_name_format(&passed->stored[i].name, name);
		fd_store_remove_foreign(name);
	}
}

static void pins_tell(const struct restore_report *report)
{
	struct log_entry entry;

	if (report->uncounted_error && report->uncounted_error != EOPNOTSUPP)
		log_warning("what guests have pinned goes on being counted with the process before "
			    "this one: %s",
			    strerror(report->uncounted_error));
	if (!report->pins_compared || report->kernel_pinned_bytes == report->ledger_pinned_bytes)
		return;
	log_begin(&entry, LOG_LEVEL_WARNING);
	entry.message = LOG_MESSAGE_PINS_DIFFER;
	log_field(&entry, "IOMMUBROKER_KERNEL_BYTES", "%llu",
		  (unsigned long long)report->kernel_pinned_bytes);
	log_field(&entry, "IOMMUBROKER_LEDGER_BYTES", "%llu",
		  (unsigned long long)report->ledger_pinned_bytes);
	log_end(&entry,
		"the kernel counts %llu bytes as pinned, the ledger of the guests that were "
		"taken over has %llu",
		(unsigned long long)report->kernel_pinned_bytes,
		(unsigned long long)report->ledger_pinned_bytes);
}

/* What a process before this one left with the service manager goes on. */
static int guests_restore(struct service *service)
{
	struct passed *passed = &service->passed;
	struct restore_report report;
	int status;

	if (!passed->n_stored)
		return 0;
	sd_notify(0, "STATUS=Taking guests over from the process before");
	status = broker_restore(service->broker, passed->stored, passed->n_stored, &report);
	stored_withdraw(service);
	passed_forget_stored(passed);
	if (status)
		return broke("cannot take over what is stored", status);
	log_as(LOG_LEVEL_INFO, LOG_MESSAGE_RESTORED,
	       "%u guests with %llu regions and %llu mappings taken over in %llu ms, %u released",
	       report.guests, (unsigned long long)report.regions,
	       (unsigned long long)report.mappings, (unsigned long long)report.ns / 1000000,
	       report.released);
	pins_tell(&report);
	return 0;
}

/* Only now: to hand guests' pins from one process to another the kernel counts them two times for a
 * moment. */
static void memlock_set(const struct service *service)
{
	const struct limit_set *host = &service->config->broker.limits[LIMIT_HOST];

	if (!service->options->emulated)
		reload_memlock(host->max[LEDGER_PINNED_BYTES].max);
}

static int broker_start(struct service *service)
{
	struct iommu_backend *backend;
	int status = backend_start(service, &backend);

	if (status)
		return status;
	status = broker_new(&service->broker, backend, &service->config->broker);
	if (status)
		return broke("cannot start", status);
	if (fd_store_keeps(service->store))
		broker_set_store(service->broker, service->store);
	status = guests_restore(service);
	if (!status)
		memlock_set(service);
	return status;
}

static int model_start(struct service *service)
{
	int status = store_start(service);

	if (!status)
		status = broker_start(service);
	if (status)
		return status;
	status = loop_new(&service->loop);
	if (status)
		return broke("cannot make the event loop", status);
	status = dispatcher_new(&service->dispatcher, service->broker, service->loop,
				&service->config->rpc);
	if (status)
		return broke("cannot start dispatching", status);
	dispatcher_restore(service->dispatcher);
	status = ring_server_new(&service->rings, service->broker, service->config->ring_threads);
	if (status)
		return broke("cannot serve update rings", status);
	ring_server_adopt(service->rings);
	dispatcher_set_rings(service->dispatcher, &ring_glue, service->rings);
	reload_init(&service->reload, service->options, service->config, service->broker,
		    service->dispatcher);
	dispatcher_set_operator(service->dispatcher, &reload_operator, &service->reload);
	return 0;
}

static int transports_start(struct service *service)
{
	int status = native_transport_new(&service->native, service->dispatcher, service->loop);

	if (!status)
		status = grpc_transport_new(&service->grpc, service->dispatcher, service->loop,
					    RPC_DOOR_CLIENT);
	if (!status)
		status = grpc_transport_new(&service->grpc_admin, service->dispatcher,
					    service->loop, RPC_DOOR_ADMIN);
	return status ? broke("cannot start the transports", status) : 0;
}

/* A folder that exists stays as it is: the operator may have set it up. */
static int folder_make(const char *path, mode_t mode)
{
	if (mkdir(path, mode) && errno != EEXIST) {
		log_error("cannot make %s: %s", path, strerror(errno));
		return -errno;
	}
	return 0;
}

static int listen_at(struct service *service, struct listener **ret, int adopted_fd,
		     const char *folder, mode_t folder_mode, const char *name, int type,
		     listener_accept_fn accept, void *context)
{
	char path[PATH_BYTES];
	int status;

	if (adopted_fd >= 0) {
		status = listener_adopt(ret, service->loop, adopted_fd, type, accept, context);
		return status ? broke("cannot use the socket that systemd passed", status) : 0;
	}
	status = folder_make(folder, folder_mode);
	if (status)
		return status;
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	status = listener_new(ret, service->loop, path, type, accept, context);
	if (status)
		log_error("cannot listen at %s: %s", path, strerror(-status));
	return status;
}

/* Only on a socket that the service manager passes: without it there is no such listener. */
static int metrics_start(struct service *service)
{
	int status;

	if (service->passed.metrics_fd < 0)
		return 0;
	status = metrics_http_new(&service->metrics, service->dispatcher,
				  service->passed.metrics_fd);
	return status ? broke("cannot serve metrics at the socket that systemd passed", status) : 0;
}

static int listeners_start(struct service *service)
{
	const struct options *options = service->options;
	const struct passed *passed = &service->passed;
	int status =
		listen_at(service, &service->fd_listener, passed->fd_fd, options->runtime_dir, 0755,
			  "fd.sock", SOCK_SEQPACKET, native_transport_accept, service->native);

	if (!status)
		status = listen_at(service, &service->broker_listener, passed->broker_fd,
				   options->runtime_dir, 0755, "broker.sock", SOCK_STREAM,
				   grpc_transport_accept, service->grpc);
	if (!status)
		status = listen_at(service, &service->admin_listener, passed->admin_fd,
				   options->admin_dir, 0700, "admin.sock", SOCK_STREAM,
				   grpc_transport_accept, service->grpc_admin);
	if (!status)
		status = metrics_start(service);
	return status;
}

static void on_signal(evutil_socket_t signal, short what, void *context)
{
	struct service *service = context;

	(void)what;
	log_as(LOG_LEVEL_INFO, LOG_MESSAGE_STOPPING, "stopping on signal %d", (int)signal);
	service->signal = (int)signal;
	loop_exit(service->loop, 0);
}

static void on_hangup(evutil_socket_t signal, short what, void *context)
{
	struct service *service = context;

	(void)signal;
	(void)what;
	reload_later(&service->reload);
}

static void on_status(evutil_socket_t fd, short what, void *context)
{
	struct service *service = context;

	(void)fd;
	(void)what;
	status_line_update(&service->status_line, service->broker);
}

/* Only under systemd: nobody else is told. */
static int status_start(struct service *service)
{
	struct timeval interval = {.tv_sec = STATUS_SECONDS};

	if (!getenv("NOTIFY_SOCKET"))
		return 0;
	service->status = event_new(loop_base(service->loop), -1, EV_PERSIST, on_status, service);
	if (!service->status || event_add(service->status, &interval))
		return broke("cannot keep the status line", -ENOMEM);
	return 0;
}

static int events_start(struct service *service)
{
	struct event_base *base = loop_base(service->loop);

	service->terminate = evsignal_new(base, SIGTERM, on_signal, service);
	service->interrupt = evsignal_new(base, SIGINT, on_signal, service);
	service->hangup = evsignal_new(base, SIGHUP, on_hangup, service);
	if (!service->terminate || !service->interrupt || !service->hangup ||
	    event_add(service->terminate, NULL) || event_add(service->interrupt, NULL) ||
	    event_add(service->hangup, NULL))
		return broke("cannot watch for signals", -ENOMEM);
	if (watchdog_start(&service->watchdog, service->loop, service->grpc, service->rings))
		return broke("cannot serve the watchdog", -ENOMEM);
	if (metrics_lag_start(&service->lag, service->dispatcher, service->loop))
		return broke("cannot watch the event loop", -ENOMEM);
	return status_start(service);
}

static void event_drop(struct event *event)
{
	if (event)
		event_free(event);
}

/* gRPC keeps something, and its threads go on. They have no call any more: guests are taken down in
 * good order, and the rest ends with the process. */
static void give_up(struct service *service)
{
	native_transport_free(service->native);
	reload_stop(&service->reload);
	ring_server_free(service->rings);
	broker_free(service->broker);
	log_error("stopping without what gRPC keeps");
	_exit(EXIT_FAILURE);
}

/* Guests, and all that was promised, lie with the service manager: there is nothing to do. What
 * threads are at is as good as killed, which can happen at any instant anyway. */
static _Noreturn void service_leave(struct service *service, int status)
{
	sd_notify(0, "STOPPING=1\nSTATUS=Stopping, guests go on");
	broker_leave(service->broker);
	fflush(NULL);
	_exit(status ? EXIT_FAILURE : EXIT_SUCCESS);
}

static void service_stop(struct service *service)
{
	listener_free(service->broker_listener);
	listener_free(service->fd_listener);
	listener_free(service->admin_listener);
	watchdog_stop(&service->watchdog);
	metrics_http_free(service->metrics);
	dispatcher_stop(service->dispatcher);
	if (grpc_transport_free(service->grpc) || grpc_transport_free(service->grpc_admin))
		give_up(service);
	native_transport_free(service->native);
	reload_stop(&service->reload);
	dispatcher_free(service->dispatcher);
	ring_server_free(service->rings);
	broker_free(service->broker);
	fd_store_free(service->store);
	passed_forget_stored(&service->passed);
	reload_deinit(&service->reload);
	metrics_lag_stop(&service->lag);
	event_drop(service->terminate);
	event_drop(service->interrupt);
	event_drop(service->hangup);
	event_drop(service->status);
	loop_free(service->loop);
}

static int service_start(struct service *service)
{
	int status = guest_read_init();

	if (status)
		return broke("cannot guard reads of guest memory", status);
	grpc_errqueue_guard();
	signal(SIGPIPE, SIG_IGN);
	status = model_start(service);
	if (!status)
		status = transports_start(service);
	if (!status)
		status = events_start(service);
	if (!status)
		status = listeners_start(service);
	return status;
}

int service_run(const struct options *options, struct config *config)
{
	struct service service = {.options = options, .config = config};
	int status = service_start(&service);

	if (!status) {
		log_as(LOG_LEVEL_INFO, LOG_MESSAGE_STARTED,
		       "iommubrokerd %s serves at %s, backend %s", IB_VERSION, options->runtime_dir,
		       broker_backend_name(service.broker));
		status_line_update(&service.status_line, service.broker);
		sd_notify(0, "READY=1");
		status = loop_run(service.loop);
		if (status)
			log_as(LOG_LEVEL_ERROR, LOG_MESSAGE_BROKEN, "broken, stopping: %s",
			       strerror(-status));
		if (fd_store_keeps(service.store) && service.signal != SIGINT)
			service_leave(&service, status);
		sd_notify(0, "STOPPING=1\nSTATUS=Stopping, taking guests down");
	}
	service_stop(&service);
	return status;
}
