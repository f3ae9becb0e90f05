#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Inside, with systemd as PID 1: the installed service is killed again and again, at random times, under
# a VMM that changes its tables, its memory and its second device while its first device's DMA goes on.
# $IB_KILLS times (40), drawn from $IB_SEED. The last line is the tally.
#
# Now and then the VMM pauses: what the kernel has mapped is compared with the tables of both devices,
# page by page, and what it counts as pinned with the ledger. Before and after all deaths the VMM also
# gives back what comes and goes; then nothing may have grown.
# shellcheck source=systemd_common.sh
. "$(dirname "$0")/systemd_common.sh"
kills=${IB_KILLS:-40}
seed=${IB_SEED:-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')}
readonly LOOK_EVERY=10
readonly WINDOW="0x100000000 2048" # restart_vmm's, and its pages

# ── the VMM ─────────────────────────────────────────────────────────────────────────────────
answer=''
# Its next line, which must begin with that word.
hear() {
	answer=''
	read -t 600 -r -u 7 answer
	[ "${answer%% *}" = "$1" ] || {
		bad "the VMM says '$1'" "$answer"
		conclude
		exit
	}
}
ask() { # COMMAND WORD
	echo "$1" >&8
	hear "$2"
}
vmm_start() {
	coproc VMM { exec setpriv --reuid vmm --regid vmm --init-groups --no-new-privs -- \
		/usr/lib/iommubroker-tests/restart_vmm /run/iommubroker/fd.sock "$IB_VM_PCI" "$IB_VM_PCI2" "$RANDOM"; }
	vmm=$VMM_PID
	exec 7<&"${VMM[0]}" 8>&"${VMM[1]}"
	hear ready
}
# What it did so far: N transfers, N refreshes, ...
refreshes=0
count() {
	ask count counts
	refreshes=${answer#*, }
	refreshes=${refreshes%% *}
}
went_on() {
	count
	[ "$refreshes" -gt "$1" ]
}

# ── what the service has ────────────────────────────────────────────────────────────────────
descriptors() {
	local fds=(/proc/"$(main_pid)"/fd/*)
	echo ${#fds[@]}
}
# Memory of what the daemon has written down for its successor.
state_kib() {
	local at sum=0
	for at in /proc/"$(main_pid)"/fd/*; do
		[[ $(readlink "$at") != /memfd:iommubroker* ]] || sum=$((sum + $(stat -L -c %b "$at")))
	done
	echo $((sum / 2))
}
own_kib() {
	local kib
	kib=$(status_of "$(main_pid)" RssAnon)
	echo "${kib% kB}"
}
# But for what answers take on their way out.
quotas() { iommubrokerctl metrics | grep '^iommubroker_quota_used{level="host"' | grep -v '"queued_bytes"'; }
ledger_kib() { echo $(($(quotas | sed -n 's/.*"pinned_bytes"} //p') / 1024)); }
kernel_mappings_now() {
	# shellcheck disable=SC2086
	kernel_mappings "$(main_pid)" $WINDOW
}

# With the VMM paused.
compare() { # WHEN
	local mapped tables n=0 map
	ask hold tables
	tables=${answer#tables }
	mapped=$(kernel_mappings_now)
	for map in $tables; do
		n=$((n + 1))
		if grep -qx "$map" <<<"$mapped"; then
			ok "$1: the kernel has mapped what the tables of device $n show"
		else
			bad "$1: the kernel has mapped what the tables of device $n show" "$map, and it has
$mapped"
		fi
	done
	is "$1: and nothing else" "$(grep -c '[^0]' <<<"$mapped")" "$n"
	is "$1: the kernel has pinned what the ledger says" "$(pinned_kib "$(main_pid)")" "$(ledger_kib)"
}
# As long as the VMM rests these are to stay the same.
level() {
	ask rest rests
	echo "$(descriptors) descriptors, $(stored) stored, $(pinned_kib "$(main_pid)") KiB pinned," \
		"$(kernel_mappings_now | wc -l) address spaces"
	quotas
}

# ── death ───────────────────────────────────────────────────────────────────────────────────
# Nothing here that is done often starts a program: the service itself is to have the time.
deaths=0 killed=0 pid=0
nap() { read -r -t "$1" -u 9; }
# The control group's, without asking systemd, which may be busy starting it.
another() {
	pid=0
	read -r pid <"/sys/fs/cgroup/system.slice/$unit/cgroup.procs"
	[ "${pid:-0}" != 0 ] && [ "$pid" != "$killed" ]
} 2>/dev/null
until_true() {
	local _
	for _ in {1..1200}; do
		! "$@" || return 0
		nap 0.05
	done
	bad "after death $deaths, of process $killed" "not in a minute: $*"
	conclude
	exit
}
# What was refreshed since there is another process was refreshed by it.
serves() {
	until_true another
	count
	until_true went_on "$refreshes"
}
# One time in three it serves by then; else it may be starting, or taking over.
die() {
	if [ $((RANDOM % 3)) = 0 ]; then serves; else until_true another; fi
	nap "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
	killed=$pid
	kill -KILL "$killed" && deaths=$((deaths + 1))
}
die_often() {
	while [ $deaths -lt "$kills" ]; do
		die
		[ $((deaths % LOOK_EVERY)) = 0 ] || continue
		serves
		ask check ok
		compare "after death $deaths"
		echo go >&8
	done
}

exec 9<> <(:)
RANDOM=$(cksum <<<"$seed" | cut -d ' ' -f 1)
echo "seed $seed, $kills deaths"
printf '[Device]\nUser=vmm\nPciAddress=%s\n' "$IB_VM_PCI2" >/etc/iommubroker/device.d/20-second.conf
# Less than two times what the VMM has pinned: for a moment the kernel counts it with both processes.
mkdir -p /etc/iommubroker/iommubrokerd.conf.d
printf '[Limits]\nPinnedMemoryMax=80M\n' >/etc/iommubroker/iommubrokerd.conf.d/50-kills.conf
# What the filters cost systemd at each start is most of a start's time; other suites have them.
mkdir -p /run/systemd/system/$unit.d
cat >/run/systemd/system/$unit.d/50-no-filters.conf <<-EOF2
	[Service]
	SystemCallFilter=
	SystemCallArchitectures=
	RestrictAddressFamilies=
	RestrictNamespaces=no
	RestrictRealtime=no
	RestrictSUIDSGID=no
	MemoryDenyWriteExecute=no
	LockPersonality=no
	ProtectClock=no
	ProtectHostname=no
	ProtectKernelLogs=no
	ProtectKernelModules=no
	ProtectKernelTunables=no
EOF2
systemctl daemon-reload
systemctl restart $unit
faults=$(dma_faults)
mark=$(mark)
vmm_start
# as all that follow
killed=$(main_pid)
kill -KILL "$killed"
serves
compare "at the beginning"
level >"$work/before"
state=$(state_kib) own=$(own_kib) restarts=$(show NRestarts)
echo go >&8
die_often
serves
is "systemd started it once for each death" $(($(show NRestarts) - restarts)) $deaths
ask check ok
echo "$answer"
like "the device's DMA went on all the time, and never failed" "$answer" '^ok [0-9]{2,} transfers'
compare "at the end"
level >"$work/after"
is "nothing has grown" "$(cat "$work/after")" "$(cat "$work/before")"
difference=$(iommubrokerctl metrics | grep '^iommubroker_pinned_difference')
echo "written down: $state KiB, then $(state_kib); memory: $own KiB, then $(own_kib)"
if [ $(($(state_kib) - state)) -le $((64 + kills * 2)) ]; then ok "no page stays with each death"; else bad "what is written down" "$(state_kib) KiB"; fi
if [ $(($(own_kib) - own)) -le 2048 ]; then ok "the daemon's memory is level"; else bad "the daemon's memory" "$(own_kib) KiB"; fi
echo go >&8
ask quit bye
wait "$vmm"
is "the VMM ends well" "$?" 0
await "then nothing is stored" nothing_stored
await "and nothing is pinned" nothing_pinned
await "and the ledger is empty" no_guests
is "the ledger has nothing of it" "$(quotas | grep -v ' 0$')" ""
is "no DMA met a missing translation" "$(dma_faults)" "$faults"
is "the daemon found no difference, either" "$difference" "iommubroker_pinned_difference_bytes 0"
is "nobody had a word of an error" "$(journal -p warning --cursor "$mark" _COMM=iommubrokerd)" ""
rm -r /etc/iommubroker/device.d/20-second.conf /etc/iommubroker/iommubrokerd.conf.d /run/systemd/system/$unit.d
systemctl daemon-reload
systemctl stop $unit 2>/dev/null
conclude
