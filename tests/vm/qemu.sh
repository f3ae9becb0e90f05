#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# qemu.sh x86_64|s390x: prints a program that is QEMU's system emulator of that architecture with the
# devices that the tests need. The machine's own if it has them, else one from packages (packages.sh)
# with all its libraries, so that nothing need be installed. Exit status 75: cannot be had now.
set -u
here=$(cd "$(dirname "$0")" && pwd)

case ${1:-} in
x86_64) package=qemu-system-x86 devices='intel-iommu edu pcie-root-port virtio-blk-pci' data='seabios ipxe-qemu' ;;
# nvme as a zPCI function came after 7.2
s390x) package=qemu-system-s390x devices='nvme zpci sclpconsole virtio-blk-ccw' data='' ;;
*)
	echo "usage: qemu.sh x86_64|s390x" >&2
	exit 2
	;;
esac
program=qemu-system-$1

# Told by what it has, not by its version. Device by device: "-device help" would load all modules. The
# accelerator is a module too, which only a machine that starts asks for.
suits() {
	local device
	echo quit | timeout 60 "$1" -M none -accel tcg -nodefaults -display none -monitor stdio >/dev/null 2>&1 || return 1
	for device in $devices; do
		"$1" -device "$device,help" >/dev/null 2>&1 </dev/null || return 1
	done
}

if own=$(command -v "$program") && suits "$own"; then
	echo "$own"
	exit 0
fi

# One that was fetched before.
for found in "${XDG_CACHE_HOME:-$HOME/.cache}"/iommubroker/roots/*."$program"; do
	if [ -x "$found" ] && suits "$found"; then
		echo "$found"
		exit 0
	fi
done

# wrapper ROOT: makes a program beside the unpacked packages that runs QEMU with their loader, their
# libraries and their firmware, and prints it. Made anew each time: one that is there can be of
# another version of these tests.
wrapper() {
	local root=$1 file=$1.$program libraries interpreter
	libraries=$(find "$root" -type f -path '*/lib/*' -name 'lib*.so*' -printf '%h\n' | sort -u | tr '\n' ':')
	interpreter=$(readelf -lW "$root/usr/bin/$program" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
	[ -e "$root$interpreter" ] || interpreter=/usr$interpreter
	# usr/lib/ipxe/qemu is firmware, no modules
	cat >"$file.$$" <<-EOF
		#!/bin/sh
		root='$root'
		export QEMU_MODULE_DIR="\$(echo "\$root"/usr/lib/*-linux-*/qemu)"
		exec "\$root$interpreter" --library-path '${libraries%:}' "\$root/usr/bin/$program" \\
			-L "\$root/usr/share/qemu" -L "\$root/usr/share/seabios" -L "\$root/usr/lib/ipxe/qemu" "\$@"
	EOF
	chmod 755 "$file.$$" && mv "$file.$$" "$file" || return 1
	echo "$file"
}

codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
for suite in "$codename" "$codename-backports" sid; do
	version=$("$here/packages.sh" --suite "$suite" --candidate "$package" 2>/dev/null) || continue
	[ "$1" = x86_64 ] || dpkg --compare-versions "$version" ge 1:9 || continue
	# shellcheck disable=SC2086
	root=$("$here/packages.sh" --suite "$suite" "$package" $data) || exit
	found=$(wrapper "$root") || exit 1
	if suits "$found"; then
		echo "$found"
		exit 0
	fi
done
echo "qemu.sh: no $program with $devices, neither here nor in packages that can be fetched now" >&2
exit 75
