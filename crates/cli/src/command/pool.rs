//! `hostel pool`.

mod describe;
mod fill;
mod plan;
mod plot;
mod watch;

use super::{Context, Outcome, SUCCESS, remove_each};
use crate::args::{CreatePoolArgs, PoolCommand, SetPoolArgs};
use crate::failure::Failure;
use crate::output::{self, human, table};
use hostel_client::domain::{BackendName, TemplateId};
use hostel_client::model::{Pool, PoolHealth};
use hostel_client::{Client, CreatePool};
use serde_json::json;

pub(crate) async fn execute(context: &Context, command: PoolCommand) -> Outcome {
    let client = context.connect().await?;
    match command {
        PoolCommand::List { quiet } => list(context, &client, quiet).await,
        PoolCommand::Get(args) => {
            let pool = client.get_pool(&args.name).await?;
            if context.json {
                output::json(&pool)?
            } else {
                output::line(&describe::describe(&pool))?
            }
            Ok(SUCCESS)
        }
        PoolCommand::Create(args) => create(context, &client, *args).await,
        PoolCommand::Set(args) => set(context, &client, *args).await,
        PoolCommand::Drain(args) => changed(context, &client.drain_pool(&args.name).await?),
        PoolCommand::Rm { names, allow_missing } => {
            remove_each(context, &names, async |name| client.delete_pool(name, allow_missing).await).await
        }
        PoolCommand::Watch(args) => watch::watch(context, &client, args).await,
        PoolCommand::Plan(args) => plan::plan(context, &client, args).await,
    }
}

/// Prints a pool after a change: its name, or all of it as JSON.
fn changed(context: &Context, pool: &Pool) -> Outcome {
    if context.json {
        output::json(pool)?
    } else {
        output::line(&pool.name)?
    }
    Ok(SUCCESS)
}

async fn list(context: &Context, client: &Client, quiet: bool) -> Outcome {
    let pools = client.list_pools().await?;
    if context.json {
        output::json(&json!({ "pools": pools }))?;
    } else if quiet {
        for pool in &pools {
            output::line(&pool.name)?;
        }
    } else {
        let columns = [
            "NAME",
            "TEMPLATE",
            "BACKEND",
            "HEALTH",
            "READY/TARGET",
            "MAKING",
            "HITS",
            "MISSES",
            "HIT%",
            "AGE",
        ];
        let mut table = table::Table::new(&columns);
        for column in 4..9 {
            table = table.right(column);
        }
        for pool in &pools {
            table.row(row(pool));
        }
        table.print()?;
    }
    Ok(SUCCESS)
}

fn row(pool: &Pool) -> [String; 10] {
    let Pool { status, counters, .. } = pool;
    [
        pool.name.clone(),
        pool.spec.template.to_string(),
        pool.spec.backend.as_ref().map(ToString::to_string).unwrap_or_default(),
        health(status.health).to_owned(),
        format!("{}/{}", status.ready, status.target_size),
        status.creating.to_string(),
        counters.hits.to_string(),
        counters.misses.to_string(),
        counters.hit_rate().map_or_else(|| "-".to_owned(), human::percent),
        human::age(pool.create_time),
    ]
}

fn health(health: PoolHealth) -> &'static str {
    match health {
        PoolHealth::Unknown => "unknown",
        PoolHealth::Healthy => "healthy",
        PoolHealth::Refilling => "refilling",
        PoolHealth::Failing => "FAILING",
        PoolHealth::Draining => "draining",
        PoolHealth::Drained => "drained",
    }
}

async fn create(context: &Context, client: &Client, args: CreatePoolArgs) -> Outcome {
    let template = match args.options.template.clone() {
        Some(template) => template,
        None => default_template(client, args.backend.as_ref()).await?,
    };
    let (name, wait, limit) = (args.name.clone(), args.wait, args.wait_timeout);
    let create = CreatePool { name: name.clone(), request_id: None, spec: args.spec(template) };
    let mut pool = client.create_pool(create).await?;
    if wait {
        pool = fill::filled(client, &name, limit).await?;
    }
    changed(context, &pool)
}

/// The template that a backend makes sandboxes of when nobody names one.
async fn default_template(client: &Client, backend: Option<&BackendName>) -> Result<TemplateId, Failure> {
    let backends = client.node_info().await?.backends;
    let meant = |name: &str, is_default| backend.map_or(is_default, |backend| backend.as_str() == name);
    let found = backends.iter().find(|one| meant(&one.name, one.is_default));
    let Some(found) = found else {
        let names: Vec<_> = backends.iter().map(|backend| backend.name.as_str()).collect();
        let wanted = backend.map_or("default", BackendName::as_str);
        let problem = format!("the node has no backend {wanted}; it has {}", names.join(", "));
        return Err(Failure::other("NOT_FOUND", problem));
    };
    TemplateId::parse(found.default_template.clone()).map_err(|_| {
        Failure::usage(format!("the backend {} has no default template: say --template", found.name))
    })
}

async fn set(context: &Context, client: &Client, args: SetPoolArgs) -> Outcome {
    let name = args.name.clone();
    let mut spec = client.get_pool(&name).await?.spec;
    let fields = args.apply(&mut spec);
    if fields.is_empty() {
        return Err(Failure::usage("say what to change: `hostel pool set --help` lists what can be"));
    }
    changed(context, &client.update_pool(&name, &spec, &fields).await?)
}
