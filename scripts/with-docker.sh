#!/usr/bin/env bash
# Runs a command with a Docker engine that can be used: DOCKER_HOST names it, HOSTEL_DOCKER_IMAGE an image on it.
# Takes the engine that runs already, or starts one of its own, with its own data, and stops it afterwards. Where
# neither can be, the command runs without DOCKER_HOST, and that is said loudly, before and after. What tests say that
# they leave out for other reasons is counted and told at the end.
#
#   scripts/with-docker.sh cargo test --workspace
#
# HOSTEL_DOCKER_OWN=1       start an engine even where one runs
# HOSTEL_DOCKER_DRIVER=…    storage of the engine of its own: overlay2 (default), or one where containers have a
#                           capped, writable root, on a disk of its own: btrfs, or xfs (overlay2 on XFS with project
#                           quotas, which the kernel has to know)
set -euo pipefail

if [ $# -eq 0 ]; then
	echo "usage: $0 COMMAND [ARGUMENT…]" >&2
	exit 2
fi
# Administration tools live in sbin, which an ordinary user's PATH leaves out.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

image=hostel-test-base
work=''
engine=''

say() { echo "with-docker: $*" >&2; }

usable() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# The image that tests make containers of: a shell and small tools, copied from this host with the libraries they
# need, so that no registry is asked.
make_image() {
	docker image inspect "$image" >/dev/null 2>&1 && return 0
	local root tool path
	root=$(mktemp -d)
	mkdir -p "$root"/{etc,proc,sys,dev,tmp,root,home,run,var/tmp,usr/{bin,sbin,lib,lib64}}
	# As Debian has it, so that a program is at both of its names whichever the host says.
	for tool in bin sbin lib lib64; do ln -s "usr/$tool" "$root/$tool"; done
	chmod 755 "$root"
	chmod 1777 "$root/tmp" "$root/var/tmp"
	for tool in sh bash cat chmod chgrp chown cksum cmp cp cut date dd df dirname du echo env expr false find fold grep egrep \
		groups head hostname id kill ldd ln ls mkdir mkfifo mknod mktemp mv nice nohup nproc od paste printf ps pwd \
		readlink realpath rm rmdir sed seq setsid sha256sum sleep sort split stat stdbuf stty sync tail tar tee test \
		timeout touch tr true truncate tty umask uname uniq wc which whoami xargs yes awk mawk; do
		path=$(type -P "$tool" || true) # a file, also of what the shell has built in
		[[ $path == /* ]] || continue
		copy_with_libraries "$path"
	done
	printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
	tar --create --numeric-owner --owner=0 --group=0 --directory "$root" . | docker import - "$image" >/dev/null
	rm -rf "$root"
}

# Copies a program, and each library, to the place where the loader will look for it.
copy_with_libraries() {
	local file
	for file in "$1" $(ldd "$1" 2>/dev/null | grep -oE '/[^ ]+' || true); do
		case $file in
		/bin/* | /sbin/*) install -D --mode=755 "$file" "$root/usr$file" ;;
		esac
		[ -e "$root$file" ] || install -D --mode=755 "$file" "$root$file"
	done
}

# shellcheck disable=SC2317 # run by the trap
stop_engine() {
	local status=$?
	if [ -n "$engine" ]; then
		# By its own socket, never by the environment: other engines' containers are not ours to remove.
		docker --host "unix://$work/docker.sock" ps --all --quiet 2>/dev/null |
			xargs --no-run-if-empty docker --host "unix://$work/docker.sock" rm --force >/dev/null 2>&1 || true
		kill "$engine" 2>/dev/null || true
		for _ in {1..100}; do
			kill -0 "$engine" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL "$engine" 2>/dev/null || true
	fi
	rm -f "$skips"
	if [ -n "$work" ]; then
		findmnt --noheadings --raw --output TARGET | grep -F "$work/" | sort --reverse |
			xargs --no-run-if-empty --max-args=1 umount --lazy 2>/dev/null || true
		rm -rf --one-file-system "$work"
	fi
	exit "$status"
}

start_engine() {
	if [ "$(id -u)" -ne 0 ]; then
		reason='no engine can be used, and only root can start one'
		return 1
	fi
	if ! command -v dockerd >/dev/null; then
		reason='dockerd is not installed (apt-get install docker.io)'
		return 1
	fi
	work=$(mktemp -d "${TMPDIR:-/tmp}/hostel-docker.XXXXXX")
	mkdir "$work/data"
	local driver=${HOSTEL_DOCKER_DRIVER:-overlay2}
	case $driver in
	btrfs)
		truncate --size=16G "$work/disk"
		mkfs.btrfs --quiet "$work/disk" 2>/dev/null
		mount -o loop,discard "$work/disk" "$work/data"
		;;
	xfs)
		truncate --size=16G "$work/disk"
		mkfs.xfs -q "$work/disk"
		mount -o loop,discard,pquota "$work/disk" "$work/data"
		driver=overlay2
		;;
	esac
	dockerd --host "unix://$work/docker.sock" --data-root "$work/data" --exec-root "$work/exec" \
		--pidfile "$work/pid" --storage-driver "$driver" --bridge none --iptables=false --ip6tables=false \
		</dev/null >"$work/log" 2>&1 &
	engine=$!
	export DOCKER_HOST="unix://$work/docker.sock"
	for _ in {1..150}; do
		usable && return 0
		kill -0 "$engine" 2>/dev/null || break
		sleep 0.2
	done
	reason="an engine does not start here: $(grep -v 'level=info' "$work/log" | tail -n 1)"
	unset DOCKER_HOST
	return 1
}

loudly() {
	printf '%s\n' '' '################################################################' "$@" \
		'################################################################' '' >&2
}

skipped() { loudly '# SKIPPED: no test of the Docker backend was run.' "# $reason"; }

# What tests appended to HOSTEL_SKIPPED, a line for each.
skipped_inside() {
	local count lines
	count=$(wc -l <"$skips")
	[ "$count" -gt 0 ] || return 0
	mapfile -t lines < <(sort "$skips" | uniq --count | sed 's/^/#/')
	loudly "# SKIPPED: $count tests, or parts of them, were left out. How many, and why:" "${lines[@]}"
}

reason=''
skips=$(mktemp "${TMPDIR:-/tmp}/hostel-skipped.XXXXXX")
export HOSTEL_SKIPPED=$skips
trap stop_engine EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if ! command -v docker >/dev/null; then
	reason='the docker command is not installed (apt-get install docker.io)'
elif [ -z "${HOSTEL_DOCKER_OWN:-}" ] && usable; then
	export DOCKER_HOST=${DOCKER_HOST:-unix:///var/run/docker.sock}
	say "the engine at $DOCKER_HOST"
elif start_engine; then
	say "an engine of its own, with the storage driver ${HOSTEL_DOCKER_DRIVER:-overlay2}"
fi
if [ -n "$reason" ]; then
	unset DOCKER_HOST
	skipped
else
	make_image
	export HOSTEL_DOCKER_IMAGE=$image
fi

status=0
"$@" || status=$?
skipped_inside
[ -z "$reason" ] || skipped
exit "$status"
