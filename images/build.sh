#!/usr/bin/env bash
# Builds the image of a recipe, hostel-NAME, with Docker, and prints its name. Shows on standard error how it goes.
# What was built from the same inputs before is taken as it is.
#
#   images/build.sh NAME
#
# Environment:
#   BASE          image to build on. Without: a slim Debian from the public registry, or where that cannot be had,
#                 one made here with debootstrap, from the mirror that this machine's apt uses (takes root).
#   BASE_ROOTFS   tar archive of a root file system to make the base of, instead of debootstrap
#   SUITE         Debian release [bookworm]
#   NO_CACHE      not empty: build also what was built before
#   SOURCE_DATE_EPOCH  time of files made here, seconds since 1970
#   HOSTEL_CACHE  directory for what is fetched [.cache/images of the checkout, or of the user]
#
# Reproducible by digest: the same recipe, pins, base and Debian packages make the same image id, on another day and
# with another engine too. What an engine writes into an image depends on the clock, so the image that it built is
# only what ours is made from: one layer whose files made here have the time of SOURCE_DATE_EPOCH, and a
# configuration without a time. Debian's packages are the newest of the release on the day, unless the base's sources
# name a snapshot.
set -euo pipefail
# What fails within $(…) ends that, too.
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"
name=${1:-}
suite=${SUITE:-bookworm}
# passwd's and debootstrap's programs heed it too, and write no dates of today.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1763683200}
epoch=$SOURCE_DATE_EPOCH
public="debian:$suite-slim"
own_base="hostel-base:$suite"

say() { echo "image: $*" >&2; }
fail() {
	say "$*"
	exit 1
}

if [ -z "$name" ] || [ ! -f "$here/$name/Dockerfile" ]; then
	fail "give the name of a recipe: $(cd "$here" && for recipe in */Dockerfile; do printf '%s ' "${recipe%/*}"; done)"
fi
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
	fail 'no Docker engine answers: start one, or set DOCKER_HOST'

if [ -n "${HOSTEL_CACHE:-}" ]; then
	cache=$HOSTEL_CACHE
elif [ -f "$here/../Cargo.toml" ]; then
	cache=$here/../.cache/images
else
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/hostel/images
fi
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

work=$(mktemp -d "$cache/building.XXXXXX")
# What the engine builds, until it is settled.
building=hostel-$name:building-${work##*.}
trap 'rm -rf --one-file-system "$work"; docker rmi "$building" >/dev/null 2>&1 || true' EXIT

# A line of the list of pins: version, package, checksum.
pin() {
	awk -v name="$1" -v platform="$platform" '$1 == name && $3 == platform { print $2, $4, $5; exit }' "$here/pins"
}

# Fetches a pinned package once and prints the directory that it was unpacked to.
fetched() {
	local version package integrity directory archive wanted
	read -r version package integrity < <(pin "$1") || fail "pins has no $1 for $platform"
	wanted=$(base64 -d <<<"${integrity#sha512-}" | od -An -v -tx1 | tr -d ' \n') || wanted=''
	[ ${#wanted} -eq 128 ] || fail "pins has no sha512 checksum for $package@$version: $integrity"
	# With its checksum: what was unpacked from another archive, or by who did not check, is not taken for it.
	directory=$cache/$1-$version-$platform-${wanted:0:16}
	if [ ! -d "$directory" ]; then
		command -v npm >/dev/null ||
			fail "npm is not installed, which fetches $package@$version: scripts/install-deps.sh image installs it"
		say "fetching $package@$version"
		archive=$(cd "$work" && npm pack --silent --ignore-scripts "$package@$version" | tail -n 1) ||
			fail "npm cannot fetch $package@$version; the lines above say why. Try again, or set npm_config_registry to a registry that can be reached"
		archive=$work/$archive
		[ -f "$archive" ] || fail "npm fetched $package@$version, but said no file: try again with another npm"
		echo "$wanted  $archive" | sha512sum --check --status ||
			fail "$package@$version has another checksum than pins says: $(sha512sum <"$archive")"
		mkdir "$work/unpacked"
		tar -xzf "$archive" -C "$work/unpacked" --no-same-owner ||
			fail "cannot unpack $package@$version below $cache: make room there, or set HOSTEL_CACHE to another directory, and try again"
		rm "$archive"
		# Somebody else may have been faster.
		mv -T "$work/unpacked/package" "$directory" 2>/dev/null || [ -d "$directory" ] ||
			fail "cannot keep $package@$version as $directory: make room there, or set HOSTEL_CACHE to another directory"
		rm -rf "$work/unpacked"
	fi
	echo "$directory"
}

# The files that a Dockerfile copies, with times and modes that do not depend on this machine.
place() {
	local from
	from=$(fetched "$1")
	case "$1" in
	claude) install -m 0755 "$from/claude" "$work/context/claude" ;;
	node) install -m 0755 "$from/bin/node" "$work/context/node" ;;
	*) cp -r "$from" "$work/context/$1" ;;
	esac
}

# Options that let apt work inside as it does on this machine.
apt_options() {
	apt-config dump 2>/dev/null |
		sed -nE 's/^(Acquire::(Check-Valid-Until|Check-Date|https?::Proxy)) "([^" ]+)";$/-o \1=\3/p' | tr '\n' ' '
}

mirror() {
	# shellcheck disable=SC2016 # apt-get fills these in
	apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
		awk -v suite="$suite" '$1 == "Debian" && $2 == "main" && $3 == suite { print $4; exit }'
}

make_base() {
	local rootfs=${BASE_ROOTFS:-$cache/base-$suite.tar} uri lock
	# Another build may be making it just now.
	exec {lock}>"$cache/base-$suite.lock"
	if command -v flock >/dev/null; then flock "$lock"; fi
	if [ ! -f "$rootfs" ]; then
		command -v debootstrap >/dev/null ||
			fail "cannot pull $public, and debootstrap is not installed to make a base instead: apt-get install debootstrap"
		[ "$(id -u)" -eq 0 ] || fail "cannot pull $public; making a base with debootstrap instead takes root"
		uri=$(mirror)
		say "making a Debian $suite base with debootstrap (about a minute, once)"
		touch "$work/begin"
		debootstrap --variant=minbase "$suite" "$work/rootfs" ${uri:+"$uri"} >"$work/log" 2>&1 || {
			tail -n 20 "$work/log" >&2
			fail 'debootstrap failed'
		}
		# The last is a list of inodes; what differs in a base differs in the id of all that is built on it.
		rm -rf "$work"/rootfs/var/cache/apt/* "$work"/rootfs/var/lib/apt/lists/* "$work"/rootfs/var/log/*.log \
			"$work/rootfs/var/cache/ldconfig/aux-cache"
		find "$work/rootfs" -xdev -newer "$work/begin" -exec touch --no-dereference --date="@$epoch" {} +
		tar -C "$work/rootfs" --numeric-owner --sort=name --one-file-system -cf "$work/base.tar" .
		mv "$work/base.tar" "$rootfs"
		rm -rf --one-file-system "$work/rootfs"
	fi
	exec {lock}>&-
	say "importing the base $own_base"
	docker import --message 'Debian base made with debootstrap' "$rootfs" "$own_base" >/dev/null
}

base=${BASE:-}
if [ -z "$base" ]; then
	if docker image inspect "$public" >/dev/null 2>&1; then
		base=$public
	elif docker image inspect "$own_base" >/dev/null 2>&1; then
		base=$own_base
	elif say "pulling $public" && timeout "${PULL_TIMEOUT:-60}" docker pull --quiet "$public" >/dev/null 2>"$work/pull"; then
		base=$public
	else
		say "cannot pull it: $(tail -n 1 "$work/pull")"
		make_base
		base=$own_base
	fi
fi

# What of an image goes into those built on it. Its id does not: an import gets another each time.
contents() { docker image inspect --format '{{json .RootFS.Layers}} {{json .Config.Env}}' "$1"; }
base_contents=$(contents "$base" 2>/dev/null) ||
	{ docker pull "$base" >&2 && base_contents=$(contents "$base"); } ||
	fail "there is no image $base"

# The base says what runs on it, which need not be what the engine runs on.
architecture=$(docker image inspect --format '{{.Architecture}}' "$base")
case $architecture in
amd64) platform=linux-x64 ;;
arm64) platform=linux-arm64 ;;
*) fail "there is no claude binary for $architecture, which $base is for: set BASE to an image for amd64 or arm64" ;;
esac

key=$({
	echo "$base_contents $epoch $platform"
	cat "$here/$name/Dockerfile" "$here/pins" "$here/build.sh"
} | sha256sum | cut -c1-16)
image=hostel-$name:latest
built=$(docker image inspect --format '{{index .Config.Labels "hostel.recipe-key"}}' "$image" 2>/dev/null || true)
if [ "$built" = "$key" ] && [ -z "${NO_CACHE:-}" ]; then
	say "$image is there already, built on $base"
	echo "$image"
	exit 0
fi

# Prints all files of the built image as a tar archive, those that are newer than a time with another. What the
# engine puts into each container is left out.
files() {
	local script="find / -xdev -newermt '@$1' ! -path /sys -exec touch --no-dereference --date='@$epoch' {} +
		tar --create --directory / --sort=name --numeric-owner --one-file-system \
			--exclude=./dev --exclude=./proc --exclude=./sys --exclude=./.dockerenv \\
			--exclude=./etc/hostname --exclude=./etc/hosts --exclude=./etc/resolv.conf ."
	# Logged, each byte would be written once more, as text.
	docker run --rm --log-driver none --network none --user 0:0 --workdir / --entrypoint sh "$building" -c "$script"
}

# Makes the image out of what the engine built: the same files and the same settings give the same id.
settle() {
	local image=$work/image layer config inspected
	mkdir -p "$image" "$work/empty"/{dev,proc,sys}
	files "$1" >"$image/layer.tar" || fail "cannot read the files of $building; the lines above say why"
	# The engine mounts something on these, which has the time of now.
	tar --append --file "$image/layer.tar" --directory "$work/empty" --numeric-owner --owner=0 --group=0 --mode=755 \
		--mtime="@$epoch" dev proc sys
	layer=$(sha256sum <"$image/layer.tar" | cut -d ' ' -f 1)
	# Names and values as the image specification of Docker (v1.2) has them.
	inspected='{"architecture":{{json .Architecture}},"os":{{json .Os}},"config":{"User":{{json .Config.User}},'
	inspected+='"Env":{{json .Config.Env}},"Cmd":{{json .Config.Cmd}},"WorkingDir":{{json .Config.WorkingDir}},'
	inspected+='"Labels":{{json .Config.Labels}}}'
	{
		docker image inspect --format "$inspected" "$building" | tr -d '\n'
		printf ',"created":"%s","history":[{"created_by":"images/build.sh %s"}]' \
			"$(date --utc --date="@$epoch" +%Y-%m-%dT%H:%M:%SZ)" "$name"
		printf ',"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$layer"
	} >"$work/config.json"
	config=$(sha256sum <"$work/config.json" | cut -d ' ' -f 1).json
	mv "$work/config.json" "$image/$config"
	printf '[{"Config":"%s","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$config" "$2" >"$image/manifest.json"
	tar --create --directory "$image" manifest.json "$config" layer.tar | docker load --quiet >/dev/null
}

say "building $image on $base"
mkdir "$work/context"
cp "$here/$name/Dockerfile" "$work/context/"
while read -r file; do place "$file"; done < <(awk '$1 == "COPY" { print $2 }' "$here/$name/Dockerfile")
chmod -R u=rwX,go=rX "$work/context"
find "$work/context" -exec touch --no-dereference --date="@$epoch" {} +
options=$(apt_options)
arguments=(
	--build-arg "BASE=$base" --build-arg "SOURCE_DATE_EPOCH=$epoch" --build-arg "APT_OPTIONS=$options"
	--label "hostel.recipe=$name" --label "hostel.recipe-key=$key" --tag "$building" --network host
)
# Docker knows these by itself and does not keep them in the image.
for variable in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
	if [ -n "${!variable:-}" ]; then arguments+=(--build-arg "$variable"); fi
done
# A layer that the engine kept from another day would have that day's times. What is kept is the whole, by its key.
arguments+=(--no-cache)
begin=$(date --date="$(docker info --format '{{.SystemTime}}')" +%s) || fail 'the engine does not tell the time'
docker build "${arguments[@]}" "$work/context" >&2 || fail "building $image failed; the lines above say why"
say "settling $image, so that building it again makes the same"
settle "$begin" "$image"
say "$image is $(docker image inspect --format '{{.Id}}' "$image"), $(docker image inspect --format '{{.Size}}' "$image" | numfmt --to=iec-i --suffix=B), claude $(pin claude | cut -d ' ' -f 1)"
echo "$image"
