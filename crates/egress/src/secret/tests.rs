use super::*;
use crate::error::Error;
use hostel_sandbox::id::SandboxId;
use hostel_sandbox::secret::SecretForm;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

const VALUE: &str = "real-value-0123456789";

fn secret(name: &str, form: SecretForm) -> SecretRef {
    let hosts = vec!["api.example.com".parse().unwrap(), "*.example.org".parse().unwrap()];
    SecretRef { name: name.to_owned(), hosts, form, env: Some("API_KEY".to_owned()) }
}

fn value(text: &str) -> SecretValue {
    SecretValue::new("test", text.as_bytes()).unwrap()
}

fn put(path: &Path, content: &str, mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn no_source() -> SecretSource {
    SecretSource::from_parts(Vec::new(), None, [])
}

#[test]
fn a_value_is_shown_by_nothing() {
    let state = tempfile::tempdir().unwrap();
    let vault = Vault::open(state.path(), None).unwrap();
    vault.put("token", &value(VALUE)).unwrap();
    let environment = [("HOSTEL_SECRET_TOKEN".to_owned(), VALUE.to_owned())];
    let source = SecretSource::from_parts(Vec::new(), None, environment);
    let key = PlaceholderKey::load_or_create(state.path()).unwrap();
    let values = Arc::new(Secrets::new(Some(vault), source));
    let set = SecretSet::open(
        SandboxId::generate(),
        &[secret("token", SecretForm::Placeholder)],
        values.clone(),
        &key,
    );
    let shown = format!("{:?} {:?} {:?} {key:?}", value(VALUE), set.unwrap(), values);
    assert!(!shown.contains(VALUE), "{shown}");
    let error = SecretValue::new("token", format!("{VALUE}\nsecond").as_bytes()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(VALUE));
}

#[test]
fn values_are_one_line_that_fits_a_header() {
    assert_eq!(value("12345678\n").expose(), "12345678");
    assert_eq!(value("12345678\r\n").expose(), "12345678");
    for wrong in ["short", "12345678\n\n", "1234\r\n5678", "12345678\0", "пароль-пароль", " 12345678"]
    {
        assert!(SecretValue::new("x", wrong.as_bytes()).is_err(), "{wrong:?}");
    }
    assert!(SecretValue::new("x", &[b'a'; 8193]).is_err());
}

#[test]
fn the_vault_keeps_values_sealed_and_over_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let vault = Vault::open(state.path(), None).unwrap();
    let first = vault.put("token", &value(VALUE)).unwrap();
    vault.put("other", &value("another-value")).unwrap();
    let again = vault.put("token", &value(VALUE)).unwrap();
    assert_eq!(first.created, again.created);
    for entry in fs::read_dir(state.path().join("vault")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(10).any(|part| VALUE.as_bytes().windows(10).any(|own| own == part)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let vault = Vault::open(state.path(), None).unwrap();
    assert_eq!(vault.get("token").unwrap().unwrap().expose(), VALUE);
    let names: Vec<String> = vault.list().unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["other", "token"]);
    // One that is damaged hides no other.
    let damaged = state.path().join("vault/damaged.sealed");
    fs::write(&damaged, "no").unwrap();
    let listed: Vec<String> = vault.list().unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(listed, names);
    fs::remove_file(damaged).unwrap();
    assert!(vault.delete("token").unwrap() && !vault.delete("token").unwrap());
    assert!(vault.get("token").unwrap().is_none());
    for wrong in ["../token", "", "a/b", ".hidden", "-a"] {
        assert!(vault.put(wrong, &value(VALUE)).is_err() && vault.get(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_file_of_the_vault_that_was_touched_is_an_error() {
    let state = tempfile::tempdir().unwrap();
    let vault = Vault::open(state.path(), None).unwrap();
    vault.put("token", &value(VALUE)).unwrap();
    vault.put("other", &value("another-value")).unwrap();
    let path = state.path().join("vault/token.sealed");
    let good = fs::read(&path).unwrap();
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert!(matches!(vault.get("token"), Err(Error::Storage { .. })), "byte {index}");
        fs::write(&path, &good[..index]).unwrap();
        assert!(matches!(vault.get("token"), Err(Error::Storage { .. })), "cut at {index}");
    }
    // One secret's file in another's place.
    fs::write(&path, fs::read(state.path().join("vault/other.sealed")).unwrap()).unwrap();
    assert!(vault.get("token").unwrap_err().to_string().contains("damaged"));
    // A value in its place mends it.
    vault.put("token", &value(VALUE)).unwrap();
    assert_eq!(vault.get("token").unwrap().unwrap().expose(), VALUE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(vault.get("token").unwrap_err().to_string().contains("chmod 600"));
}

#[test]
fn the_key_is_never_made_anew_over_sealed_values() {
    let state = tempfile::tempdir().unwrap();
    Vault::open(state.path(), None).unwrap().put("token", &value(VALUE)).unwrap();
    let key = state.path().join("vault.key");
    let good = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(Vault::open(state.path(), None).unwrap_err().to_string().contains("gone"));
    fs::write(&key, [1; 31]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Vault::open(state.path(), None).unwrap_err().to_string().contains("damaged"));
    // The same key as a credential.
    fs::remove_file(&key).unwrap();
    let credentials = tempfile::tempdir().unwrap();
    fs::write(credentials.path().join("hostel-vault-key"), good).unwrap();
    let mode = fs::Permissions::from_mode(0o440);
    fs::set_permissions(credentials.path().join("hostel-vault-key"), mode).unwrap();
    let vault = Vault::open(state.path(), Some(credentials.path())).unwrap();
    assert_eq!(vault.get("token").unwrap().unwrap().expose(), VALUE);
}

#[test]
fn places_are_asked_in_order_and_named_when_none_has_it() {
    let state = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let credentials = tempfile::tempdir().unwrap();
    let vault = Vault::open(state.path(), None).unwrap();
    vault.put("api-key", &value("from-the-vault")).unwrap();
    put(&credentials.path().join("hostel-secret-api-key"), "from-credentials", 0o440);
    // What the daemon has for itself is no secret of a sandbox's.
    put(&credentials.path().join("hostel-vault-key"), "the-daemon's-own", 0o440);
    put(&files.path().join("api-key"), "from-a-file\n", 0o600);
    let environment = [("HOSTEL_SECRET_API_KEY".to_owned(), "from-the-environment".to_owned())];
    let source = SecretSource::from_parts(
        vec![files.path().to_owned()],
        Some(credentials.path().to_owned()),
        environment,
    );
    let secrets = Secrets::new(Some(vault), source);
    let wanted = secret("api-key", SecretForm::Placeholder);
    let now = || secrets.resolve(&wanted).unwrap().expose().to_owned();
    assert_eq!(now(), "from-the-vault");
    secrets.vault().unwrap().delete("api-key").unwrap();
    assert_eq!(now(), "from-credentials");
    let listed: Vec<_> = secrets.list().unwrap().into_iter().map(|one| (one.name, one.source)).collect();
    let names = [("api-key", "credential"), ("api_key", "environment")];
    assert_eq!(listed, names.map(|(name, source)| (name.to_owned(), source)));
    assert!(secrets.resolve(&secret("hostel-vault-key", SecretForm::Placeholder)).is_err());
    fs::remove_file(credentials.path().join("hostel-secret-api-key")).unwrap();
    assert_eq!(now(), "from-a-file");
    fs::remove_file(files.path().join("api-key")).unwrap();
    assert_eq!(now(), "from-the-environment");
    let missing = secrets.resolve(&secret("none", SecretForm::Placeholder)).unwrap_err().to_string();
    for place in ["the vault", &files.path().join("none").display().to_string(), "HOSTEL_SECRET_NONE"] {
        assert!(missing.contains(place), "{missing}");
    }
}

#[test]
fn a_set_from_before_a_restart_lacks_only_the_values_that_are_gone() {
    let state = tempfile::tempdir().unwrap();
    let vault = Vault::open(state.path(), None).unwrap();
    vault.put("there", &value(VALUE)).unwrap();
    let key = PlaceholderKey::load_or_create(state.path()).unwrap();
    let secrets = Arc::new(Secrets::new(Some(vault), SecretSource::from_parts(Vec::new(), None, [])));
    let wanted = [secret("there", SecretForm::Placeholder), secret("gone", SecretForm::Placeholder)];
    let sandbox = SandboxId::generate();
    assert!(SecretSet::open(sandbox.clone(), &wanted, Arc::clone(&secrets), &key).is_err());
    let set = SecretSet::open_again(sandbox, &wanted, secrets, &key).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bound = runtime.block_on(set.bound("api.example.com"));
    let values: Vec<bool> = bound.iter().map(|one| one.value.is_some()).collect();
    assert_eq!(values, [true, false]);
}

#[test]
fn a_secret_file_that_others_can_reach_is_refused() {
    let files = tempfile::tempdir().unwrap();
    let source = SecretSource::from_parts(vec![files.path().to_owned()], None, []);
    let path = files.path().join("token");
    for mode in [0o644, 0o640, 0o602, 0o660] {
        put(&path, VALUE, mode);
        let error = source.get("token").unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains(VALUE), "{error}");
    }
    put(&path, VALUE, 0o400);
    assert_eq!(source.get("token").unwrap().unwrap().expose(), VALUE);
    symlink(&path, files.path().join("linked")).unwrap();
    assert!(source.get("linked").unwrap_err().to_string().contains("symbolic link"));
    fs::create_dir(files.path().join("folder")).unwrap();
    assert!(source.get("folder").unwrap_err().to_string().contains("plain file"));
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(source.get("token").unwrap_err().to_string().contains("chmod 700"));
}

#[test]
fn placeholders_stay_over_a_restart_and_differ_between_sandboxes() {
    let state = tempfile::tempdir().unwrap();
    let (one, other) = (SandboxId::generate(), SandboxId::generate());
    let before = PlaceholderKey::load_or_create(state.path()).unwrap().placeholder(&one, "token");
    let key = PlaceholderKey::load_or_create(state.path()).unwrap();
    assert_eq!(key.placeholder(&one, "token"), before);
    assert!(before.starts_with("hostel-secret-token-") && before.len() == 20 + 32);
    assert_ne!(key.placeholder(&other, "token"), before);
    assert_ne!(key.placeholder(&one, "tokens")[21..], before[20..]);
}

#[test]
fn a_set_knows_its_hosts_and_refuses_headers_that_frame() {
    let sandbox = SandboxId::generate();
    let entry = (secret("token", SecretForm::Placeholder), value(VALUE), "the-placeholder".to_owned());
    let set = SecretSet::new(sandbox.clone(), vec![entry]).unwrap();
    assert!(set.binds("api.example.com") && set.binds("a.example.org"));
    assert!(!set.binds("example.com") && !set.binds("example.org") && !set.binds("127.0.0.1"));
    assert_eq!(set.environment(), [("API_KEY".to_owned(), "the-placeholder".to_owned())].into());
    for name in ["host", "Content-Length", "transfer-encoding", "Connection", "proxy-authorization"] {
        let form = SecretForm::Header { name: name.to_owned(), template: "{}".to_owned() };
        let entry = (secret("token", form), value(VALUE), "placeholder".to_owned());
        assert!(SecretSet::new(sandbox.clone(), vec![entry]).is_err(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotated_value_is_used_soon_and_the_old_one_still_cleaned() {
    let state = tempfile::tempdir().unwrap();
    let key = PlaceholderKey::load_or_create(state.path()).unwrap();
    let vault = Vault::open(state.path(), None).unwrap();
    vault.put("token", &value("the-old-value")).unwrap();
    let values = Arc::new(Secrets::new(Some(vault), no_source()));
    let wanted = [secret("token", SecretForm::Placeholder)];
    let set = SecretSet::open(SandboxId::generate(), &wanted, values.clone(), &key).unwrap();
    values.vault().unwrap().put("token", &value("the-new-value")).unwrap();
    tokio::time::advance(std::time::Duration::from_secs(3)).await;
    let bound = set.bound("api.example.com").await;
    let shown: Vec<&str> = bound[0].values().map(SecretValue::expose).collect();
    assert_eq!(shown, ["the-new-value", "the-old-value"]);
    values.vault().unwrap().delete("token").unwrap();
    tokio::time::advance(std::time::Duration::from_secs(3)).await;
    let bound = set.bound("api.example.com").await;
    assert!(bound[0].value.is_none());
    assert_eq!(bound[0].previous.as_ref().unwrap().expose(), "the-new-value");
    assert!(set.bound("other.example.net").await.is_empty());
}
