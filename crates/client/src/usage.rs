//! What was used of models, budgets that sandboxes share, and the values of secrets.

use crate::client::Client;
use crate::convert;
use crate::error::Result;
use crate::model::{Budget, BudgetPeriod, Secret, Usage, UsageGroup};
use hostel_proto::v1;
use hostel_sandbox::{ModelBudget, SandboxId};
use std::time::SystemTime;

/// Which usage to add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// From this moment on.
    pub since: Option<SystemTime>,
    /// Before this moment.
    pub until: Option<SystemTime>,
    /// Only of this sandbox, which may be gone.
    pub sandbox: Option<SandboxId>,
    /// Only of sandboxes that had these labels: `k=v` joined with `,`. Empty: of all.
    pub label_selector: String,
    /// What to add up by.
    pub group_by: UsageGroup,
}

impl Client {
    /// Adds up what was used of models.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn get_usage(&self, query: UsageQuery) -> Result<Usage> {
        use v1::UsageGroup as Wire;
        let (group_by, label) = match query.group_by {
            UsageGroup::Total => (Wire::Unspecified, String::new()),
            UsageGroup::Sandbox => (Wire::Sandbox, String::new()),
            UsageGroup::Label(label) => (Wire::Label, label),
            UsageGroup::Labels => (Wire::Label, String::new()),
            UsageGroup::Model => (Wire::Model, String::new()),
            UsageGroup::Day => (Wire::Day, String::new()),
            UsageGroup::Session => (Wire::Session, String::new()),
        };
        let request = v1::GetUsageRequest {
            start_time: query.since.map(Into::into),
            end_time: query.until.map(Into::into),
            sandbox_id: query.sandbox.map(String::from).unwrap_or_default(),
            label_selector: query.label_selector,
            group_by: group_by.into(),
            label,
        };
        let response = self.usages().get_usage(request).await.map_err(convert::error)?;
        convert::usage(response.into_inner())
    }

    /// Makes a budget that sandboxes with these labels share.
    ///
    /// # Errors
    /// The daemon's refusal, `ALREADY_EXISTS` when there is one of that name.
    pub async fn create_budget(
        &self,
        name: &str,
        label_selector: &str,
        bounds: &ModelBudget,
        period: BudgetPeriod,
    ) -> Result<Budget> {
        let budget = v1::Budget {
            name: name.to_owned(),
            label_selector: label_selector.to_owned(),
            budget: Some(convert::bounds_to_wire(bounds)),
            period: convert::period_to_wire(period).into(),
            used: None,
        };
        let request = v1::CreateBudgetRequest { budget: Some(budget) };
        let response = self.usages().create_budget(request).await.map_err(convert::error)?;
        Ok(convert::budget(convert::required(response.into_inner().budget, "the budget")?))
    }

    /// All budgets, with what was used of each.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn list_budgets(&self) -> Result<Vec<Budget>> {
        let response = self.usages().list_budgets(v1::ListBudgetsRequest {}).await.map_err(convert::error)?;
        Ok(response.into_inner().budgets.into_iter().map(convert::budget).collect())
    }

    /// Gives a budget new bounds.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn update_budget(&self, name: &str, bounds: &ModelBudget) -> Result<Budget> {
        let budget = Some(convert::bounds_to_wire(bounds));
        let request = v1::UpdateBudgetRequest { name: name.to_owned(), budget };
        let response = self.usages().update_budget(request).await.map_err(convert::error)?;
        Ok(convert::budget(convert::required(response.into_inner().budget, "the budget")?))
    }

    /// Removes a budget.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn delete_budget(&self, name: &str) -> Result<()> {
        let request = v1::DeleteBudgetRequest { name: name.to_owned() };
        self.usages().delete_budget(request).await.map_err(convert::error)?;
        Ok(())
    }

    /// Keeps the value of a secret, sealed, instead of the one before.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn put_secret(&self, name: &str, value: Vec<u8>) -> Result<Secret> {
        let request = v1::PutSecretRequest { name: name.to_owned(), value: value.into() };
        let response = self.secrets().put_secret(request).await.map_err(convert::error)?;
        Ok(convert::known_secret(convert::required(response.into_inner().secret, "the secret")?))
    }

    /// The names of all secrets.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn list_secrets(&self) -> Result<Vec<Secret>> {
        let response =
            self.secrets().list_secrets(v1::ListSecretsRequest {}).await.map_err(convert::error)?;
        Ok(response.into_inner().secrets.into_iter().map(convert::known_secret).collect())
    }

    /// Forgets a value that was put.
    ///
    /// # Errors
    /// The daemon's refusal, `NOT_FOUND` when there is none such.
    pub async fn delete_secret(&self, name: &str) -> Result<()> {
        let request = v1::DeleteSecretRequest { name: name.to_owned() };
        self.secrets().delete_secret(request).await.map_err(convert::error)?;
        Ok(())
    }
}
