# shellcheck shell=bash
# For scripts that start a daemon of their own: sourced, not run. Expects `hosteld` and `hostel` on PATH.
#
# start_daemon DIR   starts hosteld with its state, sockets and log under DIR; exports HOSTEL_ADDR
# stop_daemon        asks it to end, waits, and kills it if it does not
# leftovers DIR      after stop_daemon: prints what this daemon, and no other on the host, left behind

daemon_pid=''
# The name by which the daemon's cgroups can be told from another daemon's.
daemon_instance=''
# The daemon's descendants when it was asked to end, as lines of "pid start-time".
daemon_family=''

start_daemon() {
	local dir=$1
	mkdir -p "$dir/state" "$dir/run"
	export HOSTEL_STATE_DIR=$dir/state HOSTEL_RUNTIME_DIR=$dir/run
	export HOSTEL_ADDR=unix://$dir/run/hosteld.sock
	hosteld --listen "$HOSTEL_ADDR" </dev/null >"$dir/hosteld.log" 2>&1 &
	daemon_pid=$!
	local deadline=$((SECONDS + 15))
	until hostel node info >/dev/null 2>&1; do
		if ! kill -0 "$daemon_pid" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
			echo 'hosteld did not become ready; its log:' >&2
			tail -n 30 "$dir/hosteld.log" >&2
			return 1
		fi
		sleep 0.05
	done
	daemon_instance=$(find "$dir/state" -name instance -type f -exec cat {} \;)
	if [ -z "$daemon_instance" ]; then
		echo 'hosteld keeps no instance name in its state directory' >&2
		return 1
	fi
}

# The time a process started, in clock ticks since boot: with the pid it names one process for good.
# The command name before it may hold spaces and brackets.
start_time() {
	local text fields
	text=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
	read -ra fields <<<"${text##*) }"
	echo "${fields[19]}"
}

# Lines of "pid start-time" for all processes below one.
descendants() {
	local children child
	children=$(cat "/proc/$1"/task/*/children 2>/dev/null) || return 0
	for child in $children; do
		echo "$child $(start_time "$child")"
		descendants "$child"
	done
}

stop_daemon() {
	[ -n "$daemon_pid" ] || return 0
	local pid=$daemon_pid status=0
	daemon_pid=''
	daemon_family=$(descendants "$pid")
	kill -TERM "$pid" 2>/dev/null || true
	local deadline=$((SECONDS + 15))
	while kill -0 "$pid" 2>/dev/null; do
		if [ "$SECONDS" -ge "$deadline" ]; then
			echo 'hosteld did not end within 15 s of SIGTERM' >&2
			kill -KILL "$pid" 2>/dev/null || true
		fi
		sleep 0.05
	done
	wait "$pid" || status=$?
	return "$status"
}

# One line for each process of the daemon's family or in its cgroups, each mount and loop device of a
# file under DIR, in whatever mount namespace, and each of its cgroups.
leftovers() {
	local dir=$1 pid start
	while read -r pid start; do
		if [ -n "$start" ] && [ "$(start_time "$pid")" = "$start" ]; then
			echo "process $pid ($(cat "/proc/$pid/comm" 2>/dev/null || true))"
		fi
	done <<<"$daemon_family"
	{
		grep -lsF -- "/$daemon_instance" /proc/[0-9]*/cgroup
		# A mount in our own mount namespace would be named once for each process on the host.
		grep -sF -- "$dir" /proc/self/mountinfo || grep -lsF -- "$dir" /proc/[0-9]*/mountinfo
		grep -lsF -- "$dir" /sys/block/loop*/loop/backing_file
		find /sys/fs/cgroup -type d -path "*/$daemon_instance*" 2>/dev/null
	} || true
}
