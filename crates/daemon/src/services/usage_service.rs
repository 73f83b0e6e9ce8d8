//! `UsageService`.

use super::Answer;
use crate::convert::usage as convert;
use crate::error::Error;
use crate::reach::gateway_error;
use crate::sandboxes::Sandboxes;
use hostel_gateway::Gateway;
use hostel_proto::v1;
use hostel_proto::v1::usage_service_server::UsageService;
use tonic::{Request, Response};

/// The service over what was used of models.
pub(crate) struct Usage(pub Sandboxes);

#[tonic::async_trait]
impl UsageService for Usage {
    async fn get_usage(&self, request: Request<v1::GetUsageRequest>) -> Answer<v1::GetUsageResponse> {
        let query = convert::query(request.into_inner())?;
        let rows = self.gateway()?.usage(query.clone()).await.map_err(gateway_error)?;
        let everything = hostel_gateway::Query { group_by: hostel_gateway::GroupBy::None, ..query };
        let total = self.gateway()?.usage(everything).await.map_err(gateway_error)?;
        Ok(Response::new(convert::api_usage(&rows, &total)))
    }

    async fn create_budget(
        &self,
        request: Request<v1::CreateBudgetRequest>,
    ) -> Answer<v1::CreateBudgetResponse> {
        let budget = convert::budget(request.into_inner().budget.unwrap_or_default())?;
        let made = self.gateway()?.budgets().create(budget).await.map_err(gateway_error)?;
        Ok(Response::new(v1::CreateBudgetResponse { budget: Some(convert::api_budget(&made)) }))
    }

    async fn list_budgets(&self, _: Request<v1::ListBudgetsRequest>) -> Answer<v1::ListBudgetsResponse> {
        let budgets = self.gateway()?.budgets().list();
        let budgets = budgets.iter().map(convert::api_budget).collect();
        Ok(Response::new(v1::ListBudgetsResponse { budgets }))
    }

    async fn update_budget(
        &self,
        request: Request<v1::UpdateBudgetRequest>,
    ) -> Answer<v1::UpdateBudgetResponse> {
        let v1::UpdateBudgetRequest { name, budget } = request.into_inner();
        let bounds = crate::convert::model_budget(budget)?;
        let budgets = self.gateway()?.budgets();
        let before = budgets.get(&name).map_err(gateway_error)?.definition;
        let after = hostel_gateway::LabelBudget { budget: bounds, ..before };
        let changed = budgets.update(after).await.map_err(gateway_error)?;
        Ok(Response::new(v1::UpdateBudgetResponse { budget: Some(convert::api_budget(&changed)) }))
    }

    async fn delete_budget(
        &self,
        request: Request<v1::DeleteBudgetRequest>,
    ) -> Answer<v1::DeleteBudgetResponse> {
        let name = request.into_inner().name;
        self.gateway()?.budgets().delete(&name).await.map_err(gateway_error)?;
        Ok(Response::new(v1::DeleteBudgetResponse {}))
    }
}

impl Usage {
    fn gateway(&self) -> Result<&Gateway, Error> {
        self.0.reach().gateway()
    }
}
