use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[test]
fn addresses_are_understood_or_refused_with_words() {
    let read = |host: &str| Address::read(host, None);
    assert_eq!(read("unix:///run/docker.sock").unwrap(), Address::Unix("/run/docker.sock".to_owned()));
    assert_eq!(read("/run/docker.sock").unwrap(), Address::Unix("/run/docker.sock".to_owned()));
    assert_eq!(read("tcp://127.0.0.1:99").unwrap(), Address::Tcp("127.0.0.1:99".to_owned()));
    assert_eq!(read("tcp://[::1]/").unwrap(), Address::Tcp("[::1]:2375".to_owned()));
    let tls = Address::read("tcp://engine.example.com", Some("/c".into())).unwrap();
    assert_eq!(tls, Address::Tls("engine.example.com:2376".to_owned(), "/c".into()));
    for (wrong, told) in
        [("ssh://elsewhere", "tcp://HOST:PORT"), ("tcp://", "HOST"), ("https://a", "DOCKER_TLS_VERIFY")]
    {
        let error = read(wrong).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unavailable_and_named() {
    let engine = Engine::new("unix:///nowhere/docker.sock", None).unwrap();
    let error = engine.client().await.err().unwrap();
    assert!(matches!(&error, Error::Unavailable { what: "engine", .. }), "{error:?}");
    assert!(error.to_string().contains("/nowhere/docker.sock"), "{error}");
    assert!(engine.known().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_waited_for_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("docker.sock");
    let _silent = tokio::net::UnixListener::bind(&path).unwrap();
    let engine = Engine::new(&format!("unix://{}", path.display()), None).unwrap();
    for (pause, waited) in [(0, 10), (0, 0), (4, 0), (1, 10)] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let before = Instant::now();
        assert!(matches!(engine.client().await, Err(Error::Unavailable { what: "engine", .. })));
        assert_eq!(before.elapsed().as_secs(), waited);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_hanging_engine_as_long_as_he_can_warns_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("docker.sock");
    let _silent = tokio::net::UnixListener::bind(&path).unwrap();
    for (patience, warned) in [(1, false), (5, true)] {
        let engine = Engine::new(&format!("unix://{}", path.display()), None).unwrap();
        for asked_again in [false, true] {
            let before = Instant::now();
            let asked = tokio::time::timeout(Duration::from_secs(patience), engine.client()).await;
            assert_eq!(asked.is_ok(), asked_again && warned, "{patience}");
            assert_eq!(before.elapsed().is_zero(), asked_again && warned, "{patience}");
        }
    }
}

/// Answers one connection after the other as an engine with so many processors.
async fn pretend(listener: tokio::net::UnixListener, processors: Arc<AtomicU64>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = vec![0; 4096];
        if let Ok(count @ 1..) = stream.read(&mut request).await {
            let body = if String::from_utf8_lossy(&request[..count]).contains("/info") {
                format!(r#"{{"NCPU":{},"CpuCfsQuota":true}}"#, processors.load(Ordering::Acquire))
            } else {
                r#"{"ApiVersion":"1.43"}"#.to_owned()
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close", body.len());
            let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
        }
    }
}

#[tokio::test]
async fn an_engine_that_comes_back_is_asked_again_what_it_is() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("engine.sock");
    let processors = Arc::new(AtomicU64::new(2));
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let pretending = pretend(listener, Arc::clone(&processors));
    let engine = Engine::new(&format!("unix://{}", socket.display()), None).unwrap();
    let asking = async {
        let first = engine.facts().await.unwrap();
        assert_eq!(first.cpu_millis, Some(2000));
        processors.store(3, Ordering::Release);
        assert!(Arc::ptr_eq(&engine.facts().await.unwrap(), &first), "it was asked twice");
        engine.forget();
        assert!(Arc::ptr_eq(&engine.known().unwrap(), &first), "what is known last holds while it is away");
        assert_eq!(engine.facts().await.unwrap().cpu_millis, Some(3000));
        let second = engine.known().unwrap();
        engine.forget();
        assert!(Arc::ptr_eq(&engine.facts().await.unwrap(), &second), "it is the same");
    };
    tokio::select! {
        () = pretending => panic!("nobody pretends"),
        () = asking => {}
    }
}

#[test]
fn only_a_clear_answer_says_where_an_engine_is() {
    let said =
        |status, message: &str| Fault::Answer { status, message: message.to_owned() }.tells_of_a_far_mark();
    let unseen = "invalid mount config for type \"bind\": bind source path does not exist: /state/mark";
    assert!(said(400, unseen).unwrap());
    assert!(!said(404, "No such image: hostel.invalid/there-is-none:none").unwrap());
    for (status, odd) in [(500, "no space left on device"), (503, "starting"), (403, "denied by a plugin")] {
        assert!(said(status, odd).unwrap_err().to_string().contains(odd));
    }
    assert!(matches!(Fault::Late(QUESTION).tells_of_a_far_mark(), Err(Error::Unavailable { .. })));
}

#[test]
fn what_is_no_answer_of_an_engine_is_no_failure_of_the_call() {
    let answer = |status| Fault::Answer { status, message: "words\n".to_owned() };
    assert!(matches!(answer(500).during("start"), Error::Internal { .. }));
    let unavailable = |error: Error, status: &str| {
        assert!(matches!(error, Error::Unavailable { what: "engine", .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("ask: {status}, words")), "{error}");
    };
    unavailable(answer(503).during("ask"), "503");
    unavailable(answer(500).while_asking("ask"), "500");
    unavailable(answer(403).while_asking("ask"), "403");
}

#[test]
fn a_full_disk_is_a_limit() {
    let message = "mkdir /x: no space left on device".to_owned();
    let error = Fault::Answer { status: 500, message }.during("make a container");
    assert!(matches!(error, Error::LimitReached { what: "disk", .. }));
}
