use super::*;
use proptest::prelude::*;

const STREAM: &str = concat!(
    "event: message_start\n",
    "data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-haiku-4-5\",\"usage\":{\"input_tokens\":12,",
    "\"cache_creation_input_tokens\":30,\"cache_read_input_tokens\":7,\"cache_creation\":{",
    "\"ephemeral_5m_input_tokens\":10,\"ephemeral_1h_input_tokens\":20},\"output_tokens\":1}}}\n\n",
    ": a comment\n\n",
    "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":",
    "\"text_delta\",\"text\":\"h\\u00e9llo \\\"usage\\\":{} wörld\"}}\r\n\r\n",
    "event: of_the_future\ndata: not json at all\n\n",
    "event: message_delta\rdata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},",
    "\rdata: \"usage\":{\"output_tokens\":99,\"server_tool_use\":null}}\r\r",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

fn whole() -> Tokens {
    Tokens { input: 12, output: 99, cache_write_5m: 10, cache_write_1h: 20, cache_read: 7 }
}

fn read(pieces: &[&[u8]]) -> Meter {
    let mut meter = Meter::new("text/event-stream; charset=utf-8");
    for piece in pieces {
        meter.feed(piece);
    }
    meter
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_figures(mut cuts in prop::collection::vec(0..STREAM.len(), 0..40)) {
        cuts.sort_unstable();
        cuts.dedup();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([STREAM.len()]) {
            pieces.push(&STREAM.as_bytes()[from..cut]);
            from = cut;
        }
        let mut meter = read(&pieces);
        prop_assert!(meter.is_complete());
        meter.end();
        prop_assert_eq!(meter.used().tokens, whole());
        prop_assert_eq!(meter.model(), Some("claude-haiku-4-5"));
    }

    #[test]
    fn figures_only_grow_and_never_exceed_the_whole(cut in 0..STREAM.len(), second in 0..STREAM.len()) {
        let (first, second) = (cut.min(second), cut.max(second));
        let (earlier, later) = (read(&[&STREAM.as_bytes()[..first]]), read(&[&STREAM.as_bytes()[..second]]));
        prop_assert!(earlier.used().tokens.total() <= later.used().tokens.total());
        prop_assert!(later.used().tokens.total() <= whole().total());
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut meter = read(&[&noise, STREAM.as_bytes()]);
        meter.end();
    }
}

/// What a reader that takes the whole stream at once, line by line, and reads all JSON finds.
fn read_plainly(stream: &str) -> Tokens {
    let mut figures = Figures::default();
    let text = stream.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    for event in whole.split("\n\n") {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        let data: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
        figures.take(data.join("\n").as_bytes());
    }
    figures.used.tokens
}

/// An event as servers may write it: with or without its field, in one line or two, with its type first or not.
fn event() -> impl Strategy<Value = String> {
    let usage = (0u64..5000, 0u64..5000)
        .prop_map(|(input, output)| format!("{{\"input_tokens\":{input},\"output_tokens\":{output}}}"));
    let data = (usage, "[a-z\"{}:,é]{0,400}", 0..6u8).prop_map(|(usage, text, which)| {
        let text = serde_json::to_string(&text).unwrap();
        match which {
            0 => ("message_start", format!("\"message\":{{\"model\":\"m\",\"usage\":{usage}}}")),
            1 => ("message_delta", format!("\"delta\":{{}},\"usage\":{usage}")),
            2 => ("content_block_start", format!("\"content_block\":{{\"text\":{text}}},\"usage\":null")),
            3 => ("error", format!("\"error\":{{\"message\":{text}}}")),
            4 => ("ping", "\"usage\":7".to_owned()),
            _ => ("content_block_delta", format!("\"delta\":{{\"type\":\"text_delta\",\"text\":{text}}}")),
        }
    });
    (data, any::<[bool; 4]>(), prop::sample::select(vec!["\n", "\r\n", "\r"])).prop_map(
        |((name, rest), [field, first, space, comment], end)| {
            let kind = if space { format!("\"type\": \"{name}\"") } else { format!("\"type\":\"{name}\"") };
            let data =
                if first { format!("{{{kind},{end}data: {rest}}}") } else { format!("{{{rest},{kind}}}") };
            let field = if field { format!("event: {name}{end}") } else { String::new() };
            let comment = if comment {
                format!(": usage{end}event{end}id: 7{end}{end}event: ping{end}{end}")
            } else {
                String::new()
            };
            format!("{comment}{field}data: {data}{end}{end}")
        },
    )
}

proptest! {
    #[test]
    fn skipping_what_tells_nothing_finds_what_reading_all_finds(
        events in prop::collection::vec(event(), 0..12),
        marked in any::<bool>(),
        size in 1usize..700,
        cut in 0usize..40,
    ) {
        let mut stream = if marked { "\u{feff}".to_owned() } else { String::new() };
        stream.extend(events);
        let end = stream.floor_char_boundary(stream.len().saturating_sub(cut));
        let stream = &stream[..end];
        let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        prop_assert_eq!(read(&pieces).used().tokens, read_plainly(stream));
    }
}

#[test]
fn a_stream_without_ends_of_lines_keeps_little() {
    let mut reader = EventReader::default();
    for _ in 0..100 {
        reader.feed(&[b'x'; 1 << 16], |found| panic!("{found:?}"));
    }
    let mut meter = read(&[b"data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\""]);
    for _ in 0..100 {
        meter.feed(&[b'x'; 1 << 16]);
    }
    assert_eq!(meter.figures.visible, 0, "no event yet");
    meter.feed(b"\"}}\n\n");
    assert_eq!(meter.figures.visible, 100 << 16);
    assert!(format!("{:?}", meter.form).len() < 10_000);
}

#[test]
fn giant_lines_go_by_and_what_follows_counts() {
    let giant = vec![b'x'; 3 << 20];
    let mut meter = read(&[b"data: ", &giant, b"\n\n", STREAM.as_bytes()]);
    assert!(meter.is_complete());
    meter.end();
    assert_eq!(meter.used().tokens, whole());
}

#[test]
fn a_stream_that_is_cut_counts_the_output_that_was_seen() {
    let start = STREAM.split("event: ping").next().unwrap();
    let text = "x".repeat(400);
    let delta = format!("data: {{\"type\":\"content_block_delta\",\"delta\":{{\"text\":\"{text}\"}}}}\n\n");
    let mut meter = read(&[start.as_bytes(), delta.as_bytes()]);
    assert!(!meter.is_complete());
    assert_eq!(meter.used().tokens.output, 1, "as told");
    meter.end();
    assert_eq!(meter.used().tokens, Tokens { output: 100, ..whole() });
    // What it thought and does not show is in a signature, or in the block's first event.
    let signed = format!(
        "data: {{\"type\":\"content_block_delta\",\"delta\":{{\"type\":\"signature_delta\",\"signature\":\"{text}\"}}}}\n\n"
    );
    let redacted = format!(
        "data: {{\"type\":\"content_block_start\",\"content_block\":{{\"type\":\"redacted_thinking\",\"data\":\"{text}\"}}}}\n\n"
    );
    for hidden in [signed, redacted] {
        let mut meter = read(&[start.as_bytes(), hidden.as_bytes()]);
        meter.end();
        assert!((100..130).contains(&meter.used().tokens.output), "{hidden}");
    }
}

#[test]
fn json_bodies_are_read_at_their_end() {
    let mut meter = Meter::new("application/json");
    for piece in br#"{"model":"m","content":[],"usage":{"input_tokens":3,"output_tokens":4,"cache_creation_input_tokens":5}}"#.chunks(7) {
        meter.feed(piece);
    }
    assert_eq!(meter.used().tokens, Tokens::default());
    meter.end();
    assert_eq!(meter.used().tokens, Tokens { input: 3, output: 4, cache_write_5m: 5, ..Tokens::default() });
    assert_eq!(meter.model(), Some("m"));
}

#[test]
fn a_json_body_that_is_cut_counts_what_went_by() {
    let mut meter = Meter::new("application/json");
    meter.feed(&[b'x'; 400]);
    meter.end();
    assert_eq!(meter.used().tokens, Tokens { output: 100, ..Tokens::default() });
    let mut meter = Meter::none();
    meter.feed(&[b'x'; 400]);
    meter.end();
    assert_eq!(meter.used().tokens, Tokens::default());
}

#[test]
fn what_is_charged_besides_tokens_is_read() {
    let event = |name: &str, rest: &str| format!("data: {{\"type\":\"{name}\",{rest}}}\n\n");
    let start = event(
        "message_start",
        r#""message":{"usage":{"input_tokens":1,"service_tier":"priority","inference_geo":"us"}}"#,
    );
    let delta = |searches: u64| {
        let used =
            format!(r#""server_tool_use":{{"web_search_requests":{searches},"web_fetch_requests":9}}"#);
        event("message_delta", &format!(r#""usage":{{"output_tokens":2,"speed":"fast",{used}}}"#))
    };
    let mut meter = read(&[start.as_bytes()]);
    let tokens = Tokens { input: 1, ..Tokens::default() };
    assert_eq!(*meter.used(), Used { tokens, priority: true, in_us: true, ..Used::default() });
    assert!(meter.feed(delta(2).as_bytes()));
    assert!(meter.feed(delta(3).as_bytes()), "another search is news");
    assert!(!meter.feed(delta(1).as_bytes()), "numbers only grow");
    let tokens = Tokens { output: 2, ..tokens };
    assert_eq!(
        *meter.used(),
        Used { tokens, web_searches: 3, fast: true, priority: true, in_us: true, ..Used::default() }
    );

    let usual = r#"{"usage":{"input_tokens":1,"server_tool_use":{"web_search_requests":0},"service_tier":"standard",
        "speed":"standard","inference_geo":"not_available"}}"#;
    let mut meter = Meter::new("application/json");
    meter.feed(usual.as_bytes());
    meter.end();
    assert_eq!(*meter.used(), Used { tokens: Tokens { input: 1, ..Tokens::default() }, ..Used::default() });
}

#[test]
fn passes_besides_the_answer_are_read_as_they_grow() {
    let delta = |iterations: &str| {
        let usage = format!(r#""usage":{{"input_tokens":1,"output_tokens":2,"iterations":{iterations}}}"#);
        format!("data: {{\"type\":\"message_delta\",{usage}}}\n\n")
    };
    let pass = r#"{"type":"compaction","input_tokens":30}"#;
    let mut meter = read(&[delta("null").as_bytes()]);
    let tokens = Tokens { input: 1, output: 2, ..Tokens::default() };
    assert_eq!(meter.used().all_tokens(), tokens);
    assert!(meter.feed(delta(&format!("[{pass}]")).as_bytes()), "a pass is news");
    assert!(meter.feed(delta(&format!("[{pass},{pass}]")).as_bytes()), "another one, too");
    for earlier in [format!("[{pass}]"), "[]".to_owned(), "7".to_owned()] {
        assert!(!meter.feed(delta(&earlier).as_bytes()), "numbers only grow");
    }
    assert_eq!((meter.used().tokens, meter.used().all_tokens()), (tokens, Tokens { input: 61, ..tokens }));
}

#[test]
fn what_is_written_for_one_time_leaves_what_was_for_the_other() {
    let delta = |usage: &str| format!("data: {{\"type\":\"message_delta\",\"usage\":{usage}}}\n\n");
    let five = delta(r#"{"cache_creation":{"ephemeral_5m_input_tokens":10}}"#);
    let hour = delta(r#"{"cache_creation":{"ephemeral_1h_input_tokens":20}}"#);
    let all = delta(r#"{"cache_creation_input_tokens":30}"#);
    let both = Tokens { cache_write_5m: 10, cache_write_1h: 20, ..Tokens::default() };
    assert_eq!(read(&[five.as_bytes(), hour.as_bytes()]).used().tokens, both);
    assert_eq!(read(&[hour.as_bytes(), five.as_bytes(), all.as_bytes()]).used().tokens, both);
}

#[test]
fn strange_figures_are_passed_over() {
    let mut meter = read(&[b"data: {\"type\":\"message_start\",\"message\":{\"model\":7,\"usage\":{\"input_tokens\":-1,\"output_tokens\":\"many\",\"cache_read_input_tokens\":2}}}\n\n"]);
    meter.end();
    assert_eq!(meter.used().tokens, Tokens { cache_read: 2, ..Tokens::default() });
    assert_eq!(meter.model(), None);
}
