#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A kernel with IOMMUFD and what else the tests need, as Debian builds none:
#
#	kernel.sh x86_64|s390x [--version newest|X.Y] [--configure | --at-hand]
#
# prints the path of an image in the user's cache. If it is not there, it is built from the newest
# package linux-source of 6.12 or later, or from linux-source-X.Y, of this machine's suite or a newer
# one of Debian's, and tests/vm/ARCH.config: 10 minutes on two idle cores, 2 GB while it lasts. What
# was built stays until that file changes. --configure: only check that all that is wanted can be set.
# --at-hand: build nothing. No root needed. Exit status 75: cannot be had now.
set -u
export LC_ALL=C.UTF-8
readonly UNAVAILABLE=75 OLDEST=6.12
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/iommubroker

usage() {
	echo "usage: kernel.sh x86_64|s390x [--version newest|X.Y] [--configure | --at-hand]" >&2
	exit 2
}
say() { echo "kernel.sh: $*" >&2; }
unavailable() {
	say "$*"
	exit $UNAVAILABLE
}

arch=${1:-} version=newest configure='' at_hand=''
case $arch in
x86_64) kernel_arch=x86_64 image=arch/x86/boot/bzImage ;;
s390x) kernel_arch=s390 image=arch/s390/boot/bzImage ;;
*) usage ;;
esac
shift
while [ $# -gt 0 ]; do
	case $1 in
	--version) [ $# -gt 1 ] || usage; version=$2 && shift ;;
	--configure) configure=1 ;;
	--at-hand) at_hand=1 ;;
	*) usage ;;
	esac
	shift
done
[[ $version =~ ^(newest|[0-9]+\.[0-9]+)$ ]] || usage
wanted=$here/$arch.config

made=$cache/kernels/$arch-$version-$(sha256sum <"$wanted" | cut -c1-12)
built() {
	[ -z "$configure" ] && ls "$made"/bzImage-* 2>/dev/null
}
built && exit 0
[ -z "$at_hand" ] || unavailable "no kernel $version for $arch was built yet"

# Sets cross to the prefix of the compiler's name.
find_tools() {
	local tool missing=''
	cross=''
	[ "$arch" = "$(uname -m)" ] || cross=$arch-linux-gnu-
	for tool in make:make perl:perl xz:xz-utils python3:python3 gcc:gcc "${cross}gcc:gcc${cross:+-${cross%-}}"; do
		command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool##*:}"
	done
	[ -z "$missing" ] || unavailable "install these of Debian's packages:$missing"
}
# What else a kernel's build runs or links: unpacked beside, unless the machine has all of it.
find_private_tools() {
	local tools lib elf
	host_flags=()
	command -v flex >/dev/null && command -v bison >/dev/null && command -v bc >/dev/null &&
		echo '#include <gelf.h>' | gcc -E -x c - >/dev/null 2>&1 && return
	for elf in libelf1 libelf1t64; do
		tools=$("$here/packages.sh" --no-deps flex bison m4 bc libelf-dev $elf zlib1g-dev 2>/dev/null) && break
	done
	[ -n "$tools" ] || unavailable "install flex, bison, bc and libelf-dev: they cannot be fetched now"
	lib=$tools/usr/lib/$(gcc -print-multiarch)
	export PATH=$tools/usr/bin:$PATH M4=$tools/usr/bin/m4 BISON_PKGDATADIR=$tools/usr/share/bison
	host_flags=(HOSTCFLAGS="-I$tools/usr/include" HOSTLDFLAGS="-L$lib -Wl,-rpath,$lib")
}

# Sets suite (may be empty: the machine's own) and package.
find_source() {
	local codename offered
	codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	if [ "$version" != newest ]; then
		package=linux-source-$version
		for suite in '' "$codename-backports" sid; do
			"$here/packages.sh" ${suite:+--suite "$suite"} --candidate "$package" >/dev/null 2>&1 && return
		done
		unavailable "no package $package can be fetched now"
	fi
	for suite in sid "$codename-backports" ''; do
		# the package without a number depends on the newest: 7.2.13-1 is linux-source-7.2
		offered=$("$here/packages.sh" ${suite:+--suite "$suite"} --candidate linux-source 2>/dev/null) || continue
		offered=$(expr "$offered" : '\([0-9]*\.[0-9]*\)')
		package=linux-source-$offered
		dpkg --compare-versions "$offered" ge $OLDEST && return
	done
	suite='' package=linux-source-$OLDEST
	"$here/packages.sh" --candidate "$package" >/dev/null 2>&1 ||
		unavailable "no package linux-source of $OLDEST or later can be fetched now"
}

# quiet WHAT COMMAND...: what it says is shown only if it fails.
quiet() {
	local what=$1
	shift
	"$@" >"$part/log" 2>&1 </dev/null && return
	grep -E -B 2 -A 5 'error|Error' "$part/log" | tail -n 40 >&2
	tail -n 20 "$part/log" >&2
	say "$what failed"
	return 1
}
kernel_make() {
	nice make -C "$part/linux" O="$part/build" ARCH=$kernel_arch CROSS_COMPILE="$cross" "${host_flags[@]}" \
		KBUILD_BUILD_USER=tests KBUILD_BUILD_HOST=iommubroker "$@"
}
unpack() {
	local root
	root=$("$here/packages.sh" ${suite:+--suite "$suite"} --no-deps "$package") || return
	mkdir "$part/linux" "$part/build" || return 1
	# of the documents, what the configuration reads
	quiet "unpacking" tar -xf "$root/usr/src/$package.tar.xz" -C "$part/linux" --strip-components=1 \
		--exclude='*/Documentation/*/*' --exclude='*/drivers/gpu/drm/amd/include/asic_reg/*' || return
	release=$(kernel_make -s kernelversion 2>/dev/null)
	[ -n "$release" ] || say "the source does not tell its version"
}

# Everything wanted must have come true: a symbol of which a dependency is missing is left out in
# silence. One that this kernel does not have at all is only named.
check_configuration() {
	local line name bad='' unknown=''
	while read -r line; do
		name=${line%%=*}
		case $line in
		*=n) grep -q "^$name=" "$part/build/.config" || continue ;;
		*) grep -qxF "$line" "$part/build/.config" && continue ;;
		esac
		if grep -rqE "^[[:space:]]*(menu)?config ${name#CONFIG_}\$" --include='Kconfig*' "$part/linux"; then
			bad="$bad $line"
		else
			unknown="$unknown $name"
		fi
	done < <(grep '^CONFIG_' "$wanted")
	[ -z "$unknown" ] || say "Linux $release for $arch does not have$unknown"
	[ -z "$bad" ] || say "Linux $release for $arch: wanted, and not so in its configuration:$bad"
	[ -z "$bad" ]
}

umask 022
mkdir -p "$cache/kernels" || exit 1
find_tools
find_private_tools
exec 9>"$cache/kernels/lock-$arch-$version"
flock 9
built && exit 0
find_source
part=$(mktemp -d "$cache/kernels/part-XXXXXX") || exit 1
trap 'rm -rf "$part"' EXIT
trap 'exit 130' INT TERM HUP
unpack || exit
quiet "the configuration" kernel_make KCONFIG_ALLCONFIG="$wanted" allnoconfig || exit 1
check_configuration || exit 1
if [ -n "$configure" ]; then
	echo "Linux $release for $arch has all that is wanted" >&2
	exit 0
fi
say "building Linux $release for $arch, once"
quiet "the build" kernel_make -j"$(nproc)" bzImage || exit 1
mkdir "$part/made" && cp "$part/build/$image" "$part/made/bzImage-$arch-$release" &&
	cp "$part/build/.config" "$part/made/config" && chmod 755 "$part/made" && mv -T "$part/made" "$made" || exit 1
built
