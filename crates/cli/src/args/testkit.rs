//! `hostel testkit`: what can be typed.

use clap::{Args, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What there is for tests and demonstrations.
#[derive(Debug, Subcommand)]
pub(crate) enum TestkitCommand {
    /// Answer as a model would, by a script in the prompt: for tests and demonstrations without a model or a key.
    Model(ModelArgs),
}

/// How the endpoint shall be.
#[derive(Debug, Args)]
#[command(
    after_help = "The endpoint has the shape of the Anthropic Messages API, streaming too. It prints its address \
and answers until SIGINT or SIGTERM. A prompt with @@[…] in it is played step by step: each step is one answer, \
or a fault in place of one. Other prompts are echoed. All steps: docs/testkit.md.

Example:
  hostel testkit model --listen 127.0.0.1:8080 --verbose &
  ANTHROPIC_BASE_URL=http://127.0.0.1:8080 ANTHROPIC_API_KEY=any \\
    claude --allowedTools Bash -p 'Go. @@[{\"tool\":\"Bash\",\"input\":{\"command\":\"ls\"}},{\"text\":\"done\"}]'"
)]
pub(crate) struct ModelArgs {
    /// Listen on this loopback address; port 0 is any [127.0.0.1:0, unless --unix is given].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Listen on this unix socket.
    #[arg(long, value_name = "PATH")]
    pub(crate) unix: Option<PathBuf>,
    /// Refuse every other key with 401 [any key, or none, will do].
    #[arg(long, value_name = "KEY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) key: Option<String>,
}
