#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What a build for s390x needs: a sysroot of Debian's s390x packages and a cross file for meson.
#
#	sysroot.sh s390x    prints the path of the cross file and, on a second line, of the sysroot
#
# No foreign architecture is added to the machine: packages.sh unpacks into the user's cache, and
# here absolute links are made relative, so that they stay in there. Exit status 75: cannot be had
# now (no cross compiler, no network).
#
# The compiler comes with a C library of its own (libc6-dev-s390x-cross) that it prefers even to
# --sysroot, in headers, start files and libraries: half of a program would be of one C library and
# half of another. The cross file names the sysroot's folders first, for each of the three.
#
# Programs of the target are run with QEMU's user emulation: the build runs one, and the tests all.
# Emulators of some years ago kept a record of every page of every mapping, which takes minutes and
# all memory for mappings as large as ours; one that is older than 10 is not used but fetched.
set -u
export LC_ALL=C.UTF-8
readonly UNAVAILABLE=75 triplet=s390x-linux-gnu
if [ "$*" != s390x ]; then
	echo "usage: sysroot.sh s390x" >&2
	exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/iommubroker

packages='libc6-dev libgrpc-dev libprotobuf-c-dev libprotobuf-dev libevent-dev libsystemd-dev
	libinih-dev libjansson-dev libbsd-dev libmd-dev uthash-dev libseccomp-dev liblzma-dev zlib1g-dev
	libcmocka-dev systemtap-sdt-dev'

if ! command -v $triplet-gcc >/dev/null; then
	echo "sysroot.sh: needs Debian's package gcc-$triplet" >&2
	exit $UNAVAILABLE
fi
compiler_include=$($triplet-gcc -print-file-name=include) || exit 1

# Prints the emulator.
emulator() {
	local name found suite root codename
	for name in qemu-s390x qemu-s390x-static; do
		found=$(command -v $name) && is_emulator "$found" && echo "$found" && return
	done
	codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	for suite in "$codename-backports" sid; do
		root=$("$here/packages.sh" --suite "$suite" --no-deps qemu-user 2>/dev/null) || continue
		is_emulator "$root/usr/bin/qemu-s390x" && echo "$root/usr/bin/qemu-s390x" && return
	done
	echo "sysroot.sh: needs qemu-s390x 10 or later (Debian's package qemu-user)" >&2
	return $UNAVAILABLE
}
is_emulator() {
	local version
	version=$("$1" --version 2>/dev/null | sed -n 's/^qemu-s390x version \([0-9]*\)\..*/\1/p')
	[ "${version:-0}" -ge 10 ]
}

links_relative() {
	local link target
	find "$1" -type l -lname '/*' -print0 | while IFS= read -r -d '' link; do
		target=$(readlink "$link")
		ln -snf "$(realpath -sm --relative-to="$(dirname "$link")" "$1$target")" "$link" || exit 1
	done
}

# cross_file SYSROOT EMULATOR
cross_file() {
	local lib=$1/usr/lib/$triplet include=$1/usr/include
	cat <<-END
		[binaries]
		c = ['$triplet-gcc', '--sysroot=$1', '-nostdinc', '-isystem', '$compiler_include',
		     '-isystem', '$include/$triplet', '-isystem', '$include', '-B$lib', '-L$lib']
		ar = '$triplet-ar'
		strip = '$triplet-strip'
		pkgconfig = 'pkg-config'
		exe_wrapper = ['$2', '-L', '$1']

		[properties]
		needs_exe_wrapper = true
		sys_root = '$1'
		pkg_config_libdir = ['$lib/pkgconfig', '$1/usr/share/pkgconfig']

		[host_machine]
		system = 'linux'
		cpu_family = 's390x'
		cpu = 's390x'
		endian = 'big'
	END
}

# shellcheck disable=SC2086 # a list of words
root=$("$here/packages.sh" --arch s390x $packages) || exit
qemu=$(emulator) || exit
made=$cache/sysroots/$(cross_file "$root" "$qemu" | sha256sum | cut -c1-16)
if [ ! -d "$made" ]; then
	umask 022
	mkdir -p "$cache/sysroots" || exit 1
	part=$(mktemp -d "$cache/sysroots/part-XXXXXX") || exit 1
	trap 'rm -rf "$part"' EXIT
	trap 'exit 130' INT TERM HUP
	# hard links: the files themselves are there once
	cp -al "$root" "$part/root" || exit 1
	links_relative "$part/root" || exit 1
	cross_file "$made/root" "$qemu" >"$part/cross.ini" || exit 1
	chmod 755 "$part"
	# whoever was faster made the same
	mv -T "$part" "$made" 2>/dev/null || [ -d "$made" ] || exit 1
fi
printf '%s\n' "$made/cross.ini" "$made/root"
