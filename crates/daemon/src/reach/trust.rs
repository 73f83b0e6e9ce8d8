//! Has programs in a sandbox trust the daemon's certificate authority, besides those they trust anyway.

use super::Reach;
use crate::error::Result;
use bytes::Bytes;
use hostel_sandbox::file::WriteOptions;
use hostel_sandbox::{Error as DomainError, Inside};
use tokio::sync::mpsc;

/// Certificates to trust, with the daemon's: for programs that read one file.
pub(super) const BUNDLE: &str = "/run/hostel/ca-bundle.pem";
/// The daemon's alone: for programs that add to their own.
pub(super) const CERTIFICATE: &str = "/run/hostel/ca.pem";
/// Where distributions keep the certificates to trust, in one file.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// Largest such file that is read, in bytes.
const LARGEST: u64 = 4 << 20;

impl Reach {
    /// Has a sandbox trust the daemon's certificate. One that has the files from before a restart keeps them as they are:
    /// its disk may be full.
    pub(super) async fn establish_trust(&self, inside: &dyn Inside) -> Result<()> {
        let (certificate, bundle) = (read(inside, CERTIFICATE).await?, read(inside, BUNDLE).await?);
        let authority = &self.0.authority;
        let trusts = |file: Option<&Vec<u8>>| file.is_some_and(|file| authority.is_in(file));
        if trusts(certificate.as_ref()) && trusts(bundle.as_ref()) {
            return Ok(());
        }
        match self.write_certificates(inside).await {
            Err(error) if certificate.is_some() && bundle.is_some() => {
                // It reaches what it may all the same, where TLS is not opened.
                tracing::warn!(%error, "a sandbox does not trust this daemon's certificate");
                Ok(())
            }
            written => written,
        }
    }

    /// Writes the certificates into a sandbox. A system's own file gets the daemon's certificate too, where it can be
    /// written, for programs that read no variables.
    async fn write_certificates(&self, inside: &dyn Inside) -> Result<()> {
        let authority = &self.0.authority;
        let mut found = None;
        for path in SYSTEM {
            if let Some(content) = read(inside, path).await? {
                found = Some((path, content));
                break;
            }
        }
        let bundle = match &found {
            Some((_, content)) => authority.bundle(content),
            None => authority.bundle(host_bundle().await.as_slice()),
        };
        inside.make_directory("/run/hostel", true, Some(0o755)).await?;
        write(inside, CERTIFICATE, authority.certificate_pem().as_bytes().to_vec()).await?;
        write(inside, BUNDLE, bundle.clone()).await?;
        if let Some((path, content)) = found
            && content != bundle
            && let Err(error) = write(inside, path, bundle).await
        {
            // A root that cannot be written; programs that read the variables trust it all the same.
            tracing::debug!(path, %error, "the system's own certificates stay as they are");
        }
        Ok(())
    }
}

/// The certificates that this host trusts; none where it has no such file.
async fn host_bundle() -> Vec<u8> {
    for path in SYSTEM {
        if let Ok(content) = tokio::fs::read(path).await {
            return content;
        }
    }
    Vec::new()
}

async fn read(inside: &dyn Inside, path: &str) -> Result<Option<Vec<u8>>> {
    let mut stream = match inside.read(path, 0, Some(LARGEST)).await {
        Ok((_, stream)) => stream,
        Err(DomainError::NotFound { .. } | DomainError::InvalidArgument { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut content = Vec::new();
    while let Some(part) = stream.recv().await {
        content.extend_from_slice(&part?);
    }
    Ok(Some(content))
}

async fn write(inside: &dyn Inside, path: &str, content: Vec<u8>) -> Result<()> {
    let options = WriteOptions { mode: Some(0o644), ..WriteOptions::default() };
    let (sender, stream) = mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(Ok(Bytes::from(content)));
    drop(sender);
    inside.write(path, options, stream).await?;
    Ok(())
}
