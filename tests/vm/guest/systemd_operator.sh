#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Read by systemd_suite.sh: the operator's side. Another configuration while it runs, tenants by unit
# and slice, what they are refused and what is told of it, the host's limit and its backstop, the
# control tool's other commands, metrics.
: "${unit:?is set by systemd_suite.sh}" "${work:?likewise}"
etc=/etc/iommubroker
program=/usr/lib/iommubroker-tests/systemd_vmm

# There is no D-Bus here, so that systemd-run can neither pipe nor wait: scopes, and services that
# write to a file.
# in_scope NAME SLICE COMMAND...: a VMM, in a scope of that slice.
in_scope() {
	local name=$1 slice=$2
	shift 2
	timeout 300 systemd-run --quiet --scope --collect --unit="$name.scope" --slice="$slice" -- \
		setpriv --reuid vmm --regid vmm --init-groups --no-new-privs -- "$program" "$@" 2>&1
}
# in_service NAME COMMAND...: a VMM that is a service, to its end.
in_service() {
	local name=$1
	shift
	timeout 300 systemd-run --quiet --collect --uid=vmm --unit="$name" -p Type=oneshot \
		-p StandardOutput="file:/run/$name.out" -- "$program" "$@" 2>&1
	cat "/run/$name.out"
	rm "/run/$name.out"
}
rule() { cat >"$etc/quota.d/$1"; }
memlock() { sed -n 's/^Max locked memory *\([^ ]*\) .*/\1/p' "/proc/$(main_pid)/limits"; }

# WHAT WANTED-STATUS
reload_is() {
	systemctl reload "$unit" >"$work/reload" 2>&1
	is "$1" "$?" "$2"
}

rules() {
	local cursor
	mkdir -p $etc/quota.d
	rule 20-prod.conf <<-EOF2
		[Match]
		User=vmm
		Slice=machine-prod.slice
		[Quota]
		GuestsMax=1
		PinnedMemoryMax=24M
	EOF2
	rule 30-batch.conf <<-EOF2
		[Match]
		Unit=batch-*.service
		TenantPer=unit
		[Quota]
		PinnedMemoryMax=8M
	EOF2
	cursor=$(mark)
	reload_is "reload: systemctl is content" 0
	like "reload: the journal says that it holds" "$(journal --cursor "$cursor")" '^the configuration was read again, and holds$'
	is "reload: the daemon is the same" "$(main_pid) $(systemctl is-active "$unit")" "$1 active"
}

# Two tenants of one user, by where systemd put them.
tenants() {
	local out cursor entry
	cursor=$(mark)
	in_scope prod-a machine-prod.slice hold "$IB_VM_PCI" >"$work/hold" &
	await "a VMM in the slice is at work" grep -q ^holding "$work/hold" || return
	holder=$(pgrep_vmm)
	like "it is the slice's tenant" "$(iommubrokerctl list)" "systemd-guest +$holder +prod "
	out=$(in_scope prod-b machine-prod.slice guest)
	like "its second guest is refused, by name, numbers and line" "$out" \
		'^EDQUOT QUOTA_EXCEEDED .*guests: 1 requested, 1 of 1 used \(tenant prod, rule /etc/iommubroker/quota.d/20-prod.conf:5\)'
	is "another unit's tenant is not refused" "$(in_service batch-1 guest 4096)" "made batch/batch-1.service"
	out=$(in_service batch-2 guest 16384)
	like "and has limits of its own" "$out" 'pinned_bytes: .*\(tenant batch/batch-2.service, rule /etc/iommubroker/quota.d/30-batch.conf:5\)'
	like "journal: the same numbers in its words" "$(journal --cursor "$cursor" IOMMUBROKER_TENANT=prod -p warning)" \
		'CreateGuest refused to pid [0-9]+, uid 1000, tenant prod: guests: 1 requested, 1 of 1 used \(tenant prod, rule /etc/iommubroker/quota.d/20-prod.conf:5\)'
	entry=$(journalctl -q -u "$unit" -o json --cursor "$cursor" -p warning IOMMUBROKER_TENANT=prod)
	for out in RESOURCE:guests LIMIT:1 USED:1 REQUESTED:1 PEER_UID:1000 REASON:QUOTA_EXCEEDED \
		RULE:/etc/iommubroker/quota.d/20-prod.conf:5; do
		like "journal: field ${out%%:*}" "$entry" "\"IOMMUBROKER_${out%%:*}\":\"${out#*:}\""
	done
}

mistake() {
	local cursor
	cursor=$(mark)
	printf '[Match]\nUser=*\n[Quota]\nGuestMax=1\n' >$etc/quota.d/10-bad.conf
	reload_is "a bad file: systemctl reload fails" 1
	like "a bad file: the journal says file, line, key and what was meant" "$(journal --cursor "$cursor")" \
		"quota.d/10-bad.conf:4: unknown key 'GuestMax'; did you mean GuestsMax\?"
	like "a bad file: systemctl status shows it" "$(systemctl status -l -n 50 "$unit")" "10-bad.conf:4: unknown key"
	is "a bad file: the service goes on" "$(main_pid) $(systemctl is-active "$unit")" "$1 active"
	like "a bad file: the limits are the former" "$(in_scope prod-b machine-prod.slice guest)" '1 of 1 used \(tenant prod'
	like "config check finds it, too" "$(iommubrokerctl config check 2>&1)" "10-bad.conf:4: unknown key 'GuestMax'"
	rm $etc/quota.d/10-bad.conf
	is "config check: no more" "$(iommubrokerctl config check >"$work/check" 2>&1 && echo fine)" fine
}

# Below what is used: nothing is taken away.
lowered() {
	sed -i 's/^PinnedMemoryMax=24M/PinnedMemoryMax=4M/' $etc/quota.d/20-prod.conf
	reload_is "a limit below what is used is taken" 0
	is "its guest goes on" "$(pinned_kib "$(main_pid)") $(kill -0 "$holder" && echo lives)" "16384 lives"
	like "quota shows that it is over" "$(iommubrokerctl quota --tenant prod)" 'pinned_bytes.* OVER'
}

# The kernel's limit of the daemon's user is the host's.
backstop() {
	local size
	for size in 512 256; do
		printf '[Limits]\nPinnedMemoryMax=%sM\n' $size >$etc/iommubrokerd.conf.d/50-host.conf
		reload_is "the host's limit is $size MiB" 0
		is "and so is the kernel's, of the daemon" "$(memlock)" $((size << 20))
	done
	like "config show tells where it stands" "$(iommubrokerctl config show)" \
		'PinnedMemoryMax.*256 ?M.*/etc/iommubroker/iommubrokerd.conf.d/50-host.conf:2'
}

tool() {
	local out
	out=$(iommubrokerctl quota explain --pid "$holder")
	like "quota explain: the tenant, and the rule" "$out" 'prod'
	like "quota explain: the file" "$out" '20-prod.conf'
	like "check-fit: a second guest does not fit" "$(iommubrokerctl check-fit --tenant prod --guests 1)" 'guests.*20-prod.conf:5'
	iommubrokerctl doctor >"$work/doctor" 2>&1
	is "doctor finds nothing serious" "$?" 0
	like "dump is JSON" "$(iommubrokerctl dump)" '^\{.*'
	like "metrics: the tenant's refusals" "$(iommubrokerctl metrics)" '^iommubroker_[a-z_]*refus[a-z_]*\{.*tenant="prod"'
}

metrics() {
	local out
	is "metrics: nothing listens before it is enabled" "$(systemctl is-active iommubrokerd-metrics.socket)" inactive
	systemctl stop "$unit"
	systemctl start iommubrokerd-metrics.socket
	systemctl start "$unit"
	out=$(exec 3<>/dev/tcp/127.0.0.1/9797 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3)
	like "metrics: served on loopback" "$out" '^HTTP/1\.[01] 200 '
	like "metrics: whole" "$out" '^# EOF'
	systemctl stop iommubrokerd-metrics.socket
}

operators_side() {
	local pid
	pid=$(main_pid)
	mkdir -p $etc/quota.d $etc/iommubrokerd.conf.d
	rules "$pid"
	holder=''
	tenants
	[ "$holder" ] || return
	mistake "$pid"
	lowered
	backstop
	tool
	rm -r $etc/quota.d $etc/iommubrokerd.conf.d
	reload_is "without any of it" 0
	kill -KILL "$holder"
	await "its guest is gone" no_guests
	is "the daemon lived through it all" "$(main_pid)" "$pid"
	metrics
}
