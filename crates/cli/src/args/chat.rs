//! `hostel chat`: what can be typed.

use super::session::SessionOptions;
use clap::Args;
use std::path::PathBuf;

/// With whom to talk.
#[derive(Debug, Args)]
#[command(after_help = "\
Without SESSION a long-running one is made, which stays when you leave. Enter sends; a line that ends with \\, or Alt-Enter, goes on with the next line. Ctrl-C interrupts the agent; at the prompt, twice, it leaves, as Ctrl-D does. /help lists what else can be typed.

Without a terminal each line of stdin is a message, and the answers go to stdout; what the agent asks to do waits for `hostel session approve` or `deny`.

Examples:
  hostel chat --budget 2
  hostel chat --workspace . --ask
  hostel chat 3e6f…                              go on with a conversation
  echo 'Say hello.' | hostel chat")]
pub(crate) struct ChatArgs {
    /// Copy what is in this directory to where the agent works, first.
    #[arg(long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// What a new session shall be.
    #[command(flatten)]
    pub(crate) session: SessionOptions,
    /// The session to go on with [a new one].
    #[arg(value_name = "SESSION")]
    pub(crate) id: Option<String>,
}
