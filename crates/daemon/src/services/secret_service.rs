//! `SecretService`.

use super::Answer;
use crate::convert::timestamp;
use crate::error::Error;
use crate::sandboxes::Sandboxes;
use hostel_egress::secret::{SecretValue, Secrets as Values};
use hostel_proto::v1;
use hostel_proto::v1::secret_service_server::SecretService;
use hostel_sandbox::Error as DomainError;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service over values of secrets. They go in and never come out.
pub(crate) struct Secrets(pub Sandboxes);

#[tonic::async_trait]
impl SecretService for Secrets {
    async fn put_secret(&self, request: Request<v1::PutSecretRequest>) -> Answer<v1::PutSecretResponse> {
        let v1::PutSecretRequest { name, value } = request.into_inner();
        let value = SecretValue::new(&name, &value).map_err(refused)?;
        let put = move |values: &Values| match values.vault() {
            Some(vault) => vault.put(&name, &value).map_err(refused),
            None => Err(no_vault()),
        };
        let info = self.with_values(put).await?;
        let secret = v1::Secret {
            name: info.name,
            source: "vault".to_owned(),
            update_time: Some(timestamp(info.updated)),
        };
        Ok(Response::new(v1::PutSecretResponse { secret: Some(secret) }))
    }

    async fn list_secrets(&self, _: Request<v1::ListSecretsRequest>) -> Answer<v1::ListSecretsResponse> {
        let known = self.with_values(|values| values.list().map_err(refused)).await?;
        let secrets = known.into_iter().map(|known| v1::Secret {
            name: known.name,
            source: known.source.to_owned(),
            update_time: known.updated.map(timestamp),
        });
        Ok(Response::new(v1::ListSecretsResponse { secrets: secrets.collect() }))
    }

    async fn delete_secret(
        &self,
        request: Request<v1::DeleteSecretRequest>,
    ) -> Answer<v1::DeleteSecretResponse> {
        let name = request.into_inner().name;
        let gone = name.clone();
        let delete = move |values: &Values| match values.vault() {
            Some(vault) => vault.delete(&gone).map_err(refused),
            None => Err(no_vault()),
        };
        if !self.with_values(delete).await? {
            return Err(Error::from(DomainError::not_found("secret", name)).into());
        }
        Ok(Response::new(v1::DeleteSecretResponse {}))
    }
}

impl Secrets {
    /// Works with files off the threads that serve.
    async fn with_values<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Values) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let values = Arc::clone(self.0.reach().secrets());
        let done = tokio::task::spawn_blocking(move || work(&values)).await;
        Ok(done.map_err(|panic| Status::internal(panic.to_string()))??)
    }
}

fn refused(error: hostel_egress::Error) -> Error {
    crate::reach::asked_error(error)
}

fn no_vault() -> Error {
    DomainError::wrong_state("NO_VAULT", "this node keeps no secrets: give them to the daemon in files")
        .into()
}
