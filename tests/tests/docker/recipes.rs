//! `hostel template build` of recipes whose image is there at once: what is built again, for whom, and under which
//! names.

use crate::setup::{daemon_on, error};
use hostel_tests::{Outcome, TestDaemon, docker, eventually, shared_engine};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// A directory with one recipe, whose image is another name for one that the engine has.
struct Recipe<'a> {
    place: tempfile::TempDir,
    host: &'a str,
    name: String,
}

impl<'a> Recipe<'a> {
    fn of(host: &'a str, image: &str, what: &str) -> Self {
        let recipe = Self {
            place: tempfile::tempdir().unwrap(),
            host,
            name: format!("{what}-{}", std::process::id()),
        };
        fs::create_dir(recipe.path().join(&recipe.name)).unwrap();
        fs::write(recipe.path().join(&recipe.name).join("Dockerfile"), "FROM scratch\n").unwrap();
        let script = recipe.path().join("build.sh");
        fs::write(&script, format!("#!/bin/sh\ndocker tag {image} hostel-$1 && echo hostel-$1:latest\n"))
            .unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        recipe.declare("user = \"nobody\"\n");
        recipe
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    fn declare(&self, text: &str) {
        let made_of = format!("image = \"hostel-{}\"\n", self.name);
        fs::write(self.path().join(&self.name).join("template.toml"), made_of + text).unwrap();
    }

    fn build(&self, daemon: &TestDaemon, backend: &str, options: &[&str]) -> Outcome {
        let recipes = self.path().to_str().unwrap();
        let build = ["--json", "template", "build", &self.name, "--recipes", recipes, "--backend", backend];
        let mut command = daemon.command(&[&build[..], options].concat());
        command.env("DOCKER_HOST", self.host);
        Outcome::of(command)
    }

    /// The name of the image that a container is made of.
    fn image(&self) -> String {
        format!("hostel/{}:latest", self.name)
    }

    fn image_id(&self) -> String {
        let inspected = docker(self.host, &["image", "inspect", "--format", "{{.Id}}", &self.image()]);
        // Of what is not there docker prints an empty line.
        inspected.stdout.trim().to_owned()
    }
}

impl Drop for Recipe<'_> {
    fn drop(&mut self) {
        let built = format!("hostel-{}", self.name);
        let _ = docker(self.host, &["rmi", "--force", &self.image(), &built]);
    }
}

fn user(template: &str) -> Value {
    serde_json::from_str::<Value>(template).unwrap()["user"].clone()
}

#[test]
fn a_recipe_is_built_for_each_backend_and_again_when_its_declaration_changed() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &image);
    let recipe = Recipe::of(&host, &image, "recipe");
    assert_eq!(user(recipe.build(&daemon, "docker", &[]).success()), "nobody");
    let run = ["run", "--backend", "docker", "--template", &recipe.name, "--", "id", "-un"];
    assert_eq!(daemon.hostel(&run).success(), "nobody");
    let again = recipe.build(&daemon, "docker", &[]);
    assert!(again.code == Some(0) && again.stderr.contains("already"), "{again:?}");

    recipe.declare("user = \"root\"\n");
    // Another backend has what is older: that is no reason to leave this one without.
    let jail = recipe.build(&daemon, "jail", &[]);
    assert!(!jail.stderr.contains("already"), "{jail:?}");
    assert_eq!(user(jail.success()), "root");
    let changed = recipe.build(&daemon, "docker", &[]);
    assert_eq!(error(&changed.stderr)["reason"], "TEMPLATE_EXISTS", "{changed:?}");
    assert_eq!(user(recipe.build(&daemon, "docker", &["--replace"]).success()), "root");
    for backend in ["docker", "jail"] {
        let again = recipe.build(&daemon, backend, &[]);
        assert!(again.code == Some(0) && again.stderr.contains("already"), "{again:?}");
    }
    assert_eq!(daemon.hostel(&run).success(), "root");
    assert_eq!(daemon.hostel(&["template", "rm", &recipe.name]).success(), recipe.name);
    daemon.finish();
}

#[test]
fn a_recipe_takes_the_place_of_a_template_that_a_pool_uses() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &image);
    let recipe = Recipe::of(&host, &image, "rolling");
    let _ = recipe.build(&daemon, "docker", &[]).success();
    let sizes = ["--pin", "1", "--memory", "64M", "--disk", "64M", "--max-age", "24h", "--wait"];
    let create = ["pool", "create", "r", "--backend", "docker", "--template", &recipe.name];
    let _ = daemon.hostel(&[&create[..], &sizes[..]].concat()).success();

    recipe.declare("user = \"root\"\n");
    assert_eq!(user(recipe.build(&daemon, "docker", &["--replace"]).success()), "root");
    let pool =
        || serde_json::from_str::<Value>(daemon.hostel(&["--json", "pool", "get", "r"]).success()).unwrap();
    eventually("what was warm is replaced", || {
        let pool = pool();
        pool["counters"]["recycled"] == 1 && pool["status"]["ready"] == 1
    });
    let run = ["--json", "run", "--backend", "docker", "--template", &recipe.name, "--", "id", "-un"];
    let ran = daemon.hostel(&run);
    assert!(ran.success().contains("\"start_kind\":\"warm\""), "{ran:?}");
    assert!(ran.stdout.contains("\"text\":\"root\\n\""), "{ran:?}");
    let _ = daemon.hostel(&["pool", "rm", "r"]).success();
    let _ = daemon.hostel(&["template", "rm", &recipe.name]).success();
    daemon.finish();
}

#[test]
fn a_recipe_takes_no_other_image_s_name() {
    let Some((host, image)) = shared_engine() else { return };
    let mut daemon = daemon_on(&host, &image);
    let recipe = Recipe::of(&host, &image, "taken");
    let _ = docker(&host, &["tag", &image, &recipe.image()]).success();
    let theirs = recipe.image_id();
    let refused = recipe.build(&daemon, "docker", &["--replace"]);
    assert_eq!(error(&refused.stderr)["reason"], "IMAGE_EXISTS", "{refused:?}");
    assert_eq!(recipe.image_id(), theirs);
    daemon.finish();
}

#[test]
fn a_recipe_that_is_built_on_another_engine_than_the_daemon_s_is_told() {
    let Some((host, image)) = shared_engine() else { return };
    let recipe = Recipe::of(&host, &image, "astray");
    let mut daemon = daemon_on("unix:///nonexistent/docker.sock", &image);
    let refused = recipe.build(&daemon, "docker", &[]);
    let told = error(&refused.stderr);
    assert_eq!(told["reason"], "OTHER_ENGINE", "{refused:?}");
    assert!(told["message"].as_str().unwrap().contains("set DOCKER_HOST"), "{told}");
    assert_eq!(recipe.image_id(), "", "what nobody finds is left");
    daemon.finish();
}
