#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The main job, shown: a broker on the emulated backend in a private folder, two recorded guests and
# real guest tables played through it by a program without any privilege, every change checked by
# DMA. Installs what is missing as root, otherwise says what to install. Leaves nothing behind but
# build-demo/ in the source folder (or in $IB_BUILD_ROOT).
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
build=${IB_BUILD_ROOT:-$source}/build-demo
export LC_ALL=C.UTF-8
exec </dev/null

"$source/tests/install-deps.sh" build

heading() { printf '\n=== %s\n' "$*"; }
indent() { sed 's/^/    /'; }

heading "Building (in ${build#"$source"/})"
log=$(mktemp)
private=
daemon=
replay=
finish() {
	[ -z "$replay" ] || kill "$replay" 2>/dev/null || true
	if [ -n "$daemon" ]; then
		kill "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	rm -rf "$log" ${private:+"$private"}
}
trap finish EXIT
trap 'exit 130' INT TERM
if ! {
	[ -f "$build/build.ninja" ] || meson setup "$build" "$source" -Dtests=false -Dbuildtype=release
	ninja -C "$build"
} >"$log" 2>&1; then
	tail -n 40 "$log" >&2
	exit 1
fi
echo "    done in ${SECONDS} s"

# Everything below happens in here. The programs are copied in because the source folder may be
# closed to other users.
private=$(mktemp -d "${TMPDIR:-/tmp}/ib-demo-XXXXXX")
chmod 755 "$private"
mkdir "$private/bin" "$private/config" "$private/config/device.d" "$private/run" "$private/traces"
cp "$build/daemon/iommubrokerd" "$build/client/iommubrokerctl" "$build/client/iommubroker-replay" \
	"$build/client/libiommubroker.so.1" "$private/bin"
cp "$source"/tests/data/traces/nvme-* "$private/traces"
chmod -R a+rX "$private"
export LD_LIBRARY_PATH=$private/bin

# As root: the broker runs as one user without privilege and the VMM as another. Neither has a
# capability, and the VMM may not lock a single page of memory.
broker_user=$(id -un) vmm_user=$(id -un)
as_broker= as_vmm=
if [ "$(id -u)" -eq 0 ]; then
	vmm_user=nobody broker_user=daemon
	drop="--clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
	as_broker="setpriv --reuid=$broker_user --regid=$(id -g "$broker_user") $drop"
	as_vmm="setpriv --reuid=$vmm_user --regid=$(id -g "$vmm_user") $drop"
	chown "$broker_user" "$private/run"
fi
cat >"$private/config/iommubrokerd.conf" <<END
[Clients]
Users=$vmm_user
END
cat >"$private/config/device.d/demo.conf" <<END
[Device]
User=$vmm_user
FunctionId=1 2
END

heading "Starting the broker as user '$broker_user', with these files"
(cd "$private/config" && for file in iommubrokerd.conf device.d/demo.conf; do
	echo "$file:"
	indent <"$file"
done) | indent
$as_broker "$private/bin/iommubrokerd" --backend=emulated --config-dir "$private/config" \
	--runtime-dir "$private/run" >"$private/log" 2>&1 &
daemon=$!
ctl() { "$private/bin/iommubrokerctl" --runtime-dir "$private/run" "$@"; }
for _ in $(seq 100); do
	ctl status >/dev/null 2>&1 && break
	kill -0 "$daemon" 2>/dev/null || break
	sleep 0.1
done
ctl status >"$private/status" 2>&1 || {
	cat "$private/log" >&2
	exit 1
}
indent <"$private/status"

figure() { python3 -c 'import json, sys
value = json.load(open(sys.argv[1]))[sys.argv[2]]
if isinstance(value, dict):
    value = ", ".join("%s of function %s" % (v, k) for k, v in sorted(value.items()))
print(value)' "$1" "$2"; }

failed=0
summary=
# play NAME EXPECTED-LIVE ARGUMENT…
play() {
	local name=$1 out=$private/$1.json live=$2 status=0
	shift 2
	(ulimit -l 0 2>/dev/null
	exec $as_vmm "$private/bin/iommubroker-replay" --runtime-dir "$private/run" --guest-name "$name" \
		--json "$@") >"$out" 2>"$private/$name.err" || status=$?
	if [ "$status" -ne 0 ] || [ "$(figure "$out" live_leaves)" != "$live" ]; then
		failed=1
		cat "$private/$name.err" "$out" "$private/log" >&2
		return
	fi
	printf '    %s refreshes, %s mappings made or changed, %s taken away, in %.1f s\n' \
		"$(figure "$out" refreshes)" "$(figure "$out" leaves_mapped)" \
		"$(figure "$out" leaves_unmapped)" "$(figure "$out" seconds)"
	printf '    at the end mapped: %s\n' "$(figure "$out" live_leaves)"
	printf '    %s checks by DMA, %s failed\n' "$(figure "$out" dma_checks)" "$(figure "$out" dma_failures)"
	summary="$summary
  $(printf '%-28s %7s refreshes %8s DMA checks %4s wrong' "$name" "$(figure "$out" refreshes)" \
		"$(figure "$out" dma_checks)" "$(figure "$out" dma_failures)")"
}

heading "A recorded Linux guest (NVMe disk and network card), played as user '$vmm_user'"
play lazy-guest "24 of function 1, 133 of function 2" --trace "$private/traces/nvme-virtio-lazy.trace.xz"

heading "The same kind of guest with iommu.strict=1"
play strict-guest "56 of function 1, 133 of function 2" --trace "$private/traces/nvme-virtio-strict.trace.xz"

heading "Real table pages of the first guest, at their own addresses, walked in full"
anchors="--anchor 1=0x3014804,0x100000000,0x117ffffff --anchor 2=0x3010804,0x100000000,0x117ffffff"
play real-tables "24 of function 1, 133 of function 2" --tables "$private/traces/nvme-virtio-lazy.tables.gz" $anchors

heading "What the operator sees while such a guest lives"
$as_vmm "$private/bin/iommubroker-replay" --runtime-dir "$private/run" --guest-name living-guest --keep 60 \
	--json --tables "$private/traces/nvme-virtio-lazy.tables.gz" $anchors >"$private/living" 2>&1 &
replay=$!
for _ in $(seq 100); do
	[ -s "$private/living" ] && break
	sleep 0.1
done
echo "    \$ iommubrokerctl show living-guest"
ctl show living-guest | indent || failed=1
echo
echo "    \$ iommubrokerctl explain --fid 2 living-guest 0x117f7b010"
ctl explain --fid 2 living-guest 0x117f7b010 | indent || failed=1

heading "Killing that VMM: all it had is given back"
kill -KILL "$replay"
wait "$replay" 2>/dev/null || true
replay=
left=1
for _ in $(seq 100); do
	left=$(ctl --json status | python3 -c 'import json, sys
told = json.load(sys.stdin)
print(sum(told[name] for name in ("guests", "devices", "pinned_bytes", "mappings_installed")))')
	[ "$left" = 0 ] && break
	sleep 0.1
done
echo "    guests, devices, pinned bytes, mappings left: $left"
[ "$left" = 0 ] || failed=1

kill "$daemon"
wait "$daemon" || failed=1
daemon=

heading "Summary"
cat <<END
A process without any privilege (user '$vmm_user', no capability, no locked memory) had the broker
pin its guest's memory, opened PCI functions, and let the guest's own page tables decide what each
function can reach. Every change the guests made was checked by DMA through the function: it went
where the guest's tables say, and nowhere else.
$summary
END
if [ "$failed" -ne 0 ]; then
	echo "SOMETHING WENT WRONG, see above."
	exit 1
fi
echo
echo "All as it should be, in ${SECONDS} s."
