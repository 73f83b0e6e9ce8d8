//! Pools as ops use them, over a real daemon with real jails.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{TestDaemon, eventually};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::SystemTime;

fn json(daemon: &TestDaemon, arguments: &[&str]) -> Value {
    let arguments = [&["--json"], arguments].concat();
    serde_json::from_str(daemon.hostel(&arguments).success()).unwrap()
}

fn error(stderr: &str) -> Value {
    let last = stderr.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(last).unwrap_or_else(|_| panic!("no JSON: {stderr}"))["error"].clone()
}

/// The values of a list or table that is printed for people, without the blanks between them.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn healthy(daemon: &TestDaemon, pool: &str) {
    eventually("the pool has its target size", || {
        json(daemon, &["pool", "get", pool])["status"]["health"] == "healthy"
    });
}

#[test]
fn a_run_hits_the_pool_and_says_so() {
    let mut daemon = TestDaemon::start();
    let made = json(&daemon, &["pool", "create", "web", "--min", "2", "--max", "4", "--wait"]);
    assert_eq!((&made["name"], &made["status"]["health"]), (&"web".into(), &"healthy".into()));
    assert!(made["status"]["ready"].as_u64() >= Some(2), "{made}");
    assert_eq!((&made["spec"]["template"], &made["spec"]["backend"]), (&"host".into(), &"jail".into()));

    let ran = daemon.hostel(&["--json", "run", "--", "echo", "hi"]);
    let first: Value = serde_json::from_str(ran.success().lines().next().unwrap()).unwrap();
    assert_eq!((&first["event"], &first["start_kind"]), (&"created".into(), &"warm".into()), "{ran:?}");
    assert_eq!((&first["pool"], &first["stages"][0]["name"]), (&"web".into(), &"bind".into()));
    assert!(ran.stdout.contains("\"text\":\"hi\\n\""), "{ran:?}");

    healthy(&daemon, "web");
    let told =
        daemon.hostel(&["run", "-v", "--pool", "web", "--env", "WHO=me", "--", "sh", "-c", "echo $WHO"]);
    assert_eq!(told.success(), "me");
    assert!(told.stderr.contains(" is warm, from the pool web, after "), "{told:?}");
    assert!(told.stderr.contains("ms; bind "), "{told:?}");

    healthy(&daemon, "web");
    let note = tempfile::NamedTempFile::new().unwrap();
    fs::write(note.path(), "told at once").unwrap();
    let file = format!("{}:/workspace/in/note", note.path().display());
    let created = json(&daemon, &["sandbox", "create", "--id", "mine", "--pool", "web", "--file", &file]);
    assert_eq!((&created["start_kind"], &created["pool"]), (&"warm".into(), &"web".into()));
    assert_eq!(daemon.hostel(&["exec", "mine", "--", "cat", "/workspace/in/note"]).success(), "told at once");
    let shown = daemon.hostel(&["sandbox", "get", "mine"]);
    let facts: Vec<_> = shown.success().lines().map(words).collect();
    assert!(facts.contains(&vec!["start", "warm"]) && facts.contains(&vec!["pool", "web"]), "{shown:?}");

    healthy(&daemon, "web");
    let list = daemon.hostel(&["pool", "list"]);
    let lines: Vec<_> = list.success().lines().map(words).collect();
    assert_eq!(lines[0][..5], ["NAME", "TEMPLATE", "BACKEND", "HEALTH", "READY/TARGET"]);
    assert_eq!(lines[1][..4], ["web", "host", "jail", "healthy"]);
    assert_eq!(lines[1][6..9], ["3", "0", "100%"]);
    assert_eq!(daemon.hostel(&["pool", "ls", "-q"]).success(), "web");
    let get = daemon.hostel(&["pool", "get", "web"]);
    assert!(get.success().contains("hits 3, ") && get.stdout.contains("by demand"), "{get:?}");
    daemon.finish();
}

#[test]
fn a_restart_takes_what_is_warm_over_and_makes_none_anew() {
    let mut daemon = TestDaemon::start();
    let _ = daemon.hostel(&["pool", "create", "web", "--pin", "3", "--wait"]).success();
    for violent in [false, true] {
        if violent {
            // Counters are written every two seconds.
            eventually("they are written", || {
                json(&daemon, &["pool", "get", "web"])["counters"]["created"] == 4
            });
            daemon.kill();
        } else {
            daemon.stop();
        }
        daemon.restart();
        let made = json(&daemon, &["sandbox", "create", "--pool", "web"]);
        assert_eq!(made["start_kind"], "warm");
        let id = made["id"].as_str().unwrap();
        assert_eq!(daemon.shell(id, "echo mine"), "mine");
        let listed = json(&daemon, &["ps", id]);
        assert_eq!(listed["processes"].as_array().unwrap().len(), 1, "the rehearsal is in no list: {listed}");
        healthy(&daemon, "web");
        let counters = json(&daemon, &["pool", "get", "web"])["counters"].clone();
        assert_eq!((&counters["recycled"], &counters["unhealthy"]), (&0.into(), &0.into()), "{counters}");
    }
    daemon.finish();
}

#[test]
fn without_a_pool_that_fits_a_start_is_cold() {
    let mut daemon = TestDaemon::start();
    let cold = daemon.hostel(&["-v", "run", "--", "true"]);
    let _ = cold.success();
    assert!(cold.stderr.contains(" is cold, after "), "{cold:?}");
    assert_eq!(json(&daemon, &["sandbox", "create"])["start_kind"], "cold");
    let nobody = daemon.hostel(&["run", "--pool", "nobody", "--", "true"]);
    assert!(nobody.failure(125).contains("hostel pool list"), "{nobody:?}");

    let _ = daemon.hostel(&["pool", "create", "web", "--pin", "1", "--wait"]).success();
    let other = daemon.hostel(&["--json", "run", "--pool", "web", "--template", "no-such", "--", "true"]);
    assert_eq!(other.code, Some(125), "{other:?}");
    let drained = json(&daemon, &["pool", "drain", "web"]);
    assert_eq!((&drained["status"]["health"], &drained["status"]["ready"]), (&"drained".into(), &0.into()));
    let miss = json(&daemon, &["sandbox", "create", "--pool", "web"]);
    assert_eq!((&miss["start_kind"], &miss["pool"]), (&"cold".into(), &Value::Null));
    assert_eq!(daemon.hostel(&["pool", "set", "web", "--resume"]).success(), "web");
    healthy(&daemon, "web");
    assert_eq!(json(&daemon, &["sandbox", "create"])["start_kind"], "warm");
    daemon.finish();
}

#[test]
fn a_pool_is_changed_while_it_works() {
    let mut daemon = TestDaemon::start();
    let create = ["pool", "create", "web", "--pin", "1", "--max-age", "1h", "--memory", "64M", "--wait"];
    assert_eq!(daemon.hostel(&create).success(), "web");
    let schedule = "mon-fri 08:00-18:00 min=3";
    let set = ["pool", "set", "web", "--pin", "3", "--pids", "50", "--schedule", schedule];
    let spec = json(&daemon, &set)["spec"].clone();
    assert_eq!((&spec["pinned_size"], &spec["max_age_seconds"]), (&3.into(), &3600.0.into()));
    assert_eq!((&spec["limits"]["memory_bytes"], &spec["limits"]["pids"]), (&(64 << 20).into(), &50.into()));
    assert_eq!(spec["schedules"][0]["from_minute"], 480);
    eventually("the pool grows", || json(&daemon, &["pool", "get", "web"])["status"]["ready"] == 3);
    let get = daemon.hostel(&["pool", "get", "web"]);
    assert!(
        get.success().contains("pinned at 3 (1 to 10)")
            && get.stdout.contains("1h\n")
            && get.stdout.contains(schedule),
        "{get:?}"
    );

    let spec = json(&daemon, &["pool", "set", "web", "--no-pin", "--no-schedules"])["spec"].clone();
    assert_eq!((&spec["pinned_size"], spec["schedules"].as_array().map(Vec::len)), (&Value::Null, Some(0)));

    let refused = daemon.hostel(&["--json", "pool", "set", "web", "--min", "11"]);
    assert_eq!(error(&refused.stderr)["violations"][0]["field"], "spec.min_size", "{refused:?}");
    let nothing = daemon.hostel(&["pool", "set", "web"]);
    assert!(nothing.failure(2).contains("say what to change"), "{nothing:?}");
    let taken = daemon.hostel(&["--json", "pool", "create", "web"]);
    assert_eq!(error(&taken.stderr)["reason"], "ALREADY_EXISTS");
    // One that cannot be removed keeps no other.
    let _ = json(&daemon, &["pool", "create", "late", "--max", "1"]);
    let several = daemon.hostel(&["--json", "pool", "rm", "nobody", "late", "no-one"]);
    let deleted: Value = serde_json::from_str(&several.stdout).unwrap();
    assert_eq!(
        (several.code == Some(0), &deleted["deleted"]),
        (false, &serde_json::json!(["late"])),
        "{several:?}"
    );
    assert_eq!(several.stderr.matches("NOT_FOUND").count(), 2, "{several:?}");
    let missing = daemon.hostel(&["pool", "rm", "nobody"]);
    assert!(missing.failure(125).contains("hostel pool list"), "{missing:?}");
    assert_eq!(daemon.hostel(&["pool", "rm", "web", "nobody", "--allow-missing"]).success(), "web\nnobody");
    assert_eq!(json(&daemon, &["pool", "list"])["pools"], serde_json::json!([]));
    daemon.finish();
}

#[test]
fn a_plan_says_which_size_is_enough() {
    let mut daemon = TestDaemon::start();
    let _ = daemon.hostel(&["pool", "create", "web", "--pin", "2", "--wait"]).success();
    let early = daemon.hostel(&["--json", "pool", "plan", "web"]);
    assert_eq!(early.code, Some(125), "{early:?}");
    assert_eq!(error(&early.stderr)["reason"], "NO_DEMAND");
    for _ in 0..6 {
        assert_eq!(daemon.hostel(&["run", "--", "true"]).code, Some(0));
    }
    let plan = json(&daemon, &["pool", "plan", "web", "--sizes", "8,0,2", "--window", "24h"]);
    let sizes: Vec<_> = plan["rows"].as_array().unwrap().iter().map(|row| row["size"].as_u64()).collect();
    assert_eq!(sizes, [Some(0), Some(2), Some(8), None]);
    assert_eq!((&plan["claims"], &plan["target_hit_rate"]), (&6.into(), &0.99.into()));
    assert_eq!((&plan["rows"][0]["hit_rate"], &plan["rows"][2]["hit_rate"]), (&0.0.into(), &1.0.into()));
    let smallest = plan["smallest_size"].as_u64().unwrap();

    let told = daemon.hostel(&["pool", "plan", "web", "--sizes", "0,2,8"]);
    let lines: Vec<_> = told.success().lines().collect();
    assert_eq!(lines[0].split("  ").filter(|cell| !cell.is_empty()).count(), 6, "{told:?}");
    assert_eq!(words(lines[1])[..2], ["0", "0%"]);
    assert!(lines[4].starts_with("auto (mean "), "{told:?}");
    assert!(lines[6].starts_with("6 claims of "), "{told:?}");
    let marked: Vec<_> = lines.iter().filter(|line| line.ends_with("◀ smallest for 99%")).collect();
    assert_eq!(marked.len(), 1, "{told:?}");
    assert_eq!(words(marked[0])[0], smallest.to_string());
    assert!(marked[0].contains('█'), "{told:?}");
    let none = daemon.hostel(&["pool", "plan", "web", "--sizes", "0"]);
    assert!(none.success().contains("none of these sizes reaches"), "{none:?}");
    let whole = json(&daemon, &["pool", "plan", "web"]);
    assert!(whole["rows"].as_array().unwrap().len() > 3, "{whole}");
    daemon.finish();
}

#[test]
fn a_watch_tells_of_pools_until_they_are_gone() {
    let mut daemon = TestDaemon::start();
    let mut child = daemon
        .command(&["--json", "pool", "watch", "web", "--interval", "100ms"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let _ = daemon.hostel(&["pool", "create", "web", "--pin", "1"]).success();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    while next()["pool"]["status"]["health"] != "healthy" {}
    let _ = daemon.hostel(&["pool", "rm", "web"]).success();
    loop {
        let event = next();
        if event["deleted"] == true {
            assert_eq!(event["pool"]["name"], "web");
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let mut child = daemon.command(&["pool", "watch"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let header = lines.next().unwrap().unwrap();
    assert_eq!(words(&header)[..3], ["TIME", "NAME", "HEALTH"]);
    let _ = daemon.hostel(&["pool", "create", "other", "--pin", "1"]).success();
    let line = lines.next().unwrap().unwrap();
    assert_eq!(words(&line)[1], "other");
    child.kill().unwrap();
    child.wait().unwrap();
    daemon.finish();
}

#[test]
fn a_pool_that_does_not_fill_says_why() {
    let mut daemon = TestDaemon::start();
    assert!(daemon.stop().success());
    fs::create_dir_all(daemon.templates()).unwrap();
    let template = "base = \"host\"\n[[start]]\ncommand = \"echo no luck >&2; exit 7\"";
    fs::write(daemon.templates().join("failing.toml"), template).unwrap();
    daemon.restart();
    let create = ["--json", "pool", "create", "bad", "--template", "failing", "--wait"];
    let failed = daemon.hostel(&create);
    assert_eq!(failed.code, Some(125), "{failed:?}");
    let error = error(&failed.stderr);
    assert_eq!(error["reason"], "POOL_NOT_FILLED");
    assert!(error["message"].as_str().unwrap().contains("no luck"), "{error}");
    let pool = json(&daemon, &["pool", "get", "bad"]);
    assert_eq!(pool["status"]["health"], "failing");
    let get = daemon.hostel(&["pool", "get", "bad"]);
    assert!(get.success().contains("last failure") && get.stdout.contains("no luck"), "{get:?}");
    let none = daemon.hostel(&["--json", "pool", "create", "none", "--template", "no-such"]);
    assert_eq!(self::error(&none.stderr)["reason"], "NOT_FOUND", "{none:?}");
    daemon.finish();
}

#[test]
fn refills_that_fail_for_a_while_recover_by_themselves() {
    let mut daemon = TestDaemon::start();
    assert!(daemon.stop().success());
    fs::create_dir_all(daemon.templates()).unwrap();
    let works = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 10;
    let start = format!("test $(date +%s) -ge {works} || {{ echo too early >&2; exit 7; }}");
    let template = format!("base = \"host\"\n[[start]]\ncommand = \"{start}\"");
    fs::write(daemon.templates().join("late.toml"), template).unwrap();
    daemon.restart();
    let _ = daemon.hostel(&["pool", "create", "p", "--template", "late", "--pin", "2"]).success();
    eventually("refills fail", || {
        let status = json(&daemon, &["pool", "get", "p"])["status"].clone();
        status["health"] == "failing" && status["last_failure"]["message"].to_string().contains("too early")
    });
    healthy(&daemon, "p");
    let pool = json(&daemon, &["pool", "get", "p"]);
    assert_eq!((&pool["status"]["ready"], &pool["status"]["last_failure"]), (&2.into(), &Value::Null));
    assert!(pool["counters"]["refill_failures"].as_u64() < Some(30), "a hot loop: {pool}");
    let made = json(&daemon, &["sandbox", "create", "--template", "late"]);
    assert_eq!(made["start_kind"], "warm");
    daemon.finish();
}

#[test]
fn a_process_waits_in_each_warm_sandbox() {
    let mut daemon = TestDaemon::start();
    let create = ["pool", "create", "shells", "--pin", "1", "--wait", "--", "sh", "-c", "echo ready; cat"];
    assert_eq!(daemon.hostel(&create).success(), "shells");
    let id = daemon.sandbox(&["--pool", "shells"]);
    let mut child = daemon.command(&["attach", "-i", &id, "warm"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\nhello\n", "{output:?}");
    let spec = json(&daemon, &["pool", "set", "shells", "--no-warm-process"])["spec"].clone();
    assert_eq!(spec["warm_process"], Value::Null);
    daemon.finish();
}

/// The share of the processors that the control group of a process has, found by an argument of it; nothing where
/// there is no such group.
fn share(argument: &str) -> Option<String> {
    let argument = format!("\0{argument}\0");
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let process = processes
        .filter(|path| fs::read_to_string(path.join("cmdline")).is_ok_and(|line| line.contains(&argument)))
        .min()?;
    let groups = fs::read_to_string(process.join("cgroup")).unwrap();
    groups.lines().find_map(|line| {
        let [_, controllers, group] = line.splitn(3, ':').collect::<Vec<_>>().try_into().unwrap();
        let (place, file) = match controllers {
            "" => (String::new(), "cpu.weight"),
            _ if controllers.split(',').any(|one| one == "cpu") => (format!("/{controllers}"), "cpu.shares"),
            _ => return None,
        };
        let share = fs::read_to_string(format!("/sys/fs/cgroup{place}{group}/{file}")).ok()?;
        Some(share.trim().to_owned())
    })
}

#[test]
fn what_waits_stands_back_until_it_is_claimed() {
    let mut daemon = TestDaemon::start();
    let _ = daemon
        .hostel(&["pool", "create", "waiters", "--pin", "1", "--wait", "--", "sleep", "86397"])
        .success();
    let Some(waiting) = share("86397") else {
        eprintln!("skipped: shares of the processors: there is no control group for them here");
        return daemon.finish();
    };
    daemon.kill();
    daemon.restart();
    healthy(&daemon, "waiters");
    let id = daemon.sandbox(&["--pool", "waiters", "--cpus", "0.5"]);
    let _ = daemon.hostel(&["pool", "rm", "waiters"]).success();
    let full = match waiting.as_str() {
        "102" => "1024",
        "10" => "100",
        other => panic!("a share of {other}"),
    };
    eventually("only the claimed one is left, with its full share", || {
        share("86397").as_deref() == Some(full)
    });
    assert_eq!(daemon.hostel(&["sandbox", "get", &id]).code, Some(0));
    daemon.finish();
}

#[test]
fn shells_complete_pools() {
    let daemon = TestDaemon::start();
    let script = daemon.hostel(&["completions", "bash"]);
    for word in
        ["hostel__subcmd__pool__subcmd__plan", "--target-hit-rate", "--no-warm-process", "--allow-missing"]
    {
        let found = script.success().contains(word);
        assert!(found || script.stdout.contains(&word.replace("__subcmd", "")), "{word}");
    }
}
