//! `hostel template`: what can be typed.

use super::value;
use clap::{Args, Subcommand};
use hostel_sandbox::{BackendName, TemplateId};
use std::path::PathBuf;

/// What can be done with templates.
#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// List templates.
    #[command(visible_alias = "ls")]
    List {
        /// Print names only.
        #[arg(short, long)]
        quiet: bool,
        /// Only those with these labels: k=v, k!=v, k, !k, joined with commas.
        #[arg(short, long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
        label: String,
    },
    /// Tell about one template.
    Get {
        /// Its name.
        #[arg(value_parser = value::template)]
        name: TemplateId,
    },
    /// Make a template: from an image recipe, or by running commands on top of another template.
    Build(BuildArgs),
    /// Make a template of a root file system: a directory, or a tar archive, plain or zstd; - is stdin.
    Import(ImportArgs),
    /// Make a template with the claude command line, for jails; Docker is not needed.
    InstallCli(InstallArgs),
    /// Remove templates. Sandboxes made from them go on.
    #[command(visible_aliases = ["delete", "remove"])]
    Rm {
        /// Their names.
        #[arg(required = true, value_parser = value::template)]
        names: Vec<TemplateId>,
        /// Remove them from this backend only [all that have them].
        #[arg(long, value_name = "NAME", value_parser = value::backend)]
        backend: Option<BackendName>,
    },
}

/// `hostel template build`.
#[derive(Debug, Args)]
#[command(after_help = "\
With --run, each command is a line for sh, run in a sandbox of the base; what they leave is the template. Sandboxes \
have no network, so bring what is needed with `hostel template import --base`.

Without --run, NAME is an image recipe: a directory with a Dockerfile, and a template.toml with defaults. Its image \
is built with Docker; for the backend jail it is then exported and imported as a root file system.

Examples:
  hostel template build agent --backend jail         images/agent, as a root file system
  hostel template build agent --backend docker       the same recipe, as a container image
  hostel template build tools --base claude --user root --run 'ln -s /opt/claude/bin/claude /opt/cc'")]
pub(crate) struct BuildArgs {
    /// The name to have.
    #[arg(value_parser = value::template)]
    pub(crate) name: TemplateId,
    /// Run this with sh -c. May be given several times; all run, one after the other.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) run: Vec<String>,
    /// Template to run the commands on [host].
    #[arg(long, value_name = "NAME", value_parser = value::template, requires = "run")]
    pub(crate) base: Option<TemplateId>,
    /// User to run the commands as: a name, uid, uid:gid or name:group [the base's].
    #[arg(long, value_name = "USER", requires = "run")]
    pub(crate) user: Option<String>,
    /// Backend to make it for [with --run: the first that can; otherwise jail].
    #[arg(long, value_name = "NAME", value_parser = value::backend)]
    pub(crate) backend: Option<BackendName>,
    /// Label it, k=v.
    #[arg(long, value_name = "K=V", value_parser = value::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Name this build, so that the same command again follows it.
    #[arg(long, value_name = "ID", requires = "run")]
    pub(crate) request_id: Option<String>,
    /// Directory with image recipes, one directory each [./images, then /usr/share/hostel/images].
    #[arg(long, value_name = "DIR", env = "HOSTEL_RECIPES", hide_env = true, conflicts_with = "run")]
    pub(crate) recipes: Option<PathBuf>,
    /// Replace a template of this name that the backend has of another image or recipe.
    #[arg(long, conflicts_with = "run")]
    pub(crate) replace: bool,
}

/// `hostel template import`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hostel template import debian ./rootfs\n  \
    docker export $(docker create alpine) | hostel template import alpine -\n  \
    hostel template import tools ./opt-tools.tar --base host       files on top of another template")]
pub(crate) struct ImportArgs {
    /// The name to have.
    #[arg(value_parser = value::template)]
    pub(crate) name: TemplateId,
    /// Directory, .tar or .tar.zst; - reads an archive from stdin.
    pub(crate) source: PathBuf,
    /// Template that the files go on top of [none: they are a whole root file system].
    #[arg(long, value_name = "NAME", value_parser = value::template)]
    pub(crate) base: Option<TemplateId>,
    /// Backend to import it for [the first that can].
    #[arg(long, value_name = "NAME", value_parser = value::backend)]
    pub(crate) backend: Option<BackendName>,
    /// Label it, k=v.
    #[arg(long, value_name = "K=V", value_parser = value::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Environment variable of its sandboxes; NAME alone passes on its value.
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = value::env)]
    pub(crate) env: Vec<(String, Option<String>)>,
    /// User of its sandboxes' processes: a name, uid, uid:gid or name:group.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Directory that its sandboxes' processes start in.
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
}

/// `hostel template install-cli`.
#[derive(Debug, Args)]
#[command(after_help = "\
The claude binary comes from its npm package, with npm or from --archive, in the version that this hostel was made \
for, and is checked against its checksum. It is /opt/claude/bin/claude in the sandbox, and in its PATH. Again is a \
no-op.

Examples:
  hostel template install-cli
  hostel run --template claude -- claude --version
  npm pack @anthropic-ai/claude-code-linux-x64@VERSION      elsewhere, then here:
  hostel template install-cli --archive anthropic-ai-claude-code-linux-x64-VERSION.tgz")]
pub(crate) struct InstallArgs {
    /// The archive that `npm pack` made, instead of fetching it.
    #[arg(long, value_name = "FILE")]
    pub(crate) archive: Option<PathBuf>,
    /// The name that the template shall have.
    #[arg(long, value_name = "NAME", default_value = "claude", value_parser = value::template)]
    pub(crate) name: TemplateId,
    /// The template that it goes on top of.
    #[arg(long, value_name = "NAME", default_value = "host", value_parser = value::template)]
    pub(crate) base: TemplateId,
    /// Replace a template of this name that has another version.
    #[arg(long)]
    pub(crate) replace: bool,
}
