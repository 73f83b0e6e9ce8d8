//! Agents that were started before anybody wanted them.

use super::agent::{Agent, Place, spawn};
use hostel_agent::{AgentKind, LaunchOptions, Meaning, PermissionMode, SettingSource, claude};
use hostel_testkit::{Script, Step};
use serde_json::json;

/// An MCP server with one tool (modelcontextprotocol.io, specification of 2025-06-18, stdio).
const MCP_SERVER: &str = r#"
const tool = { name: "add", description: "adds", inputSchema: { type: "object" } };
const answers = {
  "initialize": ({ protocolVersion }) => ({
    protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "adder", version: "1" } }),
  "tools/list": () => ({ tools: [tool] }),
  "tools/call": () => ({ content: [{ type: "text", text: "the sum is 42" }] }),
};
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const result = (answers[method] ?? (() => ({})))(params);
  console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
});
"#;

#[tokio::test]
async fn a_spare_becomes_what_it_is_claimed_for() {
    let place = Place::new().await;
    let Some(plain) = place.options() else { return };
    let plain = LaunchOptions { ask: true, ..plain };
    let server = place.state.path().join("server.js").display().to_string();
    std::fs::write(&server, MCP_SERVER).expect("a file");
    let wanted = LaunchOptions {
        model: Some("claude-other-1".to_owned()),
        append_system_prompt: Some("APPENDED".to_owned()),
        permission_mode: PermissionMode::Default,
        allowed_tools: vec!["Bash(touch allowed)".to_owned(), "mcp__adder__add".to_owned()],
        disallowed_tools: vec!["Write".to_owned()],
        additional_directories: vec!["/opt".to_owned()],
        max_thinking_tokens: Some(2000),
        agents: [("helper".to_owned(), json!({ "description": "HELPER", "prompt": "Help." }))].into(),
        title: Some("a title".to_owned()),
        mcp_servers: [
            ("adder".to_owned(), json!({ "command": "node", "args": [&server] })),
            ("absent".to_owned(), json!({ "command": "/nowhere/at/all" })),
        ]
        .into(),
        conversation: Some(uuid::Uuid::new_v4().to_string()),
        claimed_spare: true,
        setting_sources: vec![hostel_agent::SettingSource::Project],
        ..plain.clone()
    };
    let fitting = LaunchOptions { setting_sources: wanted.setting_sources.clone(), ..plain.clone() };
    let launch = claude::spare(&fitting).expect("a spare");
    assert_ne!(claude::spare(&plain).as_ref(), Some(&launch), "its settings come from elsewhere");
    let child = spawn(&launch);
    // What the workspace has is made after the start.
    std::fs::write(place.workspace.path().join("CLAUDE.md"), "PROJECT MEMORY").expect("a file");
    let (same, driver) = AgentKind::Claude.launch(&wanted).expect("options");
    assert_eq!(same, launch);
    let mut agent = Agent::with(AgentKind::Claude, driver, child);
    let refused = place.workspace.path().join("refused");
    let script = Script::new()
        .tool("Bash", json!({ "command": "touch allowed" }))
        .tool("Write", json!({ "file_path": &refused, "content": "" }))
        .tool("mcp__adder__add", json!({ "a": 1 }))
        .text("done");
    let result = agent.turn(&script.prompt("Go.")).await;
    assert_eq!(result.text.as_deref(), Some("done"));
    assert!(place.workspace.path().join("allowed").exists());
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Question(_))), 0);
    let request = place.last_request();
    for what in ["PROJECT MEMORY", "APPENDED", "HELPER", "\"model\":\"claude-other-1\""] {
        assert!(request.contains(what), "{what}");
    }
    assert!(!refused.exists());
    assert!(request.contains("the sum is 42"), "what an MCP server says");
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Log { level: "error", .. })), 0);
    let absent = |meaning: &Meaning| matches!(meaning, Meaning::Log { message, .. } if message.contains("\"absent\" does not work"));
    assert_eq!(agent.count(absent), 1);
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Ready(ready) if ready.conversation.is_some() && ready.version.is_some())), 1);
}

#[tokio::test]
async fn a_spare_is_bound_to_what_others_are_started_with() {
    let place = Place::new().await;
    let Some(plain) = place.options() else { return };
    let schema = json!({ "type": "object", "properties": { "answer": { "type": "number" } } });
    let wanted = LaunchOptions {
        permission_mode: PermissionMode::BypassPermissions,
        max_turns: Some(2),
        json_schema: Some(schema),
        session_env: [("DATABASE_URL".to_owned(), "postgres://$HOME".to_owned())].into(),
        ..plain.clone()
    };
    let command = |command: &str| ("Bash", json!({ "command": command }));
    let script = |calls: &[(&str, serde_json::Value)]| {
        let add =
            |script: Script, (tool, input): &(&str, serde_json::Value)| script.tool(*tool, input.clone());
        calls.iter().fold(Script::new(), add).text("done")
    };
    let mut told = Vec::new();
    for claimed_spare in [true, false] {
        let wanted = LaunchOptions { claimed_spare, ..wanted.clone() };
        let (launch, driver) = AgentKind::Claude.launch(&wanted).expect("options");
        assert_eq!(claude::spare(&plain).as_ref() == Some(&launch), claimed_spare);
        let mut agent = Agent::with(AgentKind::Claude, driver, spawn(&launch));
        let answer = ("StructuredOutput", json!({ "answer": 42 }));
        let fits =
            agent.turn(&script(&[command("echo \"it is $DATABASE_URL\""), answer]).prompt("Go.")).await;
        assert!(place.last_request().contains("it is postgres://$HOME"), "{claimed_spare}");
        assert_eq!(fits.structured_output, Some(json!({ "answer": 42 })), "{fits:?}");
        // What a subagent does is not counted.
        let work = script(&[command("echo 1"), command("echo 2"), command("echo 3")]).prompt("Do it.");
        let task = json!({ "description": "d", "prompt": work, "subagent_type": "general-purpose",
            "run_in_background": false });
        let before = place.asked();
        let large = format!("true {}", "\\\"agent_id\\\": ".repeat(10_000));
        let delegated =
            agent.turn(&script(&[("Task", task), command(&large), command("never")]).prompt("Go.")).await;
        let raws = || agent.events.iter().filter_map(|event| event.raw.as_ref());
        assert!(raws().all(|raw| raw["type"] != "control_request"), "it waits for nobody");
        told.push((
            (fits.subtype, fits.num_turns),
            (delegated.subtype, delegated.is_error, delegated.terminal_reason),
            (delegated.text, delegated.num_turns, place.asked() - before),
        ));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!((told[0].0.0.as_str(), told[0].1.0.as_str()), ("success", "error_max_turns"));
}

#[tokio::test]
async fn a_spare_keeps_its_turns_where_a_workspace_has_no_hooks() {
    let place = Place::new().await;
    let Some(plain) = place.options() else { return };
    let settings = place.workspace.path().join(".claude");
    std::fs::create_dir(&settings).expect("a directory");
    std::fs::write(settings.join("settings.json"), r#"{"disableAllHooks":true}"#).expect("a file");
    let wanted = LaunchOptions {
        permission_mode: PermissionMode::BypassPermissions,
        setting_sources: vec![SettingSource::Project],
        max_turns: Some(1),
        claimed_spare: true,
        ..plain
    };
    let mut agent = Agent::claude(&wanted);
    let slow = Step::text("slow ".repeat(20)).chunks(20).delay_ms(150);
    let script = Script::new().tool("Bash", json!({ "command": "echo 1" })).step(slow);
    let stopped = agent.turn(&script.prompt("Go.")).await;
    assert_eq!(place.asked(), 2, "nothing inside counts");
    let told = (stopped.subtype.as_str(), stopped.is_error, stopped.interrupted, stopped.text.as_deref());
    assert_eq!(told, ("error_max_turns", true, false, Some("Reached maximum number of turns (1)")));
    let next = agent.turn("And now?").await;
    assert_eq!((next.subtype.as_str(), next.is_error), ("success", false));
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Log { level: "error", .. })), 0);
}

#[tokio::test]
async fn a_spare_that_cannot_be_claimed_ends() {
    let place = Place::new().await;
    let Some(plain) = place.options() else { return };
    let child = spawn(&claude::spare(&plain).expect("a spare"));
    let nowhere = LaunchOptions { workspace: "/nowhere/at/all".to_owned(), claimed_spare: true, ..plain };
    let (_, driver) = AgentKind::Claude.launch(&nowhere).expect("options");
    let mut agent = Agent::with(AgentKind::Claude, driver, child);
    agent.prompt("Hello?");
    agent.end().await;
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Ready(_))), 0);
    assert_eq!(agent.count(|meaning| matches!(meaning, Meaning::Log { level: "error", .. })), 1);
    assert!(agent.count(|meaning| matches!(meaning, Meaning::Result(result) if result.is_error)) > 0);
    assert_eq!(place.asked(), 0);
}

#[tokio::test]
async fn texts_of_any_length_reach_the_model() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    // More than an argument may have.
    options.system_prompt = Some(format!("INSTEAD {}", "long ".repeat(40_000)));
    options.append_system_prompt = Some("AFTERWARDS".to_owned());
    let mut agent = Agent::claude(&options);
    let result = agent.turn("Hello.").await;
    assert!(!result.is_error, "{result:?}");
    let request = place.last_request();
    assert!(request.contains("INSTEAD long") && request.contains("AFTERWARDS"));
    assert!(!request.contains("software engineering tasks"), "its own prompt is not there besides");
}
