//! Everything that can die dies, at random moments of running turns: the journal has no gap and no repeat, every turn
//! ends with a word for it, and nothing is left over.

use super::stage::{Stage, frames, told};
use hostel_testkit::{Script, Step};
use hostel_tests::{LOOK, signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a turn may take on a busy machine, whatever dies meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many running turns are disturbed; `HOSTEL_TEST_MANY=1` makes it the 200 that a release wants.
const TURNS: usize = 12;
/// Of so many turns for each of these: some are over when somebody dies, or nobody is there to die.
const TRIES: usize = 4;

/// Who dies.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Server,
    Daemon,
    Agent,
    Guest,
}

/// Numbers that are different in each run, and told, so that a run can be had again.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("HOSTEL_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
        eprintln!("HOSTEL_TEST_SEED={seed}");
        Self(seed)
    }

    /// 0 to `below`, without it (xorshift64, Marsaglia 2003).
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// A turn of a second or so: text that streams, a tool, more text.
fn turn(number: usize) -> String {
    let command = format!("echo {number} >> /workspace/turns; timeout 0.3 tail -f /dev/null");
    Script::new()
        .step(Step {
            tool: Some("Bash".to_owned()),
            input: Some(json!({ "command": command, "description": "note" })),
            ..Step::text(format!("turn {number} begins")).chunks(8).delay_ms(30)
        })
        .step(Step::text(format!("turn {number} is done")).chunks(8).delay_ms(30))
        .prompt(&format!("Turn {number}."))
}

/// The processes on this host whose command line has all of these.
fn processes(words: &[&str]) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            words.iter().all(|word| line.contains(word))
        })
        .collect()
}

/// The agent of a session: its conversation's id is on its command line.
fn agent_of(session: &Value) -> Vec<u32> {
    let id = session["sessionId"].as_str().filter(|id| !id.is_empty());
    processes(&["stream-json", id.or(session["id"].as_str()).unwrap()])
}

/// The first process of the sandbox that a process is in: its namespace's, seen from outside.
fn guest_of(agent: u32) -> Option<u32> {
    let namespace = std::fs::read_link(format!("/proc/{agent}/ns/pid")).ok()?;
    let same = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|ns| ns == namespace);
    processes(&[]).into_iter().filter(same).find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    })
}

async fn told_at(stage: &Stage, path: &str) -> Value {
    told(stage.get(path).send().await.unwrap()).await.1
}

/// Kills somebody, and has whoever does not come back by itself started again. → whether somebody was there.
async fn strike(stage: &mut Stage, session: &str, victim: Victim) -> bool {
    match victim {
        Victim::Server => {
            stage.server.kill();
            stage.server.restart(&stage.daemon);
            true
        }
        Victim::Daemon => {
            stage.daemon.kill();
            stage.daemon.restart();
            true
        }
        Victim::Agent => {
            let agents = agent_of(&told_at(stage, session).await);
            agents.iter().for_each(|pid| signal(*pid, Signal::KILL));
            !agents.is_empty()
        }
        Victim::Guest => {
            let agents = agent_of(&told_at(stage, session).await);
            let guest = agents.first().and_then(|agent| guest_of(*agent));
            guest.into_iter().for_each(|guest| signal(guest, Signal::KILL));
            guest.is_some()
        }
    }
}

/// What a path tells, once it is so.
async fn once(stage: &Stage, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let now = told_at(stage, path).await;
        if is_so(&now) {
            return now;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: {now}\n{}", stage.server.log());
        tokio::time::sleep(LOOK).await;
    }
}

/// The outcome of a message, when its turn has ended.
async fn outcome(stage: &Stage, session: &str, message: &str) -> Value {
    let is_over = |now: &Value| now["state"] == "done" || now["state"] == "cancelled";
    once(stage, &format!("{session}/messages/{message}"), "a turn does not end", is_over).await
}

/// How a turn ended, which is told by a word that is known; as if nothing were, where its sandbox was left alone.
fn result_of(end: &Value, victim: Victim, number: usize, stage: &Stage) -> String {
    let result = end["outcome"]["result"].as_str().unwrap_or_default();
    let known: &[&str] = match victim {
        Victim::Server | Victim::Daemon => &["success"],
        Victim::Agent | Victim::Guest => &["success", "agent_exited", "environment_failed"],
    };
    assert!(known.contains(&result), "{number} {victim:?}: {end}\n{}", stage.server.log());
    result.to_owned()
}

/// Sends a message; its id, as soon as it is accepted.
async fn accepted(stage: &Stage, session: &str, prompt: String) -> String {
    let body = json!({ "prompt": prompt, "mode": "ack" });
    let (status, accepted) = told(stage.post(&format!("{session}/message"), body).await).await;
    assert_eq!(status, 202, "{accepted}");
    accepted["messageId"].as_str().unwrap().to_owned()
}

/// A session after a turn. What is on record of a message may be told a moment before its session says the same.
async fn session_after(stage: &Stage, session: &str, message: &str) -> Value {
    let is_after = |now: &Value| now["activeTurn"]["messageId"] != message;
    once(stage, session, "a turn that is done stays active", is_after).await
}

/// What must hold of a journal, whatever died: numbers (see [`Stage::journal`]), turns one after another, each message
/// with one beginning and one end, every message of the agent at most once.
fn audit(events: &[Value], messages: &[String]) {
    let mut running: Option<&str> = None;
    let mut seen = std::collections::BTreeSet::new();
    for event in events {
        let message = event["messageId"].as_str();
        match event["type"].as_str().unwrap() {
            "turn:started" => assert!(std::mem::replace(&mut running, message).is_none(), "{event}"),
            "turn:completed" => assert_eq!(running.take(), message, "{event}"),
            "agent:message" => {
                if let Some(uuid) = event["data"]["message"]["uuid"].as_str() {
                    assert!(seen.insert(uuid), "twice: {event}");
                }
            }
            _ => {}
        }
    }
    assert_eq!(running, None);
    for message in messages {
        let of = |kind: &str| {
            events.iter().filter(|event| event["type"] == kind && event["messageId"] == **message).count()
        };
        assert_eq!((of("message:queued"), of("turn:started"), of("turn:completed")), (1, 1, 1), "{message}");
    }
}

/// What must hold of messages that waited when their sandbox was gone: they never began, and are told to be cancelled for
/// that, once.
fn audit_dropped(events: &[Value], messages: &[String]) {
    for message in messages {
        let of = events.iter().filter(|event| event["messageId"] == **message);
        let told: Vec<_> =
            of.map(|event| (event["type"].as_str(), event["data"]["reason"].as_str())).collect();
        let wanted =
            [(Some("message:queued"), None), (Some("message:cancelled"), Some("environment_failed"))];
        assert_eq!(told, wanted, "{message}");
    }
}

/// Whether a session is what the end of its turn says.
fn stands_as_it_should(session: &Value, victim: Victim, result: &str) -> bool {
    let why = session["reasonMessage"].as_str().unwrap_or_default();
    match (session["status"].as_str(), result) {
        (Some("idle"), result) => result != "environment_failed",
        // The sandbox may also go when the turn is over.
        (Some("error"), "environment_failed") => true,
        (Some("error"), _) if matches!(victim, Victim::Guest) => true,
        (Some("error"), "agent_exited") => why.contains("times within"),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_agent_is_killed_in_the_middle_of_it_is_not_completed() {
    let Some(stage) = Stage::new("a task whose agent is killed").await else { return };
    let session = stage.session("ephemeral").await;
    let slow = Step::text("one two three four five six seven eight nine ten").chunks(10).delay_ms(1000);
    let prompt = Script::new().step(slow).prompt("Count.");
    let mut stream = stage.post(&format!("{session}/message"), json!({ "prompt": prompt })).await;
    let mut text = String::new();
    while !text.contains("content_block_delta") {
        text.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
    }
    let agents = agent_of(&told_at(&stage, &session).await);
    assert!(!agents.is_empty(), "{}", stage.server.log());
    for pid in agents {
        signal(pid, Signal::KILL);
    }
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let done = frames(&text).pop().unwrap();
    assert_eq!(
        (&done["type"], &done["isError"], &done["result"]),
        (&json!("done"), &json!(true), &json!("agent_exited")),
        "{done}"
    );
    let now = told_at(&stage, &session).await;
    assert_eq!((&now["status"], &now["reason"]), (&json!("error"), &json!("error")), "{now}");
    // A message tries again, and the task can still be done.
    let again = json!({ "prompt": Script::new().text("counted").prompt("Again."), "streaming": false });
    let (status, reply) = told(stage.post(&format!("{session}/message"), again).await).await;
    assert_eq!((status, &reply["result"]["subtype"]), (200, &json!("success")), "{reply}");
    let now = told_at(&stage, &session).await;
    assert_eq!(now["status"], "completed", "{now}");
    let (status, _) = told(stage.post(&format!("{session}/terminate"), json!({})).await).await;
    assert_eq!(status, 200);
    assert_eq!(stage.daemon.hostel(&["sandbox", "list", "-q"]).stdout, "", "no sandbox is left");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_the_journal_is_whole_and_every_turn_ends() {
    let Some(mut stage) = Stage::new("sessions whose parts die").await else { return };
    let many = std::env::var_os("HOSTEL_TEST_MANY").is_some();
    let mut dice = Dice::new();
    let mut session = stage.session("long-running").await;
    let (mut messages, mut dropped) = (Vec::new(), Vec::new());
    let mut told_of = std::collections::BTreeMap::<String, usize>::new();
    let (wanted, mut disturbed) = (if many { 200 } else { TURNS }, 0);
    for number in 0..TRIES * wanted {
        if disturbed == wanted {
            break;
        }
        let victim = match dice.roll(10) {
            0..=4 => Victim::Server,
            5..=6 => Victim::Daemon,
            7..=8 => Victim::Agent,
            _ => Victim::Guest,
        };
        let message = accepted(&stage, &session, turn(number)).await;
        // Some have another message behind them.
        let behind = match dice.roll(4) {
            0 => Some(accepted(&stage, &session, Script::new().text("behind").prompt("And then?")).await),
            _ => None,
        };
        // The moment is what is random here; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(dice.roll(1500))).await;
        let running = told_at(&stage, &session).await["activeTurn"]["messageId"] == *message;
        let hit = strike(&mut stage, &session, victim).await;
        let end = outcome(&stage, &session, &message).await;
        let mut result = result_of(&end, victim, number, &stage);
        if running && hit {
            disturbed += 1;
            *told_of.entry(format!("{victim:?} {result}")).or_default() += 1;
        }
        let mut last = message.clone();
        messages.push(message);
        if let Some(behind) = behind {
            let end = outcome(&stage, &session, &behind).await;
            if end["state"] == "done" {
                result = result_of(&end, victim, number, &stage);
                last.clone_from(&behind);
                messages.push(behind);
            } else {
                // Without a sandbox nothing is tried again and again. It may go when the first is over.
                let gone = result != "success" || matches!(victim, Victim::Guest);
                assert!(gone, "{number} {victim:?}: {end}\n{}", stage.server.log());
                assert_eq!(end["state"], "cancelled", "{number} {victim:?}: {end}");
                dropped.push(behind);
            }
        }
        let now = session_after(&stage, &session, &last).await;
        assert!(agent_of(&now).len() <= 1, "one agent for one session");
        assert!(stands_as_it_should(&now, victim, &result), "{number} {victim:?} {result}: {now}");
        if number % 20 == 19 {
            let journal = stage.journal(&session).await;
            audit(&journal, &messages);
            audit_dropped(&journal, &dropped);
            messages.clear();
            dropped.clear();
            let (status, _) = told(stage.post(&format!("{session}/terminate"), json!({})).await).await;
            assert_eq!(status, 200);
            session = stage.session("long-running").await;
        }
    }
    eprintln!("running turns: {told_of:?}");
    assert_eq!(disturbed, wanted, "of {} turns", TRIES * wanted);
    let journal = stage.journal(&session).await;
    audit(&journal, &messages);
    audit_dropped(&journal, &dropped);
    let (status, _) = told(stage.post(&format!("{session}/terminate"), json!({})).await).await;
    assert_eq!(status, 200);
    assert_eq!(stage.daemon.hostel(&["sandbox", "list", "-q"]).stdout, "", "no sandbox is left");
    stage.finish().await;
}
