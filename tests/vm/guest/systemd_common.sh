#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Read by the suites of a machine with systemd as PID 1: checks and their tally, and what they ask of
# the service.
set -u
export LC_ALL=C SYSTEMD_COLORS=0 SYSTEMD_URLIFY=0 SYSTEMD_PAGER='' SYSTEMD_EMOJI=0
unit=iommubrokerd.service
work=$(mktemp -d) || exit 1
chmod 755 "$work"
trap 'rm -rf "$work" /tmp/of-the-host' EXIT

passed=0 failed=0
ok() {
	passed=$((passed + 1))
	echo "ok $1"
}
bad() {
	failed=$((failed + 1))
	echo "FAILED $1: $2"
}
is() { # WHAT GOT WANT
	if [ "$2" = "$3" ]; then ok "$1"; else bad "$1" "'$2', expected '$3'"; fi
}
like() { # WHAT GOT EXTENDED-REGEX
	if grep -qE -- "$3" <<<"$2"; then ok "$1"; else bad "$1" "'$2' has no '$3'"; fi
}
# Each line "ok ..." or "FAILED ..." is a check of its own; WANT of them, so that none is lost.
told() { # FILE WANT WHAT
	local line n=0
	while read -r line; do
		case $line in
		ok\ *) passed=$((passed + 1)) n=$((n + 1)) ;;
		FAILED\ *) failed=$((failed + 1)) n=$((n + 1)) ;;
		esac
		echo "$line"
	done <"$1"
	is "$3: that was all" "$n" "$2"
}
# Until COMMAND succeeds, at most for a minute of this machine's time.
await() { # WHAT COMMAND...
	local what=$1 _
	shift
	for _ in {1..300}; do
		if "$@"; then
			ok "$what"
			return
		fi
		sleep 0.2
	done
	bad "$what" "it never came"
	return 1
}
as() { # USER COMMAND...
	local user=$1
	shift
	timeout 60 setpriv --reuid "$user" --regid "$user" --init-groups --no-new-privs -- "$@" 2>&1
}
show() { systemctl show -P "$1" $unit; }
# From here on, for --cursor. An entry of its own, which no filter finds: --after-cursor leaves out the
# first that a filter finds if the cursor's own is not among them.
mark() {
	echo mark | systemd-cat -t suite-mark
	journalctl --sync
	journalctl -q -t suite-mark -n 1 -o cat --show-cursor | sed -n 's/^-- cursor: //p'
}
main_pid() { show MainPID; }
status_of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }
journal() { journalctl -q -u $unit -o cat "$@"; }
pgrep_vmm() {
	local at
	for at in /proc/[0-9]*; do
		[ "$(cat "$at/comm" 2>/dev/null)" != systemd_vmm ] || echo "${at#/proc/}"
	done
}
pinned_kib() {
	local kib
	kib=$(status_of "$1" VmPin)
	echo "${kib% kB}"
}
nothing_pinned() { [ "$(pinned_kib "$(main_pid)")" = 0 ]; }
no_guests() { iommubrokerctl status 2>/dev/null | grep -q '^guests  *0, devices 0, nested domains 0$'; }
dma_faults() { journalctl -q -k -b -o cat | grep -c 'DMAR: \[DMA'; }
stored() { show NFileDescriptorStore; }
nothing_stored() { [ "$(stored)" = 0 ]; }
another_pid() { [ "$(main_pid)" != 0 ] && [ "$(main_pid)" != "$1" ] && [ "$(systemctl is-active $unit)" = active ]; }
# The tally; of what failed, the service's journal.
conclude() {
	[ $failed -eq 0 ] || journalctl -q -b -u $unit -o short-monotonic | tail -n 100
	echo "$passed passed, $failed failed, 0 skipped"
	[ $failed -eq 0 ]
}
