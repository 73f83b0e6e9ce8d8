#!/usr/bin/env bash
# Makes what tests/python needs, in .cache/python: a virtual environment with gRPC, and stubs generated from proto/.
# Prints the directory as its last line. Does nothing where all is there; fails, saying why, where it cannot be had.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=$PWD/.cache/python
requirements=tests/python/requirements.txt
# Programs of a virtual environment know where they are: in another place it is made anew.
wanted=$(echo "$PWD" | cat - "$requirements" proto/hostel/v1/*.proto | sha256sum)

# Tests run at the same time; one of them makes it.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

if [ "$(cat "$cache/made-of" 2>/dev/null)" != "$wanted" ]; then
	command -v python3 >/dev/null || {
		echo 'python-client: there is no python3' >&2
		exit 1
	}
	rm -rf "$cache/venv" "$cache/stubs" "$cache/made-of"
	python3 -m venv "$cache/venv"
	"$cache/venv/bin/python" -m pip --disable-pip-version-check --quiet install --only-binary :all: \
		--requirement "$requirements"
	mkdir "$cache/stubs"
	"$cache/venv/bin/python" -m grpc_tools.protoc --proto_path=proto --python_out="$cache/stubs" \
		--grpc_python_out="$cache/stubs" proto/hostel/v1/*.proto
	echo "$wanted" >"$cache/made-of"
fi
echo "$cache"
