#!/usr/bin/env bash
# Measures ours and the peers in one interleaved run; arguments go to the bench program.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --workspace
exec "${CARGO_TARGET_DIR:-target}/release/hostel-bench" "$@"
