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
        prop_assert_eq!(meter.tokens(), whole());
        prop_assert_eq!(meter.model(), Some("claude-haiku-4-5"));
    }

    #[test]
    fn figures_only_grow_and_never_exceed_the_whole(cut in 0..STREAM.len(), second in 0..STREAM.len()) {
        let (first, second) = (cut.min(second), cut.max(second));
        let (earlier, later) = (read(&[&STREAM.as_bytes()[..first]]), read(&[&STREAM.as_bytes()[..second]]));
        prop_assert!(earlier.tokens().total() <= later.tokens().total());
        prop_assert!(later.tokens().total() <= whole().total());
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut meter = read(&[&noise, STREAM.as_bytes()]);
        meter.end();
    }
}

#[test]
fn giant_lines_go_by_and_what_follows_counts() {
    let giant = vec![b'x'; 3 << 20];
    let mut meter = read(&[b"data: ", &giant, b"\n\n", STREAM.as_bytes()]);
    assert!(meter.is_complete());
    meter.end();
    assert_eq!(meter.tokens(), whole());
}

#[test]
fn a_stream_that_is_cut_counts_the_output_that_was_seen() {
    let start = STREAM.split("event: ping").next().unwrap();
    let text = "x".repeat(400);
    let delta = format!("data: {{\"type\":\"content_block_delta\",\"delta\":{{\"text\":\"{text}\"}}}}\n\n");
    let mut meter = read(&[start.as_bytes(), delta.as_bytes()]);
    assert!(!meter.is_complete());
    assert_eq!(meter.tokens().output, 1, "as told");
    meter.end();
    assert_eq!(meter.tokens(), Tokens { output: 100, ..whole() });
}

#[test]
fn json_bodies_are_read_at_their_end() {
    let mut meter = Meter::new("application/json");
    for piece in br#"{"model":"m","content":[],"usage":{"input_tokens":3,"output_tokens":4,"cache_creation_input_tokens":5}}"#.chunks(7) {
        meter.feed(piece);
    }
    assert_eq!(meter.tokens(), Tokens::default());
    meter.end();
    assert_eq!(meter.tokens(), Tokens { input: 3, output: 4, cache_write_5m: 5, ..Tokens::default() });
    assert_eq!(meter.model(), Some("m"));
}

#[test]
fn a_json_body_that_is_cut_counts_what_went_by() {
    let mut meter = Meter::new("application/json");
    meter.feed(&[b'x'; 400]);
    meter.end();
    assert_eq!(meter.tokens(), Tokens { output: 100, ..Tokens::default() });
    let mut meter = Meter::none();
    meter.feed(&[b'x'; 400]);
    meter.end();
    assert_eq!(meter.tokens(), Tokens::default());
}

#[test]
fn strange_figures_are_passed_over() {
    let mut meter = read(&[b"data: {\"type\":\"message_start\",\"message\":{\"model\":7,\"usage\":{\"input_tokens\":-1,\"output_tokens\":\"many\",\"cache_read_input_tokens\":2}}}\n\n"]);
    meter.end();
    assert_eq!(meter.tokens(), Tokens { cache_read: 2, ..Tokens::default() });
    assert_eq!(meter.model(), None);
}
