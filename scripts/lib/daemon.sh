# shellcheck shell=bash
# For scripts that start a daemon of their own: sourced, not run. Expects `hosteld` and `hostel` on PATH.
#
# start_daemon DIR   starts hosteld with its state, sockets and log under DIR; exports HOSTEL_ADDR
# stop_daemon        asks it to end, waits, and kills it if it does not
# leftovers DIR      prints what is left on this host of sandboxes: run before and after, and compare

daemon_pid=''

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
}

stop_daemon() {
	[ -n "$daemon_pid" ] || return 0
	local pid=$daemon_pid status=0
	daemon_pid=''
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

# One line for each process named hostel*, each mount and each mount namespace of another process that
# holds something under DIR, and each cgroup directory of ours.
leftovers() {
	local dir=$1 process comm
	for process in /proc/[0-9]*; do
		comm=$(cat "$process/comm" 2>/dev/null) || continue
		case "$comm" in
		hostel*) echo "process ${process#/proc/} ($comm)" ;;
		*)
			if [ "${process#/proc/}" != "$$" ] && grep -qsF -- "$dir" "$process/mountinfo"; then
				echo "mount namespace of process ${process#/proc/} ($comm)"
			fi
			;;
		esac
	done
	awk -v dir="$dir" 'index($0, dir) { print "mount", $5 }' /proc/self/mountinfo
	find /sys/fs/cgroup -type d -path '*/hostel*' -printf 'cgroup %p\n' 2>/dev/null || true
}
