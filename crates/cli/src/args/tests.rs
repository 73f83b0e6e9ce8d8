use super::{Cli, Command, SandboxCommand};
use clap::{CommandFactory as _, Parser as _};

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
        "hostel testkit model --listen here",
    ] {
        let error = Cli::try_parse_from(words.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words}");
    }
}
