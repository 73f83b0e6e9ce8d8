#!/usr/bin/env bash
# Boots a Debian virtual machine with systemd and cgroup v2, copies files into it, runs one script in
# it as root, and ends with the script's exit code. Works without KVM (by emulation: 10 to 20 times
# slower than the host, so it is for behaviour, never for timings) and without a network.
set -euo pipefail

usage() {
	cat <<'TEXT'
usage: scripts/vm/run.sh [--copy SRC:DST]... --script FILE [options]

  --copy SRC:DST     put the host's file or folder SRC at the absolute path DST in the machine
  --script FILE      the script to run; its output is printed as it comes
  --env KEY=VALUE    set a variable for the script
  --memory MIB       memory of the machine (default 2048)
  --cpus N           processors (default 2)
  --timeout SECONDS  give up after this long, boot included (default 600)
  --console FILE     keep the machine's own console output there

HOSTEL_VM_ACCEL=kvm in the environment uses the processor's own virtualisation.

Exit codes: the script's own; 124 when time ran out; 125 when the machine failed to run the script.
TEXT
}

fail() {
	echo "vm: $*" >&2
	exit 125
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"
copies=()
variables=()
script=''
memory=2048
cpus=2
timeout=600
console=''
while [ $# -gt 0 ]; do
	case "$1" in
	-h | --help)
		usage
		exit 0
		;;
	--copy | --script | --env | --memory | --cpus | --timeout | --console)
		[ $# -ge 2 ] || fail "$1 wants a value"
		;;&
	--copy) copies+=("$2") ;;
	--script) script=$2 ;;
	--env) variables+=("$2") ;;
	--memory) memory=$2 ;;
	--cpus) cpus=$2 ;;
	--timeout) timeout=$2 ;;
	--console) console=$2 ;;
	*)
		usage >&2
		fail "unknown argument '$1'"
		;;
	esac
	shift 2
done
[ -n "$script" ] || fail 'no --script given'
[ -r "$script" ] || fail "cannot read the script '$script'"

"$here/../install-deps.sh" vm
image=$("$here/build-image.sh")

work=$(mktemp -d)
machine=''
follower=''
# shellcheck disable=SC2317 # run by the trap
cleanup() {
	local pid
	for pid in $follower $machine; do
		kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The payload: a plain tar archive as the second disk. Zeros past its end are a tar archive's own end.
payload=$work/payload
mkdir -p "$payload/var/lib/hostel-vm"
{
	echo '#!/bin/bash'
	for variable in "${variables[@]}"; do
		printf 'export %q\n' "$variable"
	done
	echo 'exec /var/lib/hostel-vm/main'
} >"$payload/var/lib/hostel-vm/script"
cp "$script" "$payload/var/lib/hostel-vm/main"
chmod 755 "$payload/var/lib/hostel-vm"/*
for copy in "${copies[@]}"; do
	source=${copy%%:*}
	destination=${copy#*:}
	[ -e "$source" ] || fail "--copy: there is no '$source'"
	[[ $copy == *:/* ]] || fail "--copy wants SRC:DST with an absolute DST, not '$copy'"
	mkdir -p "$payload$(dirname "$destination")"
	cp -rL "$source" "$payload$destination"
done
tar -C "$payload" --owner=0 --group=0 -cf "$work/payload.tar" .
rm -rf "$payload"
truncate -s '%512' "$work/payload.tar"

# Emulation unless asked otherwise: a /dev/kvm that is there does not always work, and it can hang.
accelerator=${HOSTEL_VM_ACCEL:-tcg,thread=multi}
: >"$work/output"
: >"$work/console"
# Writes to the system disk go to a temporary file that qemu deletes, so that the image stays clean
# and several machines can use it at once.
TMPDIR=$work qemu-system-x86_64 \
	-accel "$accelerator" -cpu max -m "$memory" -smp "$cpus" \
	-nodefaults -no-user-config -no-reboot -display none -nic none \
	-kernel "$image/kernel" -initrd "$image/initrd" \
	-append 'root=/dev/vda rw console=ttyS0 quiet panic=1 systemd.show_status=0 mitigations=off' \
	-drive "file=$image/disk.img,if=virtio,format=raw,snapshot=on" \
	-drive "file=$work/payload.tar,if=virtio,format=raw,readonly=on" \
	-serial "file:$work/console" -serial "file:$work/output" \
	</dev/null 2>"$work/qemu" &
machine=$!
tail -n +1 -s 0.2 --pid="$machine" -f "$work/output" &
follower=$!

# Wait for the machine to switch itself off, but no longer than asked.
deadline=$((SECONDS + timeout))
timed_out=no
while kill -0 "$machine" 2>/dev/null; do
	if [ "$SECONDS" -ge "$deadline" ]; then
		timed_out=yes
		kill -KILL "$machine" 2>/dev/null || true
		break
	fi
	sleep 0.2
done
wait "$machine" 2>/dev/null || true
machine=''
wait "$follower" || true
follower=''
if [ -n "$console" ]; then
	cp "$work/console" "$console"
fi

status=$(sed -n 's/^HOSTEL-VM-EXIT:\([0-9]\{1,3\}\)\r\{0,1\}$/\1/p' "$work/output" | tail -n 1)
if [ -n "$status" ]; then
	exit "$status"
fi
{
	echo '--- the end of the console of the virtual machine'
	tail -n 40 "$work/console"
	cat "$work/qemu"
	echo '---'
} >&2
if [ "$timed_out" = yes ]; then
	echo "vm: the script had not ended after $timeout s" >&2
	exit 124
fi
fail 'the machine went down before the script ended'
