/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * iommubrokerctl doctor on trees of files: one of a host where all is well, and what each change of
 * it makes of it: exactly one more finding, of that check and severity. Every check is changed.
 */

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "ctl/doctor.h"
#include "fake_admin.h"
#include "iommubroker/v1/admin.pb-c.h"

static char root[64];

/* ── trees ────────────────────────────────────────────────────────────────────────────────── */

/* With the folders above it. text NULL: a folder. */
static void put(const char *path, mode_t mode, const char *text)
{
	char at[512];
	FILE *file;

	snprintf(at, sizeof(at), "%s/%s", root, path);
	for (char *slash = strchr(at + strlen(root) + 1, '/'); slash != NULL;
	     slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(at, 0755);
		*slash = '/';
	}
	if (text == NULL) {
		mkdir(at, mode);
	} else {
		unlink(at);
		file = fopen(at, "w");
		assert_non_null(file);
		assert_true(fputs(text, file) >= 0);
		fclose(file);
	}
	assert_int_equal(chmod(at, mode), 0);
}

static void put_link(const char *path, const char *target)
{
	char at[512];

	put(path, 0644, "");
	snprintf(at, sizeof(at), "%s/%s", root, path);
	unlink(at);
	assert_int_equal(symlink(target, at), 0);
}

static int drop_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
	return remove(path);
}

static void drop(const char *path)
{
	char at[512];

	snprintf(at, sizeof(at), "%s/%s", root, path);
	nftw(at, drop_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put_groups(const char *clients, const char *daemons, unsigned int daemon_gid)
{
	char text[256];

	snprintf(text, sizeof(text),
		 "root:x:0:\niommubroker:x:%u:%s\niommubroker-clients:x:12:%s\n", daemon_gid,
		 daemons, clients);
	put("etc/group", 0644, text);
}

#define ZONES                                                                   \
	"Node 0, zone   Normal\n  pages free     10\n        managed  900000\n" \
	"Node 0, zone  Movable\n  pages free     0\n        managed  %s\n"
#define LIMITS                                                                             \
	"Limit                     Soft Limit           Hard Limit           Units     \n" \
	"Max open files            %s               131072               files     \n"     \
	"Max locked memory         %s            %s            bytes     \n"

static void put_format(const char *path, const char *format, ...)
{
	char text[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	put(path, 0644, text);
}

static void put_process(const char *cap, const char *pinned_kib)
{
	put_format("proc/77/status",
		   "Name:\tiommubrokerd\nUid:\t990\t990\t990\t990\nVmLck:\t0 kB\nVmPin:\t%s kB\n"
		   "CapEff:\t%s\n",
		   pinned_kib, cap);
}

/* A host on which all is well. */
static void put_host(void)
{
	put("dev/iommu", 0660, "");
	put("dev/vfio/devices/vfio0", 0660, "");
	put_groups("qemu", "", getegid());
	put("etc/passwd", 0644, "root:x:0:0::/:/bin/sh\n");
	put("boot/config-6.9", 0644,
	    "CONFIG_IOMMUFD=m\nCONFIG_VFIO_PCI=m\nCONFIG_VFIO_DEVICE_CDEV=y\n");
	put("proc/sys/kernel/osrelease", 0644, "6.9\n");
	put("sys/module/iommufd", 0755, NULL);
	put("sys/module/vfio_pci", 0755, NULL);
	put("sys/kernel/iommu_groups/0", 0755, NULL);
	put("sys/bus/pci/drivers/vfio-pci/0000:00:01.0", 0755, NULL);
	put("sys/bus/pci/devices/0000:00:01.0/iommu_group/devices/0000:00:01.0", 0755, NULL);
	put("proc/77/comm", 0644, "iommubrokerd\n");
	put("proc/77/fd", 0755, NULL);
	put_format("proc/77/limits", LIMITS, "131072", "17179869184", "17179869184");
	put_process("0000000000000000", "4096");
	put("proc/zoneinfo", 0644, "");
	put_format("proc/zoneinfo", ZONES, "1000");
	put("proc/meminfo", 0644, "MemTotal: 100 kB\nCmaTotal:        0 kB\n");
	put("proc/cmdline", 0644, "quiet\n");
	put("proc/cpuinfo", 0644, "vendor_id : GenuineIntel\n");
	put("sys/devices/system/memory/auto_online_blocks", 0644, "online_kernel\n");
	put("run/systemd/system", 0755, NULL);
	put("usr/lib/some-triplet/systemd/libsystemd-shared-255.so", 0644, "");
	put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", 0644, "512\n");
	put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", 0644, "12\n");
	put("run/iommubroker/broker.sock", 0660, "");
	put("run/iommubroker/fd.sock", 0660, "");
	put("run/iommubroker-admin", 0700, NULL);
}

static uint64_t stored, stored_max;
static Iommubroker__V1__GetStatusResponse__Takeover *takeover;

static void lay_status(const char *backend, uint64_t pinned, uint64_t pinned_max)
{
	Iommubroker__V1__GetInfoResponse info = IOMMUBROKER__V1__GET_INFO_RESPONSE__INIT;
	Iommubroker__V1__GetStatusResponse status = IOMMUBROKER__V1__GET_STATUS_RESPONSE__INIT;
	Iommubroker__V1__GetUsageResponse__Usage usage =
		IOMMUBROKER__V1__GET_USAGE_RESPONSE__USAGE__INIT;
	Iommubroker__V1__GetUsageResponse__Usage *usages[] = {&usage};
	Iommubroker__V1__GetUsageResponse host = IOMMUBROKER__V1__GET_USAGE_RESPONSE__INIT;
	Iommubroker__V1__GetUsageResponse *all[] = {&host};

	usage.resource = (char *)"pinned_bytes";
	usage.max = pinned_max;
	host.tenant = (char *)"host";
	host.n_usage = 1;
	host.usage = usages;
	info.backend = (char *)backend;
	status.info = &info;
	status.pid = 77;
	status.pinned_bytes = pinned;
	status.n_usage = 1;
	status.usage = all;
	status.stored_descriptors = stored;
	status.stored_descriptors_max = stored_max;
	status.takeover = takeover;
	fake_admin_reset();
	fake_admin_answer("GetStatus", &status.base);
}

static int setup(void **state)
{
	strcpy(root, "/tmp/ib-doctor-XXXXXX");
	if (mkdtemp(root) == NULL)
		return -1;
	stored = 89;
	stored_max = 100;
	takeover = NULL;
	lay_status("iommufd", 4096 * 1024, UINT64_C(16) << 30);
	put_host();
	return 0;
}

static int teardown(void **state)
{
	fake_admin_reset();
	return nftw(root, drop_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ── findings ─────────────────────────────────────────────────────────────────────────────── */

/* All that are not ok. */
static json_t *examine(int *ret_status)
{
	char command_line[128];
	json_t *json, *all, *finding, *bad = json_array();
	struct run run;
	size_t i;

	snprintf(command_line, sizeof(command_line), "doctor --json --root %s", root);
	run = fake_admin_run(command_line);
	*ret_status = run.status;
	json = json_loads(run.out, 0, NULL);
	if (json == NULL)
		fail_msg("'%s', '%s'", run.out, run.err);
	all = json_object_get(json, "findings");
	json_array_foreach(
		all, i, finding) if (strcmp(json_string_value(json_object_get(finding, "severity")),
					    "ok") != 0) json_array_append(bad, finding);
	json_decref(json);
	return bad;
}

static void expect_well(void)
{
	int status;
	json_t *bad = examine(&status);

	if (json_array_size(bad) != 0 || status != 0)
		fail_msg("status %d, %s", status, json_dumps(bad, JSON_INDENT(1)));
	json_decref(bad);
}

static const char *member(const json_t *finding, const char *name)
{
	return json_string_value(json_object_get(finding, name));
}

/* One finding of that check and severity, whose text holds what; nothing else but of the checks
 * that follow from it. */
static void expect_finding(const char *id, const char *severity, const char *what, size_t n)
{
	json_t *bad, *finding;
	size_t i, found = 0;
	int status;

	bad = examine(&status);
	json_array_foreach(bad, i,
			   finding) if (strcmp(member(finding, "id"), id) == 0 &&
					strcmp(member(finding, "severity"), severity) == 0 &&
					strstr(member(finding, "what"), what) != NULL) found++;
	if (found != 1 || json_array_size(bad) != n ||
	    (strcmp(severity, "serious") == 0) != (status == 4))
		fail_msg("no %s %s '%s', or others: status %d, %s", severity, id, what, status,
			 json_dumps(bad, JSON_INDENT(1)));
	json_decref(bad);
}

static void test_well(void **state)
{
	char command_line[128];
	struct run run;

	expect_well();
	snprintf(command_line, sizeof(command_line), "doctor --root %s", root);
	run = fake_admin_run(command_line);
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.out, "\n0 serious, 0 warnings, 0 notes, "));
}

static void test_iommufd(void **state)
{
	drop("dev/iommu");
	expect_finding("iommufd", "serious", "/dev/iommu is not there", 1);
	put("boot/config-6.9", 0644,
	    "CONFIG_VFIO_PCI=m\n# CONFIG_IOMMUFD is not set\n"
	    "CONFIG_VFIO_DEVICE_CDEV=y\n");
	expect_finding("iommufd", "serious", "the kernel (6.9) is built without IOMMUFD", 1);
	drop("boot");
	expect_finding("iommufd", "serious", "cannot be seen", 1);
}

static void test_iommu(void **state)
{
	drop("sys/kernel/iommu_groups/0");
	expect_finding("iommu", "serious", "no IOMMU is active", 1);
}

static void test_vfio_cdev(void **state)
{
	drop("dev/vfio/devices/vfio0");
	expect_finding("vfio-cdev", "serious", "/dev/vfio/devices is empty", 1);
	put("boot/config-6.9", 0644, "CONFIG_IOMMUFD=m\nCONFIG_VFIO_PCI=m\n");
	expect_finding("vfio-cdev", "serious", "makes no VFIO device nodes", 1);
	drop("sys/bus/pci/drivers/vfio-pci/0000:00:01.0");
	drop("boot");
	expect_finding("vfio-cdev", "note", "cannot be seen", 2);
}

static void test_modules(void **state)
{
	drop("sys/module/vfio_pci");
	expect_finding("modules", "warning", "vfio_pci is not loaded", 1);
	put("proc/modules", 0644, "vfio_pci 16384 0 - Live 0x0\n");
	expect_well();
	drop("proc/modules");
	put("boot/config-6.9", 0644,
	    "CONFIG_IOMMUFD=m\nCONFIG_VFIO_PCI=y\nCONFIG_VFIO_DEVICE_CDEV=y\n");
	expect_well();
}

static void test_node_modes(void **state)
{
	put("dev/iommu", 0666, "");
	expect_finding("node-modes", "serious", "/dev/iommu is open to everyone (mode 666)", 1);
	put("dev/iommu", 0600, "");
	expect_finding("node-modes", "serious", "/dev/iommu is not the daemon's to open", 1);
	put("dev/iommu", 0660, "");
	put_groups("qemu", "", getegid() + 1);
	expect_finding("node-modes", "serious", "/dev/vfio/devices/vfio0 is not the daemon's", 2);
	put("etc/group", 0644, "iommubroker-clients:x:12:qemu\n");
	expect_finding("node-modes", "serious", "there is no group iommubroker", 1);
}

static void test_devices(void **state)
{
	drop("sys/bus/pci/drivers/vfio-pci/0000:00:01.0");
	expect_finding("devices", "note", "no PCI function is bound to vfio-pci", 1);
}

static void test_groups(void **state)
{
	put("sys/bus/pci/devices/0000:00:01.0/iommu_group/devices/0000:00:01.1", 0755, NULL);
	expect_well();
	put_link("sys/bus/pci/devices/0000:00:01.1/driver", "../../../bus/pci/drivers/e1000e");
	expect_finding("groups", "warning", "0000:00:01.0 shares its IOMMU group with 0000:00:01.1",
		       1);
	put_link("sys/bus/pci/devices/0000:00:01.1/driver", "../../../bus/pci/drivers/vfio-pci");
	expect_well();
}

static void test_legacy_group(void **state)
{
	put_link("proc/81/fd/3", "/dev/vfio/devices/vfio0");
	expect_well();
	put_link("proc/81/fd/3", "/dev/vfio/12");
	expect_finding("legacy-group", "warning", "process 81 has opened /dev/vfio/12", 1);
}

static void test_daemon(void **state)
{
	fake_admin_reset();
	expect_finding("daemon", "serious", "the daemon runs (pid 77), but does not answer", 2);
	put_format("proc/77/limits", LIMITS, "131072", "unlimited", "unlimited");
	expect_finding("daemon", "serious", "the daemon runs (pid 77), but does not answer", 1);
	drop("proc/77");
	expect_finding("daemon", "serious", "no daemon runs or answers", 1);
	fake_admin_refuse("GetStatus", 7, "you may not", NULL);
	expect_finding("daemon", "serious", "refuses to tell its status: you may not", 1);
	put_host();
	lay_status("emulated", 0, 1);
	expect_finding("daemon", "warning", "emulated", 1);
}

static void test_memlock(void **state)
{
	put_format("proc/77/limits", LIMITS, "131072", "8388608", "8388608");
	expect_finding("memlock", "serious",
		       "may lock 8 MiB, and its configuration lets guests pin "
		       "16 GiB",
		       1);
	put_format("proc/77/limits", LIMITS, "131072", "unlimited", "unlimited");
	expect_well();
	lay_status("iommufd", 4096 * 1024, UINT64_MAX);
	expect_well();
	put_format("proc/77/limits", LIMITS, "131072", "8388608", "8388608");
	expect_finding("memlock", "serious", "pin any amount", 1);
}

static void test_capability(void **state)
{
	put_process("0000000000004000", "4096");
	expect_finding("capability", "warning", "CAP_IPC_LOCK", 1);
	put_process("000001ffffffbfff", "4096");
	expect_well();
}

static void test_nofile(void **state)
{
	put_format("proc/77/limits", LIMITS, "1024", "unlimited", "unlimited");
	expect_finding("nofile", "warning", "1024 descriptors only", 1);
}

static void test_kernel_charge(void **state)
{
	put_process("0000000000000000", "8192");
	expect_finding("kernel-charge", "serious",
		       "the kernel charges the daemon 8 MiB, and it knows of 4 MiB only", 1);
	put_process("0000000000000000", "4096");
	put("proc/82/status", 0644, "Name:\tqemu\nUid:\t990\t990\t990\t990\nVmPin:\t64 kB\n");
	expect_finding("kernel-charge", "warning", "have pinned 64 KiB", 1);
	put("proc/82/status", 0644, "Name:\tqemu\nUid:\t64055\t64055\t1\t1\nVmPin:\t64 kB\n");
	expect_well();
}

static void test_store(void **state)
{
	stored = 90;
	lay_status("iommufd", 4096 * 1024, UINT64_C(16) << 30);
	expect_finding("store", "warning", "90 of 100 stored descriptors are used", 1);
	stored = stored_max = 0;
	lay_status("iommufd", 4096 * 1024, UINT64_C(16) << 30);
	expect_finding("store", "warning", "every guest ends with the daemon", 1);
}

static void test_takeover(void **state)
{
	Iommubroker__V1__GetStatusResponse__Takeover lost =
		IOMMUBROKER__V1__GET_STATUS_RESPONSE__TAKEOVER__INIT;

	lost.guests = 3;
	takeover = &lost;
	lay_status("iommufd", 4096 * 1024, UINT64_C(16) << 30);
	expect_well();
	lost.released = 2;
	lay_status("iommufd", 4096 * 1024, UINT64_C(16) << 30);
	expect_finding("takeover", "warning", "2 guests could not be taken over", 1);
	takeover = NULL;
}

static void test_systemd(void **state)
{
	drop("usr/lib/some-triplet/systemd");
	expect_finding("systemd", "note", "version could not be seen", 1);
	put("lib/systemd/libsystemd-shared-252.so", 0644, "");
	expect_finding("systemd", "warning", "systemd 252 drops the daemon's descriptors", 1);
	drop("lib/systemd");
	put("usr/lib/systemd/libsystemd-shared-254.so", 0644, "");
	expect_well();
	drop("run/systemd");
	expect_finding("systemd", "note", "systemd does not run here", 1);
}

static void test_huge_pages(void **state)
{
	put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", 0644, "0\n");
	expect_finding("huge-pages", "note", "512 huge pages of 2 MiB, 0 free", 1);
	put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", 0644, "0\n");
	expect_finding("huge-pages", "note", "no huge pages are set aside", 1);
}

static void test_movable(void **state)
{
	put_format("proc/zoneinfo", ZONES, "300000");
	expect_finding("movable", "warning", "25% of the memory is ZONE_MOVABLE", 1);
	put_format("proc/zoneinfo", ZONES, "1000");
	put("proc/meminfo", 0644, "CmaTotal:        2097152 kB\n");
	expect_finding("movable", "note", "2 GiB are set aside for CMA", 1);
	put("proc/meminfo", 0644, "CmaTotal:        1024 kB\n");
	expect_well();
	put("proc/cmdline", 0644, "quiet movable_node\n");
	expect_finding("movable", "note", "movable_node", 1);
	put("proc/cmdline", 0644, "quiet\n");
	put("sys/devices/system/memory/auto_online_blocks", 0644, "online_movable\n");
	expect_finding("movable", "warning", "plugged in becomes movable", 1);
}

static void test_clients(void **state)
{
	put_groups("", "", getegid());
	expect_finding("clients", "note", "nobody is in the group iommubroker-clients", 1);
	put("etc/passwd", 0644, "vmm:x:1000:12::/:/bin/sh\n");
	expect_well();
	put_groups("qemu", "qemu", getegid());
	expect_finding("clients", "serious", "qemu in the daemon's group", 1);
	put_format("etc/group", "iommubroker:x:%u:\n", (unsigned int)getegid());
	expect_finding("clients", "serious", "there is no group iommubroker-clients", 1);
}

static void test_sockets(void **state)
{
	put("run/iommubroker/fd.sock", 0666, "");
	expect_finding("sockets", "serious", "/run/iommubroker/fd.sock is open to others", 1);
	drop("run/iommubroker/fd.sock");
	expect_finding("sockets", "warning", "/run/iommubroker/fd.sock is not there", 1);
	put("run/iommubroker/fd.sock", 0660, "");
	put("run/iommubroker-admin", 0750, NULL);
	expect_finding("sockets", "serious", "/run/iommubroker-admin is open to others", 1);
}

static void test_s390(void **state)
{
	put("proc/cpuinfo", 0644, "vendor_id       : IBM/S390\n");
	expect_finding("s390", "note", "there is no zPCI function", 1);
	put("sys/bus/pci/devices/0000:00:01.0/function_id", 0644, "0x00000010\n");
	expect_well();
	put("proc/sysinfo", 0644, "VM00 Control Program: z/VM    7.3.0\n");
	expect_finding("s390", "note", "z/VM", 1);
	drop("proc/sysinfo");
	put("sys/firmware/uv/prot_virt_guest", 0644, "1\n");
	expect_finding("s390", "serious", "secure-execution guest", 1);
	put("sys/firmware/uv/prot_virt_guest", 0644, "0\n");
	put("sys/firmware/uv/prot_virt_host", 0644, "1\n");
	expect_finding("s390", "note", "under secure execution", 1);
}

int main(void)
{
	/* A row for each check of the table: a check without a test does not compile. */
#define X(name, what) cmocka_unit_test_setup_teardown(test_##name, setup, teardown),
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_well, setup, teardown), DOCTOR_CHECKS(X)};
#undef X

	return cmocka_run_group_tests_name("ctl_doctor", tests, NULL, NULL);
}
