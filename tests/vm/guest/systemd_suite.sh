#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Inside, with systemd as PID 1: the installed units as an operator and a VMM meet them. The last line
# is the tally.
# shellcheck source=systemd_common.sh
. "$(dirname "$0")/systemd_common.sh"

job() { # WHAT
	as vmm systemd_vmm job "$IB_VM_PCI" >"$work/job"
	told "$work/job" 18 "$1"
}
# A VMM whose device writes without end: holder, and what it tells in $work/hold.
hold() {
	as vmm systemd_vmm hold "$IB_VM_PCI" >"$work/hold" &
	await "a VMM is at work" grep -q ^holding "$work/hold"
	holder=$(pgrep_vmm)
}
installed() {
	local socket node out
	is "the machine is up, no unit failed" "$(systemctl is-system-running --wait)" running
	for socket in broker fd; do
		is "$socket.sock listens, for clients" \
			"$(stat -c '%U:%G %a %F' /run/iommubroker/$socket.sock)" "root:iommubroker-clients 660 socket"
	done
	is "admin.sock listens, for the operator" \
		"$(stat -c '%U:%G %a %F' /run/iommubroker-admin/admin.sock)" "iommubroker:iommubroker 600 socket"
	is "its folder is closed" "$(stat -c '%U:%G %a' /run/iommubroker-admin)" "iommubroker:iommubroker 700"
	is "the clients' folder is root's" "$(stat -c '%U:%G %a' /run/iommubroker)" "root:root 755"
	is "the service waits for a client" "$(systemctl is-active $unit)" inactive
	is "a VMM is not in the daemon's group" "$(id -nG vmm)" "vmm iommubroker-clients"
	is "the daemon is in no other group" "$(id -nG iommubroker)" iommubroker
	like "the daemon cannot log in" "$(getent passwd iommubroker)" ':/usr/sbin/nologin$'
	# a function that comes to the driver now
	echo "$IB_VM_PCI2" >"/sys/bus/pci/devices/$IB_VM_PCI2/driver/unbind"
	echo "$IB_VM_PCI2" >/sys/bus/pci/drivers_probe
	udevadm settle -t 60
	for node in /dev/iommu /dev/vfio/devices/vfio0 /dev/vfio/devices/vfio1; do
		is "udev gave $node to the daemon's group" "$(stat -c '%U:%G %a' $node)" "root:iommubroker 660"
	done
	out=$(systemd-analyze verify --man=no $unit iommubrokerd-{broker,fd,admin}.socket 2>&1)
	is "systemd-analyze has nothing to say of the units" "$out" ""
	out=$(systemd-analyze security --no-pager $unit)
	out=$(sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p' <<<"$out")
	echo "exposure $out"
	if [ "$out" ] && [ "${out%.*}${out#*.}" -le 10 ]; then ok "exposure at most 1.0"; else bad "exposure" "$out"; fi
	systemctl enable $unit 2>/dev/null
	is "the service and its sockets can be enabled" \
		"$(systemctl is-enabled $unit iommubrokerd-{broker,fd,admin}.socket | sort -u)" enabled
}

activation() {
	local out
	out=$(as other systemd_vmm connect)
	like "who is not in the group is refused at connect" "$out" '^EACCES .*/run/iommubroker/fd.sock'
	out=$(as vmm iommubrokerctl status)
	like "a VMM is no operator" "$out" 'only root and the daemon.s user'
	is "neither of them started the service" "$(systemctl is-active $unit)" inactive
	is "the first client starts it" "$(as vmm systemd_vmm connect)" connected
	is "it is active" "$(systemctl is-active $unit)" active
	is "it said that it is ready" "$(show Type) $(show SubState) $(show Result)" "notify running success"
	is "its status line says that it is idle" "$(show StatusText)" "Ready, no guests"
}

privilege() {
	local pid key
	pid=$(main_pid)
	is "runs as its user" "$(status_of "$pid" Uid | tr '\t' ' ')" "$(id -u iommubroker) $(id -u iommubroker) $(id -u iommubroker) $(id -u iommubroker)"
	is "in its group alone" "$(status_of "$pid" Groups | tr -d ' ')" "$(id -g iommubroker)"
	for key in CapInh CapPrm CapEff CapBnd CapAmb; do
		is "$key is empty" "$(status_of "$pid" $key)" 0000000000000000
	done
	is "NoNewPrivs" "$(status_of "$pid" NoNewPrivs)" 1
	is "Seccomp" "$(status_of "$pid" Seccomp)" 2
	is "OOM score" "$(cat "/proc/$pid/oom_score_adj")" -900
	like "its locked memory is limited by PinnedMemoryMax=" "$(grep '^Max locked memory' "/proc/$pid/limits")" \
		'^Max locked memory +[0-9]+ +unlimited'
	like "descriptors" "$(grep '^Max open files' "/proc/$pid/limits")" ' 131072 +131072 '
	for key in mnt net; do
		if [ "$(readlink "/proc/$pid/ns/$key")" != "$(readlink "/proc/1/ns/$key")" ]; then
			ok "has a $key namespace of its own"
		else
			bad "has a $key namespace of its own" "it is PID 1's"
		fi
	done
	is "which has no network" "$(nsenter -t "$pid" -n cat /proc/self/net/dev | sed '1,2d;s/:.*//' | tr -d ' ')" lo
}

# Root with every capability, in the service's control group alone: what is refused is refused there.
devices_in_group() {
	local procs=/sys/fs/cgroup/system.slice/$unit/cgroup.procs
	(
		echo "$BASHPID" >"$procs"
		for node in /dev/kmsg /dev/vda /dev/ttyS0 /dev/iommu /dev/vfio/devices/vfio0 /dev/null; do
			if (: <"$node") 2>/dev/null; then echo "$node"; fi
		done
	)
}

# The daemon's unit, but for the program.
probe_unit() {
	sed -E -e 's,^ExecStart=.*,ExecStart=/usr/lib/iommubroker-tests/systemd_probe,' -e 's/^Type=.*/Type=oneshot/' \
		-e '/^(Sockets|Restart|RestartSec|WatchdogSec|NotifyAccess|FileDescriptorStoreMax|Requires)=/d' \
		-e '/^After=iommubrokerd-/d' "$(show FragmentPath)" >/run/systemd/system/systemd-probe.service
	systemctl daemon-reload
}

sandbox() {
	is "DevicePolicy= is in force" "$(devices_in_group | tr '\n' ' ')" "/dev/iommu /dev/vfio/devices/vfio0 /dev/null "
	touch /tmp/of-the-host
	probe_unit
	systemctl start systemd-probe.service
	journalctl -q -u systemd-probe.service -t systemd_probe -o cat >"$work/probe"
	told "$work/probe" 29 "the sandbox"
	rm /run/systemd/system/systemd-probe.service
	systemctl daemon-reload
	is "systemd says of no directive that it cannot keep it" \
		"$(journalctl -q -b _PID=1 -o cat | grep -iE "iommubrokerd.*(unsupported|not supported|unknown|ignoring|failed)")" ""
}

operator() {
	local pid out
	pid=$(main_pid)
	hold
	is "the daemon has pinned the guest's memory" "$(pinned_kib "$pid")" 16384
	is "the VMM has pinned nothing" "$(pinned_kib "$holder")" 0
	await "systemctl status tells what is served" status_line_is "Serving 1 guest with 1 device and 16 MiB of guest memory"
	for user in root iommubroker; do
		out=$(as $user iommubrokerctl status)
		like "$user: status, pinned" "$out" '^pinned  *16 MiB$'
		like "$user: status, guests" "$out" '^guests  *1, devices 1, nested domains 1$'
		like "$user: list" "$(as $user iommubrokerctl list)" "systemd-guest +$holder "
		like "$user: show" "$(as $user iommubrokerctl show systemd-guest)" "${IB_VM_PCI//./\\.}"
	done
	kill -KILL "$holder"
	await "a VMM was killed: its guest is gone" no_guests
	await "and nothing is pinned" nothing_pinned
	is "the daemon lives on" "$(main_pid)" "$pid"
	out=$(as vmm systemd_vmm open "$IB_VM_PCI2")
	like "a device that no rule gives is refused" "$out" '^EACCES NO_DEVICE_RULE '
	job "after that"
}
status_line_is() { systemctl status $unit | grep -qF "Status: \"$1\""; }

# What an operator finds, in words, and by field.
journal_entries() {
	local uid
	uid=$(id -u vmm)
	like "journal: the start" "$(journal)" '^iommubrokerd [0-9.]+ serves at /run/iommubroker, backend iommufd$'
	like "journal: a session" "$(journal IOMMUBROKER_SESSION=1)" \
		"^session 1 opened: pid [0-9]+, uid $uid, tenant clients/$uid, name systemd-vmm$"
	like "journal: who opened the device" "$(journal "IOMMUBROKER_DEVICE=$IB_VM_PCI")" \
		"^session [0-9]+ opened device ${IB_VM_PCI//./\\.}: pid [0-9]+, uid $uid$"
	like "journal: who closed it" "$(journal "IOMMUBROKER_DEVICE=$IB_VM_PCI")" \
		"^session [0-9]+ closed device ${IB_VM_PCI//./\\.}: pid [0-9]+, uid $uid$"
	like "journal: the refusal" "$(journal IOMMUBROKER_REASON=NO_DEVICE_RULE)" \
		"OpenDevice refused to pid [0-9]+, uid $uid, tenant clients/$uid: no device rule lets tenant 'clients/$uid', user $uid, have ${IB_VM_PCI2//./\\.} \(NO_DEVICE_RULE\); the function is ${IB_VM_PCI2//./\\.}, [0-9a-f]{4}:[0-9a-f]{4}$"
	like "journal: the VMM's death" "$(journal "IOMMUBROKER_PEER_PID=$holder")" \
		"^session [0-9]+ closed because its (process|native connection) ended: pid $holder, uid $uid"
	is "journal: no more warnings than the refusal's" "$(journal -p warning | grep -cv NO_DEVICE_RULE)" 0
	like "journal: as JSON" "$(journalctl -q -u $unit -o json IOMMUBROKER_REASON=NO_DEVICE_RULE)" '"PRIORITY":"4"'
	is "journal: nobody's source file" "$(journalctl -q -u $unit -o json _COMM=iommubrokerd | grep -c CODE_FILE)" 0
}

taken_over() { iommubrokerctl status 2>/dev/null | grep -q '^guests  *1, devices 1, nested domains 1$'; }

# A guest outlives the daemon: restarted, killed, killed again.
restarts() {
	local pid faults mark _
	hold
	faults=$(dma_faults)
	mark=$(mark)
	is "state file, context, memory and device are stored" "$(stored)" 4
	pid=$(main_pid)
	systemctl restart $unit
	is "restart: systemctl is content" "$?" 0
	is "restart: active" "$(systemctl is-active $unit)" active
	if [ "$(main_pid)" != "$pid" ]; then ok "restart: another process"; else bad "restart" "the same process"; fi
	await "restart: the guest is taken over" taken_over
	like "restart: it says so" "$(journal --cursor "$mark")" '^1 guests with 1 regions and [0-9]+ mappings taken over in [0-9]+ ms, 0 released$'
	is "restart: the same is stored" "$(stored)" 4
	for _ in 1 2 3 4 5; do
		pid=$(main_pid)
		systemctl kill -s KILL $unit
		await "killed under a guest, it comes back" another_pid "$pid"
		await "and takes the guest over" taken_over
	done
	is "no DMA met a missing translation" "$(dma_faults)" "$faults"
	is "nobody had a word of an error" "$(journal -p warning --cursor "$mark" _COMM=iommubrokerd)" ""
	kill -TERM "$holder"
	timeout 60 tail --pid="$holder" -f /dev/null
	told "$work/hold" 21 "the VMM noticed no more than a pause"
	await "then nothing is stored" nothing_stored
	await "and nothing is pinned" nothing_pinned
	job "restart"
	systemctl stop $unit 2>/dev/null
	is "stop: systemctl is content" "$?" 0
	like "stop: in good order" "$(journalctl -q -u $unit -o cat --cursor "$mark")" 'Deactivated successfully\.$'
	is "stop: inactive" "$(systemctl is-active $unit)" inactive
	is "stop: the sockets go on listening" \
		"$(systemctl is-active iommubrokerd-{broker,fd,admin}.socket | sort -u)" active
	job "stop: the next client starts it again, and"
}

failures() {
	local pid
	pid=$(main_pid)
	systemctl kill -s KILL $unit
	await "killed, it comes back by itself" another_pid "$pid"
	like "and is counted" "$(show NRestarts)" "^[1-9][0-9]*$"
	job "killed"
	pid=$(main_pid)
	is "the watchdog is set" "$(show WatchdogUSec)" 30s
	# two times its interval: it would have bitten
	sleep 60
	is "and is kept quiet" "$(main_pid)" "$pid"
	kill -STOP "$pid"
	sleep 40
	await "a daemon that hangs is replaced" another_pid "$pid"
	like "journal: by the watchdog" "$(journalctl -q -b _PID=1 -o cat -u $unit)" 'Watchdog timeout'
	job "replaced"
	is "no unit failed" "$(systemctl --failed --no-legend --plain)" ""
}

# shellcheck source=systemd_operator.sh
. "$(dirname "$0")/systemd_operator.sh"

installed
activation
privilege
sandbox
operator
journal_entries
operators_side
restarts
failures
conclude
