//! `hostel usage` and `hostel budget`.

use super::{Context, Outcome, SUCCESS, remove_each};
use crate::args::{BudgetCommand, UsageArgs};
use crate::output::{self, human, table};
use hostel_client::model::{Budget, MOST_USAGE_ROWS, ModelUsage, UsageGroup};
use hostel_client::{Client, UsageQuery};
use serde_json::json;
use std::time::SystemTime;

pub(crate) async fn usage(context: &Context, args: UsageArgs) -> Outcome {
    let client = context.connect().await?;
    let query = UsageQuery {
        since: args.since.and_then(|since| SystemTime::now().checked_sub(since)),
        until: None,
        sandbox: args.sandbox,
        label_selector: args.label,
        group_by: args.by.clone().unwrap_or(UsageGroup::Total),
    };
    let usage = client.get_usage(query).await?;
    if usage.rows.len() >= MOST_USAGE_ROWS {
        output::note(&format!("these are the {MOST_USAGE_ROWS} most expensive; the total is of all"));
    }
    if context.json {
        output::json(&usage)?;
        return Ok(SUCCESS);
    }
    let mut table = table::Table::new(&[
        heading(args.by.as_ref()),
        "REQUESTS",
        "INPUT",
        "OUTPUT",
        "CACHE WRITE",
        "CACHE READ",
        "COST",
    ]);
    for column in 1..7 {
        table = table.right(column);
    }
    for row in usage.rows.iter().filter(|_| args.by.is_some()) {
        let group = if row.group.is_empty() { "-" } else { &row.group };
        table.row(cells(group, &row.usage));
    }
    table.row(cells("total", &usage.total));
    table.print()?;
    Ok(SUCCESS)
}

fn heading(by: Option<&UsageGroup>) -> &'static str {
    match by {
        None | Some(UsageGroup::Total) => "",
        Some(UsageGroup::Sandbox) => "SANDBOX",
        Some(UsageGroup::Label(_) | UsageGroup::Labels) => "LABEL",
        Some(UsageGroup::Model) => "MODEL",
        Some(UsageGroup::Day) => "DAY",
        Some(UsageGroup::Session) => "SESSION",
    }
}

fn cells(group: &str, usage: &ModelUsage) -> [String; 7] {
    let written = usage.cache_write_5m_tokens.saturating_add(usage.cache_write_1h_tokens);
    [
        group.to_owned(),
        usage.requests.to_string(),
        usage.input_tokens.to_string(),
        usage.output_tokens.to_string(),
        written.to_string(),
        usage.cache_read_tokens.to_string(),
        human::dollars(usage.cost_micros),
    ]
}

pub(crate) async fn budget(context: &Context, command: BudgetCommand) -> Outcome {
    let client = context.connect().await?;
    match command {
        BudgetCommand::List => list(context, &client).await,
        BudgetCommand::Create { name, label, period, bounds } => {
            let budget = client.create_budget(&name, &label, &bounds.bounds(), period).await?;
            changed(context, &budget)
        }
        BudgetCommand::Set { name, bounds } => {
            changed(context, &client.update_budget(&name, &bounds.bounds()).await?)
        }
        BudgetCommand::Rm { names } => {
            remove_each(context, &names, async |name| client.delete_budget(name).await).await
        }
    }
}

/// Prints a budget after a change: its name, or all of it as JSON.
fn changed(context: &Context, budget: &Budget) -> Outcome {
    if context.json {
        output::json(budget)?
    } else {
        output::line(&budget.name)?
    }
    Ok(SUCCESS)
}

async fn list(context: &Context, client: &Client) -> Outcome {
    let budgets = client.list_budgets().await?;
    if context.json {
        output::json(&json!({ "budgets": budgets }))?;
        return Ok(SUCCESS);
    }
    let mut table =
        table::Table::new(&["NAME", "LABELS", "PERIOD", "COST", "TOKENS", "REQUESTS", "PER MINUTE"]);
    for column in 3..7 {
        table = table.right(column);
    }
    for budget in &budgets {
        table.row(row(budget));
    }
    table.print()?;
    Ok(SUCCESS)
}

fn row(budget: &Budget) -> [String; 7] {
    let (bounds, used) = (&budget.bounds, &budget.used);
    let of = |used: String, most: Option<String>| most.map_or(used.clone(), |most| format!("{used}/{most}"));
    let rates = [
        bounds.requests_per_minute.map(|most| format!("{most} requests")),
        bounds.tokens_per_minute.map(|most| format!("{most} tokens")),
    ];
    [
        budget.name.clone(),
        if budget.label_selector.is_empty() { "all".to_owned() } else { budget.label_selector.clone() },
        budget.period.name().to_owned(),
        of(human::dollars(used.cost_micros), bounds.cost_micros.map(human::dollars)),
        of(used.tokens.to_string(), bounds.tokens.map(|most| most.to_string())),
        of(used.requests.to_string(), bounds.requests.map(|most| most.to_string())),
        rates.into_iter().flatten().collect::<Vec<_>>().join(", "),
    ]
}
