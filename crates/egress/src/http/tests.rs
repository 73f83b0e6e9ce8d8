//! The opener over real sockets and real TLS, with hosts of the tests' own.

mod curl;
mod figures;
mod host;
mod hostile;
mod passing;
mod secrets;
mod world;
