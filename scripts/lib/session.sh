# shellcheck shell=bash
# The part of the demonstration with an agent: sourced by scripts/demo.sh, which has what is used here.
#
# show_session   a session over REST on a warm jail, one turn of the agent CLI, what it left, and its end

# What the demonstration has besides: its directory, how it shows commands, and its colours.
: "${work:?}" "${status=}" "${output=}" "${dim=}" "${plain=}"

# Asks the session server: METHOD PATH [BODY].
ask() {
	curl --silent --show-error --fail-with-body --request "$1" "$api$2" ${3:+--header 'content-type: application/json' --data "$3"}
}

# A text of the JSON on stdin, by its key.
value() {
	sed -nE "s/.*\"$1\":\"?([^\",}]*).*/\\1/p" | head -n 1
}

# What the scripted model shall do, as text in JSON: docs/testkit.md.
script() {
	cat <<'SCRIPT'
@@[{\"text\":\"I write it.\",\"tool\":\"Write\",\"input\":{\"file_path\":\"/workspace/made.txt\",\"content\":\"made in a sandbox\\n\"}},{\"tool\":\"Bash\",\"input\":{\"command\":\"wc -w made.txt\",\"description\":\"Count\"}},{\"text\":\"It has 4 words.\"}]
SCRIPT
}

# Streams a turn of a session, with its message in a file: frames as they come, cut to a line but for the last.
stream_turn() {
	curl --silent --show-error --no-buffer --header 'content-type: application/json' --data "@$2" \
		"$api/api/sessions/$1/message" | sed -unE \
		-e 's/^data: (.*"type":"done".*)/\1/p' \
		-e '/"(text_delta|tool_use|tool_result)"/s/^data: (.{1,150}).*/\1/p'
}

show_session() {
	local id body prompt record cost
	say 'An agent in a session: over REST, in a jail that waited warm'
	show hostel pool create agents --template claude --min 1 --max 1 --wait
	[ "$status" -eq 0 ] || bad 'the pool did not fill'
	hostel-sessiond --listen 127.0.0.1:0 --state-dir "$work/sessions" </dev/null >"$work/sessiond.log" 2>&1 &
	sessions_pid=$!
	api=http://$(line_of "$work/sessiond.log" '127\.0\.0\.1:[0-9]+') || bad "it did not start: $(<"$work/sessiond.log")"
	export HOSTEL_SESSIOND_ADDR=$api
	body='{"pattern":"long-running","maxBudgetUsd":1,"config":{"allowedTools":["Bash","Write"]}}'
	printf '%s$ curl -X POST %s/api/sessions -d %s%s\n' "$dim" "$api" "${body@Q}" "$plain"
	id=$(ask POST /api/sessions "$body" | value id)
	[ -n "$id" ] || bad 'no session was made'
	good "session $id"

	prompt='Write the words: made in a sandbox, into made.txt. Then run: wc -w made.txt. Then say what it printed.'
	if [ -n "${ANTHROPIC_API_KEY:-}" ]; then
		say 'A turn, with the real model'
		printf '{"prompt":"%s"}' "$prompt" >"$work/turn.json"
	else
		say 'A turn, with a scripted model (set ANTHROPIC_API_KEY for the real one)'
		printf '{"content":[{"type":"text","text":"%s"},{"type":"text","text":"%s"}]}' "$prompt" "$(script)" >"$work/turn.json"
	fi
	show stream_turn "$id" "$work/turn.json"
	[ "$status" -eq 0 ] || bad 'the turn did not come through'
	grep -q '"isError":false' <<<"$output" || bad 'the turn failed'
	# Whatever the model says of it: only the command prints that.
	ask GET "/api/sessions/$id/events?types=agent:message&follow=false" >"$work/events"
	grep -q '4 made\.txt' "$work/events" || bad 'the command did not run'
	record=$(ask GET "/api/sessions/$id")
	grep -q '"start":"warm"' <<<"$record" || bad 'the jail was not a warm one'
	cost=$(value totalCost <<<"$record")
	grep -q '[1-9]' <<<"$cost" || bad "it cost ${cost:-nothing that is told}"
	good "it cost \$$cost, by the gateway; the jail came from the pool"

	say 'What the agent made, read back'
	show ask GET "/api/sessions/$id/files/content?path=made.txt"
	grep -qi 'made in a sandbox' <<<"$output" || bad 'the file is not there'
	show hostel session files "$id"
	ask DELETE "/api/sessions/$id" >/dev/null || bad 'the session could not be deleted'
	stop "$sessions_pid"
	sessions_pid=''
	hostel pool rm agents >/dev/null || bad 'the pool could not be removed'
	good 'the session, its jail and the pool are gone'
}
