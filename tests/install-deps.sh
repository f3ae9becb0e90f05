#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Debian packages (bookworm or later) that the project needs: "install-deps.sh build" to build it
# and run the demo, "install-deps.sh" for all tests. As root it installs what is missing, otherwise
# it says what to install and fails.
set -eu

build='gcc libc6-dev dpkg-dev meson ninja-build pkg-config python3 protobuf-compiler protobuf-c-compiler
	libprotobuf-dev libprotobuf-c-dev libgrpc-dev libevent-dev libsystemd-dev libinih-dev
	libjansson-dev libbsd-dev libmd-dev uthash-dev libseccomp-dev liblzma-dev zlib1g-dev util-linux
	systemtap-sdt-dev'
tests='clang clang-format libcmocka-dev python3-grpcio python3-protobuf python3-prometheus-client systemd man-db
	gcc-s390x-linux-gnu cpio e2fsprogs'

wanted=$build
[ "${1:-all}" = build ] || wanted="$build $tests"

if ! command -v dpkg-query >/dev/null; then
	echo "Not a Debian machine: install what these Debian packages hold:" $wanted >&2
	exit 0
fi
missing=
for package in $wanted; do
	case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
	ii*) ;;
	*) missing="$missing $package" ;;
	esac
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
	echo "These packages are missing; install them as root:" >&2
	echo "  apt-get install$missing" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q </dev/null
apt-get install -q -y --no-install-recommends $missing </dev/null
