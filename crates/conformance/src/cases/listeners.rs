//! Sockets inside that the daemon accepts on.

use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox, command, script};
use crate::session::{Session, patiently};
use hostel_sandbox::listener::MAX_LISTENERS;
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{Error, ListenAddress};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

cases! { "listeners":
    a_unix_socket_takes_connections_of_every_user,
    its_mode_keeps_others_out,
    a_port_takes_connections,
    asked_again_it_is_the_same_one,
    connections_wait_for_the_next_daemon [Reattach],
    a_socket_left_behind_is_replaced_and_nothing_else,
    paths_do_not_leave_the_sandbox,
    there_are_not_too_many,
    what_is_no_address_is_refused,
}

type H = Arc<Harness>;

fn unix(path: &str) -> ListenAddress {
    ListenAddress::Unix { path: path.to_owned(), mode: 0o666 }
}

async fn listen(sandbox: &Sandbox, address: &ListenAddress) -> Outcome<OwnedFd> {
    Ok(patiently("listening", sandbox.inside()?.listen(address)).await??)
}

async fn listen_unix(sandbox: &Sandbox, path: &str) -> Outcome<UnixListener> {
    let socket = std::os::unix::net::UnixListener::from(listen(sandbox, &unix(path)).await?);
    Ok(UnixListener::from_std(socket)?)
}

async fn listen_tcp(sandbox: &Sandbox, port: u16) -> Outcome<TcpListener> {
    let socket = std::net::TcpListener::from(listen(sandbox, &ListenAddress::Tcp { port }).await?);
    Ok(TcpListener::from_std(socket)?)
}

/// A program inside that connects, says `hello`, and prints the answer.
async fn connect(sandbox: &Sandbox, to: &str, user: Option<&str>) -> Outcome<Session> {
    let probe = sandbox.probe().await?;
    let user = user.map(str::to_owned);
    sandbox.open(ProcessSpec { user, ..command(&[probe, "connect", to, "hello"]) }).await
}

/// Reads what a program said and answers.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Outcome {
    let mut said = String::new();
    patiently("a word from inside", stream.read_to_string(&mut said)).await??;
    ensure_eq!(said, "hello");
    stream.write_all(b"hello yourself").await?;
    Ok(())
}

async fn answered(session: Session) -> Outcome {
    ensure_eq!(session.finish().await?.success()?.text(), "hello yourself");
    Ok(())
}

async fn a_unix_socket_takes_connections_of_every_user(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let path = "/run/hostel-test/deep/model.sock";
    let listener = listen_unix(&sandbox, path).await?;
    for user in [None, Some("0")] {
        let session = connect(&sandbox, path, user).await?;
        answer(patiently("a connection", listener.accept()).await??.0).await?;
        answered(session).await?;
    }
    ensure_eq!(sandbox.sh(&format!("stat -c %a {path}")).await?.trim(), "666");
    Ok(())
}

async fn its_mode_keeps_others_out(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let address = ListenAddress::Unix { path: "/run/hostel-test/mine.sock".to_owned(), mode: 0o600 };
    listen(&sandbox, &address).await?;
    ensure_eq!(sandbox.sh("stat -c %a /run/hostel-test/mine.sock").await?.trim(), "600");
    let (user, owner) =
        (sandbox.sh("id -u").await?, sandbox.sh("stat -c %u /run/hostel-test/mine.sock").await?);
    // Nor can anybody but the guest, or root, put another in its place.
    if user != owner {
        let finished =
            sandbox.finish(script("rm -f /run/hostel-test/mine.sock; touch /run/hostel-test/x")).await?;
        ensure!(finished.code() != Some(0), "anybody can write where the socket is");
        ensure!(sandbox.exists("/run/hostel-test/mine.sock").await?, "anybody can remove the socket");
    }
    Ok(())
}

async fn a_port_takes_connections(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let listener = listen_tcp(&sandbox, 4567).await?;
    let session = connect(&sandbox, "127.0.0.1:4567", None).await?;
    let (stream, _) = patiently("a connection", listener.accept()).await??;
    ensure_eq!(stream.local_addr()?.to_string(), "127.0.0.1:4567");
    answer(stream).await?;
    answered(session).await?;
    // It is the sandbox's own loopback, not the host's.
    ensure!(
        !h.factory().is_local() || std::net::TcpStream::connect("127.0.0.1:4567").is_err(),
        "the host has the port"
    );
    let other = h.sandbox().await?;
    listen_tcp(&other, 4567).await?;
    Ok(())
}

async fn asked_again_it_is_the_same_one(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    for (first, second, to) in [
        (unix("/run/x.sock"), unix("/run/x.sock"), "/run/x.sock"),
        (ListenAddress::Tcp { port: 80 }, ListenAddress::Tcp { port: 80 }, "127.0.0.1:80"),
    ] {
        // A container's root may not have ports below 1024; then it says so, twice the same.
        let Ok(first) = listen(&sandbox, &first).await else { continue };
        let session = connect(&sandbox, to, None).await?;
        drop(first);
        let again = listen(&sandbox, &second).await?;
        if to.starts_with('/') {
            let listener = UnixListener::from_std(again.into())?;
            answer(patiently("a connection", listener.accept()).await??.0).await?;
        } else {
            let listener = TcpListener::from_std(again.into())?;
            answer(patiently("a connection", listener.accept()).await??.0).await?;
        }
        answered(session).await?;
    }
    Ok(())
}

async fn connections_wait_for_the_next_daemon(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    let (path, port) = ("/run/hostel-test/wait.sock", 5678);
    drop((listen_unix(&sandbox, path).await?, listen_tcp(&sandbox, port).await?));
    let probe = sandbox.probe().await?;
    let text = format!(
        "until [ -e /tmp/away ]; do sleep 0.01; done; {probe} connect {path} hello & {probe} connect 127.0.0.1:{port} hello & wait"
    );
    let process = sandbox.inside()?.start(script(&text)).await?;
    sandbox.sh("touch /tmp/away").await?;
    h.restart().await?;
    let sandbox = h.adopt(&sandbox).await?;
    let (unix, tcp) = (listen_unix(&sandbox, path).await?, listen_tcp(&sandbox, port).await?);
    answer(patiently("a connection that waited", unix.accept()).await??.0).await?;
    answer(patiently("a connection that waited", tcp.accept()).await??.0).await?;
    let options = hostel_sandbox::process::AttachOptions {
        stdin: false,
        ..hostel_sandbox::process::AttachOptions::everything()
    };
    let finished = sandbox.attach_with(&process.id, options).await?.finish().await?.success()?;
    ensure_eq!(finished.text(), "hello yourselfhello yourself");
    Ok(())
}

async fn a_socket_left_behind_is_replaced_and_nothing_else(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let path = "/tmp/box/x.sock";
    sandbox.sh("mkdir /tmp/box").await?;
    listen(&sandbox, &unix(path)).await?;
    // Under another name it is a socket that nobody will listen on.
    sandbox.sh("mv /tmp/box/x.sock /tmp/box/old.sock").await?;
    for address in [path, "/tmp/box/old.sock"] {
        let listener = listen_unix(&sandbox, address).await?;
        let session = connect(&sandbox, address, None).await?;
        answer(patiently("a connection", listener.accept()).await??.0).await?;
        answered(session).await?;
    }
    let make =
        "cd /tmp/box && echo keep > file && mkdir directory && ln -s x.sock link && ln -s nowhere dangling";
    sandbox.sh(make).await?;
    for name in ["file", "directory", "link", "dangling"] {
        let address = unix(&format!("/tmp/box/{name}"));
        ensure_err!(sandbox.inside()?.listen(&address).await, Error::AlreadyExists { .. });
    }
    ensure_eq!(sandbox.sh("cat /tmp/box/file; ls /tmp/box | wc -l").await?, "keep\n6\n");
    Ok(())
}

async fn paths_do_not_leave_the_sandbox(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let name = format!("hostel-evil-{}", uuid::Uuid::new_v4().simple());
    sandbox.sh("cd /tmp && ln -s / top && ln -s ../../../../.. up && ln -s /proc/1/root magic && ln -s loop loop").await?;
    for path in [
        format!("/tmp/top/tmp/{name}"),
        format!("/tmp/up/tmp/{name}"),
        format!("/tmp/../../../../tmp/{name}"),
        format!("/tmp/magic/tmp/{name}"),
        format!("/proc/self/root/tmp/{name}"),
        format!("/proc/{name}"),
        format!("/tmp/loop/{name}"),
    ] {
        let made = patiently(&path, sandbox.inside()?.listen(&unix(&path))).await?;
        let here = sandbox.exists(&format!("/tmp/{name}")).await?;
        ensure_eq!(made.is_ok(), here, "{path}");
        ensure!(made.is_err() || !path.contains("proc") && !path.contains("magic"), "made through {path}");
        let on_host = std::path::Path::new("/tmp").join(&name);
        ensure!(!h.factory().is_local() || !on_host.exists(), "{} is on the host", on_host.display());
        if here {
            sandbox.inside()?.remove(&format!("/tmp/{name}"), false).await?;
        }
    }
    ensure_eq!(sandbox.sh("pwd; echo fine").await?.lines().last(), Some("fine"));
    Ok(())
}

async fn there_are_not_too_many(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let path = |number: usize| unix(&format!("/tmp/many/{number}"));
    for number in 0..MAX_LISTENERS {
        listen(&sandbox, &path(number)).await?;
    }
    let tcp = ListenAddress::Tcp { port: 4000 };
    for address in [path(MAX_LISTENERS), tcp] {
        ensure_err!(sandbox.inside()?.listen(&address).await, Error::LimitReached { what: "listeners", .. });
    }
    listen(&sandbox, &path(0)).await?;
    ensure!(!sandbox.exists(&format!("/tmp/many/{MAX_LISTENERS}")).await?, "one too many was made");
    Ok(())
}

async fn what_is_no_address_is_refused(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let long = format!("/tmp/{}", "x".repeat(108));
    for address in [
        ListenAddress::Tcp { port: 0 },
        unix("relative"),
        unix("/"),
        unix("/tmp/.."),
        unix(&long),
        ListenAddress::Unix { path: "/tmp/suid".to_owned(), mode: 0o4777 },
    ] {
        ensure_err!(sandbox.inside()?.listen(&address).await, Error::InvalidArgument { .. });
    }
    Ok(())
}
