//! For tests and demonstrations: a scripted model endpoint.
//!
//! [`ModelServer`] answers on loopback as the Anthropic Messages API does, and plays what the prompt itself asks
//! for: a prompt that has `@@[…]` in it is a [`Script`], and the number of answers that the conversation already
//! has after it says which [`Step`] is next. The endpoint therefore keeps nothing of a conversation: resuming,
//! forking and many conversations at once need no care. (Only how often a fault with `times` was played is kept.)
//!
//! ```
//! # async fn example() -> hostel_testkit::Result<()> {
//! use hostel_testkit::{ModelOptions, ModelServer, Script};
//! use serde_json::json;
//!
//! let server = ModelServer::start(ModelOptions::default()).await?;
//! let prompt = Script::new().tool("Bash", json!({ "command": "ls" })).text("done").prompt("Look around.");
//! // … give `prompt` to a client of `server.url()` …
//! assert!(server.requests().iter().all(|request| request.path.starts_with("/v1/")));
//! server.stop().await;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod api_error;
mod body;
mod error;
mod messages;
mod reply;
mod routes;
mod script;
mod server;

pub use error::{Error, Result};
pub use script::{Script, Step, ToolCall, Usage};
pub use server::{ModelOptions, ModelServer, SeenRequest};
