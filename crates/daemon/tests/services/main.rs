//! The daemon's services over a real unix socket, with a backend in memory.

mod daemon;
mod fake;

mod files;
mod lifecycle;
mod processes;
mod requests;
mod restart;
mod watching;
