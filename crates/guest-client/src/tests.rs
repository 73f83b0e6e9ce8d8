//! A guest that follows a script, honest or not, and what the client makes of it.

mod archives;
mod attachments;
mod contents;
mod garbage;
mod listeners;
mod questions;
mod real;
mod relay;
mod script;
