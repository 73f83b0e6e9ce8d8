use super::convert;
use super::status::status;
use hostel_proto::v1;
use hostel_session::{Change, EndReason, Error, OnLimit, Pattern, Position, SessionStatus, Start, Verdict};
use tonic::Code;
use tonic_types::StatusExt as _;

fn field(status: &tonic::Status) -> String {
    status.get_details_bad_request().unwrap().field_violations[0].field.clone()
}

#[test]
fn what_is_asked_for_arrives() {
    let request = v1::CreateSessionRequest {
        request_id: "key".to_owned(),
        pattern: v1::SessionPattern::LongRunning.into(),
        config_json: r#"{"model":"m","mcpServers":{"a":{"n":12345678901234567890}}}"#.to_owned(),
        limits: Some(v1::SessionLimits {
            max_idle_time: Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 }),
            max_budget_micros: Some(7),
            on_limit: v1::SessionLimitAction::Pause.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let create = convert::create(request).unwrap();
    assert_eq!(
        (create.pattern, create.idempotency_key.as_deref()),
        (Some(Pattern::LongRunning), Some("key"))
    );
    assert_eq!((create.max_idle_time_ms, create.on_limit), (Some(2500), Some(OnLimit::Pause)));
    assert_eq!(create.max_budget_usd.unwrap().micros(), 7);
    assert_eq!(create.config.mcp_servers["a"].to_string(), r#"{"n":12345678901234567890}"#);
    assert_eq!(convert::reason(0).unwrap(), EndReason::UserRequested);
}

#[test]
fn what_is_wrong_is_named() {
    let create = |request| field(&convert::create(request).unwrap_err());
    let config = |text: &str| v1::CreateSessionRequest { config_json: text.to_owned(), ..Default::default() };
    assert_eq!(create(config(r#"{"modle":"m"}"#)), "config_json");
    assert_eq!(create(v1::CreateSessionRequest { pattern: 99, ..Default::default() }), "pattern");
    let id = v1::CreateSessionRequest { session_id: "../x".to_owned(), ..Default::default() };
    assert_eq!(create(id), "session_id");
    let on_limit = v1::SessionLimits { on_limit: v1::SessionLimitAction::Pause.into(), ..Default::default() };
    let update = |update| field(&convert::update(update).unwrap_err());
    let with = v1::UpdateSessionRequest { session_id: "s".to_owned(), ..Default::default() };
    assert_eq!(
        update(v1::UpdateSessionRequest { limits: Some(on_limit), ..with.clone() }),
        "limits.on_limit"
    );
    let mode = v1::UpdateSessionRequest { permission_mode: Some("sudo".to_owned()), ..with.clone() };
    assert_eq!(update(mode), "permission_mode");
    let clear = |what: &str| v1::UpdateSessionRequest { clear: vec![what.to_owned()], ..with.clone() };
    assert_eq!(update(clear("id")), "clear");
    let both = v1::UpdateSessionRequest { model: Some("m".to_owned()), ..clear("model") };
    assert_eq!(update(both), "clear", "set and cleared");
    assert_eq!(convert::update(clear("limits.max_turns")).unwrap().1.max_turns, Change::Clear);
    let answer = v1::AnswerQuestionRequest { session_id: "s".to_owned(), ..Default::default() };
    assert_eq!(field(&convert::answer(answer.clone()).unwrap_err()), "verdict");
    let answer = v1::AnswerQuestionRequest { verdict: v1::Verdict::Deny.into(), ..answer };
    assert_eq!(convert::answer(answer).unwrap().2.verdict, Verdict::Deny);
    let empty =
        v1::SendMessageRequest { content: vec![v1::MessageContent { part: None }], ..Default::default() };
    assert_eq!(field(&convert::send(empty).unwrap_err()), "content");
    let long = Some(prost_types::Duration { seconds: 601, nanos: 0 });
    assert_eq!(field(&convert::bounded("wait", long).unwrap_err()), "wait");
    let position =
        Position { created_at: "2026-01-02T03:04:05.678901Z".parse().unwrap(), id: "a-b".parse().unwrap() };
    let token = convert::page::token(&position);
    assert_eq!(convert::page::start(&token).unwrap(), Start::After(position));
    for not in ["x", "1", "1.", "x.a", "99999999999999999999.a", "1.a.b"] {
        assert_eq!(field(&convert::page::start(not).unwrap_err()), "page_token", "{not}");
    }
}

#[test]
fn failures_have_their_reasons() {
    let id = || "s".parse().unwrap();
    let cases = [
        (Error::NotFound { id: id() }, Code::NotFound, "NOT_FOUND"),
        (Error::NoSuch { kind: "message", name: "m".into() }, Code::NotFound, "NOT_FOUND"),
        (Error::Exists { id: id() }, Code::AlreadyExists, "ALREADY_EXISTS"),
        (Error::KeyReused { key: "k".into() }, Code::AlreadyExists, "request_id_reused"),
        (
            Error::NotActive { status: SessionStatus::Completed, message: None },
            Code::FailedPrecondition,
            "SESSION_NOT_ACTIVE",
        ),
        (Error::Busy { what: "messages".into(), retry_after_seconds: 3 }, Code::ResourceExhausted, "BUSY"),
        (Error::Stopping, Code::Unavailable, "STOPPING"),
        (
            Error::Daemon(hostel_client::Error::ConnectionLost { detail: "gone".into() }),
            Code::Unavailable,
            "DAEMON_UNREACHABLE",
        ),
        (Error::Store { action: "read", problem: "disk".into() }, Code::Internal, "INTERNAL"),
        (
            Error::Blob { action: "remove", key: "sessions/a".into(), problem: "disk".into() },
            Code::Unavailable,
            "BLOB_STORE",
        ),
    ];
    for (error, code, reason) in cases {
        let status = status(error);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str(), info.domain.as_str()), (code, reason, "hostel"));
    }
    let wait = status(Error::Busy { what: "messages".into(), retry_after_seconds: 3 });
    assert_eq!(wait.get_details_retry_info().unwrap().retry_delay, Some(std::time::Duration::from_secs(3)));
}
