#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Benchmarks: tests/bench.sh [--json FILE] [NAME…]
#
# Prints a table, and with --json writes a list of {name, value, unit, ratio, against}. Quote the
# ratios: both sides of one are measured by turns in one run; values depend on the machine. NAME
# chooses rows by the beginning of their names. Leaves behind nothing but build-bench/ in the source
# folder (or in $IB_BUILD_ROOT).
#
# Rows fairness_* are of one tenant beside another that misbehaves; they want root, which alone can be
# two users, and are left out without.
#
# Rows kernel_x86_64_* and kernel_s390x_* are of real kernels on QEMU's emulated processors
# (tests/vm/run.sh, some minutes each), where those are at hand in ../shared/vm; else it says that
# they are left out. A machine that does not run to the end is a failure.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
build=${IB_BUILD_ROOT:-$source}/build-bench
export LC_ALL=C.UTF-8
exec </dev/null

json=
names=
while [ $# -gt 0 ]; do
	case $1 in
	--json)
		[ $# -ge 2 ] || { echo "--json wants a file" >&2; exit 2; }
		json=$2
		shift
		;;
	-*)
		echo "usage: tests/bench.sh [--json FILE] [NAME...]" >&2
		exit 2
		;;
	*) names="$names $1" ;;
	esac
	shift
done

"$source/tests/install-deps.sh"
private=$(mktemp -d "${TMPDIR:-/tmp}/ib-bench-XXXXXX")
daemon=
echo_server=
finish() {
	[ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
	[ -z "$echo_server" ] || { kill "$echo_server" && wait "$echo_server"; } 2>/dev/null || true
	rm -rf "$private"
}
trap finish EXIT
trap 'exit 130' INT TERM

if ! {
	[ -f "$build/build.ninja" ] || meson setup "$build" "$source" -Dbuildtype=release
	ninja -C "$build" daemon/iommubrokerd tests/bench/fairness_bench tests/bench/grpc_echo \
		tests/bench/refresh_bench tests/bench/restart_load tests/bench/shadow_bench
} >"$private/build.log" 2>&1; then
	tail -n 40 "$private/build.log" >&2
	exit 1
fi

mkdir -p "$private/config/quota.d" "$private/run"
chmod 711 "$private" # fairness_bench becomes other users
printf '[Clients]\nUsers=65533 65534\n' >"$private/config/iommubrokerd.conf"
printf '[Match]\nUser=65534\n' >"$private/config/quota.d/50-other.conf"
printf '[Match]\nUser=65533\n[Quota]\nRequestRateMax=1000000000/s\nRefreshRateMax=1000000000/s\n' \
	>"$private/config/quota.d/50-rated.conf"
"$build/daemon/iommubrokerd" --backend=emulated --config-dir "$private/config" \
	--runtime-dir "$private/run" 2>"$private/daemon.log" &
daemon=$!
mkfifo "$private/open"
"$build/tests/bench/grpc_echo" --server "$private/echo.sock" <>"$private/open" >/dev/null &
echo_server=$!
for _ in $(seq 200); do
	[ -S "$private/run/broker.sock" ] && [ -S "$private/run/fd.sock" ] && [ -S "$private/echo.sock" ] && break
	sleep 0.05
done

# wanted PREFIX: whether NAME... choose rows that begin so.
wanted() {
	local name
	[ "$names" ] || return 0
	for name in $names; do
		case $name in "$1"*) return 0 ;; esac
		case $1 in "$name"*) return 0 ;; esac
	done
	return 1
}

fairness_rows() {
	if [ "$(id -u)" -ne 0 ]; then
		echo "left out: fairness_* (only root can be two tenants)" >&2
		return
	fi
	"$build/tests/bench/fairness_bench" "$private/run"
}

# It keeps thousands of descriptors, as the service manager does.
restart_rows() {
	if ! (ulimit -Sn "$(ulimit -Hn)" && /usr/bin/python3 "$source/tests/bench/restart_bench.py" "$build") \
		2>"$private/restart.log"; then
		tail -n 5 "$private/restart.log" >&2
		echo "FAILED restart_*" >&2
		: >"$private/failed"
	fi
}

# kernel_rows ARCH: those that its machine gives out.
kernel_rows() {
	local rows=$private/vm/$1/bench/rows status=0
	if [ ! -f "$source/../shared/vm/bzImage-$1" ]; then
		echo "left out: kernel_$1_* (no kernel for it in ../shared/vm)" >&2
		return
	fi
	IB_BUILD_ROOT=$build "$source/tests/vm/run.sh" --output "$private/vm" "$1" bench >"$private/vm.log" 2>&1 ||
		status=$?
	if [ $status -eq 0 ] && [ -s "$rows" ]; then
		sed -E 's/"(name|against)": "/&kernel_'"$1"'_/g' "$rows"
	elif [ $status -eq 75 ]; then
		echo "left out: kernel_$1_* ($(tail -n 2 "$private/vm.log" | head -n 1))" >&2
	else
		tail -n 20 "$private/vm.log" >&2
		echo "FAILED kernel_$1_*: its machine did not run to the end" >&2
		: >"$private/failed"
	fi
}

{
	"$build/tests/bench/refresh_bench" "$private/run" "$private/echo.sock"
	! wanted fairness_ || fairness_rows
	! wanted restart_ || restart_rows
	"$build/tests/bench/shadow_bench" "$source/tests/data/traces/nvme-virtio-lazy.tables.gz"
	for arch in x86_64 s390x; do
		! wanted "kernel_${arch}_" || kernel_rows "$arch"
	done
} >"$private/rows"

python3 - "$private/rows" "$json" $names <<'END'
import json
import sys

rows_path, json_path, *names = sys.argv[1:]
with open(rows_path, encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
if names:
    rows = [row for row in rows if any(row["name"].startswith(name) for name in names)]
if not rows:
    sys.exit("no benchmark has such a name")
for row in rows:
    against = f"{row['ratio']:.2f} x {row['against']}" if row["against"] else ""
    print(f"{row['name']:<38} {row['value']:>12.3f} {row['unit']:<6} {against}")
if json_path:
    with open(json_path, "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=1)
        file.write("\n")
END
[ ! -e "$private/failed" ]
