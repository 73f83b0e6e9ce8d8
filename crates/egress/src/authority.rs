//! The daemon's own certificate authority: it makes the certificates that sandboxes see where TLS is opened.
//!
//! Its certificate is trusted inside sandboxes only, and its key never leaves the state directory. It is limited to
//! signing leaves (`pathlen:0`); a leaf is good for a week at most and never stored.

mod cache;
#[cfg(test)]
mod tests;
mod trust;

use crate::error::{Error, Result};
use crate::state_file::{self, Privacy};
use cache::Cache;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use trust::environment;

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
const MAX_FILE: u64 = 64 * 1024;
const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = DAY.saturating_mul(3652);
/// A leaf is good from an hour before it is made, for clocks that are behind, and is made anew after half its life.
const LEAF_LIFE: Duration = DAY.saturating_mul(6);
const LEAF_RENEWAL: Duration = DAY.saturating_mul(3);
const EARLIER: Duration = Duration::from_secs(3600);
/// Longest common name (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// The certificate authority of one daemon.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    cache: Mutex<Cache>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl Authority {
    /// Reads `ca.pem` and `ca.key` in `directory`, or makes them: ECDSA P-256, good for ten years, named for the
    /// machine. Reads and writes files.
    ///
    /// # Errors
    /// [`Error::Storage`] where the files cannot be used, one of them is missing, or they do not belong together.
    pub fn load_or_create(directory: &Path) -> Result<Self> {
        state_file::make_directory(directory)?;
        let (certificate_path, key_path) = (directory.join(CERTIFICATE), directory.join(KEY));
        let certificate = state_file::read(&certificate_path, Privacy::World, MAX_FILE)?;
        let key = state_file::read(&key_path, Privacy::Owner, MAX_FILE)?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let pem = String::from_utf8(certificate.to_vec())
                    .map_err(|_| Error::storage(&certificate_path, "is not a certificate in PEM"))?;
                let key = std::str::from_utf8(&key).ok().and_then(|text| KeyPair::from_pem(text).ok());
                let key = key.ok_or_else(|| Error::storage(&key_path, "is not a private key in PEM"))?;
                let name = common_name(&pem).ok_or_else(|| {
                    Error::storage(&certificate_path, "is not a certificate made by Hostel")
                })?;
                let authority = Self::new(pem, Issuer::new(params(&name, SystemTime::now())?, key))?;
                authority.check().map_err(|problem| Error::storage(&certificate_path, problem))?;
                Ok(authority)
            }
            // The certificate is written last: a key alone is what a stop between the two leaves.
            (None, _) => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
                let params = params(&format!("Hostel {} CA", host_name()), SystemTime::now())?;
                let pem = params.self_signed(&key).map_err(failed)?.pem();
                let text = secrecy::zeroize::Zeroizing::new(key.serialize_pem());
                state_file::write(&key_path, text.as_bytes(), 0o600, true)?;
                state_file::write(&certificate_path, pem.as_bytes(), 0o644, true)?;
                Self::new(pem, Issuer::new(params, key))
            }
            (Some(_), None) => {
                let problem = "is gone; to make a new authority, remove the certificate beside it too";
                Err(Error::storage(&key_path, problem))
            }
        }
    }

    fn new(pem: String, issuer: Issuer<'static, KeyPair>) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Self { pem, issuer, provider, cache: Mutex::new(Cache::default()) })
    }

    /// Its certificate in PEM, for a sandbox's trust store.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// A trust bundle: the system's, in PEM, and this authority's certificate behind it where it is not in it already.
    #[must_use]
    pub fn bundle(&self, system_bundle: &[u8]) -> Vec<u8> {
        let mut bundle = system_bundle.to_vec();
        if self.is_in(&bundle) {
            return bundle;
        }
        if !bundle.is_empty() && !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
        bundle.extend_from_slice(self.pem.as_bytes());
        bundle
    }

    /// Whether a trust bundle has this authority's certificate.
    #[must_use]
    pub fn is_in(&self, bundle: &[u8]) -> bool {
        String::from_utf8_lossy(bundle).contains(self.pem.trim_end())
    }

    /// What serves TLS as `host`, a name or an address, with HTTP/2 and HTTP/1.1. Made once in a while and kept.
    ///
    /// # Errors
    /// [`Error::Certificate`] where no certificate can be made for this host.
    pub(crate) fn server_config(&self, host: &str) -> Result<Arc<ServerConfig>> {
        let now = SystemTime::now();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = cache.get(host, now) {
            return Ok(config);
        }
        // Making one takes some 0.1 ms: no reason to let go of the lock.
        let (chain, key) = self.leaf(host, now)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| Error::Certificate(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A handshake on one machine is cheap; sessions kept for each of a thousand hosts are not.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        cache.put(host.to_owned(), Arc::clone(&config), now + LEAF_RENEWAL);
        Ok(config)
    }

    fn leaf(
        &self,
        host: &str,
        now: SystemTime,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        let name = if host.len() <= MAX_COMMON_NAME { host } else { "Hostel" };
        params.distinguished_name.push(DnType::CommonName, name);
        let begin = rcgen::date_time_ymd(1970, 1, 1) + since_1970(now);
        params.not_before = begin - EARLIER;
        params.not_after = begin + LEAF_LIFE;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }

    /// Whether what is signed with the key is good under the certificate; the problem in words.
    fn check(&self) -> std::result::Result<(), String> {
        let words = |error: &dyn fmt::Display| format!("does not fit its key, or is out of date: {error}");
        let certificate =
            CertificateDer::from_pem_slice(self.pem.as_bytes()).map_err(|error| words(&error))?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).map_err(|error| words(&error))?;
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| words(&error))?;
        let now = SystemTime::now();
        let (chain, _) = self.leaf("check.invalid", now).map_err(|error| words(&error))?;
        let name = "check.invalid".try_into().map_err(|_| words(&"name"))?;
        let leaf = chain.first().ok_or_else(|| words(&"no leaf"))?;
        let time = rustls::pki_types::UnixTime::since_unix_epoch(since_1970(now));
        use rustls::client::danger::ServerCertVerifier as _;
        verifier.verify_server_cert(leaf, &[], &name, &[], time).map(|_| ()).map_err(|error| words(&error))
    }
}

fn params(name: &str, now: SystemTime) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let begin = rcgen::date_time_ymd(1970, 1, 1) + since_1970(now);
    params.not_before = begin - EARLIER;
    params.not_after = begin + CA_LIFE;
    Ok(params)
}

/// The common name of a certificate of ours: its subject is that one attribute in UTF-8, as `params` makes it.
fn common_name(pem: &str) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).ok()?;
    let subject = roots.roots.first()?.subject.as_ref().to_vec();
    // SET { SEQUENCE { OBJECT IDENTIFIER 2.5.4.3, UTF8String } }, each length in one byte (X.690 §8.1.3.4).
    let name = match subject.as_slice() {
        [0x31, _, 0x30, _, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, length, name @ ..]
            if *length < 0x80 && usize::from(*length) == name.len() =>
        {
            name
        }
        _ => return None,
    };
    String::from_utf8(name.to_vec()).ok()
}

fn host_name() -> String {
    let name = rustix::system::uname();
    let name: String = name.nodename().to_string_lossy().chars().filter(char::is_ascii_graphic).collect();
    // "Hostel ", " CA" and this are at most a common name's length.
    if name.is_empty() { "host".to_owned() } else { name.chars().take(MAX_COMMON_NAME - 10).collect() }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn failed(error: rcgen::Error) -> Error {
    Error::Certificate(error.to_string())
}
