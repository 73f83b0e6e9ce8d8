//! What is started for options.

use hostel_agent::{AgentKind, Error, LaunchOptions, claude};
use serde_json::json;

fn options() -> LaunchOptions {
    LaunchOptions { workspace: "/workspace".to_owned(), ..LaunchOptions::default() }
}

fn refused(options: &LaunchOptions) -> &'static str {
    match AgentKind::Claude.launch(options).map(|(launch, _)| launch) {
        Err(Error::Options { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    assert_eq!(refused(&LaunchOptions { fork: true, ..options() }), "resume");
    assert_eq!(refused(&LaunchOptions { resume_at: Some("a".to_owned()), ..options() }), "resume");
    assert_eq!(refused(&LaunchOptions { max_turns: Some(0), ..options() }), "max_turns");
    for budget in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(&LaunchOptions { max_budget_usd: Some(budget), ..options() }), "max_budget_usd");
    }
    assert_eq!(refused(&LaunchOptions { model: Some("--resume".to_owned()), ..options() }), "model");
    assert_eq!(refused(&LaunchOptions { allowed_tools: vec![String::new()], ..options() }), "allowed_tools");
    let resumed = LaunchOptions { resume: Some("a".to_owned()), claimed_spare: true, ..options() };
    assert_eq!(refused(&resumed), "claimed_spare");
    assert!(claude::spare(&resumed).is_none());
    let hooks = json!({ "PreToolUses": [] });
    assert_eq!(refused(&LaunchOptions { hooks: Some(hooks), ..options() }), "hooks");
    assert_eq!(refused(&LaunchOptions { plugins: vec!["--model".to_owned()], ..options() }), "plugins");
    let both = LaunchOptions {
        mcp_servers: [("a".to_owned(), json!({ "command": "a" }))].into(),
        host_mcp_servers: vec!["b".to_owned()],
        ..options()
    };
    assert!(claude::spare(&both).is_none());
    let variable = [("a".to_owned(), json!({ "command": "a", "args": ["${HOME}/docs"] }))].into();
    assert!(claude::spare(&LaunchOptions { mcp_servers: variable, ..options() }).is_none());
    assert!(claude::spare(&LaunchOptions { plugins: vec!["p".to_owned()], ..options() }).is_none());
    let path = [("PATH".to_owned(), "/bin".to_owned())].into();
    assert!(claude::spare(&LaunchOptions { session_env: path, ..options() }).is_none());
    let large = [("s".to_owned(), json!({ "command": "x".repeat(200_000) }))].into();
    let large = LaunchOptions { mcp_servers: large, ..options() };
    assert!(matches!(AgentKind::Claude.launch(&large), Err(Error::TooLarge { .. })));
}

#[test]
fn what_is_session_specific_is_not_in_a_spare() {
    let plain = claude::spare(&options()).expect("a spare");
    let specific = LaunchOptions {
        workspace: "/elsewhere".to_owned(),
        conversation: Some("c".to_owned()),
        model: Some("m".to_owned()),
        system_prompt: Some("s".to_owned()),
        append_system_prompt: Some("a".to_owned()),
        max_thinking_tokens: Some(1),
        allowed_tools: vec!["Bash".to_owned()],
        disallowed_tools: vec!["Read".to_owned()],
        additional_directories: vec!["/opt".to_owned()],
        host_hooks: Some(json!({})),
        hooks: Some(json!({ "Stop": [] })),
        max_turns: Some(3),
        json_schema: Some(json!({})),
        session_env: [("A".to_owned(), "b".to_owned())].into(),
        title: Some("t".to_owned()),
        mcp_servers: [("m".to_owned(), json!({ "command": "m" }))].into(),
        claimed_spare: true,
        ..options()
    };
    assert_eq!(claude::spare(&specific), Some(plain.clone()));
    for fixed in [
        LaunchOptions { ask: true, ..options() },
        LaunchOptions { fallback_model: Some("m".to_owned()), ..options() },
        LaunchOptions { max_budget_usd: Some(3.0), ..options() },
        LaunchOptions { env: [("A".to_owned(), "b".to_owned())].into(), ..options() },
        LaunchOptions { state_directory: Some("/state".to_owned()), ..options() },
    ] {
        assert_ne!(claude::spare(&fixed), Some(plain.clone()));
    }
}

#[test]
fn nothing_shows_keys() {
    let mut options = options();
    options.env.insert("ANTHROPIC_API_KEY".to_owned(), "hidden".to_owned());
    options.session_env.insert("TOKEN".to_owned(), "hidden".to_owned());
    options.mcp_servers.insert("s".to_owned(), json!({ "headers": { "authorization": "hidden" } }));
    let (launch, driver) = AgentKind::Claude.launch(&options).expect("options");
    let shown = format!("{options:?} {launch:?} {driver:?}");
    assert!(!shown.contains("hidden") && shown.contains("ANTHROPIC_API_KEY"), "{shown}");
}

#[test]
fn commands_need_a_program_and_have_no_conversations() {
    assert!(matches!(AgentKind::Exec.launch(&options()), Err(Error::Options { field: "program", .. })));
    let resumed = LaunchOptions { program: Some("a".to_owned()), resume: Some("b".to_owned()), ..options() };
    assert!(matches!(AgentKind::Exec.launch(&resumed), Err(Error::Options { field: "resume", .. })));
    assert!(AgentKind::Exec.one_turn_per_run() && !AgentKind::Claude.one_turn_per_run());
}
