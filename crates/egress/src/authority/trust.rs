//! How programs in a sandbox are told to trust the authority.

use std::collections::BTreeMap;

/// The variables with which programs find their trust store. `bundle` is the path, inside the sandbox, of the file
/// that [`super::Authority::bundle`] makes; `ca` that of the authority's certificate alone, for programs that add to
/// what they have built in.
#[must_use]
pub fn environment(bundle: &str, ca: &str) -> BTreeMap<String, String> {
    // Each with the place that documents it.
    let whole = [
        // OpenSSL, SSL_CTX_set_default_verify_paths(3); Go, crypto/x509; rustls-native-certs; uv; Ruby.
        "SSL_CERT_FILE",
        // curl(1), "--cacert".
        "CURL_CA_BUNDLE",
        // Requests, "SSL Cert Verification".
        "REQUESTS_CA_BUNDLE",
        // pip, "Configuration": PIP_ and the name of the option, here --cert.
        "PIP_CERT",
        // git-config(1), http.sslCAInfo.
        "GIT_SSL_CAINFO",
        // The Cargo Book, "Configuration", http.cainfo.
        "CARGO_HTTP_CAINFO",
        // AWS SDKs and Tools Reference, "General configuration", ca_bundle.
        "AWS_CA_BUNDLE",
        // gcloud, core/custom_ca_certs_file as CLOUDSDK_SECTION_PROPERTY.
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
        // gRPC core, doc/environment_variables.md.
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        // Bundler, bundle-config(1), ssl_ca_cert.
        "BUNDLE_SSL_CA_CERT",
        // The Nix manual, "Environment variables".
        "NIX_SSL_CERT_FILE",
    ];
    let added = [
        // Node.js, "Command-line API": adds to the built-in roots. Claude Code, a Node program, reads it too.
        "NODE_EXTRA_CA_CERTS",
        // Deno, "Environment variables": adds to the built-in roots.
        "DENO_CERT",
    ];
    let whole = whole.map(|name| (name.to_owned(), bundle.to_owned()));
    let added = added.map(|name| (name.to_owned(), ca.to_owned()));
    whole.into_iter().chain(added).collect()
}
