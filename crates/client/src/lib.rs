//! Rust client of `hostel.v1`, for the command line, the session server and anybody else.
//!
//! [`Client`] makes sandboxes and works with what is in them. What is special is [`ExecSession`]: a process's
//! input and output that outlive the connection. Everything is addressed by byte offset, so when the connection
//! breaks, or the daemon is restarted, the session attaches again by itself and no byte is lost or repeated.
//!
//! ```no_run
//! # async fn example() -> hostel_client::Result<()> {
//! use hostel_client::{Client, CreateSandbox, Event, Exec};
//!
//! let client = Client::connect_default().await?;
//! let sandbox = client.create_sandbox(CreateSandbox::default()).await?.sandbox;
//! let mut session = client.exec(Exec::command(&sandbox.id, ["echo", "hello"])).await?;
//! while let Some(event) = session.output.next().await {
//!     if let Event::Output { data, .. } = event? {
//!         print!("{}", String::from_utf8_lossy(&data));
//!     }
//! }
//! client.delete_sandbox(&sandbox.id).await
//! # }
//! ```
#![forbid(unsafe_code)]

mod address;
mod archive;
mod client;
mod convert;
mod error;
mod exec;
mod file;
pub mod model;
mod network;
mod node;
mod page;
mod pool;
mod process;
mod sandbox;
mod session;
mod template;
mod transfer;
mod usage;

pub use address::{ADDRESS_VARIABLE, Address};
pub use client::Client;
pub use error::{Error, FieldViolation, Refusal, Result};
pub use exec::{
    Acknowledge, Attach, Event, Exec, ExecInput, ExecOutput, ExecSession, ReconnectPolicy, Stdin,
};
pub use file::{ByteReader, FileReader};
pub use hostel_sandbox as domain;
pub use network::NetworkWatch;
pub use pool::{CreatePool, PoolField, PoolWatch, WatchPools};
pub use process::StartProcess;
pub use sandbox::{
    CreateSandbox, ForkSandbox, ListSandboxes, SandboxWatch, StatsWatch, UpdateSandbox, WatchSandboxes,
};
pub use session::{
    AnswerQuestion, CreateSession, EventWatch, ListSessions, SESSIOND_ADDRESS_VARIABLE,
    SESSIOND_TOKEN_VARIABLE, SendMessage, SessionClient, SessionExport, UpdateSession, WhichEvents,
};
pub use template::{BuildEvent, BuildTemplate, BuildWatch, ImportTemplate};
pub use transfer::{Progress, counted};
pub use usage::UsageQuery;
