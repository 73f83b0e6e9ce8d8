//! Images that are not as one would wish.

use crate::setup::{container, error, instance, prepared_on};
use hostel_tests::{TestDaemon, docker, eventually, shared_engine};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

/// An image of a test, removed with it.
struct TestImage<'a> {
    host: &'a str,
    name: String,
}

impl<'a> TestImage<'a> {
    /// An image that has one static program, and nothing else.
    fn with_one_program(host: &'a str, name: &str, options: &[&str]) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("bin")).unwrap();
        let program = place.path().join("bin/probe");
        fs::write(&program, hostel_guest_binary::PROBE).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--create", "--owner=0", "--group=0", "--directory"]).arg(place.path()).arg(".");
        let archive = tar.output().unwrap().stdout;
        Self::import(host, name, options, &archive)
    }

    /// Everything that another image has, made to be something else.
    fn of(host: &'a str, base: &str, name: &str, options: &[&str]) -> Self {
        let helper = docker(host, &["create", base, "sh"]).success().to_owned();
        let export = Command::new("docker").args(["--host", host, "export", &helper]).output().unwrap();
        let _ = docker(host, &["rm", &helper]);
        Self::import(host, name, options, &export.stdout)
    }

    /// Another image with one more file or directory in it, and volumes as a list in JSON.
    fn with(host: &'a str, base: &str, name: &str, file: (&Path, &str), volumes: &str) -> Self {
        let name = format!("hostel-test-{name}-{}", std::process::id());
        let helper = docker(host, &["create", base, "true"]).success().to_owned();
        let (from, to) = (file.0.display().to_string(), format!("{helper}:{}", file.1));
        let _ = docker(host, &["cp", &from, &to]).success();
        let change = format!("VOLUME {volumes}");
        let _ = docker(host, &["commit", "--change", &change, &helper, &name]).success();
        let _ = docker(host, &["rm", &helper]);
        Self { host, name }
    }

    /// An image that says to be for another architecture.
    fn foreign(host: &'a str, architecture: &str) -> Self {
        let native = Self::with_one_program(host, "native", &[]);
        let place = tempfile::tempdir().unwrap();
        // `docker import --platform` is not heeded by engines of some years ago.
        let script = format!(
            "set -e; docker --host {host} save {0} | tar x; [ $(ls *.json | wc -l) -ge 1 ]; \
             sed -i 's/\"architecture\":\"[a-z0-9]*\"/\"architecture\":\"{architecture}\"/; s/{0}/{0}-foreign/' \
             $(grep -rl --include=* -E 'architecture|RepoTags' . | grep -v layer); \
             tar c . | docker --host {host} load --quiet",
            native.name
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(place.path());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self { host, name: format!("{}-foreign", native.name) }
    }

    fn import(host: &'a str, name: &str, options: &[&str], archive: &[u8]) -> Self {
        let name = format!("hostel-test-{name}-{}", std::process::id());
        let mut import = Command::new("docker");
        import.args(["--host", host, "import"]).args(options).args(["-", &name]);
        let mut child = import.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(archive).unwrap();
        assert!(child.wait().unwrap().success());
        Self { host, name }
    }
}

impl Drop for TestImage<'_> {
    fn drop(&mut self) {
        let _ = docker(self.host, &["rmi", "--force", &self.name]);
    }
}

/// A daemon that has a template of an image.
fn daemon_with(host: &str, image: &str, more: &str) -> TestDaemon {
    let mut daemon = prepared_on(host, image);
    fs::create_dir_all(daemon.templates()).unwrap();
    fs::write(daemon.templates().join("t.toml"), format!("image = \"{image}\"\n{more}")).unwrap();
    daemon.restart();
    daemon
}

fn refused(daemon: &TestDaemon) -> serde_json::Value {
    let refused = daemon.hostel(&["--json", "sandbox", "create", "--backend", "docker", "--template", "t"]);
    assert_eq!(refused.code, Some(125), "{refused:?}");
    assert_eq!(daemon.hostel(&["sandbox", "list", "--all", "-q"]).stdout, "");
    error(&refused.stderr)
}

fn run(daemon: &TestDaemon, command: &[&str]) -> String {
    let mut arguments = vec!["run", "--backend", "docker", "--template", "t", "--"];
    arguments.extend_from_slice(command);
    daemon.hostel(&arguments).success().to_owned()
}

#[test]
fn an_image_that_the_engine_does_not_have_is_named() {
    let Some((host, _)) = shared_engine() else { return };
    let mut daemon = daemon_with(&host, "hostel-test-no-such-image:3", "");
    let error = refused(&daemon);
    assert_eq!(error["reason"], "NOT_FOUND", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("hostel-test-no-such-image:3") && message.contains("docker pull"), "{message}");
    daemon.finish();
}

#[test]
fn an_image_for_another_architecture_is_refused_with_both_names() {
    let Some((host, _)) = shared_engine() else { return };
    let other = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };
    let image = TestImage::foreign(&host, other);
    let mut daemon = daemon_with(&host, &image.name, "");
    let error = refused(&daemon);
    assert_eq!(error["reason"], "INVALID_ARGUMENT", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&format!("linux/{other}")) && message.contains("this host"), "{message}");
    daemon.finish();
}

#[test]
fn an_image_without_shell_or_libc_works() {
    let Some((host, _)) = shared_engine() else { return };
    let image = TestImage::with_one_program(&host, "bare", &[]);
    let mut daemon = daemon_with(&host, &image.name, "");
    let report = run(&daemon, &["/bin/probe", "report"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report.is_object(), "{report}");
    let create = ["sandbox", "create", "-q", "--backend", "docker", "--template", "t"];
    let id = daemon.hostel(&create).success().to_owned();
    let shell = daemon.hostel(&["--json", "exec", &id, "--", "sh", "-c", "true"]);
    assert_ne!(shell.code, Some(0), "{shell:?}");
    assert!(shell.stderr.contains("sh"), "{shell:?}");
    // Files need no program inside either.
    let file = daemon.home().join("file");
    fs::write(&file, "content").unwrap();
    let inside = format!("{id}:/workspace/file");
    let _ = daemon.hostel(&["cp", file.to_str().unwrap(), &inside]).success();
    assert_eq!(daemon.hostel(&["cp", &inside, "-"]).success(), "content");
    daemon.finish();
}

#[test]
fn what_an_image_would_start_by_itself_is_not_started() {
    let Some((host, base)) = shared_engine() else { return };
    let marker = "while :; do echo x >> /tmp/entrypoint; done";
    let entrypoint = format!("ENTRYPOINT [\"sh\", \"-c\", \"{marker}\"]");
    let options = ["--change", &entrypoint, "--change", "CMD [\"more\"]"];
    let health = ["--change", "HEALTHCHECK --interval=1s CMD touch /tmp/health"];
    let image = TestImage::of(&host, &base, "loop", &[&options[..], &health[..]].concat());
    let mut daemon = daemon_with(&host, &image.name, "");
    let seen = run(&daemon, &["sh", "-c", "ls /tmp; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
    assert!(!seen.contains("entrypoint") && !seen.contains("health"), "{seen}");
    // The same by hand, so that what is not seen could have been.
    let by_hand = docker(&host, &["inspect", "--format", "{{.Config.Entrypoint}}", &image.name]);
    assert!(by_hand.success().contains(marker), "{by_hand:?}");
    daemon.finish();
}

#[test]
fn processes_run_as_the_user_and_group_that_an_image_names() {
    let Some((host, base)) = shared_engine() else { return };
    let image = TestImage::of(&host, &base, "user", &["--change", "USER nobody:nogroup"]);
    let mut daemon = daemon_with(&host, &image.name, "");
    let script = "id -un; id -gn; touch x; stat -c %U:%G x";
    assert_eq!(run(&daemon, &["sh", "-c", script]), "nobody\nnogroup\nnobody:nogroup");
    let asked = daemon.hostel(&["run", "--backend", "docker", "--user", "4242:root", "--", "id", "-gn"]);
    assert_eq!(asked.success(), "root");
    let nobody = daemon.hostel(&["run", "--backend", "docker", "--user", "nobody:nobodies", "--", "id"]);
    assert!(nobody.failure(125).contains("no group \"nobodies\""), "{nobody:?}");
    daemon.finish();
}

#[test]
fn links_of_an_image_or_a_sandbox_lead_to_nothing_of_the_host() {
    let Some((host, base)) = shared_engine() else { return };
    let place = tempfile::tempdir().unwrap();
    let (victim, link, real) = (place.path().join("victim"), place.path().join("a"), place.path().join("b"));
    fs::create_dir(&victim).unwrap();
    symlink(&victim, &link).unwrap();
    fs::create_dir_all(real.join("data")).unwrap();
    fs::write(real.join("data/file"), "from the image").unwrap();
    let untouched = || assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "something came to the host");

    // The image's own link, above one of its volumes.
    let image = TestImage::with(&host, &base, "link", (&link, "/home/a"), r#"["/home/a/cron.d"]"#);
    let mut daemon = daemon_with(&host, &image.name, "");
    let _ = daemon.hostel(&["run", "--backend", "docker", "--template", "t", "--", "true"]);
    untouched();
    daemon.finish();
    untouched();

    // One that is put there while the sandbox runs, and then copied.
    let image =
        TestImage::with(&host, &base, "moved", (&real, "/home/b"), r#"["/home/b/data", "/./x/../srv"]"#);
    let mut daemon = daemon_with(&host, &image.name, "");
    let id = daemon.sandbox(&["--backend", "docker", "--template", "t"]);
    let name = format!("hostel-{}-{id}", instance(&daemon));
    let mounts = docker(
        &host,
        &["inspect", "--format", "{{range .Mounts}}{{println .Type .Destination}}{{end}}", &name],
    );
    // A volume of the engine's has no cap.
    assert!(!mounts.success().contains("volume "), "{mounts:?}");
    if fs::read_dir(daemon.state().join("docker/seeds")).unwrap().next().is_none() {
        // The engine caps containers' roots: no disk is ours.
        return daemon.finish();
    }
    assert_eq!(daemon.shell(&id, "cat /home/b/data/file"), "from the image");
    let swap = "echo mine >/home/b/data/file && mv /home/b /home/c && ln -s";
    let swap = format!("{swap} {} /home/b", victim.display());
    let _ = daemon.hostel(&["exec", "--user", "0", &id, "--", "sh", "-c", &swap]).success();
    let fork = daemon.hostel(&["sandbox", "fork", "-q", &id]);
    untouched();
    if fork.code != Some(0) {
        // Places in memory cannot be copied.
        assert!(fork.stderr.contains("a disk of our own"), "{fork:?}");
        return daemon.finish();
    }
    assert_eq!(daemon.shell(fork.success(), "cat /home/b/data/file"), "mine");
    let _ = daemon.hostel(&["sandbox", "snapshot", "-q", &id, "swapped"]).success();
    let run = ["run", "--backend", "docker", "--template", "swapped", "--", "cat", "/home/b/data/file"];
    assert_eq!(daemon.hostel(&run).success(), "mine");
    let _ = daemon.hostel(&["template", "rm", "swapped"]).success();
    daemon.finish();
    untouched();
}

#[test]
fn a_sandbox_of_a_snapshot_may_work_elsewhere() {
    let Some((host, base)) = shared_engine() else { return };
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "from the image").unwrap();
    let image = TestImage::with(&host, &base, "elsewhere", (&data, "/data"), r#"["/volume"]"#);
    let mut daemon = daemon_with(&host, &image.name, "");
    let id = daemon.sandbox(&["--backend", "docker", "--template", "t", "--workdir", "/srv"]);
    assert_eq!(daemon.shell(&id, "mkdir x && echo mine >x/file && pwd"), "/srv");
    let name = format!("elsewhere-{}", std::process::id());
    let snapshot = daemon.hostel(&["sandbox", "snapshot", "-q", &id, &name]);
    if snapshot.code != Some(0) {
        assert!(snapshot.stderr.contains("a disk of our own"), "{snapshot:?}");
        return daemon.finish();
    }
    for (directory, content) in [("/data", "from the image"), ("/srv", ""), ("/srv/x", "mine")] {
        let run = ["run", "--backend", "docker", "--template", &name, "--workdir", directory];
        let read = ["--", "sh", "-c", "if [ -e file ]; then cat file; fi"];
        assert_eq!(daemon.hostel(&[&run[..], &read[..]].concat()).success(), content, "{directory}");
    }
    let _ = daemon.hostel(&["template", "rm", &name]).success();
    daemon.finish();
}

#[test]
fn what_is_kept_of_images_goes_with_them() {
    let Some((host, base)) = shared_engine() else { return };
    let image = TestImage::with_one_program(&host, "gone", &[]);
    let mut daemon = daemon_with(&host, &image.name, "");
    let _ = run(&daemon, &["/bin/probe", "report"]);
    let id = docker(&host, &["inspect", "--format", "{{.Id}}", &image.name]).success().to_owned();
    let kept = daemon.state().join("docker/seeds").join(id.trim_start_matches("sha256:"));
    assert!(kept.exists() || fs::read_dir(kept.parent().unwrap()).unwrap().next().is_none());
    // As a daemon leaves it that is killed between the engine's answer to a fork and its record.
    let helper = docker(&host, &["create", &base, "true"]).success().to_owned();
    let commit = |whose: &str| {
        let change = format!("LABEL hostel.fork={whose}");
        docker(&host, &["commit", "--change", &change, &helper]).success().to_owned()
    };
    let (lost, others) = (commit(&instance(&daemon)), commit("0123456789ab"));
    daemon.kill();
    drop(image);
    daemon.restart();
    eventually("what was kept is gone", || !kept.exists());
    eventually("the image of a lost fork is gone", || docker(&host, &["inspect", &lost]).code != Some(0));
    let _ = docker(&host, &["inspect", &others]).success();
    daemon.finish();
    let _ = (docker(&host, &["rm", &helper]), docker(&host, &["rmi", &others]));
}

#[test]
fn the_name_of_somebody_else_s_image_is_not_taken_from_it() {
    let Some((host, base)) = shared_engine() else { return };
    let template = format!("theirs-{}", std::process::id());
    let theirs = TestImage { host: &host, name: format!("hostel/{template}:latest") };
    let _ = docker(&host, &["tag", &base, &theirs.name]).success();
    let mut daemon = daemon_with(&host, &base, "");
    let id = container(&daemon);
    let refused = daemon.hostel(&["--json", "sandbox", "snapshot", &id, &template]);
    let error = error(&refused.stderr);
    assert!(
        ["ALREADY_EXISTS", "CAPABILITY_MISSING"].iter().any(|reason| error["reason"] == *reason),
        "{error}"
    );
    let image_id = |name: &str| docker(&host, &["inspect", "--format", "{{.Id}}", name]).success().to_owned();
    assert_eq!(image_id(&theirs.name), image_id(&base));
    daemon.finish();
}
