#!/usr/bin/env bash
# Measures ours and the peers in one interleaved run; arguments go to the bench program. A run of
# everything, which is one without arguments, is written down in docs/benchmarks.md.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# As packages have it: with link-time optimisation.
cargo build --profile dist --workspace
target=${CARGO_TARGET_DIR:-target}
bench=$target/dist/hostel-bench
if [ $# -gt 0 ]; then
	exec scripts/with-docker.sh "$bench" "$@"
fi
scripts/with-docker.sh "$bench" --json "$target/benchmarks.json"
"$bench" report "$target/benchmarks.json" >"$target/benchmarks.md"
mv "$target/benchmarks.md" docs/benchmarks.md
echo 'written: docs/benchmarks.md'
