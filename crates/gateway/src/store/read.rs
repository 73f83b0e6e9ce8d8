//! Statements that read.

use super::{from_sql, to_sql};
use crate::budget::{LabelBudget, Spent};
use crate::error::{Error, Result};
use crate::report::{GroupBy, MAX_ROWS, Query, UsageRow};
use crate::usage::Tokens;
use hostel_sandbox::SandboxId;
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use std::time::SystemTime;

fn failed(error: rusqlite::Error) -> Error {
    Error::store("read", error)
}

fn spent_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Spent> {
    let number = |index| Ok::<_, rusqlite::Error>(from_sql(row.get(index)?));
    Ok(Spent { requests: number(0)?, tokens: number(1)?, cost_micros: number(2)? })
}

pub(super) fn next_id(connection: &Connection) -> Result<u64> {
    let highest: i64 = connection
        .query_row("SELECT COALESCE(MAX(id), 0) FROM requests", [], |row| row.get(0))
        .map_err(failed)?;
    Ok(from_sql(highest) + 1)
}

pub(super) fn spent(connection: &Connection, sandbox: &SandboxId) -> Result<Spent> {
    connection
        .query_row(
            "SELECT requests, tokens, cost_micros FROM sandboxes WHERE sandbox = ?1",
            [sandbox.as_str()],
            spent_row,
        )
        .optional()
        .map(Option::unwrap_or_default)
        .map_err(failed)
}

pub(super) fn budget_spent(connection: &Connection, name: &str, period: &str) -> Result<Spent> {
    connection
        .query_row(
            "SELECT requests, tokens, cost_micros FROM budget_spent WHERE name = ?1 AND period = ?2",
            params![name, period],
            spent_row,
        )
        .optional()
        .map(Option::unwrap_or_default)
        .map_err(failed)
}

/// All budgets with what they spent in their current period.
pub(super) fn budgets(connection: &Connection) -> Result<Vec<(LabelBudget, Spent)>> {
    let texts: Vec<String> = connection
        .prepare("SELECT definition FROM budgets ORDER BY name")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(failed)?;
    let now = Timestamp::now();
    texts
        .into_iter()
        .map(|text| {
            let budget: LabelBudget =
                serde_json::from_str(&text).map_err(|error| Error::store("read a budget", error))?;
            let spent = budget_spent(connection, &budget.name, &budget.period.key(now))?;
            Ok((budget, spent))
        })
        .collect()
}

/// A label's place in the JSON object, as SQLite's JSON functions take it. Keys were checked: they have no quotes.
fn json_path(key: &str) -> Value {
    Value::Text(format!("$.\"{}\"", key))
}

fn millis(time: SystemTime) -> Value {
    let moment = Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    Value::Integer(moment.as_millisecond())
}

pub(super) fn usage(connection: &Connection, query: &Query) -> Result<Vec<UsageRow>> {
    let mut values: Vec<Value> = Vec::new();
    let mut conditions = vec!["1".to_owned()];
    let mut tables = "requests";
    let key = match &query.group_by {
        GroupBy::None => "NULL",
        GroupBy::Sandbox => "sandbox",
        GroupBy::Model => "model",
        GroupBy::Session => "session",
        GroupBy::Day => "strftime('%Y-%m-%d', started / 1000, 'unixepoch')",
        GroupBy::Label(label) => {
            values.push(json_path(label));
            "json_extract(labels, ?)"
        }
        GroupBy::Labels => {
            tables = "requests, json_each(requests.labels) AS label";
            "label.key || '=' || label.value"
        }
    };
    // Days come in their order.
    let order = if query.group_by == GroupBy::Day { "grouped" } else { "SUM(cost_micros) DESC, grouped" };
    if let Some(since) = query.since {
        conditions.push("started >= ?".to_owned());
        values.push(millis(since));
    }
    if let Some(until) = query.until {
        conditions.push("started < ?".to_owned());
        values.push(millis(until));
    }
    if let Some(sandbox) = &query.sandbox {
        conditions.push("sandbox = ?".to_owned());
        values.push(Value::Text(sandbox.to_string()));
    }
    for (label, value) in &query.labels {
        conditions.push("json_extract(labels, ?) = ?".to_owned());
        values.extend([json_path(label), Value::Text(value.clone())]);
    }
    values.push(Value::Integer(to_sql(u64::try_from(MAX_ROWS).unwrap_or(u64::MAX))));
    let sql = format!(
        "SELECT {key} AS grouped, COUNT(*), SUM(state = 'interrupted' OR estimated), SUM(input), SUM(output),
         SUM(cache_write_5m), SUM(cache_write_1h), SUM(cache_read), SUM(cost_micros) FROM {tables} WHERE {}
         GROUP BY grouped ORDER BY {order} LIMIT ?",
        conditions.join(" AND ")
    );
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let rows = statement.query_map(params_from_iter(values), usage_row).map_err(failed)?;
    rows.collect::<rusqlite::Result<_>>().map_err(failed)
}

fn usage_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<UsageRow> {
    let number = |index| Ok::<_, rusqlite::Error>(from_sql(row.get(index)?));
    Ok(UsageRow {
        key: row.get(0)?,
        requests: number(1)?,
        interrupted: number(2)?,
        tokens: Tokens {
            input: number(3)?,
            output: number(4)?,
            cache_write_5m: number(5)?,
            cache_write_1h: number(6)?,
            cache_read: number(7)?,
        },
        cost_micros: number(8)?,
    })
}
