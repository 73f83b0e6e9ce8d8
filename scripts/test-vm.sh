#!/usr/bin/env bash
# Proves a backend on cgroup v2 under systemd: builds the binaries and the test programs here and runs
# scripts/vm/jail-suite.sh, or docker-suite.sh, with them in a virtual machine.
#
# usage: scripts/test-vm.sh [jail|docker] [ARGUMENTS OF scripts/vm/run.sh…]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Optimised, because everything takes 10 to 20 times longer in there.
profile=${HOSTEL_VM_PROFILE:-release}
suite=jail
case ${1:-} in
jail | docker)
	suite=$1
	shift
	;;
esac
# Test programs by the name of their source file; those that are not there are left out.
case $suite in
jail) tests=${HOSTEL_VM_TESTS:-conformance bounds spares} memory=2048 limit=1800 ;;
docker) tests=${HOSTEL_VM_TESTS:-conformance remote} memory=4096 limit=5400 ;;
esac

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/bin" "$stage/tests"

cargo build --workspace --profile "$profile"
target=${CARGO_TARGET_DIR:-target}
built=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")
for program in hosteld hostel; do
	strip --strip-debug -o "$stage/bin/$program" "$built/$program"
done

# Cargo says where it put each test program: "Executable tests/NAME.rs (PATH)".
cargo test --workspace --profile "$profile" --no-run 2>&1 | tee "$stage/cargo.log" >&2
for name in $tests; do
	while read -r path; do
		# Two crates have a `conformance`; those that want an engine look for it by this name.
		[ "$suite" = "$(grep -qF DOCKER_HOST "$path" && echo docker || echo jail)" ] || continue
		strip --strip-debug -o "$stage/tests/$name-$(basename "$path")" "$path"
	done < <(sed -n "s|^ *Executable \(.*/\)\{0,1\}$name\.rs (\(.*\))\$|\2|p" "$stage/cargo.log")
done
echo "test-vm: test programs: $(ls "$stage/tests")"

scripts/vm/run.sh --copy "$stage/bin:/opt/hostel/bin" --copy "$stage/tests:/opt/hostel/tests" \
	--copy scripts/with-docker.sh:/opt/hostel/with-docker.sh --memory "$memory" \
	--script "scripts/vm/$suite-suite.sh" --timeout "${HOSTEL_VM_TIMEOUT:-$limit}" "$@"
