#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# All tests: tests/run.sh [--list] [--verbose] [PART…]
#
# Installs what is missing as root, otherwise says what to install. Builds and leaves behind nothing
# but build-tests/ in the source folder (or in $IB_BUILD_ROOT) and packages in the user's cache folder
# (~/.cache/iommubroker). The last line is
# "N passed, N failed, N skipped"; every skip says why; the status is 0 only without failures.
set -u
source=$(cd "$(dirname "$0")/.." && pwd)
root=${IB_BUILD_ROOT:-$source/build-tests}
export PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8
exec </dev/null

parts='layers format gcc generated systemd install unit scenario traces clang s390x s390x-unit asan asan-unit asan-scenario asan-traces tsan tsan-unit tsan-scenario vm-x86_64 vm-s390x'
describe() {
	case $1 in
	layers) echo "no include goes up, foreign interfaces stay in their layer" ;;
	format) echo "clang-format has nothing to say" ;;
	gcc) echo "builds with gcc without warnings" ;;
	clang) echo "builds with clang without warnings" ;;
	generated) echo "documents name what is there, and equal what is generated" ;;
	s390x) echo "builds for s390x without warnings" ;;
	s390x-unit) echo "unit, in big-endian programs under user emulation" ;;
	systemd) echo "units are valid, exposure at most 1.0" ;;
	install) echo "what is installed is complete and can be linked" ;;
	unit) echo "unit, conformance and property tests, fuzz corpora" ;;
	scenario) echo "a real daemon, its sockets, good and hostile clients" ;;
	traces) echo "both recorded guests and the real tables" ;;
	asan) echo "builds with the address and undefined-behaviour sanitizers" ;;
	tsan) echo "builds with the thread sanitizer" ;;
	vm-*) echo "a real kernel of ${1#vm-}, its /dev/iommu and a device's DMA" ;;
	asan-*) echo "${1#asan-}, with address and undefined-behaviour sanitizers" ;;
	tsan-*) echo "${1#tsan-} (a part), with the thread sanitizer" ;;
	esac
}

verbose=
chosen=
while [ $# -gt 0 ]; do
	case $1 in
	--list)
		for part in $parts; do printf '%-14s %s\n' "$part" "$(describe "$part")"; done
		exit 0
		;;
	--verbose) verbose=--verbose ;;
	-*)
		echo "usage: tests/run.sh [--list] [--verbose] [PART...]" >&2
		exit 2
		;;
	*)
		case " $parts " in
		*" $1 "*) chosen="$chosen $1" ;;
		*)
			echo "no such part: $1 (see --list)" >&2
			exit 2
			;;
		esac
		;;
	esac
	shift
done

"$source/tests/install-deps.sh" || exit 1
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ib-run-XXXXXX") || exit 1
background=
trap '[ -z "$background" ] || kill -- -$background 2>/dev/null; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$root" || exit 1

# The interpreter that has Debian's modules may not be the first in PATH.
python=
for candidate in /usr/bin/python3 python3; do
	if "$candidate" -c 'import grpc, google.protobuf' 2>/dev/null; then
		python=$candidate
		break
	fi
done
[ -n "$python" ] || { echo "no python3 with grpc and google.protobuf" >&2; exit 1; }

export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:quarantine_size_mb=32:handle_sigbus=0:allow_user_segv_handler=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export LSAN_OPTIONS=suppressions=$source/tests/data/lsan.supp:print_suppressions=0
export TSAN_OPTIONS=suppressions=$source/tests/data/tsan.supp:halt_on_error=0:second_deadlock_stack=1:ignore_noninstrumented_modules=1

passed=0 failed=0 skipped=0
say() { printf '%s\n' "$*"; }
pass() { passed=$((passed + 1)); }
fail() {
	failed=$((failed + 1))
	say "FAILED $*"
}
skip() {
	skipped=$((skipped + 1))
	say "skipped $*"
}

# Run a command whose last line is a tally; show the rest if there is something to tell. One that says
# by its status that something is wrong, and by its counts that nothing is, died on the way.
tallied() {
	local name=$1 line status
	shift
	"$@" >"$scratch/out" 2>&1
	status=$?
	line=$(tail -n 1 "$scratch/out")
	if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
		passed=$((passed + BASH_REMATCH[1]))
		failed=$((failed + BASH_REMATCH[2]))
		skipped=$((skipped + BASH_REMATCH[3]))
		sed '$d' "$scratch/out"
		say "$name: $line"
		# 75: nothing was run, and it said why
		[ $status -eq 0 ] || [ $status -eq 75 ] || [ "${BASH_REMATCH[2]}" -ne 0 ] ||
			fail "$name: ended with status $status"
	else
		cat "$scratch/out"
		fail "$name: gave no tally"
	fi
}

# Run a command that is one test by itself.
single() {
	local name=$1
	shift
	if "$@" >"$scratch/out" 2>&1; then
		pass
	else
		# without ninja's list of what went well
		grep -vE '^\[[0-9]+/[0-9]+\] (Compiling|Linking|Generating)' "$scratch/out" | tail -n 100
		fail "$name"
		return 1
	fi
}

# build FOLDER COMPILER MESON_OPTION…: set up once, compile.
build() {
	local folder=$root/$1 compiler=$2
	shift 2
	if [ ! -f "$folder/build.ninja" ]; then
		rm -rf "$folder"
		CC=$compiler meson setup "$folder" "$source" "$@" || return 1
	fi
	ninja -C "$folder"
}
build_gcc() { build gcc gcc -Dwerror=true -Dcrash_points=true; }
build_clang() { build clang clang -Dwerror=true; }
# Sanitizers make gcc see truncations that cannot be: no -Werror with them.
build_asan() { build asan gcc -Dcrash_points=true -Db_sanitize=address,undefined -Doptimization=1; }
build_tsan() { build tsan gcc -Dcrash_points=true -Db_sanitize=thread -Doptimization=1; }

# Another sysroot is another build. Status 75: it cannot be had now.
build_s390x() {
	local cross status
	cross=$("$source/tests/vm/sysroot.sh" s390x | sed -n 1p; exit "${PIPESTATUS[0]}")
	status=$?
	[ $status -eq 0 ] || return $status
	if [ "$(cat "$root/s390x.cross" 2>/dev/null)" != "$cross" ]; then
		rm -rf "$root/s390x"
		echo "$cross" >"$root/s390x.cross"
	fi
	build s390x gcc -Dwerror=true --cross-file "$cross"
}

# Builds are made once each. Those that later parts need go on beside the tests, which wait a lot.
ahead() {
	local name
	for name in "$@"; do
		build_$name >"$scratch/build-$name.out" 2>&1
		echo $? >"$scratch/build-$name.done"
	done
}
# made NAME: wait for that build, or make it; its status.
made() {
	if [ ! -f "$scratch/build-$1.done" ] && [[ " $builds_ahead " != *" $1 "* ]]; then
		ahead "$1"
	fi
	while [ ! -f "$scratch/build-$1.done" ]; do sleep 0.5; done
	cat "$scratch/build-$1.out"
	return "$(cat "$scratch/build-$1.done")"
}
# A build that a part needs; told as a failure here only if no part of its own tells it.
need() {
	made "$1" >/dev/null && return
	[[ " ${chosen:-$parts} " == *" $1 "* ]] || single "$1 builds" made "$1"
	say "left out: the build failed"
	return 1
}
builds_ahead=
start_builds() {
	local name
	for name in clang s390x asan tsan; do
		[[ " ${chosen:-$parts}" == *" $name"* ]] && builds_ahead="$builds_ahead $name"
	done
	[ -n "$builds_ahead" ] || return
	# in a process group of its own, so that it can be stopped whole
	set -m
	(
		renice -n 5 $BASHPID >/dev/null
		ahead $builds_ahead
	) &
	background=$!
	set +m
}

unit() {
	# or what is counted may be of another run
	rm -f "$root/$1/meson-logs/testlog.json"
	meson test -C "$root/$1" --no-rebuild --print-errorlogs -q -t "$2" >"$scratch/meson" 2>&1
	tallied "unit ($1)" "$python" "$source/tests/tally.py" "$root/$1"
}
scenario() {
	local folder=$1
	shift
	tallied "scenario ($folder)" "$python" "$source/tests/scenario/run.py" --build "$root/$folder" $verbose "$@"
}

part_layers() { single layers "$python" "$source/tests/layers_test.py"; }

part_format() {
	if ! command -v clang-format >/dev/null; then
		skip "format: clang-format is not installed"
		return
	fi
	single format bash -c "cd '$source' && find daemon client tests -name '*.[ch]' -print0 |
		xargs -0 clang-format --dry-run -Werror"
}

part_gcc() { single "gcc builds without warnings" made gcc; }
part_clang() {
	if ! command -v clang >/dev/null; then
		skip "clang: not installed"
		return
	fi
	single "clang builds without warnings" made clang
}

# The journal takes it, and lists every message of the table.
catalog_compiles() {
	local at=$scratch/catalog wanted
	mkdir -p "$at/usr/lib/systemd/catalog" "$at/var/lib/systemd/catalog"
	cp "$1" "$at/usr/lib/systemd/catalog"
	journalctl --root="$at" --update-catalog || return 1
	wanted=$(grep -c '^	X(' "$source/daemon/util/log_message.h")
	[ "$wanted" -gt 0 ] && [ "$(journalctl --root="$at" --list-catalog | grep -c ' iommubrokerd: ')" -eq "$wanted" ]
}

# Whatever is committed and also generated: both must say the same.
part_generated() {
	single "documents name what is there" "$python" "$source/tests/docs_test.py"
	need gcc || return
	local committed generated
	for generated in iommubrokerd.conf iommubrokerd.conf.5 OBSERVABILITY.md; do
		[ -f "$root/gcc/daemon/$generated" ] || { fail "generated: no $generated"; continue; }
		for committed in "$source/docs/$generated" "$source/docs/man/$generated"; do
			[ -f "$committed" ] || continue
			single "generated: $generated" diff -u "$committed" "$root/gcc/daemon/$generated"
		done
	done
	single "tracepoints" "$python" "$source/tests/tracepoints_test.py" "$root/gcc/daemon/iommubrokerd"
	if command -v journalctl >/dev/null; then
		single "catalog" catalog_compiles "$root/gcc/daemon/iommubroker.catalog"
	else
		skip "catalog: journalctl is not installed"
	fi
	if command -v man >/dev/null; then
		for page in "$root/gcc/daemon/iommubrokerd.conf.5" "$root/gcc/client/iommubrokerctl.1" \
			"$source"/docs/man/*.[0-9]; do
			[ -f "$page" ] || continue
			single "manual page ${page##*/}" bash -c \
				"! LC_ALL=C.UTF-8 MANWIDTH=80 MANROFFSEQ= man --warnings -E UTF-8 -l '$page' 2>&1 >/dev/null | grep ."
		done
	else
		skip "manual pages: man is not installed"
	fi
}

part_systemd() {
	local folder=$scratch/units exposure
	if ! command -v systemd-analyze >/dev/null; then
		skip "systemd: systemd-analyze is not installed"
		return
	fi
	mkdir "$folder"
	cp "$source"/systemd/*.socket "$folder"
	sed 's,@LIBEXECDIR@/iommubroker/iommubrokerd,/bin/true,;s,@BINDIR@/iommubrokerctl,/bin/true,' \
		"$source/systemd/iommubrokerd.service.in" >"$folder/iommubrokerd.service"
	single "units are valid" bash -c "cd '$folder' && out=\$(systemd-analyze verify --man=no ./*.service ./*.socket 2>&1) && [ -z \"\$out\" ] || { echo \"\$out\"; false; }"
	exposure=$(systemd-analyze security --offline=true "$folder/iommubrokerd.service" 2>&1 |
		sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p')
	say "exposure of the unit: ${exposure:-unknown} of 10"
	single "exposure at most 1.0" awk "BEGIN { exit !(\"$exposure\" != \"\" && $exposure + 0 <= 1.0) }"
	single "sysusers" systemd-sysusers --root="$folder" --dry-run "$source/systemd/iommubroker.sysusers.conf"
}

part_install() {
	local at=$scratch/install
	need gcc || return
	single "meson install" env DESTDIR="$at" meson install -C "$root/gcc" --no-rebuild
	local usr=$at/usr file
	for file in libexec/iommubroker/iommubrokerd bin/iommubrokerctl bin/iommubroker-replay \
		include/iommubroker.h lib/systemd/system/iommubrokerd.service \
		lib/systemd/system/iommubrokerd-fd.socket lib/systemd/system/iommubrokerd-metrics.socket \
		lib/systemd/catalog/iommubroker.catalog lib/sysusers.d/iommubroker.conf \
		lib/tmpfiles.d/iommubroker.conf lib/udev/rules.d/70-iommubroker.rules \
		share/man/man8/iommubrokerd.8 share/man/man5/iommubrokerd.conf.5 \
		share/man/man1/iommubrokerctl.1 share/bash-completion/completions/iommubrokerctl.bash; do
		# systemd.pc may name /lib/systemd for units.
		single "installed: $file" test -f "$usr/$file" -o -f "$at/$file"
	done
	cat >"$scratch/user.c" <<'END'
#include <iommubroker.h>
int main(void)
{
	return 0;
}
END
	local pc
	pc=$(dirname "$(find "$usr" -name iommubroker.pc)")
	single "a program links with pkg-config's flags" bash -c "
		flags=\$(PKG_CONFIG_PATH='$pc' PKG_CONFIG_SYSROOT_DIR='$at' pkg-config --cflags --libs iommubroker) &&
		gcc -std=gnu11 -Wall -Wextra -Werror -o '$scratch/user' '$scratch/user.c' \$flags"
	single "the library needs libc and protobuf-c only" bash -c "
		! objdump -p \$(find '$usr' -name 'libiommubroker.so.1') | grep NEEDED | grep -Ev 'libc\\.so|libprotobuf-c|ld-linux|ld64'"
}

part_unit() {
	tallied "what a machine's console says" "$python" "$source/tests/vm/machine_test.py"
	need gcc && unit gcc 1
}
part_scenario() { need gcc && scenario gcc --without test_replay; }
part_traces() { need gcc && scenario gcc test_replay; }
# A sysroot that cannot be had now is no failure.
can_s390x() {
	made s390x >"$scratch/s390x.out"
	[ $? -ne 75 ] && return
	skip "$1: $(tail -n 1 "$scratch/s390x.out")"
	return 1
}
part_s390x() { can_s390x s390x && single "s390x builds without warnings" made s390x; }
part_s390x-unit() {
	can_s390x s390x-unit && need s390x || return
	QEMU_SET_ENV=LD_PRELOAD=$root/s390x/tests/unit/libqemu_user.so unit s390x 5
}
part_asan() { single "builds with ASan and UBSan" made asan; }
part_asan-unit() { need asan && unit asan 5; }
# A thousand deaths of the daemon are for the plain build: here each costs more, and fewer tell enough.
part_asan-scenario() { need asan && IB_KILLS=240 scenario asan --without test_replay; }
part_asan-traces() { need asan && scenario asan test_replay; }
part_tsan() { single "builds with TSan" made tsan; }
part_tsan-unit() { need tsan && unit tsan 10; }
part_tsan-scenario() {
	need tsan && IB_KILLS=100 scenario tsan test_main_job test_death test_sessions test_events \
		test_memory.LongPins test_memory.Shrunk test_verdicts.Refresh test_limits.Mappings \
		test_restart.Killed.test_under test_handover test_managers test_ring test_ring_restart
}

# Suites of tests/vm on real kernels. Kernels are never built here; what is not at hand is skipped.
machine() {
	tallied "vm ($1)" env IB_BUILD_ROOT="$root" IB_VM_BUILD="$2" "$source/tests/vm/run.sh" --at-hand $verbose "$1"
}
part_vm-x86_64() { need gcc && machine x86_64 "$root/gcc"; }
part_vm-s390x() { can_s390x vm-s390x && need s390x && machine s390x "$root/s390x"; }

start=$SECONDS
for part in ${chosen:-$parts}; do
	say "== $part: $(describe "$part")"
	"part_$part"
	# the first build is there, or not needed: the others may use the machine
	if [ "$part" = gcc ] || [[ " ${chosen:-$parts} " != *" gcc "* ]]; then
		[ -n "$builds_ahead" ] || start_builds
	fi
done
say "took $((SECONDS - start)) s"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
