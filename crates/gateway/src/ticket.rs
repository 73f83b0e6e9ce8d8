//! An admitted request: it counts from here, and whatever happens to it, its end is recorded.

use crate::error::{Error, Result};
use crate::intake::Held;
use crate::ledger::{Charge, Refusal, Verdict};
use crate::shared::Core;
use crate::store::{Begun, End, Ended, Permit, Progress, Written};
use crate::usage::{Used, asked, prompt};
use hostel_sandbox::SandboxId;
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

const SLOW_DISK: &str = "the disk takes too long";

fn late_error() -> Error {
    Error::store("write usage", SLOW_DISK)
}

/// Why there is no ticket.
#[derive(Debug)]
pub(crate) enum Denied {
    /// A budget or a rate.
    Refused(Refusal),
    /// The sandbox is going away.
    Detached,
    /// Usage cannot be recorded now, so nothing is forwarded or passed back.
    Unrecorded(Error),
}

/// See the module. Dropping it records that the client went away.
pub(crate) struct Ticket {
    core: Arc<Core>,
    charge: Charge,
    permit: Option<Permit>,
    /// Whether the row was sent to be written.
    sent: bool,
    /// From then on, until it is known that it is written.
    written: Option<Written>,
    id: u64,
    /// Milliseconds of Unix time.
    started: i64,
    session: String,
    arrived: Instant,
    upstream: Arc<str>,
    status: Option<u16>,
    model: String,
    used: Used,
    cost_micros: u64,
    /// What went out and may have cost something, until its usage is told.
    owed: Option<Arc<Held>>,
    /// To how many upstreams a prompt went out whose usage was not told.
    untold: u64,
    /// The tokens of such a prompt, by estimate.
    prompt: u64,
    /// When what was seen was last sent to be written.
    told: Option<Instant>,
}

impl Ticket {
    /// Admits a request of a sandbox, or says why not. Waits for usage that is on its way to the disk. The request's
    /// own row is [sent](Self::begin) later; but where rows failed to be written before, it is written first.
    pub(crate) async fn take(
        core: &Arc<Core>,
        sandbox: &SandboxId,
        session: &str,
        arrived: Instant,
    ) -> Result<Self, Denied> {
        let deadline = core.limits.commit_timeout;
        let late = || Denied::Unrecorded(late_error());
        let permit = tokio::time::timeout(deadline, core.store.commands().permit())
            .await
            .map_err(|_| late())?
            .map_err(Denied::Unrecorded)?;
        let charge = tokio::time::timeout(deadline, admit(core, sandbox)).await.map_err(|_| late())??;
        let id = core.next_id.fetch_add(1, Ordering::Relaxed);
        let started = Timestamp::now().as_millisecond();
        // From here on the ticket's end sets right what was counted, should this be cancelled.
        let mut ticket = Self {
            core: Arc::clone(core),
            charge,
            permit: Some(permit),
            sent: false,
            written: None,
            id,
            started,
            session: session.to_owned(),
            arrived,
            upstream: Arc::from(""),
            status: None,
            model: String::new(),
            used: Used::default(),
            cost_micros: 0,
            owed: None,
            untold: 0,
            prompt: 0,
            told: None,
        };
        if !core.store.commands().are_well() {
            ticket = ticket.written().await?;
        }
        core.tally.admitted(arrived.elapsed());
        Ok(ticket)
    }

    /// Sends the row to be written, once: as soon as the request is out, for the thread that writes would take the
    /// processor from what sends it. Where it cannot be sent, this is the end.
    pub(crate) async fn begin(&mut self) -> Result<(), Denied> {
        if self.sent {
            return Ok(());
        }
        let sending = self.core.store.commands().begin(self.begun());
        let error = match tokio::time::timeout(self.core.limits.commit_timeout, sending).await {
            Ok(Ok(written)) => {
                (self.sent, self.written) = (true, Some(written));
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => late_error(),
        };
        Err(self.unrecorded(error, true))
    }

    /// Returns once the row is written. Nothing may go back to the client before: the disk works while the model
    /// does, which is longer. Where it cannot be written, what was used until then counts all the same.
    pub(crate) async fn written(mut self) -> Result<Self, Denied> {
        self.begin().await?;
        let Some(written) = self.written.take() else { return Ok(self) };
        let (error, is_absent) = match tokio::time::timeout(self.core.limits.commit_timeout, written).await {
            Ok(Ok(Ok(()))) => return Ok(self),
            Ok(Ok(Err(error))) => (error, true),
            Ok(Err(_)) => (Error::Closed, true),
            // It may be written yet.
            Err(_) => (late_error(), false),
        };
        Err(self.unrecorded(error, is_absent))
    }

    /// There is no row, or perhaps none. Where nothing went out either, nothing is ended.
    fn unrecorded(&mut self, error: Error, is_absent: bool) -> Denied {
        if is_absent && self.untold == 0 {
            self.permit = None;
            self.core.ledger.withdraw(&self.charge);
        } else {
            self.end(End::Unanswered, false);
        }
        Denied::Unrecorded(error)
    }

    /// An upstream answered.
    pub(crate) fn answered(&mut self, upstream: &Arc<str>, status: u16) {
        self.upstream = Arc::clone(upstream);
        self.status = Some(status);
        self.core.tally.answered(self.arrived.elapsed());
    }

    /// Adds what was seen since the last time.
    pub(crate) fn seen(&mut self, model: Option<&str>, used: Used) {
        if let Some(model) = model.filter(|model| *model != self.model) {
            model.clone_into(&mut self.model);
        }
        if used == self.used {
            return;
        }
        let cost = self.core.prices.cost(&self.model, &used);
        let more_tokens = used.all_tokens().total().saturating_sub(self.used.all_tokens().total());
        let more_cost = cost.saturating_sub(self.cost_micros);
        self.core.ledger.seen(&self.charge, more_tokens, more_cost);
        self.used = used;
        self.cost_micros = self.cost_micros.max(cost);
        if self.used.tokens.prompt() > 0 && self.owed.take().is_some() {
            self.untold = self.untold.saturating_sub(1);
        }
    }

    /// Whether what was seen first is still to be [told](Self::tell).
    pub(crate) fn has_news(&self) -> bool {
        self.told.is_none() && self.used.tokens.total() > 0
    }

    /// Has what was seen so far written, for a crash. After the piece that told it: a thread is woken for this.
    pub(crate) fn tell(&mut self) {
        self.told = Some(Instant::now());
        self.core.store.commands().progress(self.progress());
    }

    /// Has what a response that goes on used so far written, from time to time: its figures come at its end, and a
    /// crash would lose them.
    pub(crate) fn going_on(&mut self, so_far: impl FnOnce() -> Used) {
        if self.told.is_none_or(|told| told.elapsed() < self.core.limits.progress_every) {
            return;
        }
        self.told = Some(Instant::now());
        let used = so_far();
        let cost_micros = self.core.prices.cost(&self.model, &used);
        self.core.store.commands().progress(Progress {
            tokens: used.all_tokens(),
            cost_micros,
            ..self.progress()
        });
    }

    /// The request goes out to an upstream. Unless its usage is told, or it [was not used](Self::unused), its prompt is
    /// charged by estimate at the end: once for each upstream that took it.
    pub(crate) fn owes(&mut self, body: &Arc<Held>) {
        self.prompt = prompt(&body.bytes).input;
        self.untold = self.untold.saturating_add(1);
        self.owed = Some(Arc::clone(body));
    }

    /// What went out last was not used.
    pub(crate) fn unused(&mut self) {
        self.untold = self.untold.saturating_sub(1);
        if self.untold == 0 {
            self.owed = None;
        }
    }

    /// Charges what nobody told; whether there is something.
    fn estimate(&mut self) -> bool {
        let untold = std::mem::take(&mut self.untold);
        let body = self.owed.take();
        if untold == 0 {
            return false;
        }
        let asked = body.filter(|_| self.model.is_empty()).and_then(|body| asked(&body.bytes));
        let mut used = self.used.clone();
        used.tokens.input = used.tokens.input.saturating_add(self.prompt.saturating_mul(untold));
        used.fast |= asked.as_ref().is_some_and(|asked| asked.fast);
        self.seen(asked.as_ref().map(|asked| asked.model.as_str()), used);
        true
    }

    fn begun(&self) -> Begun {
        Begun {
            id: self.id,
            started: self.started,
            session: self.session.clone(),
            charge: self.charge.clone(),
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            id: self.id,
            upstream: self.upstream.to_string(),
            model: self.model.clone(),
            tokens: self.used.all_tokens(),
            cost_micros: self.cost_micros,
        }
    }

    /// The request is over; `guessed` where its output is not what was told. Its scopes admit nobody until this is on the
    /// disk. Only the first end counts.
    pub(crate) fn end(&mut self, end: End, guessed: bool) {
        let Some(permit) = self.permit.take() else { return };
        let is_estimated = self.estimate() || guessed;
        self.core.ledger.finished(&self.charge);
        permit.end(Ended {
            progress: self.progress(),
            begun: self.begun(),
            ended: Timestamp::now().as_millisecond(),
            end,
            status: self.status,
            is_estimated,
        });
        let tally = &self.core.tally;
        tally.ended(end, self.status, &self.upstream, &self.model, self.arrived.elapsed());
        tally.used(&self.model, &self.used.all_tokens(), self.cost_micros);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(End::ClientGone, false);
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

/// Looks whether a request to a model would be refused for a cap. Of others (not `counted`) it is the admission.
pub(crate) async fn look(core: &Core, sandbox: &SandboxId, counted: bool) -> Result<(), Denied> {
    loop {
        let verdict = if counted { core.ledger.look(sandbox) } else { core.ledger.admit_free(sandbox) };
        match verdict {
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
        .map_err(|_| Denied::Unrecorded(Error::store("read usage", SLOW_DISK)))?
        .map_err(Denied::Unrecorded)?;
    core.ledger.know(sandbox, spent);
    Ok(())
}
