use super::{Cli, Command, SandboxCommand, SessionCommand, SessionPlace};
use clap::{CommandFactory as _, Parser as _};
use hostel_client::model::{LimitAction, SessionPattern};
use serde_json::json;

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn what_follows_the_command_is_the_commands() {
    let cli = Cli::try_parse_from(["hostel", "run", "--timeout", "3s", "--", "ls", "--json", "-l"]).unwrap();
    let Command::Run(run) = cli.command else { panic!("not run") };
    assert!(!cli.json && run.command == ["ls", "--json", "-l"]);
    let cli = Cli::try_parse_from(["hostel", "exec", "-it", "--json", "sb-1", "sh", "-c", "x"]).unwrap();
    let Command::Exec(exec) = cli.command else { panic!("not exec") };
    assert!(cli.json && exec.process.interactive && exec.process.tty);
    assert_eq!(exec.spec().unwrap().argv, ["sh", "-c", "x"]);
}

#[test]
fn options_become_a_sandbox() {
    let words = "hostel sandbox create --memory 1G --cpus 0.5 --pids 9 -l a=b -e X=1 --require disk_limit --network none";
    let Command::Sandbox(SandboxCommand::Create(create)) =
        Cli::try_parse_from(words.split(' ')).unwrap().command
    else {
        panic!("not create")
    };
    let request = create.sandbox.create().unwrap();
    assert_eq!(request.spec.limits.memory_bytes, Some(1 << 30));
    assert_eq!(request.spec.limits.cpu_millis, Some(500));
    assert_eq!((request.spec.labels["a"].as_str(), request.spec.env["X"].as_str()), ("b", "1"));
    assert!(request.network_given && request.spec.required_capabilities.len() == 1);
}

#[test]
fn nonsense_is_refused_before_anything_is_sent() {
    for words in [
        "hostel run",
        "hostel exec sb-1",
        "hostel exec ../x -- ls",
        "hostel run --memory lots -- ls",
        "hostel attach --take-over sb-1 p-1",
        "hostel sandbox rm",
        "hostel sandbox fork -n 101 sb-1",
        "hostel kill -s NOPE sb-1 p-1",
        "hostel kill sb-1",
        "hostel kill --all sb-1 p-1",
        "hostel kill --all -s TERM sb-1",
        "hostel testkit model --listen here",
        "hostel session send s-1",
        "hostel session create --pattern forever",
        "hostel session create --budget many",
        "hostel session terminate --reason whim s-1",
        "hostel session cp s-1:relative .",
        "hostel session attach --new --no-follow s-1",
    ] {
        let error = Cli::try_parse_from(words.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words}");
    }
}

fn session(words: &str) -> SessionCommand {
    match Cli::try_parse_from(words.split(' ')).unwrap().command {
        Command::Session(command) => command,
        other => panic!("no session command: {other:?}"),
    }
}

#[test]
fn options_become_a_session() {
    let words = "hostel session create --pattern long-running -T claude --model-name m --budget 0.5 --max-turns 9 \
        --max-idle 90s --pause-on-limit --ask --allow-tool Read --allow-tool Grep --network a.example.com -e X=1 \
        --tag t --id my-1";
    let words: Vec<_> = words.split_whitespace().collect();
    let SessionCommand::Create(create) = session(&words.join(" ")) else { panic!("not create") };
    assert_eq!((create.pattern, create.id.as_deref()), (Some(SessionPattern::LongRunning), Some("my-1")));
    let request = create.session.create().unwrap();
    let expected = json!({
        "template": "claude", "model": "m", "askPermissions": true, "allowedTools": ["Read", "Grep"],
        "network": ["a.example.com"], "env": {"X": "1"},
    });
    assert_eq!(serde_json::Value::Object(request.config), expected);
    let limits = request.limits;
    assert_eq!((limits.max_budget_micros, limits.max_turns), (Some(500_000), Some(9)));
    assert_eq!((limits.max_idle_time.unwrap().as_secs(), limits.on_limit), (90, Some(LimitAction::Pause)));
    assert_eq!(request.tags, ["t"]);
}

#[test]
fn a_configuration_from_a_file_lies_below_the_options() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("session.json");
    std::fs::write(&file, r#"{"model":"from-file","env":{"A":"1"},"maxTurns":3}"#).unwrap();
    let read = |options: &str| {
        let words = format!("hostel session create --config {}{options}", file.display());
        let SessionCommand::Create(create) = session(&words) else { panic!("not create") };
        create.session.create()
    };
    let config = read(" --model-name typed -e B=2").unwrap().config;
    assert_eq!(json!(config), json!({"model": "typed", "env": {"A": "1", "B": "2"}, "maxTurns": 3}));
    std::fs::write(&file, "[]").unwrap();
    assert_eq!(read("").unwrap_err().exit_code(), 2);
}

#[test]
fn messages_and_places_of_sessions_are_read() {
    let SessionCommand::Send(send) = session("hostel session send s-1 look at -") else { panic!("not send") };
    assert_eq!((send.id.as_str(), send.text.join(" ")), ("s-1", "look at -".to_owned()));
    let SessionCommand::Cp { source, target } = session("hostel session cp 3e6f:/a:b ./x:y") else {
        panic!("not cp")
    };
    assert_eq!(source, SessionPlace::Session("3e6f".to_owned(), "/a:b".to_owned()));
    assert_eq!(target, SessionPlace::Local("./x:y".into()));
    let Command::Chat(chat) =
        Cli::try_parse_from(["hostel", "chat", "--workspace", ".", "s-1"]).unwrap().command
    else {
        panic!("not chat")
    };
    assert_eq!((chat.id.as_deref(), chat.workspace), (Some("s-1"), Some(".".into())));
}

#[test]
fn programs_are_told_what_is_wrong_with_a_command_line() {
    let words = |text: &str| text.split(' ').map(Into::into).collect::<Vec<std::ffi::OsString>>();
    for (text, json) in [
        ("--json sandbox rm", true),
        ("run --memory lots --json -- ls", true),
        ("run --memory lots -- ls --json", false),
        ("sandbox rm", false),
    ] {
        assert_eq!(super::wants_json(words(text).into_iter()), json, "{text}");
    }
    let error = Cli::try_parse_from(["hostel", "run", "--memory", "lots", "--", "ls"]).unwrap_err();
    let failure = super::failure(&error).to_json();
    assert_eq!(failure["error"]["reason"], "USAGE");
    let message = failure["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("invalid value 'lots'") && !message.contains("--help"), "{message}");
}
