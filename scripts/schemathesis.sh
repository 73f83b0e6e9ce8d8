#!/usr/bin/env bash
# Checks a session server against its own OpenAPI document: asks everything that it allows, and much that it does not.
#
#	scripts/schemathesis.sh URL [EXAMPLES [SESSION]]
#
# EXAMPLES are those of each operation; 25 where absent. With the id of a SESSION everything is asked of that one, but for
# what would end it. Schemathesis is put into .cache/schemathesis where it is not
# there; where it cannot be had this says why and ends with 75 (EX_TEMPFAIL of sysexits.h).
set -euo pipefail

url=${1:?the address of a session server}
examples=${2:-25}
session=${3:-}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
configuration=$PWD/scripts/schemathesis.toml
cache=$PWD/.cache/schemathesis
wanted='schemathesis==4.32.5'

install() {
	command -v python3 >/dev/null || {
		echo 'schemathesis: there is no python3' >&2
		return 1
	}
	rm -rf "$cache/venv" "$cache/made-of"
	python3 -m venv "$cache/venv" &&
		"$cache/venv/bin/python" -m pip --disable-pip-version-check --quiet install --only-binary :all: "$wanted"
}

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
# Its programs know where they are: in another place it is made anew.
made="$wanted in $cache"
if [ "$(cat "$cache/made-of" 2>/dev/null)" != "$made" ]; then
	install || exit 75
	echo "$made" >"$cache/made-of"
fi
exec 9>&-

# It leaves files where it is.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
{
	[ -z "$session" ] || printf 'parameters = { "path.id" = "%s" }\n' "$session"
	cat "$configuration"
} >schemathesis.toml
spared=()
[ -z "$session" ] || spared=(--exclude-method DELETE --exclude-method PATCH --exclude-path-regex '/(terminate|unload)$|^/agent/')
# A document cannot say which ids there are: what it allows may be refused.
"$cache/venv/bin/schemathesis" run "$url/api/openapi.json" "${spared[@]}" \
	--seed 1 --max-examples "$examples" --workers 1 --request-timeout 20 \
	--phases examples,coverage,fuzzing,stateful --exclude-checks positive_data_acceptance
