use super::*;
use crate::model::{MessageContent, SessionDelivery, SessionStatus};
use tonic::Code;

fn wire() -> v1::Session {
    v1::Session {
        id: "s-1".to_owned(),
        pattern: v1::SessionPattern::LongRunning.into(),
        status: v1::SessionStatus::Terminated.into(),
        reason: v1::SessionEndReason::BudgetExceeded.into(),
        environment: Some(v1::SessionEnvironment {
            status: v1::SessionEnvironmentStatus::Inactive.into(),
            ..Default::default()
        }),
        config_json: r#"{"model":"m"}"#.to_owned(),
        limits: Some(v1::SessionLimits {
            max_idle_time: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            max_budget_micros: Some(7),
            on_limit: v1::SessionLimitAction::Pause.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn a_session_is_read_and_written_in_the_spelling_of_the_api() {
    let session = session(wire()).unwrap();
    assert!(session.is_over() && session.status == SessionStatus::Terminated);
    assert_eq!((session.configured("model"), session.reason_message.as_deref()), (Some("m"), None));
    assert_eq!(session_limits_to_wire(&session.limits), wire().limits.unwrap());
    let json = serde_json::to_value(&session).unwrap();
    assert_eq!((&json["pattern"], &json["reason"]), (&"long-running".into(), &"budget_exceeded".into()));
    assert_eq!(
        (&json["limits"]["max_idle_seconds"], &json["limits"]["on_limit"]),
        (&1.5.into(), &"pause".into())
    );
}

#[test]
fn what_a_newer_server_says_is_an_error_and_not_a_guess() {
    let newer = v1::Session { status: 99, ..wire() };
    assert!(session(newer).unwrap_err().to_string().contains("update the client"));
    assert!(matches!(session(v1::Session { status: 0, ..wire() }), Err(Error::Protocol(_))));
    assert!(session_delivery(v1::WatchEventsResponse { delivery: None }).unwrap().is_none());
}

#[test]
fn what_an_agent_wrote_arrives_byte_by_byte() {
    let data = r#"{ "big": 12345678901234567890123, "twice": 1, "twice": 2 }"#;
    let event = v1::SessionEvent { seq: 3, data_json: data.to_owned(), ..Default::default() };
    let delivery = v1::watch_events_response::Delivery::Event(event);
    let delivered = session_delivery(v1::WatchEventsResponse { delivery: Some(delivery) }).unwrap();
    let Some(SessionDelivery::Event(event)) = delivered else { panic!("no event") };
    assert_eq!((event.seq, event.data.get()), (3, data));
    let broken = v1::SessionEvent { data_json: "{".to_owned(), ..Default::default() };
    assert!(matches!(session_event(broken), Err(Error::Protocol(_))));
}

#[test]
fn pictures_go_as_bytes_and_are_counted_in_json() {
    let picture = MessageContent::Image { media_type: "image/png".to_owned(), data: vec![0, 1, 255].into() };
    assert_eq!(content(content_to_wire(picture.clone())), Some(picture.clone()));
    assert_eq!(serde_json::to_value(&picture).unwrap()["size_bytes"], 3);
}

#[test]
fn a_server_that_goes_away_is_a_broken_connection() {
    let lost = session_error(Status::new(Code::Unavailable, "tcp connect error"));
    assert!(matches!(lost, Error::SessionServerLost { .. }) && lost.is_connection());
    assert!(!lost.to_string().contains("hosteld"), "{lost}");
    let refused = session_error(Status::new(Code::Unauthenticated, "who are you"));
    assert!(!refused.is_connection() && refused.reason() == "UNAUTHENTICATED");
}
