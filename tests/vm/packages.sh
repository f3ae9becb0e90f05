#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Debian packages unpacked into a folder of the user's cache, without root and without a change of
# the machine:
#
#	packages.sh [--arch ARCH] [--suite SUITE] [--no-deps] PACKAGE...    prints the folder
#	packages.sh [--arch ARCH] [--suite SUITE] --candidate PACKAGE       prints the version there is
#
# A private apt configuration is made from the machine's own sources of Debian (one-line and deb822,
# their Signed-By, proxy and credentials kept). What is not signed is not taken, whatever the machine's
# configuration says of itself. ARCH is Debian's name, the machine's own unless told.
# SUITE (sid, bookworm-backports, ...) is added to the machine's own suite, and preferred to it. With
# all packages that are depended on, of which none counts as installed; --no-deps: those named only.
#
# A folder appears whole, by one rename, and is named after everything that it was made from; so it
# is right or not there. Exit status 75: cannot be had now (no network, no such package).
set -u
export LC_ALL=C.UTF-8
readonly UNAVAILABLE=75

arch='' suite='' deps=1 candidate=''
while [ $# -gt 0 ]; do
	case $1 in
	--arch) arch=$2 && shift ;;
	--suite) suite=$2 && shift ;;
	--no-deps) deps='' ;;
	--candidate) candidate=1 ;;
	-*) set -- && break ;;
	*) break ;;
	esac
	shift
done
if [ $# -eq 0 ]; then
	echo "usage: packages.sh [--arch ARCH] [--suite SUITE] [--no-deps | --candidate] PACKAGE..." >&2
	exit 2
fi

unavailable() {
	echo "packages.sh: $*" >&2
	exit $UNAVAILABLE
}
for tool in apt-get dpkg-deb flock sha256sum; do
	command -v "$tool" >/dev/null || unavailable "needs $tool"
done
[ -n "$arch" ] || arch=$(dpkg --print-architecture)
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
[ -n "$codename" ] || unavailable "this machine's suite has no name in /etc/os-release"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/iommubroker
mkdir -p "$cache/roots" || exit 1

# The machine's sources as lines "URI SUITE COMPONENT-main SIGNED-BY", of Debian's own suites only.
# A Signed-By that is a whole key cannot be in a line: such a source is left out.
sources_one_line() {
	cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
		sed -nE 's/^deb[[:space:]]+(\[([^]]*)\][[:space:]]+)?([^[:space:]]+)[[:space:]]+([^[:space:]]+)[[:space:]]+(.*)$/\3|\4|\5|\2/p' |
		while IFS='|' read -r uri name components options; do
			signed=$(printf '%s\n' "$options" | tr ' ' '\n' | sed -n 's/^signed-by=//Ip')
			printf '%s|%s|%s|%s\n' "$uri" "$name" "$components" "$signed"
		done
}
sources_deb822() {
	local file
	for file in /etc/apt/sources.list.d/*.sources; do
		[ -f "$file" ] || continue
		sed '/^#/d' "$file"
		echo
	done | awk '
		function told() {
			if (types ~ /(^| )deb( |$)/ && enabled !~ /^(no|false|0)$/ && signed != "." && uris != "") {
				n = split(uris, uri, " "); m = split(suites, name, " ")
				for (i = 1; i <= n; i++)
					for (j = 1; j <= m; j++)
						print uri[i] "|" name[j] "|" components "|" signed
			}
			types = uris = suites = components = signed = enabled = ""
		}
		/^[[:space:]]*$/ { told(); next }
		/^[[:space:]]/ { if (key == "signed-by") signed = "."; next }
		{
			key = tolower($0); sub(/:.*/, "", key)
			value = $0; sub(/^[^:]*:[[:space:]]*/, "", value)
			if (key == "types") types = value
			if (key == "uris") uris = value
			if (key == "suites") suites = value
			if (key == "components") components = value
			if (key == "signed-by") signed = value
			if (key == "enabled") enabled = tolower(value)
		}
		END { told() }'
}
sources_machine() {
	{ sources_one_line && sources_deb822; } | sort -u | while IFS='|' read -r uri name components signed; do
		case " $components " in *" main "*) ;; *) continue ;; esac
		case $name in "$codename" | "$codename-updates" | "$codename-security") ;; *) continue ;; esac
		printf '%s %s %s\n' "$uri" "$name" "$signed"
	done
}
# The private sources.list.
sources_private() {
	local uri name signed options
	sources_machine | while read -r uri name signed; do
		options="arch=$arch${signed:+ signed-by=$signed}"
		echo "deb [$options] $uri $name main"
		if [ -n "$suite" ] && [ "$name" = "$codename" ] && [ "$suite" != "$codename" ]; then
			echo "deb [$options] $uri $suite main"
		fi
	done
}

list=$(sources_private)
[ -n "$list" ] || unavailable "no source of Debian's $codename among the machine's package sources"
state=$cache/apt/$arch-$(printf '%s\n%s' "$suite" "$list" | sha256sum | cut -c1-16)

apt_prepare() {
	mkdir -p "$state"/{etc/parts,etc/preferences.d,lists/partial,archives/partial} || exit 1
	printf '%s\n' "$list" >"$state/etc/sources.list"
	: >"$state/status"
	{
		apt-config dump Acquire
		cat <<-END
			APT::Architecture "$arch";
			#clear APT::Architectures;
			APT::Architectures { "$arch"; };
			APT::Install-Recommends "false";
			APT::Sandbox::User "root";
			APT::Get::AllowUnauthenticated "false";
			Acquire::AllowInsecureRepositories "false";
			Acquire::AllowWeakRepositories "false";
			Acquire::AllowDowngradeToInsecureRepositories "false";
			Acquire::Languages "none";
			Acquire::Retries "2";
			Acquire::http::Timeout "30";
			Acquire::https::Timeout "30";
			Dir::State "$state";
			Dir::State::status "$state/status";
			Dir::State::lists "$state/lists";
			Dir::Cache "$state";
			Dir::Etc::sourcelist "$state/etc/sources.list";
			Dir::Etc::sourceparts "$state/etc/parts";
			Dir::Etc::parts "$state/etc/parts";
			Dir::Etc::main "$state/etc/none";
			Dir::Etc::preferences "$state/etc/none";
			Dir::Etc::preferencesparts "$state/etc/preferences.d";
			Dir::Etc::trusted "/etc/apt/trusted.gpg";
			Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d";
			Dir::Etc::netrc "/etc/apt/auth.conf";
			Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
		END
	} >"$state/apt.conf"
	export APT_CONFIG=$state/apt.conf
}
# Lists are fetched again after a day, and whenever there are none.
apt_update() {
	if [ ! -f "$state/updated" ] || [ -n "$(find "$state/updated" -mmin +1440)" ]; then
		if apt-get update -q >"$state/update.log" 2>&1 </dev/null && ! grep -q '^[EW]:' "$state/update.log"; then
			touch "$state/updated"
		elif [ ! -f "$state/updated" ]; then
			cat "$state/update.log" >&2
			unavailable "package lists cannot be fetched"
		fi
	fi
}

# fetch FOLDER PACKAGE...: the .deb files, checked by apt.
fetch() {
	local to=$1
	shift
	if [ -n "$deps" ]; then
		apt-get install -q -y --download-only ${suite:+-t "$suite"} -o Dir::Cache::archives="$to" "$@"
	else
		# what is named, and nothing else
		(cd "$to" && apt-get download -q ${suite:+-t "$suite"} "$@")
	fi >"$state/fetch.log" 2>&1 </dev/null && return
	cat "$state/fetch.log" >&2
	unavailable "cannot fetch $*"
}

umask 022
exec 9>"$cache/lock-${state##*/}"
if [ -n "$candidate" ]; then
	flock 9
	apt_prepare
	apt_update
	apt-cache policy ${suite:+-t "$suite"} "$1" | sed -n 's/^ *Candidate: //p' | grep -v '(none)' ||
		unavailable "no package $1"
	exit 0
fi
root=$cache/roots/$(printf '%s\n' "$arch" "$suite" "$list" "${deps:-named only}" "$@" | sha256sum | cut -c1-16)
if [ ! -d "$root" ]; then
	flock 9
fi
if [ ! -d "$root" ]; then
	apt_prepare
	apt_update
	# of a run that was killed
	find "$cache/roots" -mindepth 1 -maxdepth 1 -name 'part-*' -mmin +1440 -exec rm -rf {} +
	part=$(mktemp -d "$cache/roots/part-XXXXXX") || exit 1
	trap 'rm -rf "$part"' EXIT
	trap 'exit 130' INT TERM HUP
	mkdir -p "$part/archives/partial" "$part/root"
	fetch "$part/archives" "$@"
	for deb in "$part"/archives/*.deb; do
		dpkg-deb -x "$deb" "$part/root" || exit 1
	done
	chmod 755 "$part/root"
	mv -T "$part/root" "$root" || exit 1
fi
echo "$root"
