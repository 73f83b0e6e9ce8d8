use super::*;
use hostel_sandbox::NetworkPolicy;
use proptest::prelude::*;
use std::time::Duration;

fn parse(text: &str) -> Result<Declaration, Vec<Problem>> {
    format::parse(Path::new("/etc/hostel/templates.d/a.toml"), text)
}

/// The only problem, as people see it.
fn problem(text: &str) -> String {
    let problems = parse(text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].to_string().trim_start_matches("/etc/hostel/templates.d/").to_owned()
}

#[test]
fn everything_that_can_be_said_is_understood() {
    let declaration = parse(
        r#"
name = "agent"
image = "hostel/agent:1"
rootfs = "agent.tar"
base = "host"
user = "agent"
workdir = "/workspace"
network = "none"

[resources]
memory = "2G"
cpus = 1.5
pids = 512
disk = 1073741824
open-files = 4096
output-rate = "1M"

[max-resources]
memory = "4G"

[env]
LANG = "C.UTF-8"

[labels]
team = "a"

[[start]]
command = ["git", "init"]
timeout = "5s"

[[start]]
command = "server &"

[probe]
command = ["curl", "localhost"]
interval = "50ms"
timeout = 10
"#,
    )
    .unwrap();
    let template = declaration.template;
    assert_eq!(template.id.as_str(), "agent");
    assert_eq!(declaration.rootfs.unwrap(), Path::new("/etc/hostel/templates.d/agent.tar"));
    assert_eq!(
        (declaration.image.as_deref(), declaration.base.unwrap().as_str()),
        (Some("hostel/agent:1"), "host")
    );
    assert_eq!(template.limits.memory_bytes, Some(2 << 30));
    assert_eq!(template.max_limits.memory_bytes, Some(4 << 30));
    assert_eq!((template.limits.cpu_millis, template.limits.disk_bytes), (Some(1500), Some(1 << 30)));
    assert_eq!(
        (template.network.clone(), template.env["LANG"].as_str()),
        (Some(NetworkPolicy::none()), "C.UTF-8")
    );
    assert_eq!(template.start_commands[0].timeout, Some(Duration::from_secs(5)));
    assert_eq!(template.start_commands[1].argv, ["sh", "-c", "server &"]);
    let probe = template.probe.unwrap();
    assert_eq!((probe.interval, probe.timeout), (Duration::from_millis(50), Duration::from_secs(10)));
}

#[test]
fn a_network_is_a_word_or_a_table() {
    let declared = parse(
        "base = \"host\"\n[network]\nmode = \"allowlist\"\npresets = [\"model-api\"]\n\
         [[network.rules]]\nhost = \"*.example.com\"\nports = [443]\n",
    );
    let network = declared.unwrap().template.network.unwrap();
    assert_eq!(
        (network.rules[0].host.to_string().as_str(), network.presets[0].as_str()),
        ("*.example.com", "model-api")
    );
    for (text, problem) in [
        ("base = \"host\"\n[network]\nmode = \"open\"\nrule = 1\n", "rule"),
        ("base = \"host\"\n[network]\nmode = \"allowlist\"\n[[network.rules]]\nhots = \"a.com\"\n", "hots"),
        ("base = \"host\"\n[network]\nmode = \"none\"\npresets = [\"model-api\"]\n", "mode none"),
    ] {
        let told = parse(text).unwrap_err();
        assert!(told.iter().any(|one| one.to_string().contains(problem)), "{problem}: {told:?}");
    }
}

#[test]
fn a_typo_is_told_with_line_and_what_was_meant() {
    assert_eq!(
        problem("base = \"host\"\n\n[resources]\nmemroy = \"1G\"\n"),
        "a.toml:4: resources.memroy: there is no such key; did you mean \"memory\"?"
    );
    assert_eq!(
        problem("base = \"host\"\nworking_directory = \"/x\""),
        "a.toml:2: working_directory: there is no such key; did you mean \"workdir\"?"
    );
    assert_eq!(
        problem(
            "base = \"host\"\n[[start]]\ncommand = [\"true\"]\n[[start]]\ncommand = [\"true\"]\ntimeuot = 1"
        ),
        "a.toml:6: start[1].timeuot: there is no such key; did you mean \"timeout\"?"
    );
    assert!(problem("base = \"host\"\nmemory = \"1G\"").ends_with("it belongs in [resources]"));
    assert!(problem("base = \"host\"\nxyzzyx = 1").contains("there are name, image"));
    let two = parse("bsae = \"host\"\nusr = \"a\"").unwrap_err();
    assert_eq!(two.len(), 2, "{two:?}");
}

#[test]
fn a_wrong_value_is_told_with_line_and_key() {
    for (text, expected) in [
        ("base = \"host\"\n[resources]\npids = \"many\"", "a.toml:3: resources.pids: invalid type"),
        ("base = \"host\"\n[resources]\nmemory = \"1X\"", "a.toml:3: resources.memory: \"1X\" is not a size"),
        ("base = \"host\"\n[resources]\nmemory = 1", "a.toml:3: resources.memory: 1 is outside"),
        (
            "base = \"host\"\n[resources]\npids = 9\n[max-resources]\npids = 8",
            "a.toml:3: resources.pids: 9 is more than the 8",
        ),
        ("base = \"host\"\nworkdir = \"x\"", "a.toml:2: workdir: \"x\" is not an absolute path"),
        ("base = \"host\"\nnetwork = \"all\"", "a.toml:2: network: unknown variant `all`"),
        ("base = \"Host\"", "a.toml:1: base: \"Host\" is not an id"),
        ("base = \"host\"\n[[start]]\ncommand = []", "a.toml:3: start[0].command: give at least a program"),
        ("base = \"host\"\n[probe]\ncommand = \"x\"\ninterval = \"1h\"", "a.toml:4: probe.interval: must be"),
        ("base = \"host\"\n[probe]\ninterval = \"1s\"", "a.toml:2: probe: missing field `command`"),
        ("base = \"host\"\n[env]\nA = 1", "a.toml:3: env.A: invalid type"),
        ("base = \"host", "a.toml:1: "),
        ("user = \"agent\"", "a.toml: say what it is made of"),
        ("name = \"x\"\nbase = \"x\"", "a.toml:2: base: a template cannot be its own base"),
    ] {
        let problem = problem(text);
        assert!(problem.starts_with(expected), "{text:?}: {problem}");
    }
}

#[test]
fn a_recipe_has_the_name_of_its_directory_and_bad_files_do_not_hide_good_ones() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("agent/template.toml", "image = \"i\"");
    write("agent/Dockerfile", "FROM scratch");
    write("bad.toml", "image =");
    write("again.toml", "name = \"agent\"\nimage = \"i\"");
    write("readme.md", "nothing");
    let (declarations, problems) = read(&[directory.path().to_owned(), directory.path().join("not-there")]);
    assert_eq!(declarations.len(), 1);
    assert_eq!(declarations[0].template.id.as_str(), "agent");
    assert_eq!(problems.len(), 2, "{problems:?}");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") { let _ = parse(&text); }

    #[test]
    fn no_document_makes_it_panic(
        keys in prop::collection::vec(("[a-z.\\[\\]-]{1,12}", "(1|-1|1\\.5|true|\"[a-zA-Z0-9]{0,8}\"|\\[\\]|\\{\\}|\\{ command = 1 \\})"), 0..6)
    ) {
        let text: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.is_empty());
            let lines = text.lines().count() + 1;
            prop_assert!(problems.iter().all(|problem| problem.line.is_none_or(|line| (1..=lines).contains(&line))));
        }
    }

    #[test]
    fn every_slip_of_one_letter_is_seen_through(index in 0usize..12, at in 0usize..8) {
        let known = ["name", "image", "rootfs", "base", "user", "workdir", "network", "resources", "env", "labels", "start", "probe"][index];
        let mut typo: Vec<char> = known.chars().collect();
        typo[at % known.len()] = 'q';
        let typo: String = typo.into_iter().collect();
        let problem = problem(&format!("{typo} = 1"));
        prop_assert!(problem.contains(&format!("did you mean {known:?}")), "{}", problem);
    }
}
