//! Access to models, its budgets and its use.

use super::required;
use crate::error::Result;
use crate::model::{Budget, BudgetPeriod, ModelUsage, Usage, UsageRow};
use hostel_proto::v1;
use hostel_sandbox::{ModelAccess, ModelBudget};

pub(super) fn model(wire: v1::ModelAccess) -> ModelAccess {
    ModelAccess { budget: bounds(wire.budget.unwrap_or_default()) }
}

pub(super) fn model_to_wire(model: &ModelAccess) -> v1::ModelAccess {
    v1::ModelAccess { budget: (!model.budget.is_unbounded()).then(|| bounds_to_wire(&model.budget)) }
}

fn bounds(wire: v1::ModelBudget) -> ModelBudget {
    ModelBudget {
        cost_micros: wire.cost_micros,
        tokens: wire.tokens,
        requests: wire.requests,
        requests_per_minute: wire.requests_per_minute,
        tokens_per_minute: wire.tokens_per_minute,
    }
}

pub(crate) fn bounds_to_wire(budget: &ModelBudget) -> v1::ModelBudget {
    v1::ModelBudget {
        cost_micros: budget.cost_micros,
        tokens: budget.tokens,
        requests: budget.requests,
        requests_per_minute: budget.requests_per_minute,
        tokens_per_minute: budget.tokens_per_minute,
    }
}

pub(crate) fn budget(wire: v1::Budget) -> Budget {
    let period = match wire.period() {
        v1::BudgetPeriod::Total | v1::BudgetPeriod::Unspecified => BudgetPeriod::Total,
        v1::BudgetPeriod::Day => BudgetPeriod::Day,
        v1::BudgetPeriod::Month => BudgetPeriod::Month,
    };
    Budget {
        name: wire.name,
        label_selector: wire.label_selector,
        bounds: bounds(wire.budget.unwrap_or_default()),
        period,
        used: figures(wire.used.unwrap_or_default()),
    }
}

pub(crate) fn period_to_wire(period: BudgetPeriod) -> v1::BudgetPeriod {
    match period {
        BudgetPeriod::Total => v1::BudgetPeriod::Total,
        BudgetPeriod::Day => v1::BudgetPeriod::Day,
        BudgetPeriod::Month => v1::BudgetPeriod::Month,
    }
}

pub(crate) fn usage(wire: v1::GetUsageResponse) -> Result<Usage> {
    let row =
        |row: v1::UsageRow| UsageRow { group: row.group, usage: figures(row.usage.unwrap_or_default()) };
    Ok(Usage {
        rows: wire.rows.into_iter().map(row).collect(),
        total: figures(required(wire.total, "the total of usage")?),
    })
}

fn figures(wire: v1::ModelUsage) -> ModelUsage {
    ModelUsage {
        requests: wire.requests,
        input_tokens: wire.input_tokens,
        output_tokens: wire.output_tokens,
        cache_write_5m_tokens: wire.cache_write_5m_tokens,
        cache_write_1h_tokens: wire.cache_write_1h_tokens,
        cache_read_tokens: wire.cache_read_tokens,
        cost_micros: wire.cost_micros,
        interrupted_requests: wire.interrupted_requests,
    }
}
