//! A sandbox that was made ahead of time becomes somebody's.

use super::limits::fixed;
use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq};
use crate::harness::{Harness, Sandbox};
use crate::session::patiently;
use hostel_sandbox::{ResourceLimits, SandboxSpec};
use std::sync::Arc;

cases! { "bind":
    it_gets_the_callers_environment_user_and_directory [OtherUsers],
    what_the_caller_leaves_out_stays,
    its_limits_change [PidsLimit],
    binding_to_what_it_is_changes_nothing [OtherUsers],
    it_outlives_a_restart [Reattach, OtherUsers],
    a_rehearsal_leaves_nothing [OtherUsers],
}

type H = Arc<Harness>;

fn claim(h: &Harness) -> SandboxSpec {
    SandboxSpec {
        env: [("MADE".to_owned(), "mine".to_owned()), ("CLAIMED".to_owned(), "yes".to_owned())].into(),
        user: Some("1000".to_owned()),
        workdir: Some("/tmp/claimed".to_owned()),
        limits: ResourceLimits::default(),
        ..h.spec()
    }
}

async fn warm(h: &Harness) -> Outcome<Sandbox> {
    let env = [("MADE".to_owned(), "ahead".to_owned()), ("KEPT".to_owned(), "yes".to_owned())];
    h.sandbox_with(|spec| spec.env = env.into()).await
}

async fn bind(mut sandbox: Sandbox, spec: &SandboxSpec) -> Outcome<Sandbox> {
    let bound = patiently("binding", sandbox.bind(spec)).await??;
    (sandbox.handle, sandbox.limits) = (bound.handle, bound.limits);
    Ok(sandbox)
}

const WHOSE: &str = "echo $MADE $KEPT $CLAIMED; pwd; id -u";
const MINE: &str = "mine yes yes\n/tmp/claimed\n1000\n";

async fn it_gets_the_callers_environment_user_and_directory(h: H) -> Outcome {
    let sandbox = bind(warm(&h).await?, &claim(&h)).await?;
    ensure_eq!(sandbox.sh(WHOSE).await?, MINE);
    sandbox.sh("echo mine > file").await?;
    ensure_eq!(sandbox.get("/tmp/claimed/file").await?, b"mine\n");
    Ok(())
}

async fn a_rehearsal_leaves_nothing(h: H) -> Outcome {
    let sandbox = warm(&h).await?;
    for _ in 0..3 {
        patiently("rehearsing", sandbox.inside()?.rehearse()).await??;
        ensure_eq!(sandbox.inside()?.processes().await?.len(), 0);
    }
    let sandbox = bind(sandbox, &claim(&h)).await?;
    ensure_eq!(sandbox.sh(WHOSE).await?, MINE);
    ensure_eq!(sandbox.inside()?.processes().await?.len(), 1);
    Ok(())
}

async fn what_the_caller_leaves_out_stays(h: H) -> Outcome {
    let sandbox = warm(&h).await?;
    let before = sandbox.sh(WHOSE).await?;
    let nothing = SandboxSpec { limits: ResourceLimits::default(), ..h.spec() };
    let limits = sandbox.limits.clone();
    let sandbox = bind(sandbox, &nothing).await?;
    ensure_eq!(sandbox.sh(WHOSE).await?, before);
    ensure_eq!(sandbox.limits, limits);
    Ok(())
}

async fn its_limits_change(h: H) -> Outcome {
    let sandbox = h.sandbox_with(|spec| spec.limits.pids = Some(100)).await?;
    let limits = ResourceLimits { pids: Some(20), ..ResourceLimits::default() };
    let spec = SandboxSpec { limits, ..h.spec() };
    if fixed(&patiently("binding", sandbox.bind(&spec)).await?) {
        return Ok(());
    }
    let sandbox = bind(sandbox, &spec).await?;
    ensure_eq!(sandbox.limits.pids, Some(20));
    let count = super::limits::refused(&sandbox.run_probe(&["eat-pids", "2000"]).await?.success()?.text())?;
    ensure!(count < 20, "{count} processes of 20");
    Ok(())
}

async fn binding_to_what_it_is_changes_nothing(h: H) -> Outcome {
    let sandbox = bind(warm(&h).await?, &claim(&h)).await?;
    let sandbox = bind(sandbox, &claim(&h)).await?;
    ensure_eq!(sandbox.sh(WHOSE).await?, MINE);
    Ok(())
}

async fn it_outlives_a_restart(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = bind(warm(&h).await?, &claim(&h)).await?;
    h.restart().await?;
    let sandbox = h.adopt(&sandbox).await?;
    ensure_eq!(sandbox.sh(WHOSE).await?, MINE);
    Ok(())
}
