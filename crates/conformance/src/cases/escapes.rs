//! Every abuse probe, from inside.

use crate::abuse::{self, Bait, Finding, Verdict};
use crate::case::cases;
use crate::failure::{Outcome, ensure};
use crate::harness::Harness;
use std::sync::Arc;

cases! { "abuse":
    the_default_user_cannot_get_out [NetworkNone],
    root_inside_cannot_get_out [NetworkNone],
    an_ordinary_user_cannot_get_out [NetworkNone, OtherUsers],
    nobody_gets_out_after_a_restart [NetworkNone, Reattach],
}

type H = Arc<Harness>;

async fn attempt(h: &Harness, user: Option<&str>) -> Outcome {
    let sandbox = h.sandbox().await?;
    let bait = Bait::lay(h.factory().host_paths())?;
    let findings = abuse::run_as(&*sandbox, h.factory().probe(), &bait, user).await?;
    judge(&findings)?;
    bait.untouched()
}

fn judge(findings: &[Finding]) -> Outcome {
    let bad: Vec<String> =
        findings.iter().filter(|finding| finding.is_bad()).map(ToString::to_string).collect();
    ensure!(bad.is_empty(), "{} of {} got through:\n{}", bad.len(), findings.len(), bad.join("\n"));
    let refused = findings.iter().filter(|finding| finding.verdict == Verdict::Refused).count();
    ensure!(refused >= 80, "only {refused} attempts were made and refused");
    Ok(())
}

async fn the_default_user_cannot_get_out(h: H) -> Outcome {
    attempt(&h, None).await
}

async fn root_inside_cannot_get_out(h: H) -> Outcome {
    attempt(&h, Some("0")).await
}

async fn an_ordinary_user_cannot_get_out(h: H) -> Outcome {
    attempt(&h, Some("1000")).await
}

/// What confines a sandbox must not depend on the daemon that made it.
async fn nobody_gets_out_after_a_restart(h: H) -> Outcome {
    let h = h.fresh().await?;
    let sandbox = h.sandbox().await?;
    h.restart().await?;
    let sandbox = h.adopt(&sandbox).await?;
    let bait = Bait::lay(h.factory().host_paths())?;
    let findings = abuse::run_as(&*sandbox, h.factory().probe(), &bait, Some("0")).await?;
    judge(&findings)?;
    bait.untouched()
}
