//! Statements that write.

use super::{from_sql, run, to_sql};
use crate::budget::{LabelBudget, Spent};
use crate::error::{Error, Result};
use crate::ledger::{BudgetPeriod, Charge};
use crate::usage::Tokens;
use hostel_sandbox::SandboxId;
use rusqlite::{Connection, params};
use std::time::Duration;

/// A request that was admitted.
#[derive(Debug)]
pub(crate) struct Begun {
    pub id: u64,
    /// Milliseconds of Unix time.
    pub started: i64,
    pub session: String,
    pub charge: Charge,
}

/// What is known of a request that goes on.
#[derive(Debug)]
pub(crate) struct Progress {
    pub id: u64,
    pub upstream: String,
    pub model: String,
    pub tokens: Tokens,
    pub cost_micros: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The whole response went by, whatever its status.
    Done,
    /// The client went away first.
    ClientGone,
    /// The upstream broke off, or was silent for too long.
    UpstreamCut,
    /// No upstream answered, or its answer could not be passed on for want of a record.
    Unanswered,
}

impl End {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientGone => "client_gone",
            Self::UpstreamCut => "upstream_cut",
            Self::Unanswered => "unanswered",
        }
    }
}

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub progress: Progress,
    /// In case its row could not be written.
    pub begun: Begun,
    pub ended: i64,
    pub end: End,
    pub status: Option<u16>,
    /// Whether some of its figures are an estimate, because nobody told them.
    pub is_estimated: bool,
}

fn failed(error: rusqlite::Error) -> Error {
    Error::store("write a request", error)
}

/// Writes the row of an admitted request. It is added to the totals at its end, for this is waited for.
pub(super) fn begin(connection: &Connection, begun: &Begun) -> Result<()> {
    let charge = &begun.charge;
    let pairs: Vec<(&str, &str)> =
        charge.budgets.iter().map(|budget| (budget.name.as_str(), budget.period.as_str())).collect();
    let json = |error: serde_json::Error| Error::store("write a request", error);
    let labels = serde_json::to_string(&charge.labels).map_err(json)?;
    let budgets = serde_json::to_string(&pairs).map_err(json)?;
    connection
        .prepare_cached(
            "INSERT INTO requests (id, started, sandbox, session, labels, budgets, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open')",
        )
        .and_then(|mut statement| {
            let sandbox = charge.sandbox.as_str();
            statement.execute(params![
                to_sql(begun.id),
                begun.started,
                sandbox,
                begun.session,
                labels,
                budgets
            ])
        })
        .map(|_| ())
        .map_err(failed)
}

/// Writes what is known of a request so far; whether it has a row.
pub(super) fn progress(connection: &Connection, progress: &Progress) -> Result<bool> {
    let Progress { id, upstream, model, tokens, cost_micros } = progress;
    connection
        .prepare_cached(
            "UPDATE requests SET upstream = ?2, model = ?3, input = ?4, output = ?5, cache_write_5m = ?6,
             cache_write_1h = ?7, cache_read = ?8, cost_micros = ?9 WHERE id = ?1",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                to_sql(*id),
                upstream,
                model,
                to_sql(tokens.input),
                to_sql(tokens.output),
                to_sql(tokens.cache_write_5m),
                to_sql(tokens.cache_write_1h),
                to_sql(tokens.cache_read),
                to_sql(*cost_micros)
            ])
        })
        .map(|rows| rows > 0)
        .map_err(failed)
}

/// Writes the final figures of a request and adds them to the totals.
pub(super) fn end(connection: &Connection, ended: &Ended) -> Result<()> {
    if !progress(connection, &ended.progress)? {
        begin(connection, &ended.begun)?;
        progress(connection, &ended.progress)?;
    }
    connection
        .prepare_cached(
            "UPDATE requests SET ended = ?2, state = ?3, status = ?4, estimated = ?5 WHERE id = ?1",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                to_sql(ended.progress.id),
                ended.ended,
                ended.end.as_str(),
                ended.status,
                ended.is_estimated
            ])
        })
        .map_err(failed)?;
    let used =
        Spent { requests: 1, tokens: ended.progress.tokens.total(), cost_micros: ended.progress.cost_micros };
    let charge = &ended.begun.charge;
    count(connection, charge.sandbox.as_str(), &charge.budgets, used, ended.ended)
}

fn count(
    connection: &Connection,
    sandbox: &str,
    budgets: &[BudgetPeriod],
    used: Spent,
    now: i64,
) -> Result<()> {
    let (requests, tokens, cost) = (to_sql(used.requests), to_sql(used.tokens), to_sql(used.cost_micros));
    connection
        .prepare_cached(
            "INSERT INTO sandboxes VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (sandbox) DO UPDATE SET requests = requests + excluded.requests,
             tokens = tokens + excluded.tokens, cost_micros = cost_micros + excluded.cost_micros,
             updated = excluded.updated",
        )
        .and_then(|mut statement| statement.execute(params![sandbox, requests, tokens, cost, now]))
        .map_err(failed)?;
    for BudgetPeriod { name, period } in budgets {
        // A budget that was deleted meanwhile counts no more.
        connection
            .prepare_cached(
                "INSERT INTO budget_spent SELECT name, ?2, ?3, ?4, ?5 FROM budgets WHERE name = ?1
                 ON CONFLICT (name, period) DO UPDATE SET requests = requests + excluded.requests,
                 tokens = tokens + excluded.tokens, cost_micros = cost_micros + excluded.cost_micros",
            )
            .and_then(|mut statement| statement.execute(params![name, period, requests, tokens, cost]))
            .map_err(failed)?;
    }
    Ok(())
}

/// Marks what an earlier process left open as interrupted, with what was known of it. Returns how many there were.
pub(super) fn close_open_rows(connection: &mut Connection) -> Result<usize> {
    let transaction = connection.transaction().map_err(failed)?;
    let open: Vec<(i64, String, String, i64, i64, i64)> = transaction
        .prepare(
            "SELECT id, sandbox, budgets, input + output + cache_write_5m + cache_write_1h + cache_read,
             cost_micros, started FROM requests WHERE state = 'open'",
        )
        .and_then(|mut statement| {
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
            })?;
            rows.collect()
        })
        .map_err(failed)?;
    for (id, sandbox, budgets, tokens, cost, started) in &open {
        let pairs: Vec<(String, String)> =
            serde_json::from_str(budgets).map_err(|error| Error::store("read a request", error))?;
        let budgets: Vec<BudgetPeriod> =
            pairs.into_iter().map(|(name, period)| BudgetPeriod { name, period }).collect();
        let used = Spent { requests: 1, tokens: from_sql(*tokens), cost_micros: from_sql(*cost) };
        count(&transaction, sandbox, &budgets, used, *started)?;
        transaction
            .execute("UPDATE requests SET state = 'interrupted' WHERE id = ?1", [id])
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(open.len())
}

pub(super) fn create_budget(connection: &mut Connection, budget: &LabelBudget) -> Result<()> {
    let text = serde_json::to_string(budget).map_err(|error| Error::store("write a budget", error))?;
    let added = connection
        .execute("INSERT OR IGNORE INTO budgets VALUES (?1, ?2)", params![budget.name, text])
        .map_err(|error| Error::store("write a budget", error))?;
    if added == 0 { Err(Error::BudgetExists { name: budget.name.clone() }) } else { Ok(()) }
}

pub(super) fn update_budget(connection: &mut Connection, budget: &LabelBudget) -> Result<()> {
    let text = serde_json::to_string(budget).map_err(|error| Error::store("write a budget", error))?;
    let changed = connection
        .execute("UPDATE budgets SET definition = ?2 WHERE name = ?1", params![budget.name, text])
        .map_err(|error| Error::store("write a budget", error))?;
    if changed == 0 { Err(Error::BudgetNotFound { name: budget.name.clone() }) } else { Ok(()) }
}

pub(super) fn delete_budget(connection: &mut Connection, name: &str) -> Result<()> {
    let gone = connection
        .execute("DELETE FROM budgets WHERE name = ?1", [name])
        .map_err(|error| Error::store("delete a budget", error))?;
    if gone == 0 { Err(Error::BudgetNotFound { name: name.to_owned() }) } else { Ok(()) }
}

/// Forgets what a sandbox spent that is gone; its requests stay known.
pub(super) fn forget(connection: &Connection, sandbox: &SandboxId) -> Result<()> {
    connection
        .execute("DELETE FROM sandboxes WHERE sandbox = ?1", [sandbox.as_str()])
        .map(|_| ())
        .map_err(|error| Error::store("forget a sandbox", error))
}

/// The same of all but these.
pub(super) fn forget_all_but(connection: &Connection, known: &[SandboxId]) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::store("forget sandboxes", error);
    let known: Vec<&str> = known.iter().map(SandboxId::as_str).collect();
    let known = serde_json::to_string(&known).map_err(|error| failed(&error))?;
    connection
        .execute("DELETE FROM sandboxes WHERE sandbox NOT IN (SELECT value FROM json_each(?1))", [known])
        .map(|_| ())
        .map_err(|error| failed(&error))
}

/// Forgets old rows, a few at a time, and writes the log back into the file.
pub(super) fn tidy(connection: &Connection, keep: Duration, now: i64) -> Result<()> {
    let before = now.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
    connection
        .execute(
            "DELETE FROM requests WHERE id IN
             (SELECT id FROM requests WHERE started < ?1 AND state != 'open' LIMIT 1000)",
            [before],
        )
        .map_err(|error| Error::store("forget old requests", error))?;
    connection
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        .map_err(|error| Error::store("checkpoint", error))
}

/// Whether commits wait for the disk from now on. Only outside of transactions.
pub(super) fn set_flush(connection: &Connection, flush: bool) -> Result<()> {
    run(connection, if flush { "PRAGMA synchronous=FULL" } else { "PRAGMA synchronous=NORMAL" })
}
