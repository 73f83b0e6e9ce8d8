//! Wrong fields, one after the other: each is refused by name and nothing is made.

use crate::{Stage, blames, refused, wrong_ids};
use hostel_proto::v1::{self, create_sandbox_request::Expiration};
use tonic::Code;

type Create = v1::CreateSandboxRequest;

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn pairs(name: &str, value: &str) -> std::collections::BTreeMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

fn limited(change: impl FnOnce(&mut v1::ResourceLimits)) -> Create {
    let mut limits = v1::ResourceLimits::default();
    change(&mut limits);
    Create { limits: Some(limits), ..Default::default() }
}

/// Requests to create, each with the field that is wrong in it.
fn wrong_creations() -> Vec<(&'static str, Create)> {
    let policy = |mode: i32, rules| Some(v1::NetworkPolicy { mode, rules, presets: Vec::new() });
    let rule = vec![v1::NetworkRule::default()];
    let open = v1::NetworkMode::Open.into();
    vec![
        ("limits.memory_bytes", limited(|limits| limits.memory_bytes = Some(1))),
        ("limits.memory_bytes", limited(|limits| limits.memory_bytes = Some(u64::MAX))),
        ("limits.cpu_millis", limited(|limits| limits.cpu_millis = Some(1))),
        ("limits.cpu_millis", limited(|limits| limits.cpu_millis = Some(u32::MAX))),
        ("limits.pids", limited(|limits| limits.pids = Some(1))),
        ("limits.disk_bytes", limited(|limits| limits.disk_bytes = Some(1))),
        ("limits.disk_inodes", limited(|limits| limits.disk_inodes = Some(1))),
        ("limits.open_files", limited(|limits| limits.open_files = Some(3))),
        ("limits.output_bytes_per_second", limited(|limits| limits.output_bytes_per_second = Some(1))),
        ("env", Create { env: pairs("", "x"), ..Default::default() }),
        ("env", Create { env: pairs("A=B", "x"), ..Default::default() }),
        ("env", Create { env: pairs("A", "x\0y"), ..Default::default() }),
        ("env", Create { env: pairs("A", &"x".repeat(300 << 10)), ..Default::default() }),
        ("labels", Create { labels: pairs("a b", "x"), ..Default::default() }),
        ("labels.a", Create { labels: pairs("a", &"x".repeat(10_000)), ..Default::default() }),
        ("user", Create { user: "a\0b".into(), ..Default::default() }),
        ("working_directory", Create { working_directory: "relative".into(), ..Default::default() }),
        ("working_directory", Create { working_directory: "/a\0b".into(), ..Default::default() }),
        ("network_policy.rules[0].host", Create { network_policy: policy(open, rule), ..Default::default() }),
        ("network_policy.mode", Create { network_policy: policy(99, vec![]), ..Default::default() }),
        (
            "required_capabilities",
            Create { required_capabilities: vec!["magic".into()], ..Default::default() },
        ),
        ("lifetime", Create { expiration: Some(Expiration::Lifetime(seconds(-5))), ..Default::default() }),
        ("lifetime", Create { expiration: Some(Expiration::Lifetime(seconds(0))), ..Default::default() }),
        (
            "lifetime",
            Create { expiration: Some(Expiration::Lifetime(seconds(i64::MAX))), ..Default::default() },
        ),
        (
            "expire_time",
            Create {
                expiration: Some(Expiration::ExpireTime(prost_types::Timestamp { seconds: 1, nanos: 0 })),
                ..Default::default()
            },
        ),
        ("idle_timeout", Create { idle_timeout: Some(seconds(0)), ..Default::default() }),
        ("request_id", Create { request_id: "x".repeat(65), ..Default::default() }),
        ("request_id", Create { request_id: "a\nb".into(), ..Default::default() }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_of_a_sandbox_is_named() {
    let stage = Stage::set().await;
    for (field, request) in wrong_creations() {
        let what = format!("{request:?}");
        blames(field, &what, stage.api.sandboxes().create_sandbox(request).await);
    }
    let ids = wrong_ids().into_iter().filter(|id| !id.is_empty());
    for id in ids {
        let sandbox = Create { sandbox_id: id.clone(), ..Default::default() };
        blames("sandbox_id", &id, stage.api.sandboxes().create_sandbox(sandbox).await);
        let template = Create { template: id.clone(), ..Default::default() };
        blames("template", &id, stage.api.sandboxes().create_sandbox(template).await);
        let backend = Create { backend: id.clone(), ..Default::default() };
        blames("backend", &id, stage.api.sandboxes().create_sandbox(backend).await);
    }
    for absent in [
        Create { template: "nonesuch".into(), ..Default::default() },
        Create { backend: "nonesuch".into(), ..Default::default() },
        Create { pool: "nonesuch".into(), ..Default::default() },
    ] {
        assert_eq!(refused(stage.api.sandboxes().create_sandbox(absent).await).0, Code::NotFound);
    }
    assert_eq!(stage.daemon.hostel(&["sandbox", "list", "-q"]).success().lines().count(), 2);
    stage.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_cannot_be_are_refused_everywhere_and_absent_ones_are_not_found() {
    let stage = Stage::set().await;
    let (sandboxes, processes) = (stage.api.sandboxes(), stage.api.processes());
    for id in wrong_ids() {
        let of = || id.clone();
        let get = v1::GetSandboxRequest { sandbox_id: of() };
        blames("sandbox_id", &id, sandboxes.clone().get_sandbox(get).await);
        let delete = v1::DeleteSandboxRequest { sandbox_id: of(), allow_missing: true, ..Default::default() };
        blames("sandbox_id", &id, sandboxes.clone().delete_sandbox(delete).await);
        let pause = v1::PauseSandboxRequest { sandbox_id: of() };
        blames("sandbox_id", &id, sandboxes.clone().pause_sandbox(pause).await);
        let fork = v1::ForkSandboxRequest { sandbox_id: of(), ..Default::default() };
        blames("sandbox_id", &id, sandboxes.clone().fork_sandbox(fork).await);
        let snapshot = v1::SnapshotSandboxRequest { sandbox_id: of(), ..Default::default() };
        blames("sandbox_id", &id, sandboxes.clone().snapshot_sandbox(snapshot).await);
        let stats = v1::GetSandboxStatsRequest { sandbox_id: of() };
        blames("sandbox_id", &id, sandboxes.clone().get_sandbox_stats(stats).await);
        let process = v1::GetProcessRequest { sandbox_id: stage.victim.clone(), process_id: of() };
        blames("process_id", &id, processes.clone().get_process(process).await);
        let start = v1::StartProcessRequest { sandbox_id: of(), ..stage.process(&["true"]) };
        blames("sandbox_id", &id, processes.clone().start_process(start).await);
        let template = v1::GetTemplateRequest { name: of(), ..Default::default() };
        blames("template", &id, stage.api.templates().get_template(template).await);
    }
    let absent = || "sb-nobody".to_owned();
    let get = v1::GetSandboxRequest { sandbox_id: absent() };
    assert_eq!(refused(sandboxes.clone().get_sandbox(get).await), (Code::NotFound, "NOT_FOUND".to_owned()));
    let start = v1::StartProcessRequest { sandbox_id: absent(), ..stage.process(&["true"]) };
    assert_eq!(refused(processes.clone().start_process(start).await).0, Code::NotFound);
    let wait = v1::WaitProcessRequest {
        sandbox_id: stage.victim.clone(),
        process_id: "p-nobody".into(),
        ..Default::default()
    };
    assert_eq!(refused(processes.clone().wait_process(wait).await).0, Code::NotFound);
    stage.clear();
}

/// Programs to start, each with the field that is wrong in it.
fn wrong_programs() -> Vec<(&'static str, v1::ProcessSpec)> {
    let spec = |command: &[&str]| v1::ProcessSpec {
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        ..Default::default()
    };
    let terminal = |rows| Some(v1::TerminalSize { rows, columns: 80 });
    vec![
        ("spec.command", spec(&[])),
        ("spec.command", spec(&[""])),
        ("spec.command", spec(&["a\0b"])),
        ("spec.command", spec(&["true", &"x".repeat(2 << 20)])),
        ("spec.env", v1::ProcessSpec { env: pairs("A=B", "x"), ..spec(&["true"]) }),
        ("spec.working_directory", v1::ProcessSpec { working_directory: "x".into(), ..spec(&["true"]) }),
        ("spec.user", v1::ProcessSpec { user: "a b\0".into(), ..spec(&["true"]) }),
        ("spec.terminal.rows", v1::ProcessSpec { terminal: terminal(70_000), ..spec(&["true"]) }),
        ("spec.timeout", v1::ProcessSpec { timeout: Some(seconds(-1)), ..spec(&["true"]) }),
        ("spec.timeout", v1::ProcessSpec { timeout: Some(seconds(0)), ..spec(&["true"]) }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_of_a_process_is_named() {
    let stage = Stage::set().await;
    let processes = stage.api.processes();
    for (field, spec) in wrong_programs() {
        let what = format!("{spec:?}");
        let start = v1::StartProcessRequest { spec: Some(spec), ..stage.process(&[]) };
        blames(field, &what, processes.clone().start_process(start).await);
    }
    let none = v1::StartProcessRequest { spec: None, ..stage.process(&[]) };
    blames("spec", "no program", processes.clone().start_process(none).await);

    let started = processes.clone().start_process(stage.process(&["cat"])).await.unwrap().into_inner();
    let id = started.process.unwrap().id;
    for number in [0, -1, 65, i32::MIN] {
        let signal = v1::SignalProcessRequest {
            sandbox_id: stage.victim.clone(),
            process_id: id.clone(),
            signal: number,
        };
        blames("signal", &number.to_string(), processes.clone().signal_process(signal).await);
    }
    let output = v1::StreamOutputRequest {
        sandbox_id: stage.victim.clone(),
        process_id: id.clone(),
        stdout_offset: u64::MAX,
        ..Default::default()
    };
    let mut beyond = processes.clone().stream_output(output.clone()).await.unwrap().into_inner();
    blames("stdout_offset", "beyond the end", beyond.message().await);
    let both = v1::StreamOutputRequest { stdout_offset: 1, only_new_output: true, ..output };
    blames("options.only_new_output", "both", processes.clone().stream_output(both).await);
    let hole = v1::WriteStdinRequest {
        sandbox_id: stage.victim.clone(),
        process_id: id,
        stdin: Some(v1::StdinData { offset: 100, data: "x".into() }),
    };
    // It was started without stdin, or the bytes between are missing: both are the caller's fault.
    let (code, _) = refused(processes.clone().write_stdin(hole).await);
    assert!(matches!(code, Code::InvalidArgument | Code::FailedPrecondition), "{code:?}");
    stage.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cannot_be_negative_and_tokens_cannot_be_forged() {
    let stage = Stage::set().await;
    let first = v1::ListSandboxesRequest { page_size: 1, ..Default::default() };
    let page = stage.api.sandboxes().list_sandboxes(first.clone()).await.unwrap().into_inner();
    let token = page.next_page_token;
    assert!(!token.is_empty());
    let mut damaged = token.clone();
    let last = damaged.pop().unwrap();
    damaged.push(if last == '0' { '1' } else { '0' });
    let endless = "00".repeat(50_000);
    for forged in ["zz", "00", "\0", "ff".repeat(12).as_str(), damaged.as_str(), endless.as_str()] {
        let page_token = || forged.to_owned();
        let list = v1::ListSandboxesRequest { page_token: page_token(), ..Default::default() };
        blames("page_token", forged, stage.api.sandboxes().list_sandboxes(list).await);
        let list = v1::ListTemplatesRequest { page_token: page_token(), ..Default::default() };
        blames("page_token", forged, stage.api.templates().list_templates(list).await);
    }
    // The token of a listing is none of another's.
    let other = v1::ListSandboxesRequest { page_token: token.clone(), label_selector: "a=b".into(), ..first };
    blames("page_token", "another filter", stage.api.sandboxes().list_sandboxes(other).await);
    let files = |page_size, page_token| v1::ListFilesRequest {
        sandbox_id: stage.victim.clone(),
        path: "/".into(),
        page_size,
        page_token,
    };
    blames("page_token", "of sandboxes", stage.api.files().list_files(files(0, token.clone())).await);
    let processes = |page_size, page_token| v1::ListProcessesRequest {
        sandbox_id: stage.victim.clone(),
        page_size,
        page_token,
        states: vec![],
    };
    blames("page_token", "of sandboxes", stage.api.processes().list_processes(processes(0, token)).await);

    let size = i32::MIN;
    let list = v1::ListSandboxesRequest { page_size: size, ..Default::default() };
    blames("page_size", "negative", stage.api.sandboxes().list_sandboxes(list).await);
    let list = v1::ListTemplatesRequest { page_size: size, ..Default::default() };
    blames("page_size", "negative", stage.api.templates().list_templates(list).await);
    blames("page_size", "negative", stage.api.files().list_files(files(size, String::new())).await);
    blames(
        "page_size",
        "negative",
        stage.api.processes().list_processes(processes(size, String::new())).await,
    );
    stage.clear();
}
