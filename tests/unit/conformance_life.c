/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See conformance_life.h. */

#include "conformance_life.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of the case that runs, until its descriptors are used up: a case that fails leaves nothing open.
 */
static struct inheritance *current;

/* Whatever fails here ends in the suite's teardown, which ends the child. */
static _Noreturn void live(struct rig *rig, int socket, life *first, life *last)
{
	char control[CMSG_SPACE(LIFE_FDS * sizeof(int))] = {0};
	struct will will = {0};
	struct iovec iov = {.iov_base = &will, .iov_len = sizeof(will)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int fds[LIFE_FDS];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rig_make(rig);
	first(rig, will.ids);
	fds[LIFE_CONTEXT] = rig->ops->context_fd(rig->context);
	fds[LIFE_DEVICE] = rig->ops->device_fd(rig->device);
	fds[LIFE_VMM] = rig->vmm_fd;
	will.device_id = rig->device_id;
	will.info = rig->info;
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(header), fds, sizeof(fds));
	assert_int_equal(sendmsg(socket, &message, 0), sizeof(will));
	if (last)
		last(rig, will.ids);
	for (;;)
		pause();
}

static void receive(struct inheritance *inheritance)
{
	char control[CMSG_SPACE(LIFE_FDS * sizeof(int))];
	struct iovec iov = {
		.iov_base = &inheritance->will,
		.iov_len = sizeof(inheritance->will),
	};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};

	assert_int_equal(recvmsg(inheritance->socket, &message, MSG_CMSG_CLOEXEC),
			 sizeof(inheritance->will));
	memcpy(inheritance->fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(inheritance->fds));
}

struct rig *life_inherit(struct inheritance *ret, life *first, life *last)
{
	struct rig *rig = rig_begin();
	int sockets[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	memset(ret->fds, -1, sizeof(ret->fds));
	ret->child = fork();
	assert_true(ret->child >= 0);
	if (!ret->child)
		live(rig, sockets[1], first, last);
	close(sockets[1]);
	ret->socket = sockets[0];
	current = ret;
	receive(ret);
	rig->device_id = ret->will.device_id;
	rig_window(rig, &ret->will.info);
	rig->vmm_fd = life_take_fd(ret, LIFE_VMM);
	if (rig->device_id)
		rig_open_dma(rig);
	return rig;
}

void life_kill(struct inheritance *inheritance)
{
	assert_int_equal(kill(inheritance->child, SIGKILL), 0);
	assert_int_equal(waitpid(inheritance->child, NULL, 0), inheritance->child);
	inheritance->child = 0;
	close(inheritance->socket);
}

int life_take_fd(struct inheritance *from, enum life_fd which)
{
	int fd = from->fds[which];

	assert_true(fd >= 0);
	from->fds[which] = -1;
	return fd;
}

void life_end(void)
{
	if (!current)
		return;
	if (current->child > 0)
		life_kill(current);
	for (unsigned int i = 0; i < LIFE_FDS; i++)
		if (current->fds[i] >= 0)
			close(current->fds[i]);
	current = NULL;
}

struct iommu_device_address life_address(const struct iommu_device_info *info)
{
	struct iommu_device_address address = {.by_fid = info->has_fid, .fid = info->fid};

	if (!info->has_fid)
		memcpy(address.pci_address, info->pci_address, sizeof(address.pci_address));
	return address;
}

void life_adopt(struct rig *rig, struct inheritance *from)
{
	const struct iommu_device_address address = life_address(&from->will.info);

	assert_int_equal(rig->ops->context_adopt(rig->host->backend,
						 life_take_fd(from, LIFE_CONTEXT), &rig->context),
			 0);
	assert_int_equal(rig->ops->device_adopt(rig->host->backend, life_take_fd(from, LIFE_DEVICE),
						&address, rig->context, from->will.device_id,
						&rig->device),
			 0);
}

struct rig *life_second(life *first, uint32_t ids[LIFE_IDS])
{
	struct inheritance from;
	struct rig *rig = life_inherit(&from, first, NULL);

	life_kill(&from);
	life_adopt(rig, &from);
	memcpy(ids, from.will.ids, sizeof(from.will.ids));
	life_end();
	return rig;
}

void life_of_a_guest(struct rig *rig, uint32_t ids[LIFE_IDS])
{
	assert_int_equal(rig->ops->ioas_new(rig->context, false, &ids[SPARE]), 0);
	ids[PARENT] = rig_space(rig, false, &ids[PARENT_TABLE]);
	rig_map(rig, ids[PARENT], 0, 0, 32, RW, 0);
	ids[NESTED] = rig_space(rig, true, &ids[NESTED_TABLE]);
	rig_copy(rig, ids[NESTED], 0, ids[PARENT], 0, 8, RW, 0);
	rig_copy(rig, ids[NESTED], 16, ids[PARENT], 16, 8, RW, 0);
	rig_copy(rig, ids[NESTED], 40, ids[PARENT], 8, 4, IOMMU_PROT_READ, 0);
	rig_cut(rig, ids[NESTED], 18, 2, 2);
}

void life_is_there(struct rig *rig, const uint32_t ids[LIFE_IDS])
{
	for (unsigned int i = 0; i < 48; i++) {
		bool there = i < 8 || (i >= 16 && i < 24 && i != 18 && i != 19);

		if (there)
			rig_shows(rig, ids[NESTED], i, i);
		else if (i < 40 || i >= 44)
			rig_is_gone(rig, ids[NESTED], i);
	}
	rig_shows_nothing(rig, ids[NESTED], 18);
	rig_dma_reads(rig, 40, 8);
	rig_dma_misses(rig, 40);
	rig_is_there(rig, ids[PARENT], 31);
	rig_is_gone(rig, ids[PARENT], 32);
}
