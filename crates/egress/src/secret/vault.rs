//! Values given over the API, sealed at rest: one file for each.
//!
//! A file is the word `HOSTELV1`, the times of making and of the last change (seconds since 1970, 8 bytes each, big
//! endian), and the sealed value. The word, the times and the name are authenticated with the value, so that files
//! cannot be swapped or altered unseen.

use super::seal::{KEY_LEN, OVERHEAD, SealKey, load_or_make_key};
use super::value::{MAX_VALUE, SecretValue};
use super::{MAX_NAME, check_name};
use crate::error::{Error, Result};
use crate::state_file::{self, Privacy};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const WORD: &[u8; 8] = b"HOSTELV1";
const HEAD: usize = WORD.len() + 16;
const SUFFIX: &str = ".sealed";
/// Most secrets of a vault.
const MAX_SECRETS: usize = 4096;
/// The key's name among the credentials of systemd.
const CREDENTIAL: &str = "hostel-vault-key";

/// The sealed store. All calls read or write files: call them where blocking is allowed.
#[derive(Debug)]
pub struct Vault {
    directory: PathBuf,
    key: SealKey,
}

/// What is told of a secret in the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretInfo {
    /// Its name.
    pub name: String,
    /// When it was first put here, to the second.
    pub created: SystemTime,
    /// When its value last changed, to the second.
    pub updated: SystemTime,
}

impl Vault {
    /// Opens the vault in `state`: files in its directory `vault`, and the key from the systemd credential
    /// `hostel-vault-key` (32 bytes) in `credentials`, else from `vault.key` in `state`, which is made with the vault.
    ///
    /// # Errors
    /// [`Error::Storage`] where files cannot be made or are not private, or the key is gone or damaged.
    pub fn open(state: &Path, credentials: Option<&Path>) -> Result<Self> {
        let directory = state.join("vault");
        state_file::make_directory(state)?;
        state_file::make_directory(&directory)?;
        let given = credentials.map(|path| path.join(CREDENTIAL));
        if let Some(path) = given
            && let Some(key) = state_file::read(&path, Privacy::Group, 2 * KEY_LEN as u64)?
        {
            return Ok(Self { directory, key: SealKey::new(&path, &key)? });
        }
        let path = state.join("vault.key");
        let empty = names(&directory)?.is_empty();
        let key = SealKey::new(&path, &load_or_make_key(&path, empty)?)?;
        Ok(Self { directory, key })
    }

    /// Puts a value in, in place of one that was there. On return it is on the disk.
    ///
    /// # Errors
    /// [`Error::SecretInvalid`] for a wrong name or a full vault, [`Error::Storage`].
    pub fn put(&self, name: &str, value: &SecretValue) -> Result<SecretInfo> {
        check_name(name)?;
        let path = self.path(name);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let created = match state_file::read(&path, Privacy::Owner, MAX_FILE) {
            Ok(Some(file)) => times(&file).map_or(now, |(created, _)| created),
            Ok(None) if names(&self.directory)?.len() >= MAX_SECRETS => {
                let problem = format!("the vault is full: it holds at most {MAX_SECRETS} secrets");
                return Err(Error::SecretInvalid { name: name.to_owned(), problem });
            }
            // A damaged file gives way to a good one.
            Ok(None) | Err(_) => now,
        };
        let head = head(created, now);
        let sealed = self
            .key
            .seal(&about(&head, name), &value.bytes())
            .ok_or_else(|| Error::storage(&path, "the system gives no random numbers"))?;
        state_file::write(&path, &[head.as_slice(), &sealed].concat(), 0o600, true)?;
        Ok(info(name, created, now))
    }

    /// The value of this secret, where it is here.
    ///
    /// # Errors
    /// [`Error::Storage`] where its file is damaged, not private, or sealed under another key.
    pub fn get(&self, name: &str) -> Result<Option<SecretValue>> {
        check_name(name)?;
        let path = self.path(name);
        let Some(file) = state_file::read(&path, Privacy::Owner, MAX_FILE)? else { return Ok(None) };
        let damaged =
            || Error::storage(&path, "is damaged, or was sealed under another key; put the secret anew");
        let (head, sealed) = file.split_first_chunk::<HEAD>().ok_or_else(damaged)?;
        times(&file).ok_or_else(damaged)?;
        let value = self.key.open(&about(head, name), sealed).ok_or_else(damaged)?;
        SecretValue::new(name, &value).map(Some)
    }

    /// All secrets here by name; never a value. A file that is damaged or not private is passed over with a warning.
    ///
    /// # Errors
    /// [`Error::Storage`] where the directory cannot be read.
    pub fn list(&self) -> Result<Vec<SecretInfo>> {
        let mut all = Vec::new();
        for name in names(&self.directory)? {
            let path = self.path(&name);
            // One that was deleted meanwhile is not an error.
            let Some(file) = state_file::read(&path, Privacy::Owner, MAX_FILE).transpose() else { continue };
            let damaged = || Error::storage(&path, "is damaged; put the secret anew");
            match file.and_then(|file| times(&file).ok_or_else(damaged)) {
                Ok((created, updated)) => all.push(info(&name, created, updated)),
                Err(error) => tracing::warn!(secret = %name, %error, "a secret cannot be listed"),
            }
        }
        Ok(all)
    }

    /// Takes a secret out; whether it was here.
    ///
    /// # Errors
    /// [`Error::SecretInvalid`] for a wrong name, [`Error::Storage`].
    pub fn delete(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        state_file::remove(&self.path(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}{SUFFIX}"))
    }
}

/// Longest file: the head and a sealed value.
const MAX_FILE: u64 = (HEAD + OVERHEAD + MAX_VALUE) as u64;

/// The names of what is in the directory, sorted. Other files are passed over.
fn names(directory: &Path) -> Result<Vec<String>> {
    let failed = |error: std::io::Error| Error::storage(directory, error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let file = entry.map_err(failed)?.file_name();
        let name = file.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        names.extend(
            name.filter(|name| name.len() <= MAX_NAME && check_name(name).is_ok()).map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}

fn head(created: u64, updated: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(WORD);
    head[8..16].copy_from_slice(&created.to_be_bytes());
    head[16..].copy_from_slice(&updated.to_be_bytes());
    head
}

fn about(head: &[u8; HEAD], name: &str) -> Vec<u8> {
    [head.as_slice(), name.as_bytes()].concat()
}

fn times(file: &[u8]) -> Option<(u64, u64)> {
    let rest = file.strip_prefix(WORD)?;
    let (created, rest) = rest.split_first_chunk::<8>()?;
    let (updated, _) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*created), u64::from_be_bytes(*updated)))
}

fn info(name: &str, created: u64, updated: u64) -> SecretInfo {
    // A file's time is not trusted: one beyond what the clock can say counts as 1970.
    let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
    SecretInfo { name: name.to_owned(), created: time(created), updated: time(updated) }
}
