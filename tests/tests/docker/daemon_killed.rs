//! `kill -9` of the daemon: its containers go on and are taken back, what nobody knows is removed, and what belongs
//! to others is left alone.

use crate::setup::{container, daemon_on, instance, refusal};
use hostel_tests::{TestDaemon, docker, eventually, shared_engine};
use std::io::{BufReader, Read as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Prints numbered lines as fast as the reader takes them.
const COUNT: &str = "i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); done";

/// A container of somebody else, removed with its test.
struct Bystander<'a>(&'a str, String);

impl<'a> Bystander<'a> {
    fn start(host: &'a str, image: &str, labels: &[&str]) -> Self {
        let labels: Vec<_> = labels.iter().flat_map(|label| ["--label", *label]).collect();
        Self::with(host, image, &labels)
    }

    fn with(host: &'a str, image: &str, options: &[&str]) -> Self {
        let begin = ["run", "--detach", "--network", "none", "--entrypoint", "sleep"];
        let arguments = [&begin[..], options, &[image, "1000"]].concat();
        Self(host, docker(host, &arguments).success().to_owned())
    }

    /// As a daemon leaves one that is killed between the engine's answer and its record.
    fn ghost(host: &'a str, image: &str, instance: &str) -> Self {
        let (name, ours) = (format!("hostel-{instance}-sb-ghost"), format!("hostel.instance={instance}"));
        let options = ["--name", &name, "--label", &ours, "--label", "hostel.sandbox=sb-ghost"];
        Self::with(host, image, &options)
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
    let strangers = [
        Bystander::start(&host, &image, &["owner=somebody"]),
        // Another daemon's, even with the same name for its sandbox.
        Bystander::start(&host, &image, &["hostel.instance=0123456789ab", &format!("hostel.sandbox={id}")]),
        // With a label of ours, but none that says whose.
        Bystander::start(&host, &image, &[&format!("hostel.sandbox={id}")]),
    ];
    let before: Vec<String> = strangers.iter().map(Bystander::looks).collect();
    daemon.kill();
    let ghost = Bystander::ghost(&host, &image, &instance(&daemon));
    daemon.restart();
    eventually("the ghost is gone", || docker(&host, &["inspect", &ghost.1]).code != Some(0));
    assert_eq!(daemon.shell(&id, "echo still here"), "still here");
    let after: Vec<String> = strangers.iter().map(Bystander::looks).collect();
    assert!(before == after, "somebody else's containers were changed");
    daemon.finish();
}

#[test]
fn a_container_of_others_that_has_the_name_of_ours_is_left_alone() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &image);
    let name = format!("hostel-{}-victim", instance(&daemon));
    let stranger = Bystander::with(&host, &image, &["--name", &name]);
    let before = stranger.looks();
    let refused = refusal(&daemon, &["--id", "victim"]);
    assert_eq!(refused["reason"], "ALREADY_EXISTS", "{refused}");
    assert!(before == stranger.looks(), "somebody else's container was changed");
    // Nothing of the creation that failed is in the way.
    drop(stranger);
    let id = daemon.sandbox(&["--backend", "docker", "--id", "victim"]);
    assert_eq!(daemon.shell(&id, "echo mine"), "mine");
    daemon.finish();
}

/// An image that is removed with its test.
struct Removed<'a>(&'a str, String);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = docker(self.0, &["rmi", "--force", &self.1]);
    }
}

#[test]
fn what_others_run_of_our_images_is_theirs() {
    let Some((host, base)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &base);
    let instance = instance(&daemon);
    let name = |what: &str| format!("{what}-{}", std::process::id());
    let archive = daemon.home().join("rootfs.tar");
    let helper = docker(&host, &["create", &base, "true"]).success().to_owned();
    let archive = archive.to_str().unwrap();
    let _ = docker(&host, &["export", "--output", archive, &helper]).success();
    let _ = docker(&host, &["rm", &helper]).success();
    let import = ["template", "import", "--backend", "docker", &name("imported"), archive];
    let _ = daemon.hostel(&import).success();
    let mut images = vec![Removed(&host, format!("hostel/{}", name("imported")))];
    let id = container(&daemon);
    if daemon.hostel(&["sandbox", "snapshot", "-q", &id, &name("snapshot")]).code == Some(0) {
        images.push(Removed(&host, format!("hostel/{}", name("snapshot"))));
    }
    let labels = "{{index .Config.Labels \"hostel.instance\"}}{{index .Config.Labels \"hostel.sandbox\"}}";
    for image in &images {
        assert_eq!(docker(&host, &["inspect", "--format", labels, &image.1]).success(), "", "{}", image.1);
    }
    // Earlier daemons labelled their images, and a sandbox's root had its sandbox's labels, too.
    let helper = docker(&host, &["create", &images[0].1, "true"]).success().to_owned();
    let earlier = format!("hostel/{}", name("earlier"));
    let change = format!("LABEL hostel.instance={instance} hostel.sandbox=sb-gone");
    let _ = docker(&host, &["commit", "--change", &change, &helper, &earlier]).success();
    let _ = docker(&host, &["rm", &helper]).success();
    images.push(Removed(&host, earlier));

    // Seen by an event, then by every sweep.
    let strangers: Vec<_> = images.iter().map(|image| Bystander::with(&host, &image.1, &[])).collect();
    let before: Vec<String> = strangers.iter().map(Bystander::looks).collect();
    let swept = |daemon: &mut TestDaemon| {
        daemon.kill();
        let ghost = Bystander::ghost(&host, &base, &instance);
        daemon.restart();
        eventually("the ghost is gone", || docker(&host, &["inspect", &ghost.1]).code != Some(0));
    };
    swept(&mut daemon);
    let after: Vec<String> = strangers.iter().map(Bystander::looks).collect();
    assert!(before == after, "somebody else's containers were changed");
    assert_eq!(daemon.shell(&id, "echo still here"), "still here");
    // One of ours that somebody gave another name is still ours.
    let _ = docker(&host, &["rename", &format!("hostel-{instance}-{id}"), &name("renamed")]).success();
    swept(&mut daemon);
    assert_eq!(daemon.shell(&id, "echo still here"), "still here");

    drop(strangers);
    for image in ["imported", "earlier"] {
        assert_eq!(daemon.hostel(&["template", "rm", &name(image)]).success(), name(image));
    }
    daemon.finish();
    assert_ne!(docker(&host, &["inspect", &name("renamed")]).code, Some(0), "it was ours to remove");
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
