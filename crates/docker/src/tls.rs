//! TLS with an engine that is reached by TCP, by certificates as the `docker` command keeps them
//! (<https://docs.docker.com/engine/security/protect-access/>).

use crate::tcp;
use bollard::Docker;
use hostel_sandbox::{Error, Result};
use hyper_rustls::HttpsConnector;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Who may have signed the engine's certificate; nobody else may.
const AUTHORITY: &str = "ca.pem";
/// Ours, where the engine wants to know who asks, and its key.
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// A client of the engine at `host`, a name or address with a port. Files are read now, so that certificates can be
/// replaced while the daemon runs: the next connection has the new ones.
///
/// # Errors
/// `Unavailable` naming the file that cannot be used.
pub(crate) fn connect(host: &str, directory: &Path) -> Result<Docker> {
    let connector = HttpsConnector::from((tcp::connector(), configure(directory)?));
    tcp::client(connector, format!("https://{host}"))
}

fn unusable(detail: impl ToString) -> Error {
    Error::Unavailable { what: "engine", detail: detail.to_string() }
}

fn configure(directory: &Path) -> Result<ClientConfig> {
    let mut trusted = RootCertStore::empty();
    for certificate in certificates(&directory.join(AUTHORITY))? {
        trusted.add(certificate).map_err(|error| wrong(&directory.join(AUTHORITY), error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(trusted);
    let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
    if !certificate.exists() && !key.exists() {
        return Ok(builder.with_no_client_auth());
    }
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| wrong(&key, error))?;
    builder.with_client_auth_cert(certificates(&certificate)?, private).map_err(|error| wrong(&key, error))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|error| wrong(file, error))?;
    if read.is_empty() {
        return Err(wrong(file, "there is no certificate in it"));
    }
    Ok(read)
}

fn wrong(file: &Path, error: impl std::fmt::Display) -> Error {
    unusable(format!("no TLS with the Docker engine: {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_certificates_is_told_with_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let told = || connect("127.0.0.1:2376", directory.path()).err().unwrap().to_string();
        assert!(told().contains("ca.pem"), "{}", told());
        std::fs::write(directory.path().join(AUTHORITY), "nothing\n").unwrap();
        assert!(told().contains("no certificate"), "{}", told());
    }
}
