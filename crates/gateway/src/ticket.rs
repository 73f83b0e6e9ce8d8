//! An admitted request: it counts from here, and whatever happens to it, its end is recorded.

use crate::error::{Error, Result};
use crate::ledger::{Charge, Refusal, Verdict};
use crate::shared::Core;
use crate::store::{Begun, End, Ended, Permit, Progress, Written};
use crate::usage::Tokens;
use hostel_sandbox::SandboxId;
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Why there is no ticket.
#[derive(Debug)]
pub(crate) enum Denied {
    /// A budget or a rate.
    Refused(Refusal),
    /// The sandbox is going away.
    Detached,
    /// Usage cannot be recorded now, so nothing is forwarded.
    Unrecorded(Error),
}

/// See the module. Dropping it records that the client went away.
pub(crate) struct Ticket {
    core: Arc<Core>,
    charge: Charge,
    permit: Option<Permit>,
    /// Until it is known that the row is written.
    written: Option<Written>,
    id: u64,
    arrived: Instant,
    upstream: Arc<str>,
    status: Option<u16>,
    model: String,
    tokens: Tokens,
    cost_micros: u64,
    told: bool,
}

impl Ticket {
    /// Admits a request of a sandbox, or says why not. Waits for usage that is on its way to the disk. The request's
    /// own row is on its way then; where rows failed to be written before, this waits for it too.
    pub(crate) async fn take(
        core: &Arc<Core>,
        sandbox: &SandboxId,
        session: &str,
        arrived: Instant,
    ) -> Result<Self, Denied> {
        let deadline = core.limits.commit_timeout;
        let late = || Denied::Unrecorded(Error::store("write usage", "the disk takes too long"));
        let permit = tokio::time::timeout(deadline, core.store.commands().permit())
            .await
            .map_err(|_| late())?
            .map_err(Denied::Unrecorded)?;
        let charge = tokio::time::timeout(deadline, admit(core, sandbox)).await.map_err(|_| late())??;
        let id = core.next_id.fetch_add(1, Ordering::Relaxed);
        let started = Timestamp::now().as_millisecond();
        let begun = Begun { id, started, session: session.to_owned(), charge: charge.clone() };
        // From here on the ticket's end sets right what was counted, should this be cancelled.
        let mut ticket = Self {
            core: Arc::clone(core),
            charge,
            permit: Some(permit),
            written: None,
            id,
            arrived,
            upstream: Arc::from(""),
            status: None,
            model: String::new(),
            tokens: Tokens::default(),
            cost_micros: 0,
            told: false,
        };
        let commands = core.store.commands();
        match tokio::time::timeout(deadline, commands.begin(begun)).await {
            Ok(Ok(written)) => ticket.written = Some(written),
            Ok(Err(error)) => return Err(ticket.withdraw(error)),
            Err(_) => return Err(late()),
        }
        if !commands.are_well() {
            ticket = ticket.written().await?;
        }
        core.tally.admitted(arrived.elapsed());
        Ok(ticket)
    }

    /// Returns once the row is written. Nothing may go back to the client before: the disk works while the model
    /// does, which is longer.
    pub(crate) async fn written(mut self) -> Result<Self, Denied> {
        let Some(written) = self.written.take() else { return Ok(self) };
        match tokio::time::timeout(self.core.limits.commit_timeout, written).await {
            Ok(Ok(Ok(()))) => Ok(self),
            Ok(Ok(Err(error))) => Err(self.withdraw(error)),
            Ok(Err(_)) => Err(self.withdraw(Error::Closed)),
            // It may be written yet; the ticket's end goes after it.
            Err(_) => Err(Denied::Unrecorded(Error::store("write usage", "the disk takes too long"))),
        }
    }

    /// There is no row, so nothing is ended.
    fn withdraw(mut self, error: Error) -> Denied {
        self.permit = None;
        self.core.ledger.withdraw(&self.charge);
        Denied::Unrecorded(error)
    }

    /// An upstream answered.
    pub(crate) fn answered(&mut self, upstream: &Arc<str>, status: u16) {
        self.upstream = Arc::clone(upstream);
        self.status = Some(status);
        self.core.tally.answered(self.arrived.elapsed());
    }

    /// Adds what was seen since the last time.
    pub(crate) fn seen(&mut self, model: Option<&str>, tokens: Tokens) {
        if let Some(model) = model.filter(|model| *model != self.model) {
            model.clone_into(&mut self.model);
        }
        if tokens == self.tokens {
            return;
        }
        let cost = self.core.prices.cost(&self.model, &tokens);
        let more_tokens = tokens.total().saturating_sub(self.tokens.total());
        let more_cost = cost.saturating_sub(self.cost_micros);
        self.core.ledger.seen(&self.charge, more_tokens, more_cost);
        self.tokens = tokens;
        self.cost_micros = self.cost_micros.max(cost);
        if !self.told {
            self.told = true;
            self.core.store.commands().progress(self.progress());
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            id: self.id,
            upstream: self.upstream.to_string(),
            model: self.model.clone(),
            tokens: self.tokens,
            cost_micros: self.cost_micros,
        }
    }

    /// The request is over. Its scopes admit nobody until this is on the disk. Only the first end counts.
    pub(crate) fn end(&mut self, end: End) {
        let Some(permit) = self.permit.take() else { return };
        self.core.ledger.finished(&self.charge);
        permit.end(Ended {
            progress: self.progress(),
            charge: self.charge.clone(),
            ended: Timestamp::now().as_millisecond(),
            end,
            status: self.status,
        });
        let tally = &self.core.tally;
        tally.ended(end, self.status, &self.upstream, &self.model, self.arrived.elapsed());
        tally.used(&self.model, &self.tokens, self.cost_micros);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(End::ClientGone);
    }
}

async fn admit(core: &Core, sandbox: &SandboxId) -> Result<Charge, Denied> {
    let mut commits = core.ledger.commits();
    loop {
        commits.mark_unchanged();
        match core.ledger.admit(sandbox) {
            Verdict::Admitted(charge) => return Ok(charge),
            Verdict::Refused(refusal) => return Err(Denied::Refused(refusal)),
            Verdict::Detached => return Err(Denied::Detached),
            Verdict::Unknown => learn(core, sandbox).await?,
            Verdict::Committing => {
                commits.changed().await.map_err(|_| Denied::Unrecorded(Error::Closed))?;
            }
        }
    }
}

/// Looks without counting: whether a request would be refused for a cap.
pub(crate) async fn look(core: &Core, sandbox: &SandboxId) -> Result<(), Denied> {
    loop {
        match core.ledger.look(sandbox) {
            Verdict::Admitted(_) | Verdict::Committing => return Ok(()),
            Verdict::Refused(refusal) => return Err(Denied::Refused(refusal)),
            Verdict::Detached => return Err(Denied::Detached),
            Verdict::Unknown => learn(core, sandbox).await?,
        }
    }
}

async fn learn(core: &Core, sandbox: &SandboxId) -> Result<(), Denied> {
    let spent = core.store.spent(sandbox);
    let spent = tokio::time::timeout(core.limits.commit_timeout, spent)
        .await
        .map_err(|_| Denied::Unrecorded(Error::store("read usage", "the disk takes too long")))?
        .map_err(Denied::Unrecorded)?;
    core.ledger.know(sandbox, spent);
    Ok(())
}
