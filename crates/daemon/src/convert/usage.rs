//! Usage of models and budgets: between the API and the gateway.

use super::{api_budget as api_bounds, model_budget, optional_id, system_time};
use crate::error::Result;
use hostel_gateway::{BudgetStatus, GroupBy, LabelBudget, Period, Query, UsageRow};
use hostel_proto::v1;
use hostel_sandbox::label::{self, Labels};
use hostel_sandbox::{Error as DomainError, SandboxId};

pub(crate) fn query(request: v1::GetUsageRequest) -> Result<Query> {
    let group_by = match request.group_by() {
        v1::UsageGroup::Unspecified if request.group_by != 0 => {
            let problem = format!("{} is not a group", request.group_by);
            return Err(DomainError::invalid("group_by", problem).into());
        }
        v1::UsageGroup::Unspecified => GroupBy::None,
        v1::UsageGroup::Sandbox => GroupBy::Sandbox,
        v1::UsageGroup::Label if request.label.is_empty() => GroupBy::Labels,
        v1::UsageGroup::Label => GroupBy::Label(request.label.clone()),
        v1::UsageGroup::Model => GroupBy::Model,
        v1::UsageGroup::Day => GroupBy::Day,
        v1::UsageGroup::Session => GroupBy::Session,
    };
    let time = |field, time: Option<_>| time.map(|time| system_time(field, time)).transpose();
    Ok(Query {
        since: time("start_time", request.start_time)?,
        until: time("end_time", request.end_time)?,
        sandbox: optional_id(request.sandbox_id, SandboxId::parse)?,
        labels: pairs(&request.label_selector)?,
        group_by,
    })
}

/// `k=v` joined with `,`: only these conditions can be added up.
fn pairs(selector: &str) -> Result<Labels> {
    let parts = selector.split(',').map(str::trim).filter(|part| !part.is_empty());
    let labels = parts.map(|part| match part.split_once('=') {
        Some((key, value)) if !key.ends_with('!') => {
            Ok((key.to_owned(), value.trim_start_matches('=').to_owned()))
        }
        _ => Err(DomainError::invalid("label_selector", format!("{part:.80?} is not KEY=VALUE"))),
    });
    let labels = labels.collect::<std::result::Result<Labels, _>>()?;
    label::validate(&labels)?;
    Ok(labels)
}

pub(crate) fn budget(wire: v1::Budget) -> Result<LabelBudget> {
    let period = match wire.period() {
        v1::BudgetPeriod::Unspecified if wire.period != 0 => {
            let problem = format!("{} is not a period", wire.period);
            return Err(DomainError::invalid("budget.period", problem).into());
        }
        v1::BudgetPeriod::Unspecified | v1::BudgetPeriod::Total => Period::Total,
        v1::BudgetPeriod::Day => Period::Day,
        v1::BudgetPeriod::Month => Period::Month,
    };
    let selector = pairs(&wire.label_selector)?;
    Ok(LabelBudget { name: wire.name, selector, budget: model_budget(wire.budget)?, period })
}

pub(crate) fn api_budget(status: &BudgetStatus) -> v1::Budget {
    let period = match status.definition.period {
        Period::Total => v1::BudgetPeriod::Total,
        Period::Day => v1::BudgetPeriod::Day,
        Period::Month => v1::BudgetPeriod::Month,
    };
    let pairs = status.definition.selector.iter().map(|(key, value)| format!("{key}={value}"));
    v1::Budget {
        name: status.definition.name.clone(),
        label_selector: pairs.collect::<Vec<_>>().join(","),
        budget: Some(api_bounds(&status.definition.budget)),
        period: period.into(),
        used: Some(v1::BudgetUse {
            requests: status.spent.requests,
            tokens: status.spent.tokens,
            cost_micros: status.spent.cost_micros,
        }),
    }
}

pub(crate) fn api_usage(rows: &[UsageRow], total: &[UsageRow]) -> v1::GetUsageResponse {
    let row = |row: &UsageRow| v1::UsageRow {
        group: row.key.clone().unwrap_or_default(),
        usage: Some(figures(row)),
    };
    v1::GetUsageResponse {
        rows: rows.iter().map(row).collect(),
        total: Some(total.first().map(figures).unwrap_or_default()),
    }
}

fn figures(row: &UsageRow) -> v1::ModelUsage {
    v1::ModelUsage {
        requests: row.requests,
        input_tokens: row.tokens.input,
        output_tokens: row.tokens.output,
        cache_write_5m_tokens: row.tokens.cache_write_5m,
        cache_write_1h_tokens: row.tokens.cache_write_1h,
        cache_read_tokens: row.tokens.cache_read,
        cost_micros: row.cost_micros,
        interrupted_requests: row.interrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_pairs_only() {
        assert_eq!(
            pairs("a=b, c==d").unwrap(),
            [("a", "b"), ("c", "d")].map(|(k, v)| (k.into(), v.into())).into()
        );
        assert!(pairs("").unwrap().is_empty());
        for wrong in ["a", "!a", "a!=b"] {
            assert!(pairs(wrong).is_err(), "{wrong}");
        }
    }
}
