use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn the_authority_stays_the_same_over_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let pem = Authority::load_or_create(state.path()).unwrap().certificate_pem().to_owned();
    let again = Authority::load_or_create(state.path()).unwrap();
    assert_eq!(again.certificate_pem(), pem);
    assert!(common_name(&pem).unwrap().starts_with("Hostel "));
    let mode = fs::metadata(state.path().join(KEY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!format!("{again:?}").contains("PRIVATE"));
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::load_or_create(one.path()).unwrap();
    Authority::load_or_create(other.path()).unwrap();
    fs::copy(other.path().join(KEY), one.path().join(KEY)).unwrap();
    let error = Authority::load_or_create(one.path()).unwrap_err().to_string();
    assert!(error.contains("does not fit its key"), "{error}");
    fs::set_permissions(one.path().join(KEY), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Authority::load_or_create(one.path()).unwrap_err().to_string().contains("chmod 600"));
    fs::remove_file(one.path().join(KEY)).unwrap();
    assert!(Authority::load_or_create(one.path()).unwrap_err().to_string().contains("gone"));
    fs::write(other.path().join(CERTIFICATE), "nonsense").unwrap();
    assert!(Authority::load_or_create(other.path()).is_err());
}

#[test]
fn hosts_are_kept_up_to_a_number() {
    let state = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(state.path()).unwrap();
    let first = authority.server_config("a.example.com").unwrap();
    assert!(Arc::ptr_eq(&first, &authority.server_config("a.example.com").unwrap()));
    for index in 0..cache::MAX_HOSTS + 5 {
        authority.server_config(&format!("h{index}.example.com")).unwrap();
        authority.server_config("a.example.com").unwrap();
    }
    assert_eq!(authority.cache.lock().unwrap().len(), cache::MAX_HOSTS);
    assert!(Arc::ptr_eq(&first, &authority.server_config("a.example.com").unwrap()));
    for odd in ["127.0.0.1", "::1", "_odd.example.com", &format!("{}.example.com", "a".repeat(60))] {
        authority.server_config(odd).unwrap();
    }
}

#[test]
fn the_bundle_has_both() {
    let state = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(state.path()).unwrap();
    let bundle = authority.bundle(b"SYSTEM");
    assert_eq!(bundle, format!("SYSTEM\n{}", authority.certificate_pem()).as_bytes());
    // A root that comes out of a snapshot, or a sandbox of before a restart, has it already.
    assert_eq!(authority.bundle(&bundle), bundle);
    let variables = environment("/etc/bundle.pem", "/etc/ca.pem");
    assert_eq!(variables["SSL_CERT_FILE"], "/etc/bundle.pem");
    assert_eq!(variables["NODE_EXTRA_CA_CERTS"], "/etc/ca.pem");
}
