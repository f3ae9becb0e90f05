/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The daemon under test; see machine.h. */

#include "machine.h"

#include <fcntl.h>
#include <grp.h>
#include <jansson.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "proc.h"
#include "supervisor.h"

#define DAEMON           "/usr/libexec/iommubroker/iommubrokerd"
#define READY_MS         60000 /* emulated machines are slow; nothing is judged by it */
#define EMPTY_TRIES      600
#define EMPTY_PAUSE_US   50000
#define SETTLED_LOOKS    10
#define SETTLED_PAUSE_US 20000
#define DESCRIPTORS_MAX  131072
#define VARIABLES_MAX    16u

static const char *const kernel_trouble[] = {
	"WARNING:", "BUG:", "Oops", "Call Trace", "Unable to handle", "general protection", NULL,
};

bool machine_is_s390x(void)
{
#ifdef __s390x__
	return true;
#else
	return false;
#endif
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	if (value == NULL || value[0] == '\0') {
		fprintf(stderr, "%s is not set: this runs inside tests/vm/run.sh's machine\n",
			name);
		exit(EXIT_FAILURE);
	}
	return value;
}

const char *machine_pci(void)
{
	return environment("IB_VM_PCI");
}

uint32_t machine_fid(void)
{
	return (uint32_t)strtoul(environment("IB_VM_FID"), NULL, 0);
}

/* ── folders ───────────────────────────────────────────────────────────────────────────────── */

__attribute__((format(printf, 4, 5))) static void file_write(const struct machine *machine,
							     const char *name, mode_t mode,
							     const char *format, ...)
{
	char path[160];
	va_list arguments;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", machine->folder, name);
	file = fopen(path, "we");
	REQUIRE(file != NULL);
	va_start(arguments, format);
	REQUIRE(vfprintf(file, format, arguments) >= 0);
	va_end(arguments);
	REQUIRE(fclose(file) == 0);
	REQUIRE(chmod(path, mode) == 0);
}

static void folder_make(const struct machine *machine, const char *name, uid_t uid)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", machine->folder, name);
	REQUIRE(mkdir(path, 0755) == 0);
	REQUIRE(chmod(path, 0755) == 0);
	REQUIRE(chown(path, uid, uid) == 0);
}

static void folders_make(struct machine *machine, const struct machine_options *options)
{
	snprintf(machine->folder, sizeof(machine->folder), "/tmp/iommubroker-XXXXXX");
	REQUIRE(mkdtemp(machine->folder) != NULL);
	REQUIRE(chmod(machine->folder, 0755) == 0);
	folder_make(machine, "config", 0);
	folder_make(machine, "config/device.d", 0);
	folder_make(machine, "run", DAEMON_UID);
	file_write(machine, "config/iommubrokerd.conf", 0644, "[Clients]\nGroups=%d\n%s\n",
		   CLIENTS_GID, options->settings != NULL ? options->settings : "");
	if (options->device_rules != NULL)
		file_write(machine, "config/device.d/10-test.conf", 0644, "%s",
			   options->device_rules);
	else
		file_write(machine, "config/device.d/10-test.conf", 0644,
			   "[Device]\nUser=%d\nPciAddress=%s\nRelaxedTranslation=yes\n", VMM_UID,
			   machine_pci());
	snprintf(machine->fd_sock, sizeof(machine->fd_sock), "%s/run/fd.sock", machine->folder);
	snprintf(machine->admin_dir, sizeof(machine->admin_dir), "%s/run/admin", machine->folder);
	snprintf(machine->log, sizeof(machine->log), "%s/log", machine->folder);
}

static void folders_remove(const struct machine *machine)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf %s", machine->folder);
	CHECK(system(command) == 0);
}

/* ── privilege ─────────────────────────────────────────────────────────────────────────────── */

static void limit_set(int resource, uint64_t value)
{
	const struct rlimit limit = {value, value};

	REQUIRE(setrlimit(resource, &limit) == 0);
}

/* What is in no set now cannot come back, by no file either. */
static void privilege_drop(uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {0};

	for (unsigned long capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0;)
		capability++;
	REQUIRE(setgroups(n_groups, groups) == 0);
	REQUIRE(setresgid(gid, gid, gid) == 0);
	REQUIRE(setresuid(uid, uid, uid) == 0);
	REQUIRE(syscall(SYS_capset, &header, none) == 0);
	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
}

/* Changing users clears it, so this comes last. */
static void die_with(pid_t parent)
{
	REQUIRE(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
}

/* ── the daemon ────────────────────────────────────────────────────────────────────────────── */

/* more: of its environment, NULL ends it. */
static _Noreturn void daemon_run(const struct machine *machine,
				 const struct machine_options *options, pid_t parent,
				 char *const *more)
{
	const char *program = options->program != NULL ? options->program : DAEMON;
	char config[128], run[128], admin[128], notify[160];
	char *const arguments[] = {
		(char *)"iommubrokerd", (char *)"--backend=iommufd", config, run, admin, NULL};
	char *variables[VARIABLES_MAX] = {(char *)"PATH=/usr/bin:/bin", (char *)"LC_ALL=C", notify};
	size_t n = 3;
	int log = open(machine->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (!options->supervised)
		variables[n++] = (char *)"FDSTORE=0"; /* who is told keeps nothing */
	for (size_t i = 0; i < 2 && options->environment[i] != NULL; i++)
		variables[n++] = (char *)options->environment[i];
	for (; *more != NULL && n < VARIABLES_MAX - 1; more++)
		variables[n++] = *more;
	snprintf(config, sizeof(config), "--config-dir=%s/config", machine->folder);
	snprintf(run, sizeof(run), "--runtime-dir=%s/run", machine->folder);
	snprintf(admin, sizeof(admin), "--admin-dir=%s", machine->admin_dir);
	snprintf(notify, sizeof(notify), "NOTIFY_SOCKET=%s/notify", machine->folder);
	REQUIRE(log >= 0 && null >= 0);
	limit_set(RLIMIT_MEMLOCK,
		  options->memlock_bytes != 0 ? options->memlock_bytes : RLIM_INFINITY);
	limit_set(RLIMIT_NOFILE, DESCRIPTORS_MAX);
	privilege_drop(DAEMON_UID, DAEMON_UID, NULL, 0);
	die_with(parent);
	dup2(null, 0);
	dup2(log, 1);
	dup2(log, 2);
	execve(program, arguments, variables);
	_exit(127);
}

static int notify_open(const struct machine *machine)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", machine->folder);
	REQUIRE(fd >= 0);
	REQUIRE(bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
	REQUIRE(chmod(address.sun_path, 0666) == 0);
	return fd;
}

static void log_show(const struct machine *machine)
{
	char command[128];

	printf("  the daemon's log ends with:\n");
	fflush(stdout);
	snprintf(command, sizeof(command), "tail -n 20 %s | sed 's/^/  | /'", machine->log);
	if (system(command) != 0)
		printf("  | (nothing)\n");
}

static void ready_wait(const struct machine *machine, int notify)
{
	struct pollfd wait = {.fd = notify, .events = POLLIN};
	char text[256];

	for (int passed_ms = 0; passed_ms < READY_MS; passed_ms += 100) {
		ssize_t n;

		if (waitpid(machine->daemon, NULL, WNOHANG) != 0)
			break;
		if (poll(&wait, 1, 100) <= 0)
			continue;
		n = recv(notify, text, sizeof(text) - 1, 0);
		text[n > 0 ? n : 0] = '\0';
		if (strstr(text, "READY=1") != NULL)
			return;
	}
	log_show(machine);
	REQUIRE(!"the daemon is ready");
}

/* Once a first caller has come and gone: what is made at first use belongs to it, that caller's
 * connection does not, and its end is noticed a moment later. */
static size_t descriptors_settle(const struct machine *machine)
{
	size_t n = 0;

	for (int same = 0, i = 0; same < SETTLED_LOOKS && i < EMPTY_TRIES; i++) {
		size_t now = proc_descriptors(machine->daemon, NULL);

		same = now == n ? same + 1 : 0;
		n = now;
		usleep(SETTLED_PAUSE_US);
	}
	return n;
}

static void daemon_start(struct machine *machine, const struct machine_options *options)
{
	char *const none[] = {NULL};
	int notify = notify_open(machine);
	pid_t parent = getpid();

	fflush(NULL);
	machine->daemon = fork();
	if (machine->daemon == 0)
		daemon_run(machine, options, parent, none);
	REQUIRE(machine->daemon > 0);
	ready_wait(machine, notify);
	close(notify);
}

static void supervised_run(void *context, pid_t parent, char *const *variables)
{
	const struct machine *machine = context;

	daemon_run(machine, machine->options, parent, variables);
}

void machine_start(struct machine *machine, const struct machine_options *options)
{
	static const struct machine_options defaults;
	struct machine_status status;

	options = options != NULL ? options : &defaults;
	*machine =
		(struct machine){.log_mark = kernel_log_mark(), .options = options, .notify = -1};
	folders_make(machine, options);
	if (options->supervised) {
		machine->notify = notify_open(machine);
		machine->supervisor = supervisor_start(machine->notify, supervised_run, machine);
		machine->daemon = supervisor_wait_ready(machine->supervisor);
	} else {
		daemon_start(machine, options);
	}
	machine_status(machine, &status);
	machine->descriptors = descriptors_settle(machine);
}

void machine_stop(struct machine *machine)
{
	int status = -1;

	check_step("stopping the daemon");
	machine_check_empty(machine);
	if (machine->supervisor != NULL) {
		status = supervisor_stop(machine->supervisor);
		close(machine->notify);
	} else {
		CHECK(kill(machine->daemon, SIGTERM) == 0);
		CHECK(waitpid(machine->daemon, &status, 0) == machine->daemon);
	}
	CHECK_EQUAL((uint64_t)status, 0);
	CHECK_EQUAL(kernel_log_count(machine->log_mark, kernel_trouble, true), 0);
	if (check_failures() != 0)
		log_show(machine);
	folders_remove(machine);
}

/* ── its ledger ────────────────────────────────────────────────────────────────────────────── */

static uint64_t number(const json_t *status, const char *name)
{
	const json_t *value = json_object_get(status, name);

	return json_is_integer(value) ? (uint64_t)json_integer_value(value) : UINT64_MAX;
}

void machine_status(const struct machine *machine, struct machine_status *ret)
{
	char command[192];
	json_error_t error;
	json_t *json;
	FILE *pipe;

	snprintf(command, sizeof(command), "iommubrokerctl --admin-dir=%s --json status",
		 machine->admin_dir);
	pipe = popen(command, "re");
	REQUIRE(pipe != NULL);
	json = json_loadf(pipe, 0, &error);
	pclose(pipe);
	REQUIRE(json != NULL);
	*ret = (struct machine_status){
		.sessions = number(json, "sessions"),
		.guests = number(json, "guests"),
		.devices = number(json, "devices"),
		.nested_domains = number(json, "nested_domains"),
		.pinned_bytes = number(json, "pinned_bytes"),
		.mappings_installed = number(json, "mappings_installed"),
		.mappings_reserved = number(json, "mappings_reserved"),
	};
	json_decref(json);
}

static bool is_empty(const struct machine_status *status)
{
	static const struct machine_status zero;

	return memcmp(status, &zero, sizeof(zero)) == 0;
}

void machine_check_empty(const struct machine *machine)
{
	struct machine_status status;

	machine_status(machine, &status);
	for (int i = 0; i < EMPTY_TRIES && !is_empty(&status); i++) {
		usleep(EMPTY_PAUSE_US);
		machine_status(machine, &status);
	}
	CHECK_EQUAL(status.sessions, 0);
	CHECK_EQUAL(status.guests, 0);
	CHECK_EQUAL(status.devices, 0);
	CHECK_EQUAL(status.nested_domains, 0);
	CHECK_EQUAL(status.pinned_bytes, 0);
	CHECK_EQUAL(status.mappings_installed, 0);
	CHECK_EQUAL(status.mappings_reserved, 0);
	CHECK_EQUAL(proc_pinned_bytes(machine->daemon), 0);
	CHECK_EQUAL(proc_descriptors(machine->daemon, "/dev/vfio/"), 0);
	/* A connection that has just ended may be closed a moment later. */
	for (int i = 0;
	     i < EMPTY_TRIES && proc_descriptors(machine->daemon, NULL) > machine->descriptors; i++)
		usleep(EMPTY_PAUSE_US);
	CHECK(proc_descriptors(machine->daemon, NULL) <= machine->descriptors);
}

/* ── VMMs ──────────────────────────────────────────────────────────────────────────────────── */

pid_t machine_spawn(const struct machine *machine, uid_t uid, machine_child_fn function,
		    void *user_data)
{
	const gid_t group = CLIENTS_GID;
	pid_t parent = getpid(), child;

	fflush(NULL);
	child = fork();
	REQUIRE(child >= 0);
	if (child != 0)
		return child;
	limit_set(RLIMIT_MEMLOCK, 0);
	privilege_drop(uid, uid, &group, uid == VMM_UID ? 1 : 0);
	die_with(parent);
	function(machine, user_data);
	fflush(NULL);
	_exit(EXIT_SUCCESS);
}

void machine_join(pid_t child)
{
	int status = -1;

	CHECK(waitpid(child, &status, 0) == child);
	CHECK_EQUAL(status, 0);
}

void machine_run_vmm(const struct machine *machine, machine_child_fn function, void *user_data)
{
	machine_join(machine_spawn(machine, VMM_UID, function, user_data));
}
