//! `hostel usage`, `hostel budget`, `hostel secret` and `hostel audit`: what can be typed.

use super::value;
use clap::{Args, Subcommand};
use hostel_client::model::{BudgetPeriod, UsageGroup};
use hostel_sandbox::{ModelBudget, SandboxId};
use std::path::PathBuf;
use std::time::Duration;

/// Which usage to add up.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hostel usage                               all of it\n  \
    hostel usage --by model --since 24h\n  hostel usage --by label:project\n  \
    hostel usage --by day --label project=demo --json")]
pub(crate) struct UsageArgs {
    /// What to add up by: sandbox, model, day, session, label:KEY, or label, which is each label by itself.
    #[arg(long, value_name = "WHAT", value_parser = value::usage_group)]
    pub(crate) by: Option<UsageGroup>,
    /// Only of the last so long: 24h, 7d.
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) since: Option<Duration>,
    /// Only of this sandbox, which may be gone.
    #[arg(long, value_name = "ID", value_parser = value::sandbox)]
    pub(crate) sandbox: Option<SandboxId>,
    /// Only of sandboxes with these labels: k=v joined with commas.
    #[arg(short, long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub(crate) label: String,
}

/// What can be done with budgets.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Before a request to a model is forwarded, what was used is held against every budget whose labels the sandbox has.

Examples:
  hostel budget create demo --label project=demo --usd 20 --period day
  hostel budget set demo --usd 40                    holds from the next request on
  hostel budget list")]
pub(crate) enum BudgetCommand {
    /// List budgets with what was used of each.
    #[command(visible_alias = "ls")]
    List,
    /// Make a budget that sandboxes with certain labels share.
    Create {
        /// Its name.
        name: String,
        /// Who shares it: k=v joined with commas [every sandbox of the node].
        #[arg(short, long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
        label: String,
        /// What the bounds are for: total, day or month.
        #[arg(long, default_value = "total", value_parser = value::period)]
        period: BudgetPeriod,
        /// The bounds.
        #[command(flatten)]
        bounds: BoundOptions,
    },
    /// Give a budget new bounds, all of them.
    Set {
        /// Its name.
        name: String,
        /// The bounds.
        #[command(flatten)]
        bounds: BoundOptions,
    },
    /// Remove budgets.
    #[command(visible_alias = "delete")]
    Rm {
        /// Their names.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Bounds of a budget. What is not given is not bounded.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct BoundOptions {
    /// Money in US dollars: 20, 2.50.
    #[arg(long, value_name = "USD", value_parser = value::dollars)]
    usd: Option<u64>,
    /// Tokens of every kind.
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Requests.
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Requests in any minute.
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// Tokens in any minute.
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u64>,
}

impl BoundOptions {
    /// As the domain has them.
    pub(crate) fn bounds(&self) -> ModelBudget {
        ModelBudget {
            cost_micros: self.usd,
            tokens: self.tokens,
            requests: self.requests,
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
        }
    }
}

/// What can be done with secrets.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A sandbox uses a secret by name and never holds it: see --secret of hostel run.

Examples:
  hostel secret put github < token.txt
  hostel run --allow api.github.com --secret name=github,host=api.github.com,env=GITHUB_TOKEN -- gh api user")]
pub(crate) enum SecretCommand {
    /// List names; values never come out.
    #[command(visible_alias = "ls")]
    List,
    /// Keep a value, sealed, instead of the one before. It is read from stdin or a file, never from the command line; on
    /// a terminal it is asked for and not shown.
    Put {
        /// Its name.
        name: String,
        /// Read the value from this file [stdin]. A line break at the end is left out.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Forget values.
    #[command(visible_alias = "delete")]
    Rm {
        /// Their names.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no record of the daemon's audit log was changed, added or taken out. Exits with 1 where one was.
    Verify,
}
