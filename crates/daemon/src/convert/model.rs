//! Access to models: between the API and the domain.

use crate::error::Result;
use hostel_proto::v1;
use hostel_sandbox::{ModelAccess, ModelBudget};

pub(crate) fn model(wire: Option<v1::ModelAccess>) -> Result<Option<ModelAccess>> {
    wire.map(|wire| Ok(ModelAccess { budget: budget(wire.budget)? })).transpose()
}

pub(crate) fn budget(wire: Option<v1::ModelBudget>) -> Result<ModelBudget> {
    let wire = wire.unwrap_or_default();
    let budget = ModelBudget {
        cost_micros: wire.cost_micros,
        tokens: wire.tokens,
        requests: wire.requests,
        requests_per_minute: wire.requests_per_minute,
        tokens_per_minute: wire.tokens_per_minute,
    };
    budget.validate()?;
    Ok(budget)
}

pub(crate) fn api_model(model: &ModelAccess) -> v1::ModelAccess {
    v1::ModelAccess { budget: (!model.budget.is_unbounded()).then(|| api_budget(&model.budget)) }
}

pub(crate) fn api_budget(budget: &ModelBudget) -> v1::ModelBudget {
    v1::ModelBudget {
        cost_micros: budget.cost_micros,
        tokens: budget.tokens,
        requests: budget.requests,
        requests_per_minute: budget.requests_per_minute,
        tokens_per_minute: budget.tokens_per_minute,
    }
}
