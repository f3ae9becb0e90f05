#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What a machine of tests/vm/run.sh holds, from a finished build; no root needed.
#
#	image.sh ARCH BUILD INITRD           the whole image for boot kind plain
#	image.sh --stage ARCH BUILD FOLDER   what every boot kind has in its root folder: the tree of
#	                                     "meson install", busybox, and in
#	                                     /usr/lib/iommubroker-tests the programs, data and table
#
# BUILD is a meson build folder; for another architecture than this machine's, IB_VM_SYSROOT names the
# folder that it was linked against. Exit status 75: something cannot be fetched now.
set -u
here=$(cd "$(dirname "$0")" && pwd)
tests=usr/lib/iommubroker-tests

stage_only=
[ "${1:-}" != --stage ] || { stage_only=1 && shift; }
if [ $# -ne 3 ]; then
	echo "usage: image.sh [--stage] x86_64|s390x BUILD INITRD-OR-FOLDER" >&2
	exit 2
fi
arch=$1 build=$2 out=$3
sysroot=${IB_VM_SYSROOT:-}
case $arch in
x86_64) debian=amd64 ;;
*) debian=$arch ;;
esac
strip='strip'
[ "$arch" = "$(uname -m)" ] || strip=$arch-linux-gnu-strip

is_elf() { [ "$(head -c 4 "$1" | tail -c 3)" = ELF ]; }

# Programs, without what only a debugger reads.
stage_programs() {
	local root=$1 file
	mkdir -p "$root/$tests/data"
	find "$build/tests/vm/guest" -maxdepth 1 -type f \( -perm -u+x -o -name '*.so' \) -print0 |
		xargs -0r cp -t "$root/$tests" || return 1
	cp "$build/tests/unit/conformance_iommufd" "$root/$tests" || return 1
	for file in "$root/$tests"/*; do
		[ ! -f "$file" ] || ! is_elf "$file" || "$strip" --strip-unneeded "$file" || return 1
	done
	find "$here/guest" -maxdepth 1 -type f -perm -u+x -exec cp -t "$root/$tests" {} +
	cp -R "$here/../data/traces/." "$root/$tests/data" || return 1
	cp "$here/suites" "$here/vm-suites" "$root/$tests"
}
stage() {
	local root=$1 busybox
	DESTDIR=$root meson install -C "$build" --no-rebuild --strip --quiet >"$root.log" 2>&1 || {
		cat "$root.log" >&2
		return 1
	}
	stage_programs "$root" || return 1
	busybox=$("$here/packages.sh" --arch "$debian" --no-deps busybox-static) || return
	mkdir -p "$root/bin" && cp "$busybox/bin/busybox" "$root/bin/busybox"
}

# Where a library of that name is: the image itself comes first, then where the build was linked.
library() {
	local root=$1 name=$2 at
	for at in "$root"/usr/lib "$root/usr/lib/$arch-linux-gnu" "$root/usr/lib64" \
		"$sysroot/lib/$arch-linux-gnu" "$sysroot/usr/lib/$arch-linux-gnu" \
		"$sysroot/usr/$arch-linux-gnu/lib" "$sysroot/lib" "$sysroot/usr/lib" "$sysroot/lib64" "$sysroot/usr/lib64"; do
		[ ! -f "$at/$name" ] || { echo "$at/$name" && return; }
	done
	return 1
}
wanted_by() {
	readelf -dW "$1" 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'
}
interpreter_of() {
	readelf -lW "$1" 2>/dev/null | sed -n 's/.*program interpreter: \(.*\)\]/\1/p'
}

# All libraries that the ELF files of the image want, and theirs, and so on; and their loader.
libraries() {
	local root=$1 todo=() file name from to=usr/lib/$arch-linux-gnu
	mkdir -p "$root/$to"
	mapfile -d '' -t todo < <(find "$root" -type f \( -perm -u+x -o -name '*.so*' \) -print0)
	while [ ${#todo[@]} -gt 0 ]; do
		file=${todo[0]}
		todo=("${todo[@]:1}")
		is_elf "$file" || continue
		for name in $(wanted_by "$file") $(interpreter_of "$file"); do
			[ "${name#/}" = "$name" ] || { loader "$root" "$name" || return 1 && continue; }
			from=$(library "$root" "$name") || {
				echo "image.sh: no $name for ${file#"$root"}" >&2
				return 1
			}
			case $from in "$root"/*) continue ;; esac
			cp -L "$from" "$root/$to/$name" && chmod 755 "$root/$to/$name" || return 1
			todo+=("$root/$to/$name")
		done
	done
}
loader() {
	local root=$1 path=$2 from
	[ ! -e "$root$path" ] || return 0
	from=$(library "$root" "${path##*/}") || from=$sysroot$path
	mkdir -p "$root${path%/*}" && cp -L "$from" "$root$path" && chmod 755 "$root$path"
}

users() {
	local root=$1
	mkdir -p "$root/etc/iommubroker"
	cat >"$root/etc/passwd" <<-EOF
		root:x:0:0:root:/root:/bin/sh
		iommubroker:x:990:990::/:/bin/sh
		vmm:x:1000:1000::/tmp:/bin/sh
		other:x:1001:1001::/tmp:/bin/sh
		nobody:x:65534:65534::/:/bin/sh
	EOF
	cat >"$root/etc/group" <<-EOF
		root:x:0:
		iommubroker:x:990:
		iommubroker-clients:x:991:vmm
		vmm:x:1000:
		other:x:1001:
		nogroup:x:65534:
	EOF
	echo "passwd: files
group: files" >"$root/etc/nsswitch.conf"
}

umask 022
if [ "$stage_only" ]; then
	mkdir -p "$out" && stage "$out"
	exit
fi
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ib-image-XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP
root=$scratch/root
mkdir -p "$root"/{bin,dev,etc,proc,root,run,sys,tmp,var}
stage "$root" || exit
libraries "$root" && users "$root" && cp "$here/init" "$root/init" || exit 1
chmod 755 "$root/init" "$root/$tests/vm-suites"
(cd "$root" && find . -print0 | sort -z | cpio -0 -o -H newc -R 0:0 --quiet) | gzip -1 >"$scratch/initrd" &&
	mv "$scratch/initrd" "$out"
