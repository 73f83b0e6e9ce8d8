//! A request id means one request, also to the next daemon.

use crate::{Stage, refused};
use hostel_proto::v1;
use hostel_tests::Api;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_with_another_body_is_refused_also_after_kill() {
    let mut stage = Stage::set().await;
    let reused = (Code::AlreadyExists, "request_id_reused".to_owned());
    let create = |workdir: &str| v1::CreateSandboxRequest {
        request_id: "create-1".into(),
        working_directory: workdir.into(),
        ..Default::default()
    };
    let start = |stage: &Stage, program: &str| v1::StartProcessRequest {
        request_id: "start-1".into(),
        ..stage.process(&[program, "1000"])
    };
    let made =
        stage.api.sandboxes().create_sandbox(create("/a")).await.unwrap().into_inner().sandbox.unwrap();
    let started = stage.api.processes().start_process(start(&stage, "sleep")).await.unwrap().into_inner();
    for killed in [false, true] {
        if killed {
            stage.daemon.kill();
            stage.daemon.restart();
            stage.api = Api::connect(&stage.daemon).await;
        }
        let (mut sandboxes, mut processes) = (stage.api.sandboxes(), stage.api.processes());
        assert_eq!(refused(sandboxes.create_sandbox(create("/b")).await), reused);
        let again = sandboxes.create_sandbox(create("/a")).await.unwrap().into_inner();
        assert_eq!(again.sandbox.unwrap().id, made.id);
        assert_eq!(refused(processes.start_process(start(&stage, "cat")).await), reused);
        let again = processes.start_process(start(&stage, "sleep")).await.unwrap().into_inner();
        assert_eq!(again.process.unwrap().id, started.process.as_ref().unwrap().id);
    }
    assert_eq!(stage.daemon.hostel(&["sandbox", "list", "-q"]).success().lines().count(), 3);
    stage.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_nobody_could_find_again_ends_with_its_caller() {
    let stage = Stage::set().await;
    let build = |script: &str| {
        let command = ["sh", "-c", script].map(str::to_owned).into();
        let step = v1::ProcessSpec { command, ..Default::default() };
        v1::BuildTemplateRequest { name: "left".into(), steps: vec![step], ..Default::default() }
    };
    let started = |event: &v1::BuildTemplateResponse| {
        matches!(event.event, Some(v1::build_template_response::Event::StepStarted(_)))
    };
    let mut left = stage.api.templates().build_template(build("sleep 1000")).await.unwrap().into_inner();
    match left.message().await {
        Ok(first) => assert!(started(&first.unwrap())),
        Err(status) => {
            eprintln!("skipped: {}", status.message());
            assert_eq!(refused::<()>(Err(status)), (Code::Unimplemented, "CAPABILITY_MISSING".to_owned()));
            return stage.clear();
        }
    }
    drop(left);
    // Its name is taken for as long as it runs.
    loop {
        let mut again = stage.api.templates().build_template(build("true")).await.unwrap().into_inner();
        match again.message().await {
            Ok(first) => {
                assert!(started(&first.unwrap()));
                while again.message().await.unwrap().is_some() {}
                break;
            }
            Err(status) => assert_eq!(status.code(), Code::AlreadyExists, "{status:?}"),
        }
    }
    stage.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_says_what_it_is_of_and_is_made_once() {
    let stage = Stage::set().await;
    let snapshot = |name: &str| v1::SnapshotSandboxRequest {
        sandbox_id: stage.victim.clone(),
        request_id: "snapshot-1".into(),
        template: name.into(),
        ..Default::default()
    };
    let made = match stage.api.sandboxes().snapshot_sandbox(snapshot("shot")).await {
        Ok(made) => made.into_inner().template.unwrap(),
        Err(status) => {
            eprintln!("skipped: {}", status.message());
            assert_eq!(refused::<()>(Err(status)), (Code::Unimplemented, "CAPABILITY_MISSING".to_owned()));
            return stage.clear();
        }
    };
    assert_eq!(made.source_sandbox_id, stage.victim);
    let got = stage
        .api
        .templates()
        .get_template(v1::GetTemplateRequest { name: "shot".into(), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(got.into_inner().template.unwrap().source_sandbox_id, stage.victim);
    let again = stage.api.sandboxes().snapshot_sandbox(snapshot("shot")).await.unwrap().into_inner();
    assert_eq!(again.template.unwrap().name, "shot");
    let other = refused(stage.api.sandboxes().snapshot_sandbox(snapshot("other")).await);
    assert_eq!(other, (Code::AlreadyExists, "request_id_reused".to_owned()));
    stage.clear();
}
