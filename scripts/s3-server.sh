#!/usr/bin/env bash
# Makes what the tests of blobs need, in .cache/s3: a virtual environment with a server that speaks S3.
# Prints the server's program as its last line. Does nothing where all is there; fails, saying why, where it cannot be
# had.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=$PWD/.cache/s3
requirements=tests/python/s3-requirements.txt
# Programs of a virtual environment know where they are: in another place it is made anew.
wanted=$(echo "$PWD" | cat - "$requirements" | sha256sum)

# Tests run at the same time; one of them makes it.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

if [ "$(cat "$cache/made-of" 2>/dev/null)" != "$wanted" ]; then
	command -v python3 >/dev/null || {
		echo 's3-server: there is no python3' >&2
		exit 1
	}
	rm -rf "$cache/venv" "$cache/made-of"
	python3 -m venv "$cache/venv"
	"$cache/venv/bin/python" -m pip --disable-pip-version-check --quiet install --only-binary :all: \
		--requirement "$requirements"
	echo "$wanted" >"$cache/made-of"
fi
echo "$cache/venv/bin/moto_server"
