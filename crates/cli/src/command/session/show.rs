//! Sessions for people.

use super::cost;
use crate::output::human::{self, printable};
use crate::output::table::{Table, facts};
use hostel_client::model::{MessageContent, Session, SessionEvent, SessionMessage, SessionStatistics};

/// Characters of an event's data on its line.
const DATA: usize = 160;

/// A table of sessions.
pub(super) fn table(sessions: &[Session]) -> Table {
    let mut table =
        Table::new(&["ID", "PATTERN", "STATUS", "SANDBOX", "AGE", "ACTIVE", "TURNS", "COST", "DESCRIPTION"])
            .right(6)
            .right(7);
    for session in sessions {
        table.row([
            session.id.clone(),
            session.pattern.to_string(),
            status(session),
            session.environment.status.to_string(),
            human::age(session.create_time),
            human::age(session.last_activity_time),
            session.num_turns.to_string(),
            cost(session),
            short(session.description.as_deref().unwrap_or(&session.tags.join(",")), 40),
        ]);
    }
    table
}

fn status(session: &Session) -> String {
    let reason = session.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{}{reason}", session.status)
}

fn short(text: &str, width: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= width && text.lines().count() <= 1 {
        return line.to_owned();
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// All of a session that people ask for.
pub(super) fn describe(session: &Session) -> String {
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let limits = &session.limits;
    let span = |span: Option<std::time::Duration>| span.map(human::duration).unwrap_or_default();
    let turn = session.active_turn.as_ref().map(|turn| {
        let tool = turn.current_tool.as_ref().map(|tool| format!(", {tool}")).unwrap_or_default();
        format!("{} for {}{tool}", turn.phase, turn.message_id)
    });
    let start = session.environment.start.as_ref().map(|start| format!(", {start}")).unwrap_or_default();
    let environment = format!("{}{start}", session.environment.status);
    facts(&[
        ("id", session.id.clone()),
        ("pattern", session.pattern.to_string()),
        ("status", status(session)),
        ("why", text(&session.reason_message)),
        ("turn", turn.unwrap_or_default()),
        ("environment", environment),
        ("", text(&session.environment.message)),
        ("sandbox", text(&session.environment.sandbox_id)),
        ("agent", session.configured("agent").unwrap_or("claude").to_owned()),
        ("model", session.configured("model").unwrap_or_default().to_owned()),
        ("conversation", text(&session.agent_session_id)),
        ("created", time(session.create_time)),
        ("last active", time(session.last_activity_time)),
        ("completed", time(session.complete_time)),
        ("terminated", time(session.terminate_time)),
        ("cost", cost(session)),
        (
            "tokens",
            format!(
                "{} in, {} out, {} cached",
                session.input_tokens, session.output_tokens, session.cached_tokens
            ),
        ),
        (
            "turns",
            limits
                .max_turns
                .map_or(session.num_turns.to_string(), |most| format!("{} of {most}", session.num_turns)),
        ),
        ("tools", session.tools_used.join(", ")),
        ("max idle", span(limits.max_idle_time)),
        ("max lifetime", span(limits.max_lifetime)),
        ("tags", session.tags.join(", ")),
        ("description", text(&session.description)),
        ("user", text(&session.user_id)),
        ("events", session.last_event.to_string()),
    ])
}

/// An event on one line.
pub(super) fn event(event: &SessionEvent) -> String {
    let time = event.time.map(|time| format!("{time:.3}")).unwrap_or_default();
    let data: String = event.data.get().chars().take(DATA + 1).collect();
    let data =
        if data.chars().count() > DATA { data.chars().take(DATA).chain(['…']).collect() } else { data };
    printable(&format!("{:>6} {time} {:<20} {data}", event.seq, event.kind)).replace('\n', " ")
}

/// A table of messages.
pub(super) fn messages(messages: &[SessionMessage]) -> Table {
    let mut table = Table::new(&["ID", "STATE", "AGE", "MESSAGE"]);
    for message in messages {
        let said = message.content.iter().map(|part| match part {
            MessageContent::Text { text } => text.clone(),
            MessageContent::Image { media_type, .. } => format!("[{media_type}]"),
        });
        let said = said.collect::<Vec<_>>().join(" ");
        table.row([
            message.id.clone(),
            message.state.to_string(),
            human::age(message.create_time),
            short(&said, 60),
        ]);
    }
    table
}

/// Figures of all sessions.
pub(super) fn statistics(statistics: &SessionStatistics) -> String {
    let mut lines = vec![facts(&[
        ("sessions", statistics.total_sessions.to_string()),
        ("active", statistics.active_sessions.to_string()),
        ("idle", statistics.idle_sessions.to_string()),
        ("completed", statistics.completed_sessions.to_string()),
        ("error", statistics.error_sessions.to_string()),
        ("terminated", statistics.terminated_sessions.to_string()),
        ("cost", human::dollars(statistics.total_cost_micros)),
        ("tokens", statistics.total_tokens.to_string()),
        ("duration", human::brief(statistics.average_duration_seconds)),
    ])];
    if !statistics.by_pattern.is_empty() {
        let mut table = Table::new(&["PATTERN", "SESSIONS", "COST", "TOKENS", "DURATION"]);
        for column in 1..5 {
            table = table.right(column);
        }
        for (pattern, figures) in &statistics.by_pattern {
            table.row([
                pattern.clone(),
                figures.count.to_string(),
                format!("${:.4}", figures.average_cost_usd),
                format!("{:.0}", figures.average_tokens),
                human::brief(figures.average_duration_seconds),
            ]);
        }
        lines.push(table.text());
    }
    lines.join("\n\n")
}
