#!/usr/bin/env bash
# Builds, once, the Debian image that scripts/vm/run.sh boots: systemd, cgroup v2, a kernel, and a
# unit that unpacks a tar archive from the second disk and runs the script in it.
#
# Prints the folder that holds `disk.img`, `kernel` and `initrd`. The folder's name is a hash of all
# that goes into the image, so a change here or in guest/ makes a new one and an old one is reused.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
export PATH="$PATH:/usr/sbin:/sbin"

# The release is the host's own, if that is Debian, because the binaries copied in are linked against
# the host's C library.
host_release() {
	local ID='' VERSION_CODENAME=''
	# shellcheck source=/dev/null
	. /etc/os-release
	if [ "$ID" = debian ] && [ -n "$VERSION_CODENAME" ]; then
		echo "$VERSION_CODENAME"
	else
		echo bookworm
	fi
}

# The mirror is the one that this machine's apt is set up with.
mirror() {
	local uri
	# shellcheck disable=SC2016 # apt-get fills these in
	uri=$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
		awk '$1 == "Debian" && $2 == "main" && $3 !~ /-/ { print $4; exit }')
	if [ -z "$uri" ]; then
		echo 'vm: apt knows no Debian mirror; run apt-get update, or set HOSTEL_VM_MIRROR' >&2
		return 1
	fi
	echo "$uri"
}

release=${HOSTEL_VM_RELEASE:-$(host_release)}
architecture=amd64
packages=(
	systemd systemd-sysv dbus udev kmod
	"linux-image-cloud-$architecture" initramfs-tools
	iproute2 procps btrfs-progs
	docker.io apparmor xfsprogs
)

key=$(
	{
		echo "$release $architecture ${packages[*]}"
		cat "$here/build-image.sh" "$here"/guest/*
	} | sha256sum | cut -c1-12
)
cache=$root/.cache/vm
image=$cache/$release-$key

if [ -e "$image/disk.img" ]; then
	echo "$image"
	exit 0
fi
mkdir -p "$cache"
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || {
		echo 'vm: building the image takes root (debootstrap makes a root file system); run this as root once' >&2
		exit 1
	}
	exec sudo env HOSTEL_VM_RELEASE="$release" HOSTEL_VM_MIRROR="${HOSTEL_VM_MIRROR:-}" "$here/build-image.sh"
fi

mirror=${HOSTEL_VM_MIRROR:-$(mirror)}
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
log=$work/log
rootfs=$work/rootfs

run_logged() {
	if ! "$@" >>"$log" 2>&1; then
		echo "vm: failed: $*" >&2
		tail -n 30 "$log" >&2
		exit 1
	fi
}

echo "vm: building a Debian $release image (about a minute, once)" >&2
proxy=$(apt-config shell proxy Acquire::http::Proxy)
eval "$proxy"
include=$(
	IFS=,
	echo "${packages[*]}"
)
run_logged env ${proxy:+http_proxy="$proxy"} \
	debootstrap --variant=minbase --arch="$architecture" --include="$include" "$release" "$rootfs" "$mirror"

# Only the drivers that the virtual machine has: a small initial RAM disk boots much faster in emulation.
echo 'MODULES=list' >"$rootfs/etc/initramfs-tools/conf.d/hostel"
printf '%s\n' virtio_pci virtio_blk ext4 >>"$rootfs/etc/initramfs-tools/modules"
run_logged chroot "$rootfs" update-initramfs -u -k all

echo '/dev/vda / ext4 defaults 0 0' >"$rootfs/etc/fstab"
echo 'hostel-vm' >"$rootfs/etc/hostname"
echo 'LANG=C.UTF-8' >"$rootfs/etc/default/locale"
install -D -m 0755 "$here/guest/payload.sh" "$rootfs/usr/local/lib/hostel-vm/payload.sh"
install -m 0644 "$here/guest/hostel-vm.service" "$rootfs/etc/systemd/system/"
run_logged systemctl --root="$rootfs" enable hostel-vm.service
run_logged systemctl --root="$rootfs" set-default multi-user.target
# Nothing here is for a person at the console, and timers would only take emulated time.
run_logged systemctl --root="$rootfs" mask getty@tty1.service serial-getty@ttyS0.service \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
	systemd-networkd.service
# Who wants an engine starts one of his own.
run_logged systemctl --root="$rootfs" mask docker.service docker.socket containerd.service
rm -rf "$rootfs"/var/cache/apt/* "$rootfs"/var/lib/apt/lists/* "$rootfs"/usr/share/{doc,man,locale}/*

mkdir "$work/image"
cp -L "$rootfs/vmlinuz" "$work/image/kernel"
cp -L "$rootfs/initrd.img" "$work/image/initrd"
truncate -s 6G "$work/image/disk.img"
run_logged mke2fs -q -t ext4 -E lazy_itable_init=1 -d "$rootfs" "$work/image/disk.img"
chmod 755 "$work/image"
chmod 644 "$work/image"/*

# Another build may have finished first: then its image is as good as ours.
mv -T "$work/image" "$image" 2>/dev/null || [ -e "$image/disk.img" ]
if [ -n "${SUDO_UID:-}" ]; then
	chown -R "$SUDO_UID:${SUDO_GID:-0}" "$image"
fi
# What this build replaces, and what builds that were killed left.
find "$cache" -mindepth 1 -maxdepth 1 -name "$release-*" ! -path "$image" -exec rm -rf {} +
find "$cache" -mindepth 1 -maxdepth 1 -name 'building.*' -mmin +120 -exec rm -rf --one-file-system {} +
echo "$image"
