//! The network of a sandbox: its own loopback, and a namespace that the daemon can enter.
//!
//! A backend makes only loopback, whatever the policy. What a policy allows comes about by the daemon's own sockets in
//! the namespace, which is not a backend's business.

use crate::case::cases;
use crate::failure::{Failure, Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox, command};
use crate::session::patiently;
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::{Capability, Error, HostPattern, NetworkPolicy, NetworkRule, RuleAction};
use nix::sched::{CloneFlags, setns};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

cases! { "network":
    it_has_no_network_but_loopback [NetworkNone],
    its_loopback_is_its_own [NetworkNone],
    an_allow_list_gives_nothing_but_loopback [NetworkAllowlist],
    an_open_policy_gives_nothing_but_loopback [NetworkOpen],
    its_namespace_can_be_entered [NetworkAllowlist],
    its_namespace_can_be_entered_by_the_next_daemon [NetworkAllowlist, Reattach],
    each_namespace_is_its_own [NetworkAllowlist],
    nobody_inside_can_change_the_network [NetworkNone],
    a_namespace_that_cannot_be_entered_is_a_missing_capability,
}

type H = Arc<Harness>;

async fn it_has_no_network_but_loopback(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let probes =
        ["abuse", "interfaces", "internet", "metadata-service", "docker-gateway", "ipv6", "udp-exfiltration"];
    let finished = sandbox.run_probe(&probes).await?;
    ensure!(finished.code() == Some(0), "{}", finished.text());
    Ok(())
}

/// Whether the host's own listener can be reached, and is not.
async fn does_not_reach_the_host(sandbox: &Sandbox) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let probe = sandbox.probe().await?;
    let spec = ProcessSpec {
        env: [("HOSTEL_PROBE_TCP".to_owned(), listener.local_addr()?.to_string())].into(),
        ..crate::harness::command(&[probe, "abuse", "host-listener"])
    };
    let finished = sandbox.finish(spec).await?;
    ensure!(finished.text().contains("refused"), "{}", finished.text());
    ensure!(listener.accept().is_err(), "somebody connected to the host");
    Ok(())
}

async fn its_loopback_is_its_own(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    does_not_reach_the_host(&sandbox).await?;
    let report = sandbox.report().await?;
    ensure!(report["interfaces"].to_string().contains("lo:"), "there is no lo: {}", report["interfaces"]);
    Ok(())
}

async fn has_only_loopback(sandbox: &Sandbox) -> Outcome {
    let finished =
        sandbox.run_probe(&["abuse", "interfaces", "internet", "metadata-service", "ipv6"]).await?;
    ensure!(finished.code() == Some(0), "{}", finished.text());
    does_not_reach_the_host(sandbox).await
}

async fn an_allow_list_gives_nothing_but_loopback(h: H) -> Outcome {
    let rule = NetworkRule {
        action: RuleAction::Allow,
        host: HostPattern::Name("example.com".to_owned()),
        ports: Vec::new(),
        methods: Vec::new(),
        path_prefix: None,
        open_tls: false,
    };
    let sandbox = h.sandbox_with(|spec| spec.network = NetworkPolicy::allowlist(vec![rule])).await?;
    has_only_loopback(&sandbox).await
}

async fn an_open_policy_gives_nothing_but_loopback(h: H) -> Outcome {
    has_only_loopback(&h.sandbox_with(|spec| spec.network = NetworkPolicy::open()).await?).await
}

async fn namespace_of(sandbox: &Sandbox) -> Outcome<OwnedFd> {
    Ok(patiently("finding a network namespace", sandbox.network_namespace()).await??)
}

/// Which namespace it is, as `/proc/self/ns/net` names it.
fn name_of(namespace: &OwnedFd) -> Outcome<String> {
    let file = std::fs::File::from(namespace.try_clone()?);
    Ok(format!("net:[{}]", file.metadata()?.ino()))
}

/// Listens in the namespace, and has a program inside connect.
async fn meets_inside(sandbox: &Sandbox) -> Outcome {
    let namespace = namespace_of(sandbox).await?;
    let inside = sandbox.sh("readlink /proc/self/ns/net").await?;
    ensure_eq!(name_of(&namespace)?, inside.trim());
    let host = std::fs::read_link("/proc/self/ns/net")?.display().to_string();
    ensure!(inside.trim() != host, "it is in the network namespace of the host");
    // On a thread that ends there: threads of the runtime stay where they are.
    let entered = std::thread::spawn(move || -> std::io::Result<TcpListener> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        TcpListener::bind("127.0.0.1:7000")
    });
    let listener = entered.join().map_err(|_| Failure::new("the thread broke"))??;
    let accepted = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
        let (mut stream, _) = listener.accept()?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        stream.write_all(b"met")?;
        Ok(said)
    });
    let finished = sandbox.run_probe(&["connect", "127.0.0.1:7000", "hello"]).await?.success()?;
    ensure_eq!(finished.text(), "met");
    ensure_eq!(accepted.await??, "hello");
    Ok(())
}

async fn its_namespace_can_be_entered(h: H) -> Outcome {
    let sandbox = h.sandbox_with(|spec| spec.network = NetworkPolicy::open()).await?;
    meets_inside(&sandbox).await?;
    sandbox.destroy().await?;
    ensure_err!(sandbox.network_namespace().await, Error::Unavailable { .. });
    Ok(())
}

async fn its_namespace_can_be_entered_by_the_next_daemon(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    let before = name_of(&namespace_of(&sandbox).await?)?;
    h.restart().await?;
    let sandbox = h.adopt(&sandbox).await?;
    ensure_eq!(name_of(&namespace_of(&sandbox).await?)?, before);
    meets_inside(&sandbox).await
}

async fn each_namespace_is_its_own(h: H) -> Outcome {
    let (one, other) = futures::future::try_join(h.sandbox(), h.sandbox()).await?;
    let (first, second) = (name_of(&namespace_of(&one).await?)?, name_of(&namespace_of(&other).await?)?);
    ensure!(first != second, "two sandboxes share {first}");
    Ok(())
}

async fn nobody_inside_can_change_the_network(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    for user in [None, Some("0")] {
        let probe = sandbox.probe().await?;
        let names = [
            "configure-interface",
            "socket-odd-netlink",
            "socket-raw-ipv4",
            "add-route",
            "transparent-socket",
        ];
        let words: Vec<&str> = [probe, "abuse"].into_iter().chain(names).collect();
        let spec = ProcessSpec { user: user.map(str::to_owned), ..command(&words) };
        let finished = sandbox.finish(spec).await?;
        ensure!(finished.code() == Some(0), "{}", finished.text());
    }
    Ok(())
}

async fn a_namespace_that_cannot_be_entered_is_a_missing_capability(h: H) -> Outcome {
    if h.has(Capability::NetworkAllowlist) {
        return Ok(());
    }
    let sandbox = h.sandbox().await?;
    ensure_err!(
        sandbox.network_namespace().await,
        Error::CapabilityMissing { capability: Capability::NetworkAllowlist, .. }
    );
    Ok(())
}
