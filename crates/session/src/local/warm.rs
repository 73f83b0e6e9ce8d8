//! Agents that are started before anybody wants them.

use super::Shared;
use crate::error::{Error, Result};
use crate::worker::options::Spares;
use hostel_client::domain::process::ProcessSpec;
use hostel_client::domain::{BackendName, TemplateId};
use hostel_client::model::PoolSpec;
use hostel_client::{CreatePool, PoolField};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long to wait before a pool that could not be made is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// How often it is looked whether the pool is still there: a daemon may begin anew, or somebody remove it.
const LOOK: Duration = Duration::from_secs(60);
/// How long the pool waits with the next agent after one was claimed.
const REFILL_DELAY: Duration = Duration::from_secs(1);

/// Has the daemon keep a pool of warm agents for as long as the host is there; or none, where none are wanted.
pub(super) async fn keep(spares: Spares, shared: Arc<Shared>, leaving: CancellationToken) {
    let wanted = spares.wanted(&shared.config);
    let (mut told, mut is_set) = (false, false);
    loop {
        let kept = match wanted {
            0 => abolish(spares, &shared).await,
            _ => ensure(spares, &shared, is_set).await,
        };
        let pause = match kept {
            Ok(()) if wanted == 0 => return,
            Ok(()) => {
                (told, is_set) = (false, true);
                LOOK
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) && wanted > 0 {
                    tracing::warn!(%error, "no agents can be kept warm yet; it is tried again");
                }
                PAUSE
            }
        };
        tokio::select! {
            () = leaving.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Removes the pool that a server before this kept.
async fn abolish(spares: Spares, shared: &Shared) -> Result<()> {
    let (client, pool) = (shared.client().await?, spares.pool());
    match client.get_pool(pool).await {
        Ok(known) if known.spec.warm_process.is_some() => {
            tracing::info!(pool, "no agents are to be kept warm any more");
            Ok(client.delete_pool(pool, true).await?)
        }
        // Nothing of ours; or a daemon that knows nothing of pools.
        Err(error) if error.is_connection() => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Sees to it that the pool is there: as it is configured at first, and then as somebody may have tuned it.
async fn ensure(spares: Spares, shared: &Shared, is_set: bool) -> Result<()> {
    let invalid = |error: hostel_client::domain::Error| Error::invalid("template", error.to_string());
    let config = &shared.config;
    let Some(spare) = spares.launch() else { return Ok(()) };
    let template = TemplateId::parse(config.template.as_str()).map_err(invalid)?;
    let backend = config.backend.as_deref().map(BackendName::parse).transpose().map_err(invalid)?;
    let wanted = spares.wanted(config);
    let most = wanted.saturating_mul(4).min(10_000);
    let spec = PoolSpec {
        backend,
        warm_process: Some(ProcessSpec {
            argv: spare.argv,
            env: spare.env,
            cwd: spare.cwd,
            stdin: true,
            ..ProcessSpec::default()
        }),
        // Starting another agent takes a processor for longer than the one that was claimed needs for its first request.
        refill_delay: Some(REFILL_DELAY),
        // Who knows nothing of agents that wait gets none, and takes none from the sessions.
        named_only: true,
        ..PoolSpec::new(template, wanted, most)
    };
    let client = shared.client().await?;
    let name = spares.pool();
    match client.get_pool(name).await {
        Ok(_) if is_set => {}
        Ok(_) => {
            let fields = [
                PoolField::Template,
                PoolField::MinSize,
                PoolField::MaxSize,
                PoolField::WarmProcess,
                PoolField::RefillDelay,
                PoolField::NamedOnly,
            ];
            client.update_pool(name, &spec, &fields).await?;
        }
        Err(error) if error.is_not_found() => {
            let create = CreatePool { name: name.to_owned(), request_id: None, spec };
            client.create_pool(create).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
