#!/usr/bin/env bash
# Proves the jail on cgroup v2 under systemd: builds the binaries and the test programs here and runs
# scripts/vm/jail-suite.sh with them in a virtual machine.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Optimised, because everything takes 10 to 20 times longer in there.
profile=${HOSTEL_VM_PROFILE:-release}
# Test programs by the name of their source file; those that are not there are left out.
tests=${HOSTEL_VM_TESTS:-conformance bounds spares}

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
		strip --strip-debug -o "$stage/tests/$name-$(basename "$path")" "$path"
	done < <(sed -n "s|^ *Executable \(.*/\)\{0,1\}$name\.rs (\(.*\))\$|\2|p" "$stage/cargo.log")
done
echo "test-vm: test programs: $(ls "$stage/tests")"

scripts/vm/run.sh --copy "$stage/bin:/opt/hostel/bin" --copy "$stage/tests:/opt/hostel/tests" \
	--script scripts/vm/jail-suite.sh --timeout "${HOSTEL_VM_TIMEOUT:-1800}" "$@"
