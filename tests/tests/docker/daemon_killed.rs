//! `kill -9` of the daemon: its containers go on and are taken back, what nobody knows is removed, and what belongs
//! to others is left alone.

use crate::setup::{container, daemon_on, instance};
use hostel_tests::{docker, eventually, shared_engine};
use std::io::{BufReader, Read as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Prints numbered lines as fast as the reader takes them.
const COUNT: &str = "i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); done";

/// A container of somebody else, removed with its test.
struct Bystander<'a>(&'a str, String);

impl<'a> Bystander<'a> {
    fn start(host: &'a str, image: &str, labels: &[&str]) -> Self {
        let mut arguments = vec!["run", "--detach", "--network", "none"];
        labels.iter().for_each(|label| arguments.extend(["--label", label]));
        arguments.extend([image, "sleep", "1000"]);
        Self(host, docker(host, &arguments).success().to_owned())
    }

    fn looks(&self) -> String {
        docker(self.0, &["inspect", &self.1]).success().to_owned()
    }
}

impl Drop for Bystander<'_> {
    fn drop(&mut self) {
        let _ = docker(self.0, &["rm", "--force", &self.1]);
    }
}

#[test]
fn output_of_a_container_goes_on_byte_for_byte() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &image);
    let id = container(&daemon);
    let mut reader = daemon.command(&["exec", &id, "--", "sh", "-c", COUNT]);
    let mut reader = reader.stderr(Stdio::inherit()).spawn().unwrap();
    let mut out = BufReader::new(reader.stdout.take().unwrap());
    let mut text = vec![0; 4096];
    out.read_exact(&mut text).unwrap();
    for more in [300_000, 200_000] {
        daemon.kill();
        daemon.restart();
        let begin = text.len();
        text.resize(begin + more, 0);
        out.read_exact(&mut text[begin..]).unwrap();
    }
    out.read_to_end(&mut text).unwrap();
    assert!(reader.wait().unwrap().success());
    let expected: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
    assert!(text == expected.as_bytes(), "{} bytes instead of {}", text.len(), expected.len());
    daemon.finish();
}

#[test]
fn what_nobody_knows_is_removed_and_what_is_anothers_is_not() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &image);
    let id = container(&daemon);
    let ours = format!("hostel.instance={}", instance(&daemon));
    let strangers = [
        Bystander::start(&host, &image, &["owner=somebody"]),
        // Another daemon's, even with the same name for its sandbox.
        Bystander::start(&host, &image, &["hostel.instance=0123456789ab", &format!("hostel.sandbox={id}")]),
        // With a label of ours, but none that says whose.
        Bystander::start(&host, &image, &[&format!("hostel.sandbox={id}")]),
    ];
    let before: Vec<String> = strangers.iter().map(Bystander::looks).collect();
    daemon.kill();
    // As a daemon leaves it that is killed between the engine's answer and its record.
    let ghost = Bystander::start(&host, &image, &[&ours, "hostel.sandbox=sb-ghost"]);
    daemon.restart();
    eventually("the ghost is gone", || docker(&host, &["inspect", &ghost.1]).code != Some(0));
    assert_eq!(daemon.shell(&id, "echo still here"), "still here");
    let after: Vec<String> = strangers.iter().map(Bystander::looks).collect();
    assert!(before == after, "somebody else's containers were changed");
    daemon.finish();
}

#[test]
fn killed_while_it_creates_it_leaves_only_what_it_recorded() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &image);
    let _ = daemon.hostel(&["run", "--backend", "docker", "--", "true"]).success();
    let filter = format!("label=hostel.instance={}", instance(&daemon));
    for milliseconds in [20, 90, 160, 250, 400] {
        let mut creations = Vec::new();
        for _ in 0..3 {
            let create = ["sandbox", "create", "-q", "--backend", "docker"];
            creations.push(daemon.command(&create).spawn().unwrap());
        }
        // The moment is what differs here; nothing is waited for.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(milliseconds) {
            std::thread::yield_now();
        }
        daemon.kill();
        for mut creation in creations {
            let _ = creation.kill();
            let _ = creation.wait();
        }
        daemon.restart();
        eventually("containers are those that are known", || {
            let listed = daemon.hostel(&["sandbox", "list", "-q", "--state", "ready"]).success().to_owned();
            let mut known: Vec<String> = listed.lines().map(str::to_owned).collect();
            let format = "{{.Label \"hostel.sandbox\"}}";
            let found = docker(&host, &["ps", "--all", "--filter", &filter, "--format", format]);
            let mut found: Vec<String> = found.success().lines().map(str::to_owned).collect();
            known.sort_unstable();
            found.sort_unstable();
            known == found
        });
    }
    for id in daemon.hostel(&["sandbox", "list", "-q", "--state", "ready"]).success().lines() {
        assert_eq!(daemon.shell(id, "echo alive"), "alive");
    }
    daemon.finish();
    let left = docker(&host, &["ps", "--all", "--quiet", "--filter", &filter]);
    assert_eq!(left.success(), "");
}
