#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the built library promises beyond its functions: client_library_check.sh LIBRARY HEADER CC...
# CC may be several words, as "ccache gcc".
# It needs libc and protobuf-c and nothing else, exports its own names under their version and no
# others, and its header is clean C and C++.
set -eu
library=$1 header=$2
shift 2
failed=0

complain() {
	echo "$*" >&2
	failed=1
}

needed=$(readelf -dW "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
for name in $needed; do
	case $name in
	libc.so.* | libprotobuf-c.so.* | ld-linux*.so.* | ld64.so.*) ;;
	*) complain "needs $name" ;;
	esac
done
[ -n "$needed" ] || complain "needs nothing: readelf said nothing"

readelf -dW "$library" | grep -q 'SONAME.*\[libiommubroker\.so\.1\]' || complain "wrong soname"

exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }')
[ "$(echo "$exported" | wc -l)" -gt 50 ] || complain "hardly anything is exported"
for name in $exported; do
	case $name in
	iommubroker_*@@LIBIOMMUBROKER_1 | iommubroker_*@@LIBIOMMUBROKER_1.[0-9]) ;;
	*) complain "exports $name" ;;
	esac
done

# Everything that the header declares is there.
for name in $(grep -o 'iommubroker_[a-z0-9_]*(' "$header" | tr -d '(' | sort -u); do
	case $name in
	*_fn) continue ;;
	esac
	grep -q "IOMMUBROKER_API.*\b$name(\|^$name(" "$header" || continue
	echo "$exported" | grep -q "^$name@@" || complain "does not export $name"
done

"$@" -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c "$header" ||
	complain "the header is no clean C11"
if command -v c++ >/dev/null; then
	c++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ "$header" ||
		complain "the header is no clean C++11"
fi
exit $failed
