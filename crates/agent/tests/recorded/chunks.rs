//! However output comes in and whenever somebody dies: the same is told, once.

use super::{driver_for, recordings};
use hostel_agent::{
    AgentDriver, AgentEvent, AgentKind, Content, LaunchOptions, Meaning, Prompt, Request, Stream,
};
use proptest::prelude::*;

/// Feeds in pieces of these lengths, again and again. After some pieces whoever has the driver dies, and who comes next
/// goes on from what was saved, and with the output that the driver had not dealt with.
fn feed(
    kind: AgentKind,
    mut driver: Box<dyn AgentDriver>,
    bytes: &[u8],
    pieces: &[(usize, bool)],
) -> Vec<AgentEvent> {
    let mut events = Vec::new();
    let (mut at, mut next) = (0, 0);
    let mut consumed = 0;
    while at < bytes.len() {
        let (length, dies) = pieces[next % pieces.len()];
        next += 1;
        let end = bytes.len().min(at + length);
        events.extend(driver.output(Stream::Stdout, &bytes[at..end]));
        at = end;
        let now = driver.consumed(Stream::Stdout);
        assert!(consumed <= now && now <= at as u64);
        consumed = now;
        if dies {
            let saved = driver.save();
            driver = kind.restore(&saved).expect("what was saved");
            assert_eq!(driver.save(), saved);
            assert_eq!(driver.consumed(Stream::Stdout), consumed);
            at = usize::try_from(consumed).expect("a length");
            // Some line has to come whole, else it would be given the same piece for ever.
            let rest = &bytes[at..];
            let line = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
            events.extend(driver.output(Stream::Stdout, &rest[..line]));
            at += line;
            consumed = driver.consumed(Stream::Stdout);
        }
    }
    events.extend(driver.exited(Some(0)));
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn recordings_are_told_the_same(
        pieces in prop::collection::vec((1_usize..3000, any::<bool>()), 1..30),
        which in any::<prop::sample::Index>(),
    ) {
        let all = recordings();
        let (name, bytes) = which.get(&all);
        let whole = feed(AgentKind::Claude, driver_for(name), bytes, &[(bytes.len(), false)]);
        prop_assert_eq!(feed(AgentKind::Claude, driver_for(name), bytes, &pieces), whole);
    }

    /// Its deltas are as its output comes, but all together are the output.
    #[test]
    fn text_of_commands_is_told_the_same(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 1..400),
            "[aé世😀\n]{1,200}".prop_map(String::into_bytes),
        ],
        pieces in prop::collection::vec(1_usize..9, 1..30),
    ) {
        let options = LaunchOptions { program: Some("cat".to_owned()), ..LaunchOptions::default() };
        let tell = |pieces: &[(usize, bool)]| {
            let (_, mut driver) = AgentKind::Exec.launch(&options).expect("options");
            let content = vec![Content::Text { text: "go".to_owned() }];
            driver.request(Request::Prompt(Prompt { uuid: "a".to_owned(), content })).expect("a prompt");
            let events = feed(AgentKind::Exec, driver, &bytes, pieces);
            let text: String = events.iter().filter_map(|event| match &event.meaning {
                Meaning::BlockDelta { delta, .. } => Some(delta.as_str()),
                _ => None,
            }).collect();
            let rest = events.into_iter().filter(|event| !matches!(event.meaning, Meaning::BlockDelta { .. }));
            (text, rest.collect::<Vec<_>>())
        };
        let pieces: Vec<(usize, bool)> = pieces.into_iter().map(|length| (length, false)).collect();
        let whole = tell(&[(bytes.len(), false)]);
        prop_assert_eq!(&whole.0, &String::from_utf8_lossy(&bytes));
        prop_assert_eq!(tell(&pieces), whole);
    }
}
