#!/usr/bin/env bash
# Makes a virtual environment with Schemathesis, which checks a server against its own OpenAPI document, in
# .cache/schemathesis. Prints the program as its last line. Does nothing where all is there; fails, saying why, where it
# cannot be had.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=$PWD/.cache/schemathesis
wanted='schemathesis==4.32.5'

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

# Its programs know where they are: in another place it is made anew.
made="$wanted in $cache"
if [ "$(cat "$cache/made-of" 2>/dev/null)" != "$made" ]; then
	command -v python3 >/dev/null || {
		echo 'schemathesis: there is no python3' >&2
		exit 1
	}
	rm -rf "$cache/venv" "$cache/made-of"
	python3 -m venv "$cache/venv"
	"$cache/venv/bin/python" -m pip --disable-pip-version-check --quiet install --only-binary :all: "$wanted"
	echo "$made" >"$cache/made-of"
fi
echo "$cache/venv/bin/schemathesis"
