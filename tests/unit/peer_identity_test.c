/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What /proc says of a client, and what a client could make it say. */

#include "rpc/peer_identity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void assert_cgroup(const char *first, const char *second, bool good, const char *want)
{
	struct tenant_identity identity = {0};
	char a[4096], b[4096];
	bool all;

	snprintf(a, sizeof(a), "%s", first);
	snprintf(b, sizeof(b), "%s", second);
	all = peer_identity_add_cgroup(&identity, a);
	all = all && peer_identity_add_cgroup(&identity, b);
	assert_int_equal(all, good);
	if (good)
		assert_string_equal(identity.cgroup, want);
}

static void test_cgroup(void **state)
{
	char longest[TENANT_CGROUP_MAX + 8];

	(void)state;
	assert_cgroup("0::/a.slice/b.service\n", "", true, "/a.slice/b.service");
	assert_cgroup("12:memory:/m\n", "1:name=systemd:/a.slice\n", true, "/a.slice");
	assert_cgroup("0::/\n", "1:name=systemd:/a.slice\n", true, "/a.slice"); /* hybrid */
	assert_cgroup("1:name=systemd:/a.slice\n", "0::/u.slice\n", true, "/u.slice");
	assert_cgroup("9:cpu,cpuacct:/c\n", "", true, "");
	/* Names that users choose. */
	assert_cgroup("0::/u.slice/x:/prod.slice\n", "", true, "/u.slice/x:/prod.slice");
	assert_cgroup("1:name=systemd:/u.slice/x:/prod.slice\n", "", true,
		      "/u.slice/x:/prod.slice");
	assert_cgroup("4:memory:/u.slice/x:name=systemd:/prod.slice\n", "", true, "");
	/* What cannot be known is not taken for nothing. */
	assert_cgroup("0::/../a.slice\n", "", false, NULL);
	assert_cgroup("0::/..\n", "", false, NULL);
	assert_cgroup("0::/..a.slice\n", "", true, "/..a.slice");
	snprintf(longest, sizeof(longest), "0::/%0*d", TENANT_CGROUP_MAX - 2, 0);
	assert_cgroup(longest, "", true, longest + 3);
	strcat(longest, "0");
	assert_cgroup(longest, "", false, NULL);
}

static void test_groups(void **state)
{
	struct tenant_identity identity = {.n_groups = 1, .groups = {5}};
	char list[TENANT_GROUPS_MAX * 4] = "";

	(void)state;
	assert_true(peer_identity_add_groups(&identity, "\t27 4294967294 \n"));
	assert_int_equal(identity.n_groups, 3);
	assert_int_equal(identity.groups[1], 27);
	assert_true(identity.groups[2] == (gid_t)4294967294u);
	identity.n_groups = 1;
	for (int i = 1; i < TENANT_GROUPS_MAX; i++)
		strcat(list, "7 ");
	assert_true(peer_identity_add_groups(&identity, list));
	assert_int_equal(identity.n_groups, TENANT_GROUPS_MAX);
	assert_false(peer_identity_add_groups(&identity, "7"));
}

static void test_process(void **state)
{
	struct peer peer = {.pid = getpid(), .uid = getuid(), .gid = getgid()};
	struct tenant_identity identity;
	int status;

	(void)state;
	peer.pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	assert_true(peer.pidfd >= 0);
	assert_true(peer_identity_read(&peer, &identity));
	assert_int_equal(identity.uid, getuid());
	assert_int_equal(identity.groups[0], getgid());
	close(peer.pidfd);
	/* A zombie still has its folder in /proc; it is nobody any more. */
	peer.pid = fork();
	if (!peer.pid)
		_exit(0);
	peer.pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	assert_int_equal(waitid(P_PID, (id_t)peer.pid, NULL, WEXITED | WNOWAIT), 0);
	assert_false(peer_identity_read(&peer, &identity));
	assert_int_equal(waitpid(peer.pid, &status, 0), peer.pid);
	assert_false(peer_identity_read(&peer, &identity));
	close(peer.pidfd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cgroup),
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_process),
	};

	return cmocka_run_group_tests_name("peer_identity", tests, NULL, NULL);
}
