/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Users, processes and units that an operator names, in a tree of folders like that of cgroups. */

#include "rpc/peer_find.h"

#include <setjmp.h>
#include <stdarg.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64];

static int remove_entry(const char *path, const struct stat *status, int flag, struct FTW *walk)
{
	(void)status;
	(void)flag;
	(void)walk;
	return remove(path);
}

static int setup(void **state)
{
	(void)state;
	strcpy(root, "/tmp/peer-find-test-XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* "a.slice/b.service", and who is in it; 0: nobody. */
static void cgroup_make(const char *path, int pid)
{
	char name[256];
	FILE *file;

	snprintf(name, sizeof(name), "%s/%s", root, path);
	assert_int_equal(mkdir(name, 0700), 0);
	strcat(name, "/cgroup.procs");
	file = fopen(name, "we");
	assert_non_null(file);
	if (pid)
		fprintf(file, "%d\n", pid);
	fclose(file);
}

static void test_user(void **state)
{
	struct peer_found found;
	struct refusal refusal;

	(void)state;
	assert_int_equal(peer_find_user("root", &found, &refusal), 0);
	assert_int_equal(found.identity.uid, 0);
	assert_int_equal(found.known, 1u << TENANT_USER | 1u << TENANT_GROUP);
	assert_true(found.identity.n_groups >= 1);
	assert_int_equal(found.identity.groups[0], 0);
	assert_int_equal(peer_find_user("0", &found, &refusal), 0);
	assert_true(found.identity.n_groups >= 1);
	/* A number that is no user's of this host, as of a container. */
	assert_int_equal(peer_find_user("4123456789", &found, &refusal), 0);
	assert_int_equal(found.identity.uid, 4123456789u);
	assert_int_equal(found.known, 1u << TENANT_USER);
	assert_int_equal(peer_find_user("no-such-user-here", &found, &refusal), REFUSED);
	assert_string_equal(refusal.reason, "NO_SUCH_USER");
	assert_int_equal(peer_find_user("4294967296", &found, &refusal), REFUSED);
	assert_int_equal(peer_find_user("-1", &found, &refusal), REFUSED);
}

static void test_process(void **state)
{
	struct peer_found found;
	struct refusal refusal;

	(void)state;
	assert_int_equal(peer_find_process((uint64_t)getpid(), &found, &refusal), 0);
	assert_int_equal(found.identity.uid, geteuid());
	assert_int_equal(found.identity.groups[0], getegid());
	assert_int_equal(peer_find_process(0, &found, &refusal), REFUSED);
	assert_int_equal(peer_find_process(INT32_MAX, &found, &refusal), REFUSED);
	assert_int_equal(peer_find_process(UINT64_MAX, &found, &refusal), REFUSED);
	assert_string_equal(refusal.reason, "NO_SUCH_PROCESS");
}

static void test_unit(void **state)
{
	struct peer_found found;
	struct refusal refusal;

	(void)state;
	cgroup_make("system.slice", 0);
	cgroup_make("system.slice/empty.service", 0);
	cgroup_make("system.slice/direct.service", getpid());
	cgroup_make("system.slice/system-deep.slice", 0);
	cgroup_make("system.slice/system-deep.slice/below.scope", 0);
	cgroup_make("system.slice/system-deep.slice/below.scope/payload", getpid());
	/* What somebody's own manager calls a unit is none. */
	cgroup_make("system.slice/user@1.service", 0);
	cgroup_make("system.slice/user@1.service/app.slice", 0);
	cgroup_make("system.slice/user@1.service/app.slice/hidden.service", getpid());
	cgroup_make("system.slice/gone.service", INT32_MAX);

	assert_int_equal(peer_find_unit(root, "direct.service", &found, &refusal), 0);
	assert_int_equal(found.identity.uid, geteuid());
	assert_int_equal(peer_find_unit(root, "below.scope", &found, &refusal), 0);
	assert_int_equal(peer_find_unit(root, "empty.service", &found, &refusal), REFUSED);
	assert_string_equal(refusal.reason, "NO_SUCH_UNIT");
	assert_int_equal(peer_find_unit(root, "gone.service", &found, &refusal), REFUSED);
	assert_int_equal(peer_find_unit(root, "hidden.service", &found, &refusal), REFUSED);
	assert_int_equal(peer_find_unit(root, "nothing.service", &found, &refusal), REFUSED);
	assert_int_equal(peer_find_unit(root, "../x", &found, &refusal), REFUSED);
	assert_string_equal(refusal.reason, "INVALID_FIELD");
	assert_int_equal(peer_find_unit("/nonexistent", "a.service", &found, &refusal), REFUSED);
	assert_string_equal(refusal.reason, "NO_CGROUPS");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_user),
		cmocka_unit_test(test_process),
		cmocka_unit_test_setup_teardown(test_unit, setup, teardown),
	};

	return cmocka_run_group_tests_name("peer_find", tests, NULL, NULL);
}
