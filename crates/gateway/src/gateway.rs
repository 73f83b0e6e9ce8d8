//! The gateway as the daemon holds it.

use crate::attachment::{Access, Attachment, Door};
use crate::budget::{BudgetStatus, LabelBudget, Spent};
use crate::config::Config;
use crate::counters::{Counters, Tally};
use crate::error::{Error, Result};
use crate::fetches;
use crate::intake::Room;
use crate::ledger::Ledger;
use crate::report::{Query, UsageRow};
use crate::shared::Core;
use crate::store::Store;
use crate::upstream::{Line, system_roots};
use hostel_sandbox::SandboxId;
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Forwards to model APIs, meters, prices, and stops at budgets. See the crate.
pub struct Gateway {
    core: Arc<Core>,
    tasks: TaskTracker,
    /// Where it was opened.
    runtime: Handle,
    end: CancellationToken,
    /// Changes of label budgets, one after the other: on the disk and in memory in the same order.
    changing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

impl Gateway {
    /// Opens the usage records and prepares the upstreams. Nothing is connected yet. Requests are served in the runtime
    /// that this is called in: in one of a single thread no request wakes a second thread.
    ///
    /// # Errors
    /// [`Error::Configuration`] and [`Error::Store`].
    pub async fn open(config: Config) -> Result<Self> {
        config.validate()?;
        let Config { upstreams, prices, api_fetches, record_directory, limits } = config;
        let opening = tokio::task::spawn_blocking(move || {
            let roots = system_roots();
            let lines =
                upstreams.iter().map(|upstream| Line::new(upstream, &roots)).collect::<Result<Vec<_>>>()?;
            let ledger = Arc::new(Ledger::new());
            let (store, kept) = Store::open(&record_directory, limits.keep, Arc::clone(&ledger))?;
            for (budget, spent) in kept.budgets {
                ledger.put_budget(budget, Some(spent));
            }
            let (next_id, room) = (AtomicU64::new(kept.next_id), Room::of_node(&limits));
            Ok::<_, Error>(Core {
                limits,
                api_fetches,
                looking: Arc::new(Semaphore::new(fetches::TURNS)),
                prices,
                ledger,
                store,
                tally: Tally::default(),
                room,
                lines,
                next_id,
            })
        });
        let core = opening.await.map_err(|error| Error::store("open", error))??;
        Ok(Self {
            core: Arc::new(core),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            end: CancellationToken::new(),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// Serves a sandbox through its doors, in the runtime in which the gateway was opened.
    ///
    /// # Errors
    /// [`Error::Attached`], [`Error::Domain`] for wrong labels or numbers, [`Error::Door`], [`Error::Closed`].
    pub fn attach(&self, sandbox: SandboxId, access: Access, doors: Vec<Door>) -> Result<Attachment> {
        if self.end.is_cancelled() {
            return Err(Error::Closed);
        }
        let _inside = self.runtime.enter();
        Attachment::open(&self.core, &self.tasks, self.end.child_token(), sandbox, access, doors)
    }

    /// The label budgets.
    #[must_use]
    pub fn budgets(&self) -> Budgets<'_> {
        Budgets { gateway: self }
    }

    /// Forgets what a sandbox spent that is gone, for its id may come again. Its requests stay in reports.
    pub async fn forget(&self, sandbox: &SandboxId) {
        self.core.ledger.forget(sandbox);
        self.core.store.forget(sandbox).await;
    }

    /// Forgets what all sandboxes but these spent: what [`forget`](Self::forget) would have done while nobody ran.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub async fn forget_all_but(&self, known: Vec<SandboxId>) -> Result<()> {
        self.core.store.forget_all_but(known).await
    }

    /// Adds up what was used, the most expensive groups first, days in their order.
    ///
    /// # Errors
    /// [`Error::Domain`] for what is no label's key, [`Error::Store`], [`Error::Closed`].
    pub async fn usage(&self, query: Query) -> Result<Vec<UsageRow>> {
        query.validate()?;
        self.core.store.usage(query).await
    }

    /// What a sandbox has used in its life, what goes on included.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub async fn spent(&self, sandbox: &SandboxId) -> Result<Spent> {
        match self.core.ledger.spent(sandbox) {
            Some(spent) => Ok(spent),
            None => self.core.store.spent(sandbox).await,
        }
    }

    /// What happened since the gateway was opened.
    #[must_use]
    pub fn snapshot(&self) -> Counters {
        self.core.tally.snapshot(self.core.ledger.in_flight())
    }

    /// Cuts everything, records what was used until then, and closes the records.
    pub async fn shutdown(&self) {
        self.end.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.core.store.close().await;
    }
}

/// Access to label budgets. Every change is on the disk when it returns, and holds from the next request on.
#[derive(Debug, Clone, Copy)]
pub struct Budgets<'a> {
    gateway: &'a Gateway,
}

impl Budgets<'_> {
    /// Makes a budget. What was used before it was made does not count.
    ///
    /// # Errors
    /// [`Error::BudgetExists`], [`Error::Domain`] naming a wrong field, [`Error::Store`], [`Error::Closed`].
    pub async fn create(&self, budget: LabelBudget) -> Result<BudgetStatus> {
        budget.validate()?;
        let _changing = self.gateway.changing.lock().await;
        self.gateway.core.store.create_budget(budget.clone()).await?;
        Ok(self.gateway.core.ledger.put_budget(budget, Some(Spent::default())))
    }

    /// One budget and how far it is used.
    ///
    /// # Errors
    /// [`Error::BudgetNotFound`].
    pub fn get(&self, name: &str) -> Result<BudgetStatus> {
        let found = self.gateway.core.ledger.budget(name);
        found.ok_or_else(|| Error::BudgetNotFound { name: name.to_owned() })
    }

    /// All budgets, by name.
    #[must_use]
    pub fn list(&self) -> Vec<BudgetStatus> {
        self.gateway.core.ledger.budgets()
    }

    /// Changes a budget; what it has spent stays. Of another period, what was counted for that counts.
    ///
    /// # Errors
    /// [`Error::BudgetNotFound`], [`Error::Domain`] naming a wrong field, [`Error::Store`], [`Error::Closed`].
    pub async fn update(&self, budget: LabelBudget) -> Result<BudgetStatus> {
        budget.validate()?;
        let _changing = self.gateway.changing.lock().await;
        let before = self.get(&budget.name)?;
        let Core { store, ledger, .. } = &*self.gateway.core;
        store.update_budget(budget.clone()).await?;
        if before.definition.period == budget.period {
            return Ok(ledger.put_budget(budget, None));
        }
        let period = budget.period.key(Timestamp::now());
        let spent = store.budget_spent(&budget.name, &period).await?;
        Ok(ledger.put_budget(budget, Some(spent)))
    }

    /// Removes a budget. Usage that it counted stays in reports.
    ///
    /// # Errors
    /// [`Error::BudgetNotFound`], [`Error::Store`], [`Error::Closed`].
    pub async fn delete(&self, name: &str) -> Result<()> {
        let _changing = self.gateway.changing.lock().await;
        self.gateway.core.store.delete_budget(name).await?;
        self.gateway.core.ledger.remove_budget(name);
        Ok(())
    }
}
