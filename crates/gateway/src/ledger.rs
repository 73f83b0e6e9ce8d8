//! Who may ask now: what every sandbox and label budget has spent, in memory, decided under one lock.
//!
//! What is here is never behind the database: usage is added as soon as it is seen in a response, and a scope with
//! usage that is not yet on disk admits nobody until it is. Only rates begin anew with the process.

mod refusal;
mod scope;
mod window;

pub(crate) use refusal::{Reason, Refusal};

use crate::budget::{BudgetStatus, LabelBudget, Spent};
use crate::error::{Error, Result};
use hostel_sandbox::label::Labels;
use hostel_sandbox::{ModelBudget, SandboxId};
use jiff::Timestamp;
use scope::Scope;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// One period of one label budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BudgetPeriod {
    pub name: String,
    pub period: String,
}

/// What an admitted request counts towards, as things were when it was admitted.
#[derive(Debug, Clone)]
pub(crate) struct Charge {
    pub sandbox: SandboxId,
    pub labels: Labels,
    pub budgets: Vec<BudgetPeriod>,
}

/// The answer to one who wants to ask a model.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It may, and was counted.
    Admitted(Charge),
    /// What the sandbox spent before is not known yet.
    Unknown,
    /// Usage of one of its scopes is on its way to the disk: ask again after the next commit.
    Committing,
    /// It may not.
    Refused(Refusal),
    /// The sandbox is not attached any more.
    Detached,
}

/// What is decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    Nothing,
    Free,
    Model,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    commits: watch::Sender<u64>,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    sandboxes: HashMap<SandboxId, Account>,
    budgets: BTreeMap<String, Shared>,
}

/// A sandbox that is attached, or has requests that are not done.
#[derive(Debug)]
struct Account {
    attached: bool,
    /// Whether what it spent before is in `scope`.
    known: bool,
    in_flight: usize,
    labels: Labels,
    limits: ModelBudget,
    scope: Scope,
}

#[derive(Debug)]
struct Shared {
    definition: LabelBudget,
    period: String,
    scope: Scope,
}

impl Shared {
    /// Begins anew where the period is over. A clock that is set back ends none.
    fn roll(&mut self, now: Timestamp) {
        let period = self.definition.period.key(now);
        if period > self.period {
            self.enter(period);
        }
    }

    fn enter(&mut self, period: String) {
        self.period = period;
        // The rates go on: a minute knows no midnight.
        self.scope.spent = Spent::default();
        self.scope.uncommitted = 0;
    }

    /// Takes another definition, which begins anew where its periods are others.
    fn define(&mut self, definition: LabelBudget, now: Timestamp) {
        let other = definition.period != self.definition.period;
        self.definition = definition;
        if other {
            self.enter(self.definition.period.key(now));
        } else {
            self.roll(now);
        }
    }

    fn status(&self) -> BudgetStatus {
        BudgetStatus {
            definition: self.definition.clone(),
            period: self.period.clone(),
            spent: self.scope.spent,
        }
    }
}

impl Account {
    fn is_over(&self) -> bool {
        !self.attached && self.in_flight == 0 && self.scope.uncommitted == 0
    }
}

impl State {
    /// Every scope of a charge that is still there.
    fn each(&mut self, charge: &Charge, mut change: impl FnMut(&mut Scope)) {
        if let Some(account) = self.sandboxes.get_mut(&charge.sandbox) {
            change(&mut account.scope);
        }
        for BudgetPeriod { name, period } in &charge.budgets {
            if let Some(shared) = self.budgets.get_mut(name).filter(|shared| shared.period == *period) {
                change(&mut shared.scope);
            }
        }
    }

    fn leave(&mut self, sandbox: &SandboxId) {
        if self.sandboxes.get(sandbox).is_some_and(Account::is_over) {
            self.sandboxes.remove(sandbox);
        }
    }
}

fn caps(account: &Account, shared: &[&mut Shared]) -> Option<Refusal> {
    if let Some(cap) = account.scope.cap(&account.limits) {
        return Some(Refusal::cap(None, cap));
    }
    shared.iter().find_map(|shared| {
        let cap = shared.scope.cap(&shared.definition.budget)?;
        Some(Refusal::cap(Some(shared.status()), cap))
    })
}

fn rates(account: &mut Account, shared: &mut [&mut Shared], second: u64) -> Option<Refusal> {
    if let Some(rate) = account.scope.rate(&account.limits, second) {
        return Some(Refusal::rate(None, rate));
    }
    shared.iter_mut().find_map(|shared| {
        let rate = shared.scope.rate(&shared.definition.budget, second)?;
        Some(Refusal::rate(Some(shared.status()), rate))
    })
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), commits: watch::Sender::new(0), started: Instant::now() }
    }

    /// No code panics with the lock held, and a half-made change to counters is no reason to stop.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn second(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(crate) fn attach(&self, sandbox: &SandboxId, labels: Labels, limits: ModelBudget) -> Result<()> {
        let mut state = self.lock();
        let account = state.sandboxes.entry(sandbox.clone()).or_insert_with(|| Account {
            attached: false,
            known: false,
            in_flight: 0,
            labels: Labels::new(),
            limits: ModelBudget::default(),
            scope: Scope::default(),
        });
        if account.attached {
            return Err(Error::Attached { sandbox: sandbox.clone() });
        }
        account.attached = true;
        account.labels = labels;
        account.limits = limits;
        Ok(())
    }

    pub(crate) fn detach(&self, sandbox: &SandboxId) {
        let mut state = self.lock();
        if let Some(account) = state.sandboxes.get_mut(sandbox) {
            account.attached = false;
        }
        state.leave(sandbox);
    }

    /// Forgets what a sandbox spent that is gone: another may get its id.
    pub(crate) fn forget(&self, sandbox: &SandboxId) {
        let mut state = self.lock();
        if state.sandboxes.get(sandbox).is_some_and(|account| !account.attached) {
            state.sandboxes.remove(sandbox);
        }
    }

    pub(crate) fn set_limits(&self, sandbox: &SandboxId, limits: ModelBudget) {
        if let Some(account) = self.lock().sandboxes.get_mut(sandbox) {
            account.limits = limits;
        }
    }

    pub(crate) fn set_labels(&self, sandbox: &SandboxId, labels: Labels) {
        if let Some(account) = self.lock().sandboxes.get_mut(sandbox) {
            account.labels = labels;
        }
    }

    /// Tells what a sandbox spent before it was attached. Only the first time counts.
    pub(crate) fn know(&self, sandbox: &SandboxId, before: Spent) {
        if let Some(account) = self.lock().sandboxes.get_mut(sandbox).filter(|account| !account.known) {
            account.known = true;
            account.scope.spent = before;
        }
    }

    /// What a sandbox has spent, if it is known here.
    pub(crate) fn spent(&self, sandbox: &SandboxId) -> Option<Spent> {
        self.lock().sandboxes.get(sandbox).filter(|account| account.known).map(|account| account.scope.spent)
    }

    /// Adds or replaces a budget. `spent` is of the current period; without it, what is here goes on.
    pub(crate) fn put_budget(&self, definition: LabelBudget, spent: Option<Spent>) -> BudgetStatus {
        let now = Timestamp::now();
        let mut state = self.lock();
        let shared = state.budgets.entry(definition.name.clone()).or_insert_with(|| Shared {
            period: definition.period.key(now),
            definition: definition.clone(),
            scope: Scope::default(),
        });
        shared.define(definition, now);
        if let Some(spent) = spent {
            shared.scope.spent = spent;
        }
        shared.status()
    }

    pub(crate) fn remove_budget(&self, name: &str) {
        self.lock().budgets.remove(name);
    }

    pub(crate) fn budget(&self, name: &str) -> Option<BudgetStatus> {
        let mut state = self.lock();
        let shared = state.budgets.get_mut(name)?;
        shared.roll(Timestamp::now());
        Some(shared.status())
    }

    pub(crate) fn budgets(&self) -> Vec<BudgetStatus> {
        let mut state = self.lock();
        let now = Timestamp::now();
        state
            .budgets
            .values_mut()
            .map(|shared| {
                shared.roll(now);
                shared.status()
            })
            .collect()
    }

    /// Decides, and counts the request if it is admitted. All scopes are looked at and changed under one lock, so
    /// nobody passes between the look and the change.
    pub(crate) fn admit(&self, sandbox: &SandboxId) -> Verdict {
        self.decide(sandbox, Asking::Model)
    }

    /// Decides about a request that costs nothing. Caps and rates hold for it, and it counts towards the rates.
    pub(crate) fn admit_free(&self, sandbox: &SandboxId) -> Verdict {
        self.decide(sandbox, Asking::Free)
    }

    /// Looks at the caps and counts nothing.
    pub(crate) fn look(&self, sandbox: &SandboxId) -> Verdict {
        self.decide(sandbox, Asking::Nothing)
    }

    fn decide(&self, id: &SandboxId, asking: Asking) -> Verdict {
        let (second, now) = (self.second(), Timestamp::now());
        let mut guard = self.lock();
        let State { sandboxes, budgets } = &mut *guard;
        let Some(account) = sandboxes.get_mut(id).filter(|account| account.attached) else {
            return Verdict::Detached;
        };
        if !account.known {
            return Verdict::Unknown;
        }
        let covering = budgets.values_mut().filter(|shared| shared.definition.covers(&account.labels));
        let mut shared: Vec<&mut Shared> = covering.collect();
        shared.iter_mut().for_each(|shared| shared.roll(now));
        if let Some(refusal) = caps(account, &shared) {
            return Verdict::Refused(refusal);
        }
        if asking != Asking::Nothing
            && let Some(refusal) = rates(account, &mut shared, second)
        {
            return Verdict::Refused(refusal);
        }
        if asking == Asking::Free {
            account.scope.begin_free(second);
            shared.iter_mut().for_each(|shared| shared.scope.begin_free(second));
        }
        if asking == Asking::Model {
            if account.scope.uncommitted > 0 || shared.iter().any(|shared| shared.scope.uncommitted > 0) {
                return Verdict::Committing;
            }
            account.in_flight += 1;
            account.scope.begin(second);
            shared.iter_mut().for_each(|shared| shared.scope.begin(second));
        }
        let period = |shared: &&mut Shared| BudgetPeriod {
            name: shared.definition.name.clone(),
            period: shared.period.clone(),
        };
        Verdict::Admitted(Charge {
            sandbox: id.clone(),
            labels: account.labels.clone(),
            budgets: shared.iter().map(period).collect(),
        })
    }

    /// Takes back an admission of which nothing was forwarded.
    pub(crate) fn withdraw(&self, charge: &Charge) {
        let mut state = self.lock();
        state.each(charge, |scope| scope.spent.requests = scope.spent.requests.saturating_sub(1));
        if let Some(account) = state.sandboxes.get_mut(&charge.sandbox) {
            account.in_flight = account.in_flight.saturating_sub(1);
        }
        state.leave(&charge.sandbox);
    }

    /// Adds what a request was seen to use since the last time.
    pub(crate) fn seen(&self, charge: &Charge, tokens: u64, cost_micros: u64) {
        let second = self.second();
        self.lock().each(charge, |scope| scope.seen(tokens, cost_micros, second));
    }

    /// The request is over; its usage is on its way to the disk.
    pub(crate) fn finished(&self, charge: &Charge) {
        let mut state = self.lock();
        state.each(charge, |scope| scope.uncommitted += 1);
        if let Some(account) = state.sandboxes.get_mut(&charge.sandbox) {
            account.in_flight = account.in_flight.saturating_sub(1);
        }
    }

    /// The usage of these requests is on the disk.
    pub(crate) fn committed<'a>(&self, charges: impl Iterator<Item = &'a Charge>) {
        let mut state = self.lock();
        for charge in charges {
            state.each(charge, |scope| scope.uncommitted = scope.uncommitted.saturating_sub(1));
            state.leave(&charge.sandbox);
        }
        drop(state);
        self.commits.send_modify(|commits| *commits = commits.wrapping_add(1));
    }

    /// Hears of commits. Subscribe before asking, so that none is missed.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Requests that were admitted and are not over.
    pub(crate) fn in_flight(&self) -> usize {
        self.lock().sandboxes.values().map(|account| account.in_flight).sum()
    }
}

#[cfg(test)]
mod tests;
