#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The completion of iommubrokerctl, in this shell, with a tool in its place that knows some names.
# ctl_completion_test.sh FILE
set -u

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
failed=0

# Names that a shell would expand never come from the tool; if they did, they must not be run.
cat >"$scratch/iommubrokerctl" <<END
#!/bin/bash
echo "\$*" >>"$scratch/asked"
case "\$*" in
*"names guests") printf '%s\n' 00000000000000a1 web-1 web-2 '\$(touch $scratch/ran)' ;;
*"names tenants") printf '%s\n' prod test ;;
esac
END
chmod +x "$scratch/iommubrokerctl"
# shellcheck disable=SC1090
. "$1" || exit 1

# expect "WORDS BEFORE" "CURRENT" "ANSWERS": all that is offered, in order.
expect() {
	local answer
	# shellcheck disable=SC2206 # words
	COMP_WORDS=("$scratch/iommubrokerctl" $1 "$2")
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	_iommubrokerctl
	answer="${COMPREPLY[*]}"
	if [[ $answer != "$3" ]]; then
		echo "FAIL: '$1' + '$2': offered '$answer', not '$3'"
		failed=1
	fi
}

expect '' st 'status'
expect '' d 'dump drain doctor'
expect '' zz ''
expect '' --js '--json'
expect 'config' '' 'check show reload'
expect 'quota' '' 'explain'
expect 'quota' --te '--tenant'
expect 'quota --tenant' p 'prod'
expect 'quota explain' --u '--user --unit'
expect 'show' we 'web-1 web-2'
expect 'show web-1' '' ''
expect 'explain' 0 '00000000000000a1'
expect 'revoke' '' 'guest tenant device'
expect 'revoke guest' web-2 'web-2'
expect 'revoke tenant' t 'test'
expect 'revoke device' '' ''
expect 'revoke' --re '--reason'
expect 'names' t 'tenants'
expect 'top --sort' m 'mappings'
expect 'top' --s '--sort'
expect '--admin-dir /x --json show' web-1 'web-1'
grep -qx -- '--admin-dir /x names guests' "$scratch/asked" || {
	echo "FAIL: it did not ask at the folder that was named"
	failed=1
}
# every name is offered, none is run
expect 'show' '$' "\$(touch $scratch/ran)"
[[ -e $scratch/ran ]] && {
	echo "FAIL: a guest's name was run"
	failed=1
}
exit $failed
