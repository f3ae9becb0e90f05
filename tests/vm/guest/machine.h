/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_MACHINE_H
#define IB_VM_MACHINE_H

/*
 * The machine as an operator sets it up: the installed daemon as its service user without any
 * capability, in folders of its own, and VMMs as an ordinary user who may do nothing but connect.
 *
 * All of it needs root, dies with the process that called, and REQUIREs (check.h) what it needs.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DAEMON_UID   990 /* and its group, which owns the device nodes */
#define CLIENTS_GID  991
#define VMM_UID      1000
#define STRANGER_UID 1001

struct machine_options {
	uint64_t memlock_bytes;   /* RLIMIT_MEMLOCK of the daemon; 0: infinity */
	const char *settings;     /* more of iommubrokerd.conf, or NULL */
	const char *device_rules; /* a file of device.d; NULL: the VMM's user may open the device */
	const char *program;      /* NULL: the installed daemon */
	const char *environment[2]; /* more of its environment: "NAME=value", or NULL */
	bool supervised;            /* what it stores is kept, and whenever it dies it comes back */
};

struct supervisor;

struct machine {
	pid_t daemon;
	char folder[64];
	char fd_sock[96], admin_dir[96], log[96];
	size_t descriptors;                    /* of the daemon before its first guest */
	uint64_t log_mark;                     /* of the kernel's log */
	const struct machine_options *options; /* borrowed, if supervised */
	int notify;                            /* likewise, or -1 */
	struct supervisor *supervisor;         /* likewise, or NULL */
};

/* What the environment says of this machine. */
bool machine_is_s390x(void);
const char *machine_pci(void); /* address of the device that does DMA */
uint32_t machine_fid(void);    /* on s390x */

void machine_start(struct machine *machine, const struct machine_options *options);
/* SIGTERM; checks that nothing is left of any guest, nothing is pinned, the exit is clean, and the
 * kernel warned of nothing. */
void machine_stop(struct machine *machine);

/* Numbers of `iommubrokerctl status`. */
struct machine_status {
	uint64_t sessions, guests, devices, nested_domains, pinned_bytes, mappings_installed,
		mappings_reserved;
};
void machine_status(const struct machine *machine, struct machine_status *ret);
/* Waits until all of these are zero; checks pins and descriptors too. A limit is in place. */
void machine_check_empty(const struct machine *machine);

/* A child as user VMM_UID in the clients' group, without capabilities and with no locked memory at
 * all; it ends with function(). */
typedef void (*machine_child_fn)(const struct machine *machine, void *user_data);
pid_t machine_spawn(const struct machine *machine, uid_t uid, machine_child_fn function,
		    void *user_data);
/* Checks that it ended well. */
void machine_join(pid_t child);
/* spawn as VMM_UID and join. */
void machine_run_vmm(const struct machine *machine, machine_child_fn function, void *user_data);

#endif
