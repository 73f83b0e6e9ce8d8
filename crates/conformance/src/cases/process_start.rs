//! What a process is given when it starts.

use crate::case::cases;
use crate::failure::{Failure, Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, command, script};
use crate::session::Session;
use hostel_sandbox::process::{AttachOptions, ProcessSpec, StartRequest};
use hostel_sandbox::{Error, ProcessId};
use std::sync::Arc;

cases! { "process_start":
    a_program_is_found_by_path_variable,
    a_program_is_found_by_the_path_given_to_it,
    a_relative_program_is_found_from_its_directory,
    a_missing_program_is_not_found,
    a_directory_is_no_program,
    a_file_without_permission_is_no_program,
    a_missing_directory_is_an_invalid_argument,
    a_missing_user_is_an_invalid_argument,
    arguments_arrive_unchanged,
    long_arguments_arrive,
    bad_arguments_are_refused,
    variables_arrive_and_add_to_the_sandbox,
    usual_variables_are_there,
    nothing_is_inherited_from_the_daemon,
    the_user_is_switched_with_its_groups [OtherUsers],
    the_working_directory_is_the_one_asked_for,
    user_and_directory_are_told [OtherUsers],
    a_script_with_an_interpreter_runs,
    the_caller_may_choose_the_id,
    an_id_is_never_used_twice,
    a_request_that_comes_again_starts_nothing,
    a_session_and_a_group_of_its_own,
    signals_are_at_their_defaults,
}

type H = Arc<Harness>;

async fn a_program_is_found_by_path_variable(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    ensure_eq!(sandbox.run(&["echo", "found"]).await?.success()?.text(), "found\n");
    Ok(())
}

async fn a_program_is_found_by_the_path_given_to_it(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir -p /tmp/tools; printf '#!/bin/sh\\necho mine\\n' > /tmp/tools/tool; chmod 755 /tmp/tools/tool").await?;
    let spec = ProcessSpec {
        env: [("PATH".to_owned(), "/nowhere:/tmp/tools:/bin".to_owned())].into(),
        ..command(&["tool"])
    };
    ensure_eq!(sandbox.finish(spec).await?.success()?.text(), "mine\n");
    Ok(())
}

async fn a_relative_program_is_found_from_its_directory(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir -p /tmp/d; printf '#!/bin/sh\\npwd\\n' > /tmp/d/here; chmod 755 /tmp/d/here").await?;
    let spec = ProcessSpec { cwd: Some("/tmp/d".to_owned()), ..command(&["./here"]) };
    ensure_eq!(sandbox.finish(spec).await?.success()?.text(), "/tmp/d\n");
    Ok(())
}

async fn refused(h: &Harness, spec: ProcessSpec) -> Outcome {
    let sandbox = h.sandbox().await?;
    ensure_err!(sandbox.inside()?.start(spec).await, Error::InvalidArgument { .. });
    ensure_eq!(sandbox.sh("echo fine").await?, "fine\n");
    Ok(())
}

async fn a_missing_program_is_not_found(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    for program in ["there-is-no-such-program", "/nowhere/program", "./nothing"] {
        ensure_err!(
            sandbox.inside()?.start(command(&[program])).await,
            Error::NotFound { kind: "program", .. }
        );
    }
    ensure_eq!(sandbox.sh("echo fine").await?, "fine\n");
    Ok(())
}

async fn a_directory_is_no_program(h: H) -> Outcome {
    refused(&h, command(&["/tmp"])).await
}

async fn a_file_without_permission_is_no_program(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.put("/tmp/data", "not a program").await?;
    ensure_err!(sandbox.inside()?.start(command(&["/tmp/data"])).await, Error::InvalidArgument { .. });
    Ok(())
}

async fn a_missing_directory_is_an_invalid_argument(h: H) -> Outcome {
    refused(&h, ProcessSpec { cwd: Some("/nowhere/at/all".to_owned()), ..script("true") }).await
}

async fn a_missing_user_is_an_invalid_argument(h: H) -> Outcome {
    refused(&h, ProcessSpec { user: Some("nobody-by-that-name".to_owned()), ..script("true") }).await
}

async fn arguments_arrive_unchanged(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let words = ["", "a b", "line\nbreak", "\t", "'\"\\$(x)`y`", "ünï→😀", "-n", "--", "*", "\u{1b}[31m", ""];
    let argv: Vec<&str> = [sandbox.probe().await?, "argv"].into_iter().chain(words).collect();
    let text = sandbox.run(&argv).await?.success()?.text();
    let seen: Vec<&str> = text.split_terminator('\0').collect();
    ensure_eq!(seen, words);
    Ok(())
}

async fn long_arguments_arrive(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let one = "x".repeat(100_000);
    let text = sandbox.run_probe(&["argv", &one]).await?.success()?.text();
    ensure!(text.len() == 100_001, "{} bytes of 100001", text.len());
    let many = vec!["word"; 20_000];
    let argv: Vec<&str> = ["argv"].into_iter().chain(many).collect();
    let text = sandbox.run_probe(&argv).await?.success()?.text();
    ensure_eq!(text.len(), 100_000);
    Ok(())
}

async fn bad_arguments_are_refused(h: H) -> Outcome {
    refused(&h, ProcessSpec::default()).await?;
    refused(&h, command(&[""])).await?;
    refused(&h, command(&["echo", "a\0b"])).await
}

async fn variables_arrive_and_add_to_the_sandbox(h: H) -> Outcome {
    let sandbox = h
        .sandbox_with(|spec| {
            spec.env = [("KEPT".to_owned(), "k".to_owned()), ("CHANGED".to_owned(), "old".to_owned())].into();
        })
        .await?;
    let env = [("CHANGED", "new"), ("EMPTY", ""), ("LINES", "a\nb"), ("LATER", "x=y=z"), ("UMLAUT", "ä😀")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let text = "echo \"$KEPT|$CHANGED|${EMPTY-unset}|$LINES|$LATER|$UMLAUT\"";
    let said = sandbox.finish(ProcessSpec { env, ..script(text) }).await?.success()?.text();
    ensure_eq!(said, "k|new||a\nb|x=y=z|ä😀\n");
    Ok(())
}

async fn usual_variables_are_there(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let said = sandbox.sh("echo ${PATH:+path} ${HOME:+home}").await?;
    ensure_eq!(said, "path home\n");
    Ok(())
}

async fn nothing_is_inherited_from_the_daemon(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let report = sandbox.report().await?;
    ensure_eq!(report["descriptors"], serde_json::json!([]), "open descriptors above 2");
    let own: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    let usual =
        ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "PWD", "TMPDIR", "HOSTNAME", "TZ"];
    let seen =
        report["environment"].as_array().ok_or_else(|| Failure::new("no environment in the report"))?;
    for name in seen.iter().filter_map(|name| name.as_str()) {
        ensure!(usual.contains(&name) || !own.iter().any(|known| known == name), "the daemon's {name} shows");
    }
    Ok(())
}

async fn the_user_is_switched_with_its_groups(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let who = |user: &str| ProcessSpec { user: Some(user.to_owned()), ..script("id -u; id -g; id -G") };
    for (user, expected) in
        [("0", "0\n0\n0\n"), ("root", "0\n0\n0\n"), ("1234", "1234\n"), ("1234:77", "1234\n77\n77\n")]
    {
        let said = sandbox.finish(who(user)).await?.success()?.text();
        ensure!(said.starts_with(expected), "{user} is {said:?}, expected {expected:?}");
    }
    let report = sandbox.finish(ProcessSpec {
        user: Some("1234".to_owned()),
        ..script("grep -E '^(Uid|Gid|CapEff|CapPrm|CapInh|CapAmb):' /proc/self/status")
    });
    let text = report.await?.success()?.text();
    ensure!(text.contains("Uid:\t1234\t1234\t1234\t1234"), "ids are {text}");
    ensure_eq!(text.matches("0000000000000000").count(), 4, "capability sets that are empty in {text}");
    Ok(())
}

async fn user_and_directory_are_told(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let asked = |user: &str, cwd: &str| ProcessSpec {
        user: Some(user.to_owned()),
        cwd: Some(cwd.to_owned()),
        ..script("true")
    };
    for (user, expected) in [("0", "root"), ("root", "root"), ("1234", "1234"), ("1234:77", "1234")] {
        let process = sandbox.inside()?.start(asked(user, "/tmp")).await?;
        ensure_eq!((process.user.as_str(), process.cwd.as_str()), (expected, "/tmp"));
        let known = sandbox.inside()?.process(&process.id).await?;
        ensure_eq!((known.user.as_str(), known.cwd.as_str()), (expected, "/tmp"));
    }
    // Whatever the defaults are, they are told.
    let who = "name=$(id -un 2>/dev/null) || name=$(id -u); echo $name; pwd";
    let process = sandbox.run(&["sh", "-c", who]).await?.success()?;
    ensure_eq!(process.text(), format!("{}\n{}\n", process.process.user, process.process.cwd));
    Ok(())
}

async fn the_working_directory_is_the_one_asked_for(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir -p '/tmp/a b/ü'; ln -s 'a b' /tmp/link").await?;
    for (cwd, expected) in
        [("/tmp/a b/ü", "/tmp/a b/ü\n"), ("/tmp/link/ü", "/tmp/a b/ü\n"), ("/", "/\n"), ("/tmp/../..", "/\n")]
    {
        let spec = ProcessSpec { cwd: Some(cwd.to_owned()), ..script("pwd -P") };
        ensure_eq!(sandbox.finish(spec).await?.success()?.text(), expected, "in {cwd}");
    }
    Ok(())
}

async fn a_script_with_an_interpreter_runs(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("printf '#!/bin/sh\\necho \"$0 $1\"\\nexit 3\\n' > /tmp/s; chmod 755 /tmp/s").await?;
    let finished = sandbox.run(&["/tmp/s", "one"]).await?;
    ensure_eq!((finished.text().as_str(), finished.code()), ("/tmp/s one\n", Some(3)));
    Ok(())
}

async fn the_caller_may_choose_the_id(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let id = ProcessId::parse("my-own-process")?;
    let started = sandbox.inside()?.start(ProcessSpec { id: Some(id.clone()), ..script("exit 5") }).await?;
    ensure_eq!(started.id, id);
    ensure_eq!(sandbox.inside()?.wait(&id).await?.exit.and_then(|exit| exit.code), Some(5));
    ensure_eq!(sandbox.inside()?.process(&id).await?.argv, script("exit 5").argv);
    Ok(())
}

async fn an_id_is_never_used_twice(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let named =
        |text: &str| Ok::<_, Error>(ProcessSpec { id: Some(ProcessId::parse("twice")?), ..script(text) });
    sandbox.inside()?.start(named("exit 1")?).await?;
    ensure_err!(sandbox.inside()?.start(named("exit 2")?).await, Error::AlreadyExists { .. });
    ensure_eq!(
        sandbox.inside()?.wait(&ProcessId::parse("twice")?).await?.exit.and_then(|exit| exit.code),
        Some(1)
    );
    ensure_err!(sandbox.inside()?.start(named("exit 2")?).await, Error::AlreadyExists { .. });
    Ok(())
}

async fn a_request_that_comes_again_starts_nothing(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let asked = |name: &str, body: u8| {
        Ok::<_, Error>(ProcessSpec {
            id: Some(ProcessId::parse(name)?),
            request: Some(StartRequest { key: [7; 32], body: [body; 32] }),
            ..script("echo once >> /tmp/starts; sleep 0.2; exit 3")
        })
    };
    let first = sandbox.inside()?.start(asked("asked", 1)?).await?;
    ensure_eq!(sandbox.inside()?.start(asked("asked", 1)?).await?.pid, first.pid, "the same process");
    let again = sandbox.inside()?.exec(asked("asked", 1)?, AttachOptions::everything()).await?;
    let again = Session::open(again, &AttachOptions::everything()).await?;
    ensure_eq!(again.finish().await?.code(), Some(3));
    ensure_eq!(sandbox.inside()?.start(asked("asked", 1)?).await?.pid, first.pid, "after its end too");
    for name in ["asked", "other"] {
        let reused = sandbox.inside()?.start(asked(name, 2)?).await;
        ensure_err!(reused, Error::AlreadyExists { kind: StartRequest::KIND, .. });
    }
    ensure_eq!(sandbox.sh("cat /tmp/starts").await?, "once\n");
    Ok(())
}

async fn a_session_and_a_group_of_its_own(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let report = sandbox.report().await?;
    ensure_eq!(report["session"], report["pid"], "the session id");
    ensure_eq!(sandbox.sh("tty || true").await?.trim(), "not a tty");
    Ok(())
}

async fn signals_are_at_their_defaults(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let report = sandbox.report().await?;
    let lines = report["signals"].as_array().cloned().unwrap_or_default();
    // The Rust runtime of the probe ignores SIGPIPE, which is bit 12.
    for line in lines.iter().filter_map(|line| line.as_str()) {
        let mask = line.rsplit('\t').next().unwrap_or_default();
        let mask = u64::from_str_radix(mask, 16).unwrap_or(u64::MAX) & !(1 << 12);
        ensure!(mask == 0, "signals are not at their defaults: {line}");
    }
    let finished = sandbox.finish(script("yes | head -n 1; echo done")).await?.success()?;
    ensure_eq!((finished.text().as_str(), finished.complaint().as_str()), ("y\ndone\n", ""));
    Ok(())
}
