#!/usr/bin/env bash
# Runs inside the virtual machine (see scripts/test-vm.sh): the jail backend under systemd with
# cgroup v2, as a system service and as an ordinary user's.
# Programs are in /opt/hostel/bin, test programs in /opt/hostel/tests.
set -uo pipefail

export PATH=/opt/hostel/bin:$PATH SYSTEMD_COLORS=0 SYSTEMD_PAGER='' SYSTEMD_URLIFY=0
user=tester
log=$(mktemp)
passed=0
failed=0

# No call hangs the whole run; one that would ends with 143, which nothing here expects.
hostel() { timeout --preserve-status --kill-after=5 180 hostel "$@"; }

# check WHAT COMMAND...: runs the command and counts it; shows its output if it fails.
check() {
	local what=$1 output status=0
	shift
	# By way of a file: a process left behind that holds a pipe open would hang us.
	"$@" </dev/null >"$log" 2>&1 || status=$?
	if [ "$status" -eq 0 ]; then
		echo "PASS $what"
		passed=$((passed + 1))
	else
		echo "FAIL $what"
		output=$(tail -n 40 "$log")
		printf '     | %s\n' "${output//$'\n'/$'\n     | '}"
		failed=$((failed + 1))
	fi
}

# expect CODE COMMAND...: succeeds if the command ends with that exit code.
expect() {
	local wanted=$1 got=0
	shift
	"$@" || got=$?
	[ "$got" -eq "$wanted" ] || {
		echo "expected exit code $wanted, got $got"
		return 1
	}
}

# wait_until SECONDS COMMAND...
wait_until() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$deadline" ] || {
			"$@"
			return 1
		}
		sleep 0.5
	done
}

# json_text KEY: the first string value of that key in the JSON on standard input.
json_text() { tr -d '\n' | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" | head -n 1; }

has_controllers() {
	local controller
	for controller in cpu io memory pids; do
		grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers || return 1
	done
}

# write_unit NAME HOME USER
write_unit() {
	mkdir -p "$2/state" "$2/run"
	chown -R "$3:" "$2"
	cat >"/run/systemd/system/$1.service" <<-UNIT
		[Unit]
		Description=hosteld as $3
		[Service]
		Type=exec
		User=$3
		Environment=HOSTEL_STATE_DIR=$2/state HOSTEL_RUNTIME_DIR=$2/run
		ExecStart=/opt/hostel/bin/hosteld --listen unix://$2/run/hosteld.sock
		Delegate=yes
		KillMode=process
		TasksMax=infinity
		TimeoutStopSec=60
	UNIT
	systemctl daemon-reload
}

ready() { wait_until 60 hostel node info; }

counter_moves() {
	local first second
	first=$(hostel exec "$sandbox" -- cat /tmp/count) || return 1
	sleep 3
	second=$(hostel exec "$sandbox" -- cat /tmp/count) || return 1
	[ "$second" -gt "$first" ]
}

same_process() { hostel ps "$sandbox" --json | grep -qF "\"$process\""; }

# What a sandbox must do, whoever runs the daemon.
smoke() {
	check "$1: runs a command" expect 0 hostel run -- sh -c 'echo hello; grep -q "lo:" /proc/net/dev'
	check "$1: passes the exit code on" expect 42 hostel run -- sh -c 'exit 42'
	check "$1: ends what runs too long" expect 124 hostel run --timeout 3s -- sleep 600
	check "$1: memory is limited" expect 137 hostel run --memory 64M -- \
		dd if=/dev/zero of=/dev/null bs=512M count=1
	# Debian's sh gives up with 2 when it cannot fork.
	# shellcheck disable=SC2016 # expanded inside
	check "$1: the number of processes is limited" expect 2 hostel run --pids 16 --timeout 60s -- sh -c \
		'i=0; while [ $i -lt 40 ]; do sleep 60 & i=$((i + 1)); done'
	check "$1: CPU time is limited" cpu_is_limited
}

# Two busy seconds at a tenth of a processor are a fifth of a second of work; with slack for emulation.
cpu_is_limited() {
	local ticks
	# shellcheck disable=SC2016 # expanded inside
	ticks=$(hostel run --cpus 0.1 --timeout 60s -- bash -c \
		'timeout 10 sh -c "while :; do :; done"; times | tail -n 1') || true
	echo "children's times: $ticks"
	[[ $ticks =~ ^0m([0-9]+)\.[0-9]+s ]] && [ "${BASH_REMATCH[1]}" -lt 4 ]
}

# A sandbox with a process in it outlives its daemon, however that ends.
survives() {
	local how=$1
	shift
	check "root: $how" "$@"
	check "root: the daemon is back after $how" ready
	check "root: the sandbox is still there after $how" hostel sandbox get "$sandbox"
	check "root: its process is listed after $how" same_process
	check "root: its process went on through $how" counter_moves
	check "root: its memory limit holds after $how" expect 137 hostel exec "$sandbox" -- \
		dd if=/dev/zero of=/dev/null bs=512M count=1
}

kill_and_start() {
	systemctl kill --signal=KILL --kill-whom=main hosteld || return 1
	wait_until 30 expect 3 systemctl is-active hosteld
	systemctl start hosteld
}

# nothing_left DIR: succeeds if nothing of ours is left.
nothing_left() {
	local left
	left=$(
		pgrep -l '^hostel'
		grep -F "$1" /proc/self/mountinfo
		find /sys/fs/cgroup -type d \( -path '*/hostel/*' -o -path '*/hostel.slice/*' -o -path '*/hosteld*' \)
		losetup -a 2>/dev/null | grep -F "$1"
	)
	echo "$left"
	[ -z "$left" ]
}

# programs AS: runs every test program as that user, in a delegated cgroup of its own.
programs() {
	local program
	for program in /opt/hostel/tests/*; do
		[ -x "$program" ] || continue
		echo "---- $(basename "$program") as $1"
		if systemd-run --quiet --wait --pipe --collect --property=Delegate=yes --property=TasksMax=infinity \
			--property=User="$1" --setenv=PATH="$PATH" --setenv=HOSTEL_BIN_DIR=/opt/hostel/bin \
			--setenv=HOSTEL_CASE_SECONDS=900 \
			"$program"; then
			echo "PASS $1: $(basename "$program")"
			passed=$((passed + 1))
		else
			echo "FAIL $1: $(basename "$program")"
			failed=$((failed + 1))
		fi
	done
}

systemctl is-system-running --wait
uname -r
check 'the machine has cgroup v2 with cpu, io, memory and pids' has_controllers

echo '==== as a system service'
home=/var/lib/hostel
export HOSTEL_ADDR=unix://$home/run/hosteld.sock
write_unit hosteld "$home" root
check 'root: the service starts' systemctl start hosteld
check 'root: the daemon answers' ready
hostel node info
hostel doctor
smoke root

sandbox=$(hostel sandbox create --memory 128M --json | json_text id)
check 'root: a sandbox is created' test -n "$sandbox"
# shellcheck disable=SC2016 # expanded inside
check 'root: a process is started in it' hostel exec -d "$sandbox" -- \
	sh -c 'i=0; while :; do i=$((i + 1)); echo $i >/tmp/next; mv /tmp/next /tmp/count; sleep 0.2; done'
process=$(hostel ps "$sandbox" --json | json_text id)
survives 'systemctl restart' systemctl restart hosteld
survives 'kill -9 and start' kill_and_start
check 'root: the sandbox is deleted' hostel sandbox rm "$sandbox"
check 'root: the service stops' systemctl stop hosteld
check 'root: nothing is left' wait_until 30 nothing_left "$home"
journalctl --unit=hosteld --no-pager --lines=40

programs root

echo '==== as an ordinary user'
useradd --create-home "$user"
home=/home/$user
export HOSTEL_ADDR=unix://$home/run/hosteld.sock
write_unit hosteld-user "$home" "$user"
check 'user: the service starts' systemctl start hosteld-user
check 'user: the daemon answers' ready
hostel node info
smoke user
check 'user: the service stops' systemctl stop hosteld-user
check 'user: nothing is left' wait_until 30 nothing_left "$home"
journalctl --unit=hosteld-user --no-pager --lines=40

programs "$user"

echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
