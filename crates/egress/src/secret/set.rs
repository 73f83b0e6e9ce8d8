//! The secrets of one sandbox: which host gets which, and their values when one is needed.

use super::{PlaceholderKey, SecretValue, Secrets};
use crate::error::{Error, Result};
use hostel_sandbox::id::SandboxId;
use hostel_sandbox::secret::{SecretForm, SecretRef};
use http::HeaderName;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a value is used before it is looked up again: a rotated secret is in use this soon.
const FRESH: Duration = Duration::from_secs(2);
/// Headers that frame or route a message; a secret there would break it or send it elsewhere.
const FRAMING: [&str; 11] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "accept-encoding",
];

/// The secrets of a sandbox.
pub struct SecretSet {
    sandbox: Option<SandboxId>,
    entries: Vec<Arc<Entry>>,
    /// Where values are looked up again; without it they stay what they were.
    live: Option<Arc<Secrets>>,
}

struct Entry {
    secret: SecretRef,
    form: Form,
    placeholder: String,
    known: Mutex<Known>,
}

/// The last that was heard of a value.
struct Known {
    value: Option<SecretValue>,
    /// The one before: answers may still name it.
    previous: Option<SecretValue>,
    read: Instant,
}

/// How a secret gets into a request, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// In place of the placeholder.
    Placeholder,
    /// As this header: its name, and its value before and after the secret.
    Header(HeaderName, String, String),
}

/// A secret that a host is bound to, with its value of now.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) name: String,
    pub(crate) placeholder: String,
    pub(crate) form: Form,
    /// Absent where it cannot be had at the moment.
    pub(crate) value: Option<SecretValue>,
    /// The value of before a rotation.
    pub(crate) previous: Option<SecretValue>,
}

impl fmt::Debug for SecretSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.entries.iter().map(|entry| entry.secret.name.as_str()).collect();
        f.debug_struct("SecretSet")
            .field("sandbox", &self.sandbox)
            .field("secrets", &names)
            .finish_non_exhaustive()
    }
}

impl SecretSet {
    /// No secrets.
    #[must_use]
    pub fn none() -> Self {
        Self { sandbox: None, entries: Vec::new(), live: None }
    }

    /// Secrets with values that do not change, each with its placeholder.
    ///
    /// # Errors
    /// [`Error::SecretInvalid`] for a form that cannot be used.
    pub fn new(sandbox: SandboxId, secrets: Vec<(SecretRef, SecretValue, String)>) -> Result<Self> {
        let entries = secrets
            .into_iter()
            .map(|(secret, value, placeholder)| Entry::new(secret, Some(value), placeholder));
        Ok(Self { sandbox: Some(sandbox), entries: entries.collect::<Result<_>>()?, live: None })
    }

    /// Secrets whose values are looked up now, and again when one is used and the last look is older than 2 s.
    /// Reads files.
    ///
    /// # Errors
    /// [`Error::SecretNotFound`] and the others of [`Secrets::resolve`]; [`Error::SecretInvalid`] for a form that
    /// cannot be used.
    pub fn open(
        sandbox: SandboxId,
        secrets: &[SecretRef],
        values: Arc<Secrets>,
        key: &PlaceholderKey,
    ) -> Result<Self> {
        Self::live(sandbox, secrets, values, key, |_, value| value.map(Some))
    }

    /// The same for a sandbox that had these secrets before. One that has been removed since, or cannot be read now, has
    /// no value until it is there again; what needs it is refused meanwhile. Reads files.
    ///
    /// # Errors
    /// [`Error::SecretInvalid`] for a form that cannot be used.
    pub fn open_again(
        sandbox: SandboxId,
        secrets: &[SecretRef],
        values: Arc<Secrets>,
        key: &PlaceholderKey,
    ) -> Result<Self> {
        Self::live(sandbox.clone(), secrets, values, key, |secret, value| {
            let told = value.inspect_err(|error| {
                tracing::warn!(%sandbox, secret = %secret.name, %error, "the secret has no value now");
            });
            Ok(told.ok())
        })
    }

    /// Secrets whose values are looked up; `found` says what comes of each.
    fn live(
        sandbox: SandboxId,
        secrets: &[SecretRef],
        values: Arc<Secrets>,
        key: &PlaceholderKey,
        found: impl Fn(&SecretRef, Result<SecretValue>) -> Result<Option<SecretValue>>,
    ) -> Result<Self> {
        let entries = secrets.iter().map(|secret| {
            let value = found(secret, values.resolve(secret))?;
            Entry::new(secret.clone(), value, key.placeholder(&sandbox, &secret.name))
        });
        let entries = entries.collect::<Result<_>>()?;
        Ok(Self { sandbox: Some(sandbox), entries, live: Some(values) })
    }

    /// Whether a secret goes to this host, a name in the form of [`hostel_sandbox::network::normal_name`]: TLS to it
    /// must be opened then. Never for an address.
    #[must_use]
    pub fn binds(&self, host: &str) -> bool {
        self.entries.iter().any(|entry| entry.binds(host))
    }

    /// Whether another set gives this host the same: what goes on with it may go on. Values that are looked up again
    /// are the same wherever they are; of others nothing is known.
    pub(crate) fn gives_the_same(&self, other: &Self, host: &str) -> bool {
        let own = self.of_host(host).map(|entry| entry.described());
        let others = other.of_host(host).map(|entry| entry.described());
        let looked_up = self.live.is_some() && other.live.is_some();
        own.eq(others) && (looked_up || !self.binds(host))
    }

    fn of_host(&self, host: &str) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().filter(move |entry| entry.binds(host))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The variables that tell processes their placeholders.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        let named =
            self.entries.iter().filter_map(|entry| Some((entry.secret.env.clone()?, &entry.placeholder)));
        named.map(|(name, placeholder)| (name, placeholder.clone())).collect()
    }

    /// The secrets of a host with their values of now.
    pub(crate) async fn bound(&self, host: &str) -> Vec<Bound> {
        let mut all = Vec::new();
        for entry in self.of_host(host) {
            if let Some(live) = &self.live
                && entry.known().read.elapsed() > FRESH
            {
                let (live, again) = (Arc::clone(live), Arc::clone(entry));
                // A task that panicked leaves the old value, which is what a failed look does too.
                let _ = tokio::task::spawn_blocking(move || again.look(&live)).await;
            }
            let known = entry.known();
            all.push(Bound {
                name: entry.secret.name.clone(),
                placeholder: entry.placeholder.clone(),
                form: entry.form.clone(),
                value: known.value.clone(),
                previous: known.previous.clone(),
            });
        }
        all
    }
}

impl Entry {
    fn new(secret: SecretRef, value: Option<SecretValue>, placeholder: String) -> Result<Arc<Self>> {
        let form = Form::new(&secret)?;
        let known = Mutex::new(Known { value, previous: None, read: Instant::now() });
        Ok(Arc::new(Self { secret, form, placeholder, known }))
    }

    /// All of it but its value.
    fn described(&self) -> (&SecretRef, &str) {
        (&self.secret, &self.placeholder)
    }

    fn binds(&self, host: &str) -> bool {
        self.secret.hosts.iter().any(|pattern| pattern.matches_name(host))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing panics while holding it, and a half-made state is not possible.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks the value up again.
    fn look(&self, values: &Secrets) {
        let found = values.resolve(&self.secret);
        let mut known = self.known();
        known.read = Instant::now();
        match found {
            Ok(value) => {
                let changed = known.value.as_ref().is_none_or(|old| old.expose() != value.expose());
                if changed {
                    known.previous = known.value.take().or_else(|| known.previous.take());
                    known.value = Some(value);
                }
            }
            Err(error) => {
                // A secret that was taken away is used no more; answers may still name it.
                tracing::warn!(secret = %self.secret.name, %error, "the secret has no value now");
                if let Some(last) = known.value.take() {
                    known.previous = Some(last);
                }
            }
        }
    }
}

impl Form {
    fn new(secret: &SecretRef) -> Result<Self> {
        let invalid = |problem: String| Error::SecretInvalid { name: secret.name.clone(), problem };
        match &secret.form {
            SecretForm::Placeholder => Ok(Self::Placeholder),
            SecretForm::Header { name, template } => {
                let header = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| invalid(format!("{name:.80?} is not a header's name")))?;
                if FRAMING.contains(&header.as_str()) || header.as_str().starts_with("proxy-") {
                    return Err(invalid(format!(
                        "the header {header} frames the message; it cannot hold a secret"
                    )));
                }
                let (before, after) = template
                    .split_once("{}")
                    .ok_or_else(|| invalid("the header's value needs {} where the secret goes".to_owned()))?;
                Ok(Self::Header(header, before.to_owned(), after.to_owned()))
            }
        }
    }
}

impl Bound {
    /// All values that answers must not show.
    pub(crate) fn values(&self) -> impl Iterator<Item = &SecretValue> {
        self.value.iter().chain(&self.previous)
    }
}
