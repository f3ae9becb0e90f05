#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# systemd_root.sh ARCH BUILD FOLDER: a small Debian root of packages with systemd as PID 1 and the
# project installed as "meson install" does it, for boot kind systemd of run.sh. No root needed.
#
# Writes FOLDER/disk (ext4, a few seconds), FOLDER/append (for the kernel's command line) and
# FOLDER/initrd, which is empty: the kernel mounts the disk itself. Exit status 75: something cannot
# be fetched now.
set -u
here=$(cd "$(dirname "$0")" && pwd)
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C.UTF-8

if [ $# -ne 3 ]; then
	echo "usage: systemd_root.sh x86_64 BUILD FOLDER" >&2
	exit 2
fi
arch=$1 build=$2 out=$3
if [ "$arch" != "$(uname -m)" ] || [ "$arch" != x86_64 ]; then
	echo "systemd_root.sh: made on x86_64 for x86_64 only" >&2
	exit 75
fi
for tool in mke2fs debugfs dpkg-deb; do
	command -v "$tool" >/dev/null || { echo "systemd_root.sh: needs $tool" >&2 && exit 75; }
done

umask 022
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ib-systemd-XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP
root=$scratch/root

# Of the libraries that the build was linked against: they are this machine's.
library_packages() {
	local file
	ldd "$build/daemon/iommubrokerd" "$build/client/iommubrokerctl" "$build/client/iommubroker-replay" |
		sed -n 's,.* => \(/[^ ]*\) (.*,\1,p' | sort -u | grep -v "^$build" | while read -r file; do
		dpkg-query -S "$file" "/usr${file#/usr}" "$(realpath "$file")" 2>/dev/null | head -n 1 | sed 's/[:,].*//'
	done | sort -u
}

# merge FOLDER: into the root, whose /bin, /lib and /sbin are links into /usr as systemd wants them.
merge() {
	tar -C "$1" --exclude-from="$scratch/left-out" -cf - . |
		tar -C "$root" --keep-directory-symlink --no-same-owner -xf -
}
tree() {
	local packages
	# shellcheck disable=SC2046
	packages=$("$here/packages.sh" systemd udev kmod bash libc-bin coreutils grep sed util-linux mount \
		$(library_packages)) || return
	cat >"$scratch/left-out" <<-EOF
		./usr/share/doc
		./usr/share/man
		./usr/share/info
		./usr/share/locale
		./usr/share/perl
		./usr/share/perl5
		./usr/share/i18n
		./usr/share/bash-completion
		./usr/share/zsh
		./usr/lib/x86_64-linux-gnu/perl
		./usr/lib/x86_64-linux-gnu/perl-base
		./usr/lib/x86_64-linux-gnu/gconv
		./usr/bin/perl*
		libperl.so*
	EOF
	mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{dev,etc,proc,run,sys,tmp,var}
	ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root"
	merge "$packages" || return
	"$here/image.sh" --stage "$arch" "$build" "$scratch/stage" || return
	# what was installed is whole, manual pages too
	: >"$scratch/left-out"
	merge "$scratch/stage"
}

# As an operator sets a host up: who is a VMM, who may open what, and the sockets enabled. It is no
# first boot: nothing is preset.
settings() {
	local etc=$root/etc socket
	mkdir -p "$etc/sysusers.d" "$etc/iommubroker/device.d" "$etc/systemd/system/sockets.target.wants" || return
	echo iommubroker >"$etc/hostname"
	echo 5f9d0c3c1f7e4a7b8a4e2d6c1b0f9e8d >"$etc/machine-id"
	: >"$etc/fstab"
	[ -s "$root/usr/lib/os-release" ] || echo 'ID=debian' >"$root/usr/lib/os-release"
	cat >"$etc/sysusers.d/vmm.conf" <<-EOF
		u vmm 1000 "A VMM"
		u other 1001 "Another user"
		m vmm iommubroker-clients
		g input -
		g kvm -
		g render -
		g sgx -
	EOF
	cat >"$etc/iommubroker/device.d/10-vmm.conf" <<-EOF
		[Device]
		User=vmm
		PciAddress=0000:00:04.0
	EOF
	for socket in admin broker fd; do
		ln -s "/usr/lib/systemd/system/iommubrokerd-$socket.socket" "$etc/systemd/system/sockets.target.wants/" || return
	done
}

# What the suites do not need, and an emulated machine would spend its time on.
trim() {
	local system=$root/usr/lib/systemd/system unit
	for unit in cryptsetup.target veritysetup.target integritysetup.target dev-hugepages.mount dev-mqueue.mount \
		proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount sys-kernel-config.mount \
		sys-kernel-tracing.mount systemd-ask-password-console.path systemd-binfmt.service systemd-firstboot.service \
		systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-random-seed.service systemd-repart.service \
		systemd-update-utmp.service systemd-journal-flush.service systemd-machine-id-commit.service; do
		rm -f "$system/sysinit.target.wants/$unit"
	done
	rm -f "$system/multi-user.target.wants"/* "$system/timers.target.wants"/*
	for unit in systemd-remount-fs systemd-pstore modprobe@dm_mod modprobe@loop modprobe@efi_pstore modprobe@configfs \
		modprobe@fuse modprobe@drm; do
		ln -s /dev/null "$root/etc/systemd/system/$unit.service"
	done
}

# The suites begin when the machine is up; with the last of them it goes off.
suites_unit() {
	local system=$root/etc/systemd/system
	mkdir -p "$system/multi-user.target.wants" || return
	cat >"$system/iommubroker-tests.service" <<-EOF
		[Unit]
		Description=Suites that the machine was booted for
		After=multi-user.target
		[Service]
		Type=simple
		ExecStart=/usr/lib/iommubroker-tests/vm-suites systemd
		ExecStopPost=/usr/bin/systemctl poweroff -ff
		StandardOutput=tty
		StandardError=tty
		TTYPath=/dev/console
	EOF
	ln -s ../iommubroker-tests.service "$system/multi-user.target.wants/"
	chmod 755 "$root/usr/lib/iommubroker-tests/vm-suites"
}

# Everything is root's, whoever made it; nothing here depends on a set-user-id bit.
disk() {
	local image=$1
	truncate -s 384M "$image" &&
		mke2fs -q -F -t ext4 -O ^has_journal -m 0 -L root -E root_owner=0:0 -d "$root" "$image" || return
	[ "$(id -u)" -ne 0 ] || return 0
	(cd "$root" && find . -mindepth 1 -printf '%P\n') |
		sed 's,.*,sif "/&" uid 0\nsif "/&" gid 0,' >"$scratch/owners"
	debugfs -w -f "$scratch/owners" "$image" >/dev/null 2>"$scratch/debugfs"
	! grep -v '^debugfs ' "$scratch/debugfs" >&2
}

tree || exit
settings && trim && suites_unit && disk "$scratch/disk" || exit 1
echo 'root=/dev/vda rw init=/usr/lib/systemd/systemd systemd.unit=multi-user.target systemd.show_status=no' >"$out/append"
(cd "$scratch" && mkdir empty && cd empty && find . | cpio -o -H newc --quiet | gzip -1) >"$out/initrd" &&
	mv "$scratch/disk" "$out/disk"
