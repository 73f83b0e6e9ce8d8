//! Which database, and opening it.

use super::{Store, postgres, sqlite};
use crate::error::{Error, Result};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Where sessions are kept: `sqlite:///var/lib/hostel/sessions.db`, a plain path to the same, or
/// `postgres://user:password@host:5432/database?sslmode=verify-full`. A socket is `postgres://user@%2Frun%2Fpg/database`.
/// The password may be left to `PGPASSWORD` or a `.pgpass` file, as with PostgreSQL's own programs. It is never shown.
#[derive(Clone)]
pub struct StoreUrl(Kind);

#[derive(Clone)]
enum Kind {
    Sqlite(PathBuf),
    Postgres(SecretString),
}

impl StoreUrl {
    /// A SQLite database in a file.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Kind::Sqlite(path.into()))
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return PgConnectOptions::from_str(text)
                .map(|_| Self(Kind::Postgres(SecretString::from(text))))
                // What is wrong may quote the password.
                .map_err(|_| wrong("a PostgreSQL address is postgres://user:password@host:5432/database"));
        }
        if let Some(path) = text.strip_prefix("sqlite://") {
            if !path.starts_with('/') {
                return Err(wrong(
                    "the path of a SQLite database is absolute: sqlite:///var/lib/hostel/sessions.db",
                ));
            }
            return Ok(Self::sqlite(path));
        }
        if text.is_empty() || text.contains("://") {
            return Err(wrong("a database is sqlite:///path, a path, or postgres://user@host/database"));
        }
        Ok(Self::sqlite(text))
    }
}

fn wrong(problem: &str) -> Error {
    Error::invalid("store", problem)
}

/// Without a password, and for PostgreSQL without anything else that may hold one.
impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Sqlite(path) => write!(formatter, "sqlite://{}", path.display()),
            Kind::Postgres(url) => match PgConnectOptions::from_str(url.expose_secret()) {
                Ok(options) => write!(
                    formatter,
                    "postgres://{}:{}/{}",
                    options.get_host(),
                    options.get_port(),
                    options.get_database().unwrap_or_default()
                ),
                Err(_) => formatter.write_str("postgres://…"),
            },
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StoreUrl({self})")
    }
}

/// Opens a database, and makes its tables where there are none. A SQLite file that is made may be read by its owner
/// alone.
///
/// # Errors
/// [`Error::Store`] where it cannot be opened, is newer than this program, or does not answer in time.
pub async fn open(url: &StoreUrl) -> Result<Arc<dyn Store>> {
    match &url.0 {
        Kind::Sqlite(path) => Ok(Arc::new(sqlite::Stored::open(path).await?)),
        Kind::Postgres(url) => {
            let options = PgConnectOptions::from_str(url.expose_secret())
                .map_err(|_| wrong("a PostgreSQL address is postgres://user:password@host:5432/database"))?;
            Ok(Arc::new(postgres::Stored::open(options).await?))
        }
    }
}
