//! What the host provides and asks for.

use super::agent::{Agent, Place, spawn};
use hostel_agent::{AgentKind, HostAnswer, Meaning, PermissionMode, Request, claude};
use hostel_testkit::Script;
use serde_json::{Value, json};

/// Answers calls until the agent is idle; gives what was called.
async fn serve(agent: &mut Agent, reply: impl Fn(&str, bool, &Value) -> Result<Value, String>) -> Vec<Value> {
    let mut calls = Vec::new();
    let mut from = 0;
    loop {
        let at =
            agent.until(from, |meaning| matches!(meaning, Meaning::HostCall { .. } | Meaning::Idle)).await;
        from = at + 1;
        let Meaning::HostCall { id, name, hook, message } = agent.events[at].meaning.clone() else {
            return calls;
        };
        let result = reply(&name, hook, &message);
        calls.push(message);
        agent.ask(Request::HostAnswer(HostAnswer { call: id, result }));
    }
}

/// A server with the one tool `add`.
fn adder(_: &str, _: bool, message: &Value) -> Result<Value, String> {
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "adder", "version": "1" },
        }),
        Some("tools/list") => json!({ "tools": [{
            "name": "add", "description": "Adds.",
            "inputSchema": { "type": "object", "properties": { "a": { "type": "number" } } },
        }] }),
        Some("tools/call") if message["params"]["arguments"]["a"] == json!(1) => {
            json!({ "content": [{ "type": "text", "text": "sum: 42" }] })
        }
        _ => return Err("too much".to_owned()),
    };
    Ok(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }))
}

#[tokio::test]
async fn tools_of_the_host_are_called() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::BypassPermissions;
    options.host_mcp_servers = vec!["adder".to_owned()];
    let mut agent = Agent::claude(&options);
    let script = Script::new()
        .tool("mcp__adder__add", json!({ "a": 1 }))
        .tool("mcp__adder__add", json!({ "a": 2 }))
        .text("done");
    agent.prompt(&script.prompt("Add."));
    let calls = serve(&mut agent, adder).await;
    let methods: Vec<&str> = calls.iter().filter_map(|call| call["method"].as_str()).collect();
    assert!(
        methods.starts_with(&["initialize"]) && methods.ends_with(&["tools/call", "tools/call"]),
        "{methods:?}"
    );
    assert!(!methods.iter().any(|method| method.starts_with("notifications/")), "{methods:?}");
    let request = place.last_request();
    assert!(request.contains("sum: 42") && request.contains("too much"));
}

#[tokio::test]
async fn tools_of_the_host_are_called_by_a_claimed_spare() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::BypassPermissions;
    options.host_mcp_servers = vec!["adder".to_owned()];
    options.claimed_spare = true;
    let child = spawn(&claude::spare(&options).expect("a spare"));
    let (_, driver) = AgentKind::Claude.launch(&options).expect("options");
    let mut agent = Agent::with(AgentKind::Claude, driver, child);
    let script = Script::new().tool("mcp__adder__add", json!({ "a": 1 })).text("done");
    agent.prompt(&script.prompt("Add."));
    serve(&mut agent, adder).await;
    assert!(place.last_request().contains("sum: 42"));
}

#[tokio::test]
async fn hooks_of_the_host_decide() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::BypassPermissions;
    options.host_hooks =
        Some(json!({ "PreToolUse": [{ "matcher": "Bash", "hookCallbackIds": ["before"] }] }));
    let mut agent = Agent::claude(&options);
    let script = Script::new().tool("Bash", json!({ "command": "touch hooked" })).text("done");
    agent.prompt(&script.prompt("Go."));
    let calls = serve(&mut agent, |name, hook, _| {
        assert!(hook && name == "before");
        Ok(json!({ "hookSpecificOutput": {
            "hookEventName": "PreToolUse", "permissionDecision": "deny", "permissionDecisionReason": "the hook says no",
        } }))
    })
    .await;
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["tool_input"]["command"], "touch hooked");
    assert!(!place.workspace.path().join("hooked").exists());
    assert!(place.last_request().contains("the hook says no"));
}

/// A hook that leaves a trace in the workspace and refuses what is asked.
fn refusing(trace: &str) -> Value {
    let command = format!("echo {trace} >>trace; echo the guard says no >&2; exit 2");
    json!({ "PreToolUse": [{ "matcher": "Bash", "hooks": [{ "type": "command", "command": command }] }] })
}

fn trace(place: &Place) -> String {
    std::fs::read_to_string(place.workspace.path().join("trace")).unwrap_or_default()
}

#[tokio::test]
async fn hooks_of_the_settings_decide_also_in_a_claimed_spare() {
    for claimed_spare in [false, true] {
        let place = Place::new().await;
        let Some(mut options) = place.options() else { return };
        options.permission_mode = PermissionMode::BypassPermissions;
        options.hooks = Some(refusing("hook"));
        options.claimed_spare = claimed_spare;
        // The settings of permissions must not take the place of these.
        options.disallowed_tools = vec!["WebFetch".to_owned()];
        let (launch, driver) = AgentKind::Claude.launch(&options).expect("options");
        let mut agent = Agent::with(AgentKind::Claude, driver, spawn(&launch));
        let script = Script::new().tool("Bash", json!({ "command": "touch hooked" })).text("done");
        agent.turn(&script.prompt("Go.")).await;
        assert_eq!(trace(&place), "hook\n", "claimed: {claimed_spare}");
        assert!(!place.workspace.path().join("hooked").exists());
        assert!(place.last_request().contains("the guard says no"));
    }
}

#[tokio::test]
async fn plugins_are_loaded_and_missed_ones_are_told_once() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    let plugin = place.workspace.path().join("guard");
    for (file, content) in [
        (".claude-plugin/plugin.json", json!({ "name": "guard", "version": "1.0.0" })),
        ("hooks/hooks.json", json!({ "hooks": refusing("plugin") })),
    ] {
        let file = plugin.join(file);
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        std::fs::write(file, content.to_string()).expect("a file");
    }
    options.permission_mode = PermissionMode::BypassPermissions;
    options.plugins = vec!["guard".to_owned(), "/nowhere".to_owned()];
    let mut agent = Agent::claude(&options);
    let script = Script::new().tool("Bash", json!({ "command": "touch hooked" })).text("done");
    agent.turn(&script.prompt("Go.")).await;
    agent.turn(&script.prompt("And again.")).await;
    assert_eq!(trace(&place), "plugin\nplugin\n");
    assert!(!place.workspace.path().join("hooked").exists());
    let told = agent.events.iter().filter(|event| {
        matches!(&event.meaning, Meaning::Log { level: "warn", message } if message.contains("/nowhere"))
    });
    assert_eq!(told.count(), 1);
}

#[tokio::test]
async fn model_mode_context_and_cost() {
    let place = Place::new().await;
    let Some(mut options) = place.options() else { return };
    options.permission_mode = PermissionMode::Default;
    let mut agent = Agent::claude(&options);
    agent.ask(Request::SetModel { id: "model".to_owned(), model: Some("claude-other-1".to_owned()) });
    let first = agent.turn("Who are you?").await;
    assert!(place.last_request().contains("\"model\":\"claude-other-1\""));
    assert!(agent.answered("model").await.is_ok());
    let script = Script::new().tool("Bash", json!({ "command": "touch free" })).text("done");
    agent.turn(&script.prompt("Try.")).await;
    assert!(!place.workspace.path().join("free").exists(), "nobody was asked, so it is refused");
    let mode = PermissionMode::BypassPermissions;
    agent.ask(Request::SetPermissionMode { id: "mode".to_owned(), mode });
    let second = agent.turn(&script.prompt("Try again.")).await;
    assert!(agent.answered("mode").await.is_ok());
    assert!(place.workspace.path().join("free").exists());
    agent.ask(Request::ContextUsage { id: "context".to_owned() });
    let context = agent.answered("context").await.expect("an answer");
    assert!(context["totalTokens"].is_number(), "{context}");
    agent.ask(Request::Cost { id: "cost".to_owned() });
    let cost = agent.answered("cost").await.expect("an answer");
    assert!(cost["text"].as_str().is_some_and(|text| text.contains('$')), "{cost}");
    let results = agent.events.iter().filter_map(|event| match &event.meaning {
        Meaning::Result(result) => Some((result.cost_usd, event.raw.clone())),
        _ => None,
    });
    let results: Vec<_> = results.collect();
    let sum: f64 = results.iter().map(|(cost, _)| cost).sum();
    let total =
        results.last().and_then(|(_, raw)| raw.as_ref()?["total_cost_usd"].as_f64()).expect("a total");
    assert!((sum - total).abs() < 1e-6, "{sum} {total}");
    assert!(first.cost_usd > 0.0 && second.cost_usd > 0.0);
    let servers = hostel_agent::McpServers::new();
    agent.ask(Request::SetMcpServers { id: "servers".to_owned(), servers });
    assert!(agent.answered("servers").await.is_ok());
    agent.ask(Request::Control { id: "odd".to_owned(), body: json!({ "subtype": "no_such_thing" }) });
    assert!(agent.answered("odd").await.expect_err("no answer").contains("no_such_thing"));
}
