//! `hostel ps` and `hostel kill`.

use super::{Context, Outcome, SUCCESS};
use crate::args::{KillArgs, PsArgs, value};
use crate::output::{self, human, table::Table};
use hostel_client::domain::process::ExitReason;
use hostel_client::model::Process;
use serde_json::json;

/// What everything is killed with; see signal(7).
const SIGKILL: i32 = 9;
/// Characters of a command in a table.
const COMMAND_WIDTH: usize = 60;

pub(crate) async fn ps(context: &Context, args: PsArgs) -> Outcome {
    let processes = context.connect().await?.list_processes(&args.sandbox).await?;
    if context.json {
        output::json(&json!({ "processes": processes }))?;
    } else if args.quiet {
        for process in &processes {
            output::line(process.id.as_str())?;
        }
    } else {
        let mut table = Table::new(&["ID", "PID", "STATE", "AGE", "CPU", "OUTPUT", "COMMAND"]).right(1);
        for process in &processes {
            table.row(row(process));
        }
        table.print()?;
    }
    Ok(SUCCESS)
}

fn row(process: &Process) -> [String; 7] {
    let written = process.stdout.end_offset + process.stderr.end_offset;
    [
        process.id.to_string(),
        if process.pid == 0 { "-".to_owned() } else { process.pid.to_string() },
        state(process),
        human::age(process.create_time),
        human::cpu_time(process.exit.as_ref().map(|exit| exit.cpu_seconds)),
        human::size(Some(written)),
        human::command(&process.command, COMMAND_WIDTH),
    ]
}

fn state(process: &Process) -> String {
    let Some(exit) = &process.exit else { return "running".to_owned() };
    match (exit.reason, exit.exit_code, exit.signal) {
        (ExitReason::OutOfMemory, ..) => "out of memory".to_owned(),
        (ExitReason::TimedOut, ..) => "timed out".to_owned(),
        (ExitReason::SandboxGone, ..) => "sandbox gone".to_owned(),
        (_, Some(code), _) => format!("exited {code}"),
        (_, None, Some(signal)) => value::signal_name(signal),
        (_, None, None) => "ended".to_owned(),
    }
}

pub(crate) async fn kill(context: &Context, args: KillArgs) -> Outcome {
    let client = context.connect().await?;
    match &args.process {
        Some(process) => {
            client.signal_process(&args.sandbox, process, args.signal).await?;
            if context.json {
                output::json(&json!({ "id": process, "signal": args.signal }))?;
            }
        }
        None => {
            client.kill_all_processes(&args.sandbox).await?;
            if context.json {
                output::json(&json!({ "sandbox": args.sandbox, "signal": SIGKILL }))?;
            }
        }
    }
    Ok(SUCCESS)
}
