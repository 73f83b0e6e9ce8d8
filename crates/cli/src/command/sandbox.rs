//! `hostel sandbox`, all but what goes on until it is stopped.

use super::{Context, Outcome, SUCCESS, remove_each};
use crate::args::{
    CreateArgs, ForkArgs, ListArgs, RmArgs, SandboxCommand, SnapshotArgs, UpdateArgs, changed_bounds,
};
use crate::failure::Failure;
use crate::output::{self, human, table};
use hostel_client::domain::file::{InitialFile, MAX_INITIAL_BYTES};
use hostel_client::domain::{ModelAccess, NetworkPolicy, ResourceLimits, RuleAction, SandboxId};
use hostel_client::model::{ForkOutcome, Sandbox};
use hostel_client::{Client, ForkSandbox, ListSandboxes, UpdateSandbox};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

pub(crate) async fn execute(context: &Context, command: SandboxCommand) -> Outcome {
    let client = context.connect().await?;
    match command {
        SandboxCommand::Create(args) => create(context, &client, *args).await,
        SandboxCommand::List(args) => list(context, &client, args).await,
        SandboxCommand::Get(args) => {
            let sandbox = client.get_sandbox(&args.id).await?;
            if context.json {
                output::json(&sandbox)?
            } else {
                output::line(&describe(&sandbox))?
            }
            Ok(SUCCESS)
        }
        SandboxCommand::Rm(args) => remove(context, &client, args).await,
        SandboxCommand::Pause(args) => changed(context, &client.pause_sandbox(&args.id).await?),
        SandboxCommand::Resume(args) => changed(context, &client.resume_sandbox(&args.id).await?),
        SandboxCommand::Snapshot(args) => snapshot(context, &client, args).await,
        SandboxCommand::Fork(args) => fork(context, &client, args).await,
        SandboxCommand::Update(args) => update(context, &client, *args).await,
        SandboxCommand::Network(_) | SandboxCommand::Stats(_) | SandboxCommand::Watch(_) => {
            Err(Failure::usage("network, stats and watch are commands of their own"))
        }
    }
}

async fn create(context: &Context, client: &Client, args: CreateArgs) -> Outcome {
    let mut create = args.sandbox.create()?;
    create.files =
        args.file.iter().map(|(source, target)| initial_file(source, target)).collect::<Result<_, _>>()?;
    create.id = args.id;
    create.request_id = args.request_id;
    create.spec.lifetime = args.lifetime;
    create.spec.idle_timeout = args.idle_timeout;
    create.wait = Some(args.wait);
    let begin = Instant::now();
    let created = client.create_sandbox(create).await?;
    let took = begin.elapsed();
    if context.json {
        output::json(&created)?;
        return Ok(SUCCESS);
    }
    context.tell_of_start(&created, took);
    let sandbox = &created.sandbox;
    if !args.quiet {
        for weakness in &sandbox.weaknesses {
            output::note(&format!("weaker here: {}: {}", weakness.capability, weakness.detail));
        }
    }
    changed(context, sandbox)
}

/// Reads a file that a sandbox is to begin with, unless it is too large for that.
fn initial_file(source: &Path, target: &str) -> Result<InitialFile, Failure> {
    let problem = |what: &str| Failure::other("LOCAL_FILE", format!("{}: {what}", source.display()));
    let unreadable = |error: std::io::Error| problem(&format!("cannot read it: {error}"));
    let metadata = std::fs::metadata(source).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(problem("not a regular file: copy directories with hostel cp when the sandbox is there"));
    }
    if metadata.len() > MAX_INITIAL_BYTES as u64 {
        return Err(problem("larger than 1 MiB: copy it with hostel cp when the sandbox is there"));
    }
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let path = if target.ends_with('/') { format!("{target}{name}") } else { target.to_owned() };
    let content = std::fs::read(source).map_err(unreadable)?.into();
    Ok(InitialFile { path, content, mode: Some(metadata.permissions().mode() & 0o777) })
}

/// Prints a sandbox after a change: its id, or all of it as JSON.
fn changed(context: &Context, sandbox: &Sandbox) -> Outcome {
    if context.json {
        output::json(sandbox)?
    } else {
        output::line(sandbox.id.as_str())?
    }
    Ok(SUCCESS)
}

async fn list(context: &Context, client: &Client, args: ListArgs) -> Outcome {
    let list = ListSandboxes { label_selector: args.label, states: args.state };
    let page = client.list_sandboxes(&list).await?;
    if context.json {
        output::json(&page)?;
        return Ok(SUCCESS);
    }
    if args.quiet {
        for sandbox in &page.sandboxes {
            output::line(sandbox.id.as_str())?;
        }
        return Ok(SUCCESS);
    }
    let mut table =
        table::Table::new(&["ID", "STATE", "BACKEND", "TEMPLATE", "AGE", "EXPIRES", "LIMITS", "LABELS"]);
    for sandbox in &page.sandboxes {
        table.row([
            sandbox.id.to_string(),
            sandbox.state.to_string(),
            sandbox.backend.to_string(),
            sandbox.template.to_string(),
            human::age(sandbox.create_time),
            human::until(sandbox.expire_time),
            limits(&sandbox.limits),
            human::labels(&sandbox.labels),
        ]);
    }
    table.print()?;
    Ok(SUCCESS)
}

async fn update(context: &Context, client: &Client, args: UpdateArgs) -> Outcome {
    let limits = args.limits.limits();
    let secrets = args.reach.secrets();
    let model = match args.reach.model() {
        None => None,
        Some(named) => {
            let before = client.get_sandbox(&args.id).await?.model.unwrap_or_default();
            Some(ModelAccess { budget: changed_bounds(named.budget, &before.budget) })
        }
    };
    let update = UpdateSandbox {
        labels: (!args.label.is_empty()).then(|| args.label.into_iter().collect()),
        lifetime: args.lifetime,
        idle_timeout: args.idle_timeout,
        limits: (limits != ResourceLimits::default()).then_some(limits),
        network: args.reach.network()?,
        secrets: (args.no_secrets || !secrets.is_empty()).then_some(secrets),
        model: (args.no_model || model.is_some()).then_some(model),
    };
    if update == UpdateSandbox::default() {
        return Err(Failure::usage("say what to change: see hostel sandbox update --help"));
    }
    changed(context, &client.update_sandbox(&args.id, update).await?)
}

/// The limits that people ask for most.
fn limits(limits: &ResourceLimits) -> String {
    let memory = limits.memory_bytes.map(|bytes| human::size(Some(bytes)));
    let cpu = limits.cpu_millis.map(|millis| format!("{} cpu", human::cores(millis.into())));
    let parts: Vec<_> = memory.into_iter().chain(cpu).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

fn describe(sandbox: &Sandbox) -> String {
    let limits = &sandbox.limits;
    let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    let size = |value: Option<u64>| value.map_or_else(String::new, |value| human::size(Some(value)));
    let transition = sandbox.last_transition.as_ref().map_or_else(String::new, |transition| {
        let ago = human::age(transition.time);
        let detail =
            if transition.detail.is_empty() { String::new() } else { format!(": {}", transition.detail) };
        format!(", {} by {} {ago} ago{detail}", transition.reason, transition.actor)
    });
    let env: Vec<_> = sandbox.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let weaker: Vec<_> =
        sandbox.weaknesses.iter().map(|weak| format!("{}: {}", weak.capability, weak.detail)).collect();
    let idle = sandbox.idle_timeout_seconds.map_or_else(String::new, |seconds| format!("{seconds}s"));
    let expires =
        sandbox.expire_time.map_or_else(String::new, |time| format!("{} ({time})", human::until(Some(time))));
    table::facts(&[
        ("id", sandbox.id.to_string()),
        ("state", format!("{}{transition}", sandbox.state)),
        ("backend", sandbox.backend.to_string()),
        ("template", sandbox.template.to_string()),
        (
            "created",
            sandbox
                .create_time
                .map_or_else(String::new, |time| format!("{} ago ({time})", human::age(Some(time)))),
        ),
        ("expires", expires),
        ("idle timeout", idle),
        ("parent", sandbox.parent_id.clone().unwrap_or_default()),
        ("start", sandbox.start_kind.name().to_owned()),
        ("pool", sandbox.pool.clone().unwrap_or_default()),
        ("user", sandbox.user.clone()),
        ("directory", sandbox.working_directory.clone()),
        ("network", reach(&sandbox.network)),
        ("secrets", sandbox.secrets.iter().map(|secret| secret.name.as_str()).collect::<Vec<_>>().join(", ")),
        ("model", sandbox.model.as_ref().map_or_else(String::new, access)),
        ("memory", size(limits.memory_bytes)),
        ("cpu", limits.cpu_millis.map_or_else(String::new, |millis| human::cores(millis.into()))),
        ("pids", number(limits.pids.map(u64::from))),
        ("disk", size(limits.disk_bytes)),
        ("inodes", number(limits.disk_inodes)),
        ("open files", number(limits.open_files.map(u64::from))),
        (
            "output rate",
            limits
                .output_bytes_per_second
                .map_or_else(String::new, |rate| format!("{}/s", human::size(Some(rate)))),
        ),
        ("labels", human::labels(&sandbox.labels)),
        ("env", env.join("\n")),
        ("weaker here", weaker.join("\n")),
    ])
}

/// A network policy, a rule a line.
fn reach(policy: &NetworkPolicy) -> String {
    let rules = policy.rules.iter().map(|rule| {
        let ports: Vec<_> = rule.ports.iter().map(ToString::to_string).collect();
        let verb = if rule.action == RuleAction::Deny { "deny" } else { "allow" };
        let ports = if ports.is_empty() { String::new() } else { format!(":{}", ports.join(",")) };
        format!("{verb} {}{ports}", rule.host)
    });
    let presets = policy.presets.iter().map(|preset| format!("preset {preset}"));
    [policy.mode.to_string()].into_iter().chain(presets).chain(rules).collect::<Vec<_>>().join("\n")
}

/// What may be asked of models.
fn access(model: &ModelAccess) -> String {
    let budget = &model.budget;
    let bounds = [
        budget.cost_micros.map(human::dollars),
        budget.tokens.map(|most| format!("{most} tokens")),
        budget.requests.map(|most| format!("{most} requests")),
        budget.requests_per_minute.map(|most| format!("{most} requests per minute")),
        budget.tokens_per_minute.map(|most| format!("{most} tokens per minute")),
    ];
    let bounds: Vec<_> = bounds.into_iter().flatten().collect();
    if bounds.is_empty() {
        "without a budget of its own".to_owned()
    } else {
        format!("up to {}", bounds.join(", "))
    }
}

async fn remove(context: &Context, client: &Client, args: RmArgs) -> Outcome {
    let ids: Vec<SandboxId> = if args.all {
        client
            .list_sandboxes(&ListSandboxes::default())
            .await?
            .sandboxes
            .into_iter()
            .map(|one| one.id)
            .collect()
    } else {
        args.ids
    };
    let (grace, missing_is_well) = (args.grace, args.force || args.all);
    let remove = async |id: &SandboxId| match grace {
        Some(grace) => client.delete_sandbox_gracefully(id, grace).await,
        // Another may have been quicker when all are to go.
        None if missing_is_well => client.delete_sandbox_if_there(id).await,
        None => client.delete_sandbox(id).await,
    };
    remove_each(context, &ids, remove).await
}

async fn snapshot(context: &Context, client: &Client, args: SnapshotArgs) -> Outcome {
    let labels = args.label.into_iter().collect();
    let template = client.snapshot_sandbox(&args.id, args.template.as_ref(), &labels).await?;
    if context.json {
        output::json(&template)?
    } else {
        output::line(template.name.as_str())?
    }
    if !context.json && !args.quiet {
        output::note(&format!("make sandboxes of it with --template {}", template.name));
    }
    Ok(SUCCESS)
}

async fn fork(context: &Context, client: &Client, args: ForkArgs) -> Outcome {
    let request_id = args.request_id.unwrap_or_else(|| format!("fork-{}", SandboxId::generate()));
    let fork = ForkSandbox {
        request_id: Some(request_id.clone()),
        count: args.count,
        labels: args.label.into_iter().collect(),
        lifetime: args.lifetime,
        wait: Some(args.wait),
    };
    let outcomes = client.fork_sandbox(&args.id, fork).await.inspect_err(|error| {
        if error.is_connection() {
            let again = format!("the same command with --request-id {request_id}");
            output::note(&format!("the forks may be there: {again} tells which they are"));
        }
    })?;
    let failures: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            ForkOutcome::Failure { reason, message } => Some(format!("{message} ({reason})")),
            ForkOutcome::Sandbox(_) => None,
        })
        .collect();
    let sandboxes: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            ForkOutcome::Sandbox(sandbox) => Some(sandbox),
            ForkOutcome::Failure { .. } => None,
        })
        .collect();
    if context.json {
        output::json(&json!({ "sandboxes": sandboxes, "failures": failures }))?;
    } else {
        for sandbox in sandboxes {
            output::line(sandbox.id.as_str())?;
        }
    }
    match failures.first() {
        None => Ok(SUCCESS),
        Some(first) => {
            let (failed, all) = (failures.len(), outcomes.len());
            Err(Failure::other("FORK_FAILED", format!("{failed} of {all} forks failed; the first: {first}")))
        }
    }
}
