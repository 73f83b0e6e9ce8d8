use super::super::OpenerSettings;
use super::super::scrub::{Patterns, Scrubber};
use super::host::{Feed, Handler, handler};
use super::world::{HOST, Options, PLACEHOLDER, TestGate, VALUE, World, empty, get, read, secret};
use crate::secret::{Bound, Form, SecretValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hostel_sandbox::secret::SecretForm;
use http::{HeaderMap, HeaderValue, Response};
use hyper::body::Frame;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

fn header() -> SecretForm {
    SecretForm::Header { name: "authorization".to_owned(), template: "Bearer {}".to_owned() }
}

/// A host that notes the headers it gets and tells all of them back, in its body and in a header.
fn echo() -> (Handler, Arc<Mutex<Vec<HeaderMap>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&seen);
    let handler = handler(move |request| {
        let headers = request.headers().clone();
        own.lock().unwrap().push(headers.clone());
        let text: String =
            headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
        let mut response = Response::new(Feed::text(text));
        if let Some(value) = headers.get("authorization") {
            response.headers_mut().insert("x-echo", value.clone());
        }
        async { response }
    });
    (handler, seen)
}

#[tokio::test]
async fn a_header_secret_is_set_and_its_echo_taken_out() {
    for two in [false, true] {
        let (handler, seen) = echo();
        let options = Options { secrets: secret(&[HOST], header()), ..Options::default() };
        let mut world = World::new(options, handler).await;
        let request = get("/v1").header("authorization", "Bearer mine").header("accept-encoding", "gzip, br");
        // Halves of an echo would pass.
        let request = request.header("range", "bytes=0-9").header("if-range", "\"tag\"");
        let (response, body) = world.ask(two, request.body(empty()).unwrap()).await;
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0]["authorization"], format!("Bearer {VALUE}"));
        assert_eq!(seen[0].get_all("authorization").iter().count(), 1);
        assert_eq!(seen[0]["accept-encoding"], "identity");
        assert!(!seen[0].contains_key("range") && !seen[0].contains_key("if-range"));
        assert_eq!(response.headers()["x-echo"], format!("Bearer {PLACEHOLDER}"));
        assert!(body.contains(PLACEHOLDER) && !body.contains(VALUE), "{body}");
        assert_eq!(world.used(), ["token"]);
    }
}

#[tokio::test]
async fn a_placeholder_is_replaced_in_any_header_and_in_basic_credentials() {
    let (handler, seen) = echo();
    let options = Options { secrets: secret(&[HOST], SecretForm::Placeholder), ..Options::default() };
    let mut world = World::new(options, handler).await;
    let basic = format!("Basic {}", STANDARD.encode(format!("git:{PLACEHOLDER}")));
    let request = get("/").header("x-api-key", PLACEHOLDER).header("authorization", &basic);
    let (response, body) = world.ask(false, request.body(empty()).unwrap()).await;
    let sent = format!("Basic {}", STANDARD.encode(format!("git:{VALUE}")));
    {
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0]["x-api-key"], VALUE);
        assert_eq!(seen[0]["authorization"], sent);
    }
    // The credentials come back as the sandbox wrote them.
    assert_eq!(response.headers()["x-echo"], basic);
    assert!(body.contains(&basic) && body.contains(PLACEHOLDER) && !body.contains(VALUE), "{body}");
    assert_eq!(world.used(), ["token"]);
    // A request without it uses no secret.
    world.ask(false, get("/").body(empty()).unwrap()).await;
    assert_eq!(world.used().len(), 1);
}

#[tokio::test]
async fn another_host_gets_the_placeholder_only() {
    for form in [SecretForm::Placeholder, header()] {
        let (handler, seen) = echo();
        let options = Options {
            secrets: secret(&["other.example.com", "*.api.example.com"], form),
            ..Options::default()
        };
        let mut world = World::new(options, handler).await;
        let sent = format!("Bearer {PLACEHOLDER}");
        let request = get("/").header("authorization", &sent).header("accept-encoding", "gzip");
        world.ask(false, request.body(empty()).unwrap()).await;
        assert_eq!(seen.lock().unwrap()[0]["authorization"], sent);
        assert_eq!(seen.lock().unwrap()[0]["accept-encoding"], "gzip");
        assert!(world.used().is_empty());
    }
}

#[tokio::test]
async fn without_tls_secrets_stay_out_unless_allowed() {
    for allowed in [false, true] {
        let (handler, seen) = echo();
        let settings = OpenerSettings { secrets_without_tls: allowed, ..OpenerSettings::default() };
        let secrets = secret(&[HOST], SecretForm::Placeholder);
        let world =
            World::new(Options { tls: false, settings, secrets, ..Options::default() }, handler).await;
        let request =
            format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nx-key: {PLACEHOLDER}\r\nconnection: close\r\n\r\n");
        let answer = world.raw(request.as_bytes()).await;
        assert!(answer.contains(PLACEHOLDER) && !answer.contains(VALUE), "{answer}");
        let wanted = if allowed { VALUE } else { PLACEHOLDER };
        assert_eq!(seen.lock().unwrap()[0]["x-key"], wanted);
    }
}

#[tokio::test]
async fn nothing_is_sent_when_the_use_cannot_be_noted() {
    let (handler, seen) = echo();
    let gate = TestGate { refuses_secrets: true, ..TestGate::default() };
    let options = Options { secrets: secret(&[HOST], header()), gate, ..Options::default() };
    let mut world = World::new(options, handler).await;
    let (response, body) = world.ask(false, get("/").body(empty()).unwrap()).await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["x-hostel-denied"], "audit_failed");
    assert!(body.contains("the log cannot be written"));
    assert!(seen.lock().unwrap().is_empty() && world.dials() == 0);
}

#[tokio::test]
async fn an_answer_that_is_compressed_anyway_is_refused() {
    for (name, value) in [("content-encoding", "gzip"), ("content-encoding", "identity, br")] {
        let answer = handler(move |_| async move {
            let mut response = Response::new(Feed::text("not really compressed"));
            response.headers_mut().insert(name, HeaderValue::from_static(value));
            response
        });
        let options = Options { secrets: secret(&[HOST], header()), ..Options::default() };
        let mut world = World::new(options, Arc::clone(&answer)).await;
        let (response, _) = world.ask(false, get("/").body(empty()).unwrap()).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-hostel-denied"]),
            (502, &HeaderValue::from_static("compressed_answer"))
        );
        // Where there is no secret it passes as it is.
        let mut world = World::new(Options::default(), answer).await;
        let (response, body) = world.ask(true, get("/").body(empty()).unwrap()).await;
        assert_eq!(response.headers()[name], value);
        assert_eq!(body, "not really compressed");
    }
}

/// The value as programs show it.
fn shown() -> Vec<String> {
    let percent = VALUE.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    vec![
        VALUE.to_owned(),
        percent.replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d"),
        percent,
        VALUE.replace('/', "\\/"),
        STANDARD.encode(VALUE),
        STANDARD.encode(format!("u:{VALUE}")),
        STANDARD.encode(format!("us:{VALUE}")),
        STANDARD.encode(format!("use:{VALUE}:more")),
        VALUE.replace('+', "\\u002B"),
        VALUE.replace('=', "\\u003d"),
        VALUE.replace('+', "&#43;"),
        VALUE.replace('=', "&#x3D;"),
        VALUE.replace('=', "&#x3D;").replace('/', "&#x2F;"),
    ]
}

/// Whether so much of the value can be read from this that it is known.
fn leaks(text: &str) -> bool {
    let own = &VALUE.as_bytes()[3..VALUE.len() - 3];
    let holds = |bytes: &[u8]| bytes.windows(own.len()).any(|part| part == own);
    let decoded = |from: usize| {
        let part: String =
            text[from..].chars().take_while(|c| c.is_ascii_alphanumeric() || "+/".contains(*c)).collect();
        (0..4).any(|cut| {
            STANDARD.decode(&part[..part.len().saturating_sub(cut)]).is_ok_and(|bytes| holds(&bytes))
        })
    };
    holds(text.as_bytes())
        || (0..text.len()).filter(|at| text.is_char_boundary(*at)).any(decoded)
        || shown()[1..4].iter().chain(&shown()[8..]).any(|form| text.contains(form))
}

fn patterns() -> Arc<Patterns> {
    let bound = Bound {
        name: "token".to_owned(),
        placeholder: PLACEHOLDER.to_owned(),
        form: Form::Placeholder,
        value: Some(SecretValue::new("token", VALUE.as_bytes()).unwrap()),
        previous: None,
    };
    Arc::new(Patterns::new(&[bound], Vec::new()))
}

fn cut(text: &str, cuts: &[prop::sample::Index]) -> Vec<Bytes> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| Bytes::copy_from_slice(&text.as_bytes()[pair[0]..pair[1]])).collect()
}

proptest! {
    /// However a text is cut, the result is that of the whole text, and shows nothing.
    #[test]
    fn cleaning_does_not_depend_on_chunks(
        parts in prop::collection::vec((".{0,12}", prop::sample::select(shown()), any::<bool>()), 1..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let text: String = parts
            .iter()
            .map(|(before, secret, whole)| {
                format!("{before} {}", if *whole { secret.as_str() } else { &secret[..secret.len() / 2] })
            })
            .collect();
        let patterns = patterns();
        let whole = patterns.clean(text.as_bytes()).unwrap_or_else(|| Bytes::from(text.clone()));
        let mut scrubber = Scrubber::new(patterns);
        let mut out = Vec::new();
        for chunk in cut(&text, &cuts) {
            out.extend_from_slice(&scrubber.push(chunk, false));
        }
        out.extend_from_slice(&scrubber.push(Bytes::new(), true));
        prop_assert_eq!(&out, &whole);
        prop_assert!(!leaks(&String::from_utf8_lossy(&out)), "{}", String::from_utf8_lossy(&out));
    }
}

/// The same over the wire, in both versions, each frame sent when the one before has been taken.
#[test]
fn echoes_are_taken_out_of_streams_however_they_are_cut() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(12));
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 1..20);
    runner
        .run(&(cuts, any::<bool>()), |(cuts, two)| {
            let text = format!("begin {} end", shown().join(" and "));
            let chunks = cut(&text, &cuts);
            let (response, body) = runtime.block_on(async {
                let handler = handler(move |_| {
                    let (sender, receiver) = mpsc::channel(1);
                    let chunks = chunks.clone();
                    async move {
                        let mut feed = tokio::task::JoinSet::new();
                        feed.spawn(async move {
                            for chunk in chunks {
                                sender.send(Frame::data(chunk)).await.unwrap();
                            }
                            let mut trailers = HeaderMap::new();
                            trailers.insert("x-trailer", HeaderValue::from_static(VALUE));
                            sender.send(Frame::trailers(trailers)).await.unwrap();
                        });
                        feed.detach_all();
                        Response::new(Feed(receiver))
                    }
                });
                let options = Options { secrets: secret(&[HOST], header()), ..Options::default() };
                let mut world = World::new(options, handler).await;
                world.ask(two, get("/").body(empty()).unwrap()).await
            });
            prop_assert_eq!(response.status(), 200);
            prop_assert!(!leaks(&body), "{}", body);
            prop_assert!(body.starts_with("begin hostel-secret-") && body.ends_with(" end"), "{}", body);
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn trailers_are_cleaned_and_passed() {
    let handler = handler(|_| async {
        let (sender, receiver) = mpsc::channel(2);
        // The end of the data looks like the beginning of the value.
        sender.send(Frame::data(Bytes::from_static(b"data s3cret"))).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-message", HeaderValue::from_static(VALUE));
        sender.send(Frame::trailers(trailers)).await.unwrap();
        Response::new(Feed(receiver))
    });
    let options = Options { secrets: secret(&[HOST], header()), ..Options::default() };
    let mut world = World::new(options, handler).await;
    let request = http::Request::builder().uri(format!("https://{HOST}/")).body(empty()).unwrap();
    let response = world.new_client().await.send_request(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-message"], PLACEHOLDER);
    assert_eq!(body.to_bytes(), "data s3cret");
}

#[tokio::test]
async fn head_keeps_its_length() {
    let handler = handler(|_| async {
        Response::builder().header("content-length", "1234").body(Feed::of([])).unwrap()
    });
    let options = Options { secrets: secret(&[HOST], header()), ..Options::default() };
    let mut world = World::new(options, handler).await;
    let mut client = world.old().await;
    let request = get("/").method("HEAD").body(empty()).unwrap();
    let (response, _) = read(client.send_request(request).await.unwrap()).await;
    assert_eq!(response.headers()["content-length"], "1234");
}
