#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Real kernels: tests/vm/run.sh [OPTION...] x86_64|s390x [SUITE...]
#
# Builds for that architecture, makes an image of the build, boots a kernel with a real
# /dev/iommu in QEMU (no KVM, no root), and runs inside what tests/vm/suites lists: all suites that
# are marked "always", or those named. The last line is "N passed, N failed, N skipped", the status
# is 0 only without failures, and 75 if nothing was run because something that is needed cannot be
# had now (no network and not in the cache).
#
#	--kernel FILE   this kernel, not the one of ../shared/vm or tests/vm/kernel.sh
#	--at-hand       never build a kernel: skip if there is none in ../shared/vm or the cache
#	--list          the suites of that architecture
#	--verbose       what the suites say as they say it
#	--output DIR    files that the suites give out, to DIR/ARCH/SUITE
#
# IB_VM_BUILD names a finished build folder to use; otherwise there is one in $IB_BUILD_ROOT or
# build-tests/. IB_VM_PATIENCE (3) multiplies all time limits. IB_KILLS and IB_SEED say how often and
# when suites kill the daemon. Packages, kernels and QEMU are kept in
# the user's cache folder. The console's log is kept only when something failed, and then named.
set -u
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
readonly UNAVAILABLE=75
export PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8

usage() {
	echo "usage: tests/vm/run.sh [--kernel FILE] [--at-hand] [--list] [--verbose] [--output DIR] x86_64|s390x [SUITE...]" >&2
	exit 2
}
kernel='' list='' verbose='' output='' arch='' at_hand=''
while [ $# -gt 0 ]; do
	case $1 in
	--kernel) [ $# -gt 1 ] || usage; kernel=$2 && shift ;;
	--output) [ $# -gt 1 ] || usage; output=$2 && shift ;;
	--at-hand) at_hand=--at-hand ;;
	--list) list=1 ;;
	--verbose) verbose=--verbose ;;
	x86_64 | s390x) arch=$1 && shift && break ;;
	*) usage ;;
	esac
	shift
done
[ -n "$arch" ] || usage

# The table's lines for this architecture: NAME BOOT WHEN SECONDS.
suites() {
	awk -v arch="$arch" '!/^#/ && NF > 5 && ("," $2 ",") ~ ("," arch ",") { print $1, $3, $4, $5 }' "$here/suites"
}
if [ "$list" ]; then
	suites | while read -r name boot when seconds; do
		printf '%-20s %s, %s, at most %s s\n' "$name" "$boot" "$when" "$seconds"
	done
	exit 0
fi
chosen=
for name in "$@"; do
	suites | grep -q "^$name " || { echo "no suite $name on $arch (see --list)" >&2 && exit 2; }
	chosen="$chosen $name"
done
[ "$chosen" ] || chosen=$(suites | awk '$3 == "always" { print $1 }')

# Whoever has a finished build has the packages.
if [ -z "${IB_VM_BUILD:-}" ]; then
	"$source/tests/install-deps.sh" || exit 1
	echo "-- $arch: building, and fetching what is not there yet (some minutes, the first time)"
fi

umask 022
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ib-vm-XXXXXX") || exit 1

# quiet WHAT COMMAND...: its output is shown only if it fails. What cannot be had is no failure.
quiet() {
	local what=$1 status
	shift
	"$@" >"$scratch/out" 2>"$scratch/err"
	status=$?
	[ $status -ne 0 ] || return 0
	if [ $status -eq $UNAVAILABLE ]; then
		echo "skipped $arch: no $what: $(tail -n 1 "$scratch/err")"
		return $status
	fi
	grep -hvE '^\[[0-9]+/[0-9]+\] (Compiling|Linking|Generating)' "$scratch/out" "$scratch/err" | tail -n 60
	echo "FAILED $what"
	return $status
}
printed() { sed -n "${1}p" "$scratch/out"; }

# What is installed and what runs inside; the other tests are not for a machine.
targets() {
	meson introspect --targets "$build" | "$python" -c '
import json, sys
for target in json.load(sys.stdin):
    inside = target["defined_in"].endswith("tests/vm/guest/meson.build") or target["name"] == "conformance_iommufd"
    if target["build_by_default"] and (target["installed"] or inside):
        for name in target["filename"]:
            print(name[len(sys.argv[1]) + 1 :])
' "$(cd "$build" && pwd -P)"
}
compile() {
	local names
	if [ ! -f "$build/build.ninja" ]; then
		quiet "setup of the build" meson setup "$build" "$source" "$@" || return
	fi
	# first, or the targets may be those of another state of the source
	quiet "setup of the build" ninja -C "$build" build.ninja || return
	names=$(targets) || return
	# shellcheck disable=SC2086
	quiet "build" ninja -C "$build" $names
}
# Sets build, and sysroot if that is not the machine itself.
build() {
	local setup=()
	sysroot=
	if [ "$arch" != "$(uname -m)" ]; then
		quiet "sysroot" "$here/sysroot.sh" "$arch" || return
		setup=(--cross-file "$(printed 1)")
		sysroot=$(printed 2)
	fi
	build=${IB_VM_BUILD:-}
	[ -z "$build" ] || return 0
	build=${IB_BUILD_ROOT:-$source/build-tests}/vm-$arch
	mkdir -p "$build" || return
	(
		flock 9
		compile "${setup[@]}" 9>&-
	) 9>"$build.lock"
}

find_kernel() {
	[ -z "$kernel" ] || return 0
	kernel=$source/../shared/vm/bzImage-$arch
	[ ! -f "$kernel" ] || return 0
	# shellcheck disable=SC2086
	quiet "kernel" "$here/kernel.sh" "$arch" $at_hand || return
	kernel=$(printed 1)
}

# image BOOT: sets initrd, disk (may be empty) and append.
image() {
	local at=$scratch/$1
	mkdir -p "$at"
	initrd=$at/initrd disk='' append=''
	case $1 in
	plain) IB_VM_SYSROOT=$sysroot quiet "image" "$here/image.sh" "$arch" "$build" "$initrd" ;;
	*)
		# writes any of initrd, disk (raw, /dev/vda; what is written to it is lost) and append
		IB_VM_SYSROOT=$sysroot quiet "image for $1" "$here/$1_root.sh" "$arch" "$build" "$at" || return
		[ ! -f "$at/disk" ] || disk=$at/disk
		[ ! -f "$at/append" ] || append=$(cat "$at/append")
		;;
	esac
}

# shellcheck disable=SC2054 # commas are QEMU's
# The machine as QEMU's arguments, the kernel's command line last: the array machine.
describe_machine() {
	local common=(-no-reboot -nodefaults -display none -smp 1 -m 2G -kernel "$kernel")
	[ ! -s "$initrd" ] || common+=(-initrd "$initrd")
	local quiet='panic=-1 oops=panic quiet loglevel=1 log_buf_len=4M'
	case $arch in
	x86_64)
		# edu's timer is 100 ms of the machine's own time, which icount makes go by at once
		machine=(-M q35,kernel-irqchip=split -accel tcg -cpu max -icount "shift=4,sleep=off"
			"${common[@]}" -chardev stdio,id=c0,signal=off -serial chardev:c0
			-device "intel-iommu,intremap=on,caching-mode=on,aw-bits=48"
			-device edu,addr=04.0,dma_mask=0xffffffffffff
			-device pcie-root-port,id=rp0,addr=05.0,chassis=1
			-device edu,bus=rp0,addr=00.0,dma_mask=0xffffffffffff)
		[ -z "$disk" ] || machine+=(-drive "file=$disk,if=virtio,format=raw,snapshot=on")
		machine+=(-append "console=ttyS0 intel_iommu=on $quiet")
		;;
	s390x)
		truncate -s 64M "$scratch/nvme0" "$scratch/nvme1"
		machine=(-M s390-ccw-virtio -accel tcg -cpu max
			"${common[@]}" -chardev stdio,id=c0,signal=off -device sclpconsole,chardev=c0
			-drive "file=$scratch/nvme0,if=none,id=nd0,format=raw,cache=unsafe"
			-drive "file=$scratch/nvme1,if=none,id=nd1,format=raw,cache=unsafe"
			-device zpci,uid=1,fid=1,target=nv0 -device nvme,id=nv0,serial=first,drive=nd0
			-device zpci,uid=2,fid=2,target=nv1 -device nvme,id=nv1,serial=second,drive=nd1)
		[ -z "$disk" ] || machine+=(-drive "file=$disk,if=none,id=vd,format=raw,snapshot=on"
			-device virtio-blk-ccw,drive=vd)
		machine+=(-append "console=ttysclp0 $quiet")
		;;
	esac
}

# boot BOOT SUITE...: one kind of machine; its counts are added to $scratch/tally, whatever happens.
boot() {
	local kind=${1%%+*} words=${1#"${1%%+*}"} status counted
	shift
	image "$kind"
	status=$?
	if [ $status -ne 0 ]; then
		[ $status -ne $UNAVAILABLE ] || { echo "0 0 $#" >>"$scratch/tally" && return $UNAVAILABLE; }
		echo "0 1 0" >>"$scratch/tally"
		return 1
	fi
	describe_machine
	machine[-1]+=" $append ${words//+/ } ${IB_KILLS:+ib.kills=$IB_KILLS} ${IB_SEED:+ib.seed=$IB_SEED}"
	echo "-- $arch, $kind${words//+/ }, ${kernel##*/}"
	counted=$(wc -l <"$scratch/tally")
	"$python" "$here/machine.py" --log "$log" ${output:+--output "$output/$arch"} $verbose \
		--patience "${IB_VM_PATIENCE:-3}" --suites "$here/suites" --tally "$scratch/tally" \
		"$@" -- "$qemu" "${machine[@]}" 2>&1
	status=$?
	if [ "$(wc -l <"$scratch/tally")" -eq "$counted" ]; then
		echo "FAILED $kind: nothing was counted, status $status"
		echo "0 1 0" >>"$scratch/tally"
	fi
	return $status
}

# All that was chosen, a boot for each kind of machine. What was not run is no failure beside what was.
boots() {
	local kind names failed='' ran=''
	for kind in $(suites | awk '!seen[$2]++ { print $2 }'); do
		names=$(suites | awk -v kind="$kind" -v chosen=" ${chosen//$'\n'/ } " \
			'$2 == kind && index(chosen, " " $1 " ") { print $1 }')
		[ -n "$names" ] || continue
		# shellcheck disable=SC2086
		boot "$kind" $names
		case $? in
		0) ran=1 ;;
		"$UNAVAILABLE") ;;
		*) failed=1 ;;
		esac
	done
	[ -z "$failed" ] || return 1
	[ -n "$ran" ] || return $UNAVAILABLE
}

keep_log() {
	local kept
	kept=$(mktemp "${TMPDIR:-/tmp}/ib-vm-$arch-XXXXXX.log") && mv "$log" "$kept" && chmod 644 "$kept" &&
		echo "console log: $kept"
}

work() {
	local status
	python=/usr/bin/python3
	[ -x "$python" ] || python=python3
	: >"$scratch/tally"
	quiet "QEMU" "$here/qemu.sh" "$arch" && qemu=$(printed 1) && find_kernel && build
	status=$?
	if [ $status -eq $UNAVAILABLE ]; then
		echo "0 0 1" >"$scratch/tally"
	elif [ $status -ne 0 ]; then
		echo "0 1 0" >"$scratch/tally"
	else
		log=$scratch/console
		boots
		status=$?
		[ $status -eq 0 ] || [ ! -s "$log" ] || keep_log
	fi
	awk '{ p += $1; f += $2; s += $3 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$scratch/tally"
	return $status
}

# In a process group of its own, so that it can be stopped whole.
stop() {
	trap - EXIT
	trap '' INT TERM HUP
	kill -TERM -- "-$worker" 2>/dev/null
	wait "$worker" 2>/dev/null
	rm -rf "$scratch"
	exit 130
}
trap 'rm -rf "$scratch"' EXIT
set -m
work </dev/null &
worker=$!
set +m
trap stop INT TERM HUP
wait "$worker"
