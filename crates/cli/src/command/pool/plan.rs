//! `hostel pool plan`: what other sizes would have done, as a table and a plot.

use super::super::{Context, Outcome, SUCCESS};
use super::plot::plot;
use crate::args::PlanArgs;
use crate::output::{self, human, table::Table};
use hostel_client::Client;
use hostel_client::model::{PlanRow, PoolPlan};
use serde::Serialize;

/// What the daemon assumes where it has measured nothing, in seconds.
const UNMEASURED: f64 = 1.0;

/// The plan, and what it says about the pool's target.
#[derive(Serialize)]
struct Told<'a> {
    name: &'a str,
    target_hit_rate: f64,
    /// The smallest of the sizes that reaches it; `null` when none does.
    smallest_size: Option<u32>,
    #[serde(flatten)]
    plan: &'a PoolPlan,
}

pub(super) async fn plan(context: &Context, client: &Client, args: PlanArgs) -> Outcome {
    let target = client.get_pool(&args.name).await?.spec.target_hit_rate.unwrap_or_default();
    let plan = client.plan_pool(&args.name, &args.sizes, args.window).await?;
    let smallest = plan.smallest_size(target);
    if context.json {
        output::json(&Told {
            name: &args.name,
            target_hit_rate: target,
            smallest_size: smallest,
            plan: &plan,
        })?;
        return Ok(SUCCESS);
    }
    output::line(&table(&plan.rows))?;
    output::line("")?;
    output::line(&about(&plan))?;
    output::line(&plot(&plan.rows, smallest, target))?;
    Ok(SUCCESS)
}

fn table(rows: &[PlanRow]) -> String {
    let columns = ["SIZE", "HIT RATE", "WAIT P50", "WAIT P99", "IDLE MEMORY", "IDLE TIME"];
    let mut table = Table::new(&columns);
    for column in 1..columns.len() {
        table = table.right(column);
    }
    for row in rows {
        table.row([
            size(row),
            human::percent(row.hit_rate),
            human::brief(row.wait_p50_seconds),
            human::brief(row.wait_p99_seconds),
            human::size(Some(row.idle_memory_bytes)),
            human::brief(row.idle_seconds),
        ]);
    }
    table.text()
}

/// The size of a row: a number, or what the controller would have chosen.
pub(super) fn size(row: &PlanRow) -> String {
    match row.size {
        Some(size) => size.to_string(),
        None => format!("auto (mean {:.1}, most {})", row.mean_size, row.largest_size),
    }
}

/// What was replayed.
fn about(plan: &PoolPlan) -> String {
    let span = match (plan.start_time, plan.end_time) {
        (Some(start), Some(end)) => {
            let lasted = end.duration_since(start).as_secs_f64();
            format!(" of {} since {}", human::brief(lasted), start.strftime("%Y-%m-%d %H:%M UTC"))
        }
        _ => String::new(),
    };
    let claims = if plan.claims == 1 { "1 claim".to_owned() } else { format!("{} claims", plan.claims) };
    let (took, measured) = match plan.create_seconds {
        Some(took) => (took, ""),
        None => (UNMEASURED, " is assumed"),
    };
    format!("{claims}{span}, {}{measured} to make a sandbox", human::brief(took))
}
