//! Sealing of values at rest: ChaCha20-Poly1305 (RFC 8439) with a random nonce for each.

use crate::error::{Error, Result};
use crate::state_file::{self, Privacy};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::zeroize::Zeroizing;
use std::fmt;
use std::path::Path;

/// Length of a key, in bytes.
pub(super) const KEY_LEN: usize = 32;
/// What sealing adds, in bytes: the nonce before, the tag behind.
pub(super) const OVERHEAD: usize = NONCE_LEN + 16;

/// A key under which values are sealed.
pub(super) struct SealKey(LessSafeKey);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl SealKey {
    /// Takes a key of 32 bytes; `path` is where it came from.
    pub(super) fn new(path: &Path, bytes: &[u8]) -> Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).map_err(|_| {
            Error::storage(path, format!("holds {} bytes, and a key has {KEY_LEN}", bytes.len()))
        })?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals a value; `about` is authenticated with it and not stored in it. `None` where the system has no random
    /// numbers.
    pub(super) fn seal(&self, about: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut text = Zeroizing::new(value.to_vec());
        let number = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(number, Aad::from(about), &mut text).ok()?;
        Some([&nonce, text.as_slice(), tag.as_ref()].concat())
    }

    /// Opens what [`Self::seal`] made; `None` where it was changed, or sealed under another key or for another thing.
    pub(super) fn open(&self, about: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.0.open_in_place(nonce, Aad::from(about), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

/// Reads a key of 32 bytes, or makes one where there is none and `make` allows it.
pub(super) fn load_or_make_key(path: &Path, make: bool) -> Result<Zeroizing<Vec<u8>>> {
    if let Some(key) = state_file::read(path, Privacy::Owner, 2 * KEY_LEN as u64)? {
        if key.len() != KEY_LEN {
            let problem = format!("is damaged: it holds {} bytes, and a key has {KEY_LEN}", key.len());
            return Err(Error::storage(path, problem));
        }
        return Ok(key);
    }
    if !make {
        return Err(Error::storage(path, "is gone; what was sealed under it cannot be opened without it"));
    }
    let mut key = Zeroizing::new(vec![0; KEY_LEN]);
    let failed = |_| Error::storage(path, "no random numbers from the system");
    SystemRandom::new().fill(&mut key).map_err(failed)?;
    state_file::write(path, &key, 0o600, false)?;
    Ok(key)
}
