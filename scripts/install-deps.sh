#!/usr/bin/env bash
# Installs, with apt, the Debian packages that a purpose needs and this machine lacks.
# Does nothing, and needs no privilege, when nothing is missing.
set -euo pipefail

usage() {
	cat <<'TEXT'
usage: scripts/install-deps.sh [--if-possible] [--dry-run] PURPOSE...

Purposes:
  run     what hosteld uses when it is there: the btrfs tools, for disk limits and instant forks
  test    what `make test` needs
  docker  a Docker engine, for the tests of that backend
  lint    what `make lint` needs
  bench   the peers that `make bench` measures beside us
  image   what `make image` needs beside a Docker engine, also where no public base can be pulled
  vm      what `make test-vm` needs to build and boot a virtual machine
  all     all of the above

  --if-possible  warn instead of failing when the packages cannot be installed
  --dry-run      print the missing packages, one a line, and install nothing
TEXT
}

# Lines of "package probe": the package counts as present when the probe is a command that exists,
# or, for the probe "-", when dpkg says that the package is installed.
packages_for() {
	case "$1" in
	run) echo 'btrfs-progs mkfs.btrfs' ;;
	test)
		packages_for run
		# An independent client of the API, see scripts/python-client.sh.
		echo 'python3 python3'
		echo 'python3-venv -'
		# Tests start servers of their own.
		echo 'postgresql -'
		packages_for docker
		packages_for image
		;;
	docker)
		echo 'docker.io dockerd'
		echo 'e2fsprogs mkfs.ext4'
		;;
	lint) echo 'shellcheck shellcheck' ;;
	bench)
		packages_for run
		packages_for docker
		echo 'bubblewrap bwrap'
		echo 'nginx-light nginx'
		echo 'runc runc'
		echo 'busybox-static -'
		;;
	image)
		echo 'debootstrap debootstrap'
		# What goes into images comes from npm's registry.
		echo 'npm npm'
		;;
	vm)
		echo 'qemu-system-x86 qemu-system-x86_64'
		echo 'debootstrap debootstrap'
		echo 'e2fsprogs mke2fs'
		;;
	all)
		local purpose
		for purpose in test lint bench image vm; do packages_for "$purpose"; done
		;;
	*)
		echo "install-deps: unknown purpose '$1'" >&2
		usage >&2
		exit 2
		;;
	esac
}

is_present() {
	local package=$1 probe=$2
	if [ "$probe" != - ]; then
		command -v "$probe" >/dev/null
	else
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ]
	fi
}

# Says why the packages cannot be had, and ends: with success only under --if-possible.
give_up() {
	echo "install-deps: $1" >&2
	echo "install-deps: still missing: ${missing[*]}" >&2
	if [ "$if_possible" = yes ]; then
		echo 'install-deps: going on without them; what depends on them will say so' >&2
		exit 0
	fi
	exit 1
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif [ -t 0 ]; then
		sudo "$@"
	else
		sudo -n "$@"
	fi
}

apt() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
		-o Dpkg::Use-Pty=0 "$@"
}

# Debian's PostgreSQL makes and starts a cluster when it is installed, which nobody here wants. What an administrator
# has set is left alone.
want_no_cluster() {
	local settings=/etc/postgresql-common/createcluster.conf
	[[ " ${missing[*]} " != *' postgresql '* ]] || [ -e "$settings" ] || {
		as_root mkdir -p "${settings%/*}"
		echo 'create_main_cluster = false' | as_root tee "$settings" >/dev/null
	}
}

install_missing() {
	want_no_cluster
	apt install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1
}

if_possible=no
dry_run=no
purposes=()
for argument in "$@"; do
	case "$argument" in
	--if-possible) if_possible=yes ;;
	--dry-run) dry_run=yes ;;
	-h | --help)
		usage
		exit 0
		;;
	*) purposes+=("$argument") ;;
	esac
done
if [ ${#purposes[@]} -eq 0 ]; then
	usage >&2
	exit 2
fi

# Administration tools live in sbin, which an ordinary user's PATH leaves out.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

wanted=$(for purpose in "${purposes[@]}"; do packages_for "$purpose"; done | sort -u)
missing=()
while read -r package probe; do
	is_present "$package" "$probe" || missing+=("$package")
done <<<"$wanted"

if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi
if [ "$dry_run" = yes ]; then
	printf '%s\n' "${missing[@]}"
	exit 0
fi
command -v apt-get >/dev/null ||
	give_up "this is not a Debian system (no apt-get): install these packages' equivalents by hand"
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
	give_up "installing packages needs root or sudo: as root, run: apt-get install ${missing[*]}"
fi

echo "install-deps: installing ${missing[*]} (for: ${purposes[*]})"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# A fresh machine has no package lists; an old one may have lists that name files long replaced.
if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || ! install_missing; then
	if ! { apt update >"$log" 2>&1 && install_missing; }; then
		tail -n 20 "$log" >&2
		give_up 'apt-get could not install them'
	fi
fi
