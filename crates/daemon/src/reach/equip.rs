//! What processes must know to reach what they may: variables of their environment.

use super::Reach;
use super::trust::{BUNDLE, CERTIFICATE};
use hostel_sandbox::{SandboxId, SandboxSpec};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Where programs that know proxies find ours, inside the sandbox. Those that do not reach it all the same.
const PROXY: &str = "127.0.0.1:3128";
/// Where the model gateway is, inside the sandbox: for the agent, and for programs that need TCP.
pub(super) const MODEL_SOCKET: &str = "/run/hostel/model.sock";
pub(super) const MODEL_PORT: u16 = 3129;

impl Reach {
    /// The specification as the backend gets it: with the variables that make programs find their way. What the
    /// caller set of proxies and certificates stays; placeholders and the gateway's address are ours. One that asks for
    /// nothing is as it was.
    pub(crate) fn equip<'a>(&self, id: &SandboxId, spec: &'a SandboxSpec) -> Cow<'a, SandboxSpec> {
        if spec.network.is_none() && spec.secrets.is_empty() && spec.model.is_none() {
            return Cow::Borrowed(spec);
        }
        let mut spec = spec.clone();
        if !spec.network.is_none() {
            let mut env = proxies();
            env.extend(hostel_egress::authority::environment(BUNDLE, CERTIFICATE));
            env.append(&mut spec.env);
            spec.env = env;
        }
        for secret in &spec.secrets {
            if let Some(variable) = &secret.env {
                let placeholder = self.0.placeholders.placeholder(id, &secret.name);
                spec.env.insert(variable.clone(), placeholder);
            }
        }
        if spec.model.is_some() {
            spec.env.extend(self.model(id));
        }
        Cow::Owned(spec)
    }

    /// What a process is told that waits in a warm sandbox: should whoever claims the sandbox let it ask models, the way
    /// is known already. Until then it leads nowhere.
    pub(crate) fn prepare(&self, id: &SandboxId) -> Vec<(String, String)> {
        self.gateway().map(|_| self.model(id).into()).unwrap_or_default()
    }

    /// What the agent needs to ask the model. Without an `http` base address it would speak TLS into the socket.
    fn model(&self, id: &SandboxId) -> [(String, String); 4] {
        [
            ("ANTHROPIC_UNIX_SOCKET", MODEL_SOCKET.to_owned()),
            ("ANTHROPIC_BASE_URL", format!("http://127.0.0.1:{MODEL_PORT}")),
            ("ANTHROPIC_API_KEY", self.model_token(id)),
            // What it would ask others for meanwhile is refused anyway, after a wait.
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// What the sandbox shows to the gateway instead of a key: worth nothing elsewhere, the same after a restart.
    pub(super) fn model_token(&self, id: &SandboxId) -> String {
        self.0.placeholders.placeholder(id, "model-gateway")
    }
}

/// Variables that most programs know, in both spellings.
fn proxies() -> BTreeMap<String, String> {
    let http = format!("http://{PROXY}");
    let named = [
        ("http_proxy", http.clone()),
        ("https_proxy", http),
        ("all_proxy", format!("socks5h://{PROXY}")),
        ("no_proxy", "localhost,127.0.0.1,::1".to_owned()),
    ];
    let both = named
        .into_iter()
        .flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.to_uppercase(), value)]);
    both.collect()
}
