#!/usr/bin/env bash
# Shows what Hostel does, in a minute: starts a daemon on embedded defaults, runs commands in
# sandboxes, tries what a sandbox must not be able to do, has an agent do something in a session, and
# proves that nothing is left behind. Fails if anything it shows is not as it says.
#
# With ANTHROPIC_API_KEY the agent asks the real model, which costs some cents; without, a scripted one.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/daemon.sh
. scripts/lib/daemon.sh

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
	bold='' dim='' green='' red='' plain=''
fi

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
good() { printf '%s  ✓ %s%s\n' "$green" "$*" "$plain"; }
bad() {
	printf '%s  ✗ %s%s\n' "$red" "$*" "$plain" >&2
	exit 1
}

# The words as a person would type them: quoted only where that is needed.
typed() {
	local word line=''
	for word in "$@"; do
		if [[ $word == *[!A-Za-z0-9_./:=,-]* ]]; then
			word=${word@Q}
		fi
		line+=" $word"
	done
	echo "$line"
}

# Runs a command, showing it as typed and its output with the time since its start.
# Leaves the exit code in `status` and the output in `output`.
show() {
	local start=$EPOCHREALTIME line log=$work/shown
	printf '%s$%s%s\n' "$dim" "$(typed "$@")" "$plain"
	status=0
	"$@" 2>&1 | tee "$log" | while IFS= read -r line; do
		printf '%s%6d ms │%s %s\n' "$dim" $(((${EPOCHREALTIME/[^0-9]/} - ${start/[^0-9]/}) / 1000)) "$plain" "$line"
	done || status=${PIPESTATUS[0]}
	output=$(<"$log")
}

work=''
model_pid=''
sessions_pid=''
# shellcheck disable=SC2317 # run by the trap
cleanup() {
	stop "$sessions_pid"
	stop_daemon || true
	stop "$model_pid"
	[ -z "$work" ] || rm -rf --one-file-system "$work"
}
# Ends a program of ours, if it runs.
stop() {
	[ -n "$1" ] || return 0
	kill -TERM "$1" 2>/dev/null || true
	wait "$1" || true
}

# Waits for a line of a file that matches, and prints the first.
line_of() {
	local deadline=$((SECONDS + 15))
	until grep -m 1 -oE "$2" "$1" 2>/dev/null; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.05
	done
}

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say 'Building'
cargo build --release --workspace
PATH="${CARGO_TARGET_DIR:-$PWD/target}/release:$PATH"
work=$(mktemp -d "${TMPDIR:-/tmp}/hostel-demo.XXXXXX")

if [ -z "${ANTHROPIC_API_KEY:-}" ]; then
	hostel testkit model >"$work/model" 2>"$work/model.log" &
	model_pid=$!
	model=$(line_of "$work/model" 'http://.*') || bad "the scripted model did not start: $(<"$work/model.log")"
	echo 'any' >"$work/key"
	printf '[[upstream]]\nname = "scripted"\nbase_url = "%s"\nkey_file = "%s"\n' \
		"$model" "$work/key" >"$work/gateway.toml"
	export HOSTEL_GATEWAY=$work/gateway.toml
fi

say 'Starting hosteld: no configuration file, no Docker, no database'
start_daemon "$work"
show hostel node info
[ "$status" -eq 0 ] || bad 'the daemon does not answer'

say 'A command in a sandbox of its own, its output streaming as it is made'
# shellcheck disable=SC2016 # expanded inside
show hostel run -- sh -c 'for i in 1 2 3; do echo "line $i"; sleep 0.3; done'
[ "$status:$output" = $'0:line 1\nline 2\nline 3' ] || bad 'the output is not what the command printed'
good 'the sandbox was made, used and deleted'
show hostel run -- sh -c 'exit 42'
[ "$status" -eq 42 ] || bad "expected exit code 42, got $status"
good 'the exit code of the command is the exit code of hostel run'

say "It sees its own processes only; this host has $(find /proc -maxdepth 1 -name '[0-9]*' | wc -l)"
# shellcheck disable=SC2016 # expanded inside
show hostel run -- sh -c 'cd /proc && for p in [0-9]*; do echo "$p $(cat $p/comm)"; done'
[ "$status" -eq 0 ] || bad 'listing processes failed'
[ "$(wc -l <<<"$output")" -le 5 ] || bad 'it sees processes that are not its own'
good 'the host and its neighbours are out of sight'

say 'It has no network, unless a policy gives it one'
show hostel run -- cat /proc/net/dev
grep -q 'lo:' <<<"$output" || bad 'there is no loopback interface'
[ "$(grep -c ':' <<<"$output")" -eq 1 ] || bad 'it has a network interface other than loopback'
show hostel run --timeout 10s -- bash -c 'echo hello > /dev/tcp/192.0.2.1/80'
[ "$status" -ne 0 ] || bad 'it could connect to another machine'
good 'loopback is all there is'

say 'It cannot change the system it runs on'
show hostel run -- touch /usr/bin/changed
[ "$status" -ne 0 ] || bad 'it could write to /usr'
show hostel run -- sh -c 'cat /etc/shadow'
[ "$status" -ne 0 ] || bad 'it could read the password file'
good 'refused'

say 'It cannot run longer than it may'
show hostel run --timeout 1s -- sleep 60
[ "$status" -eq 124 ] || bad "expected exit code 124, got $status"
good 'ended after a second'

say 'It cannot take more memory than it may: 512 MiB wanted, 64 MiB allowed'
show hostel run --memory 64M -- dd if=/dev/zero of=/dev/null bs=512M count=1
if [ "$status" -eq 137 ]; then
	good 'killed by its own limit; nobody else noticed'
elif [ "$(id -u)" -ne 0 ] && [ "$status" -ne 0 ]; then
	good 'refused; as an ordinary user without a delegated cgroup that is what this host can give (see above)'
else
	bad "expected exit code 137, got $status"
fi

# shellcheck source=scripts/lib/session.sh
. scripts/lib/session.sh
if ! command -v curl >/dev/null; then
	say 'An agent in a session: skipped, for there is no curl here'
elif ! hostel template install-cli >"$work/install" 2>&1; then
	say "An agent in a session: skipped, for its CLI could not be installed: $(tail -n 1 "$work/install")"
else
	show_session
fi

say 'Nothing is left behind'
show hostel sandbox list
[ "$status" -eq 0 ] || bad 'the daemon does not answer'
! grep -q 'sb-' <<<"$output" || bad 'there are sandboxes left'
stop_daemon || bad "hosteld ended with exit code $?"
good 'hosteld ended in good order'
for _ in {1..50}; do
	left=$(leftovers "$work")
	[ -n "$left" ] || break
	sleep 0.1
done
[ -z "$left" ] || bad "left behind: $left"
good 'no process, no mount, no cgroup'

say 'That was all. "make help" lists what else there is.'
