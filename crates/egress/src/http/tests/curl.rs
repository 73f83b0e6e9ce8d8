//! curl as a client from outside, where it is installed.

use super::host::{Feed, handler};
use super::world::{HOST, Options, PLACEHOLDER, VALUE, World, secret};
use hostel_sandbox::secret::SecretForm;
use http::Response;

#[tokio::test]
async fn curl_trusts_the_authority_and_gets_no_value() {
    let handler = handler(|request| async move {
        let key = request.headers().get("x-api-key").map(|value| value.to_str().unwrap().to_owned());
        Response::new(Feed::text(format!("{:?} {}", request.version(), key.unwrap_or_default())))
    });
    let secrets = secret(&[HOST], SecretForm::Placeholder);
    let world = World::new(Options { secrets, ..Options::default() }, handler).await;
    for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let run = tokio::process::Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", flag, "--max-time", "20"])
            .args(["--connect-to", &format!("{HOST}:443:127.0.0.1:{}", world.front.port())])
            .args(["--header", &format!("x-api-key: {PLACEHOLDER}"), "--cacert"])
            .arg(world.ca_file())
            .arg(format!("https://{HOST}/"))
            .kill_on_drop(true)
            .output()
            .await;
        let Ok(run) = run else { return };
        let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert_eq!(out, format!("{version} {PLACEHOLDER}"), "{err}");
        assert!(!out.contains(VALUE));
    }
    assert_eq!(world.used(), ["token", "token"]);
}
