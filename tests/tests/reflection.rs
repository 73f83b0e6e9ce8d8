//! Tools that know nothing of us find their way: health and reflection.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{Api, TestDaemon};
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const SERVICES: [&str; 6] = ["Sandbox", "Process", "File", "Template", "Pool", "Node"];

fn name(service: &str) -> String {
    format!("hostel.v1.{service}Service")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_is_healthy_until_the_daemon_stops() {
    let mut daemon = TestDaemon::start();
    let mut health = HealthClient::new(Api::connect(&daemon).await.channel);
    let whole = std::iter::once(String::new());
    for service in SERVICES.map(name).into_iter().chain(whole) {
        let answer =
            health.check(HealthCheckRequest { service: service.clone() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = health.check(HealthCheckRequest { service: "nonesuch".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let request = HealthCheckRequest { service: name("Sandbox") };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    tokio::task::block_in_place(|| daemon.finish());
    // Whoever watches is told, and does not keep the daemon from ending.
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(!daemon.log().contains("did not end in time"), "{}", daemon.log());
}

/// Asks one question of the reflection service.
async fn ask(api: &Api, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(api.channel.clone());
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_can_be_looked_up() {
    let mut daemon = TestDaemon::start();
    let api = Api::connect(&daemon).await;
    let MessageResponse::ListServicesResponse(list) =
        ask(&api, MessageRequest::ListServices("*".into())).await
    else {
        panic!("no list")
    };
    let listed: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(!listed.contains(&name("Session")), "that is the session server's: {listed:?}");
    for service in SERVICES.map(name) {
        assert!(listed.contains(&service), "{service} is not among {listed:?}");
        let question = MessageRequest::FileContainingSymbol(service.clone());
        let MessageResponse::FileDescriptorResponse(found) = ask(&api, question).await else {
            panic!("{service} is not described")
        };
        let file = FileDescriptorProto::decode(&*found.file_descriptor_proto[0]).unwrap();
        assert_eq!(file.package(), "hostel.v1");
        assert!(file.service.iter().any(|described| service.ends_with(described.name())), "{service}");
    }
    daemon.finish();
}

/// What many tools of today still ask by.
#[tokio::test(flavor = "multi_thread")]
async fn services_can_be_looked_up_by_the_older_protocol() {
    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;

    let mut daemon = TestDaemon::start();
    let mut client = ServerReflectionClient::new(Api::connect(&daemon).await.channel);
    let request = tonic_reflection::pb::v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(name("Sandbox"))),
    };
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::FileDescriptorResponse(found) = answer else { panic!("not described") };
    let file = FileDescriptorProto::decode(&*found.file_descriptor_proto[0]).unwrap();
    assert_eq!(file.package(), "hostel.v1");
    daemon.finish();
}
