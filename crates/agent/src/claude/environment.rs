//! The environment of the agent: what it is started with, and what it can be told later.

use crate::launch::LaunchOptions;
use std::collections::BTreeMap;

/// What the agent or its runtime read while they start: where its state is, whom it asks and how it gets there, what
/// it is and what it tells of itself. Names that begin so, in Claude Code 2.1.329.
const READ_AT_START: [&str; 35] = [
    "ANTHROPIC_",
    "API_",
    "AWS_",
    "AZURE_",
    "BASH_",
    "BUN_",
    "CCR_",
    "CLAUDE",
    "CLOUD",
    "DEBUG",
    "DETECT_",
    "DISABLE_",
    "DO_NOT_TRACK",
    "ENABLE_",
    "FORCE_",
    "GCE_",
    "GCLOUD_",
    "GOOGLE_",
    "GRPC_",
    "IS_",
    "LC_",
    "LD_",
    "MALLOC_",
    "MAX_",
    "MCP_",
    "METADATA_",
    "NODE_",
    "NO_COLOR",
    "OTEL_",
    "SDK_",
    "SELF_HOSTED_RUNNER_",
    "SSL_",
    "USE_",
    "VERTEX_",
    "XDG_",
];
/// And these.
const BASIC: [&str; 14] = [
    "CI", "EDITOR", "HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TMP", "TMPDIR",
    "TZ", "USER",
];

/// What a process is started with: its own, and `more`.
pub(super) fn environment(
    options: &LaunchOptions,
    more: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from(
        [
            // Without this it looks up names and probes addresses that it was not told of.
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            // As root it refuses bypassPermissions otherwise. The sandbox is the limit.
            ("IS_SANDBOX", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    env.extend(options.env.clone());
    env.extend(more.clone());
    if let Some(directory) = &options.state_directory {
        env.insert("CLAUDE_CONFIG_DIR".to_owned(), directory.clone());
    }
    // The only sound sign of idleness: a result is none.
    env.insert("CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS".to_owned(), "1".to_owned());
    env
}

/// Whether a process that runs takes a variable for its own: then it is as if it had been started with that.
pub(super) fn comes_late(name: &str, value: &str) -> bool {
    let plain = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    let upper = name.to_ascii_uppercase();
    !name.is_empty()
        && name.bytes().all(plain)
        && !value.contains('\0')
        && !READ_AT_START.iter().any(|beginning| upper.starts_with(beginning))
        && !BASIC.contains(&upper.as_str())
        && !upper.ends_with("_PROXY")
}

#[cfg(test)]
mod tests {
    use super::comes_late;

    #[test]
    fn what_is_read_at_the_start_is_not_told_later() {
        for late in ["DATABASE_URL", "GITHUB_TOKEN", "my_key", "GIT_AUTHOR_NAME", "CITY", "HOMEPAGE"] {
            assert!(comes_late(late, ""), "{late}");
        }
        for fixed in ["ANTHROPIC_BASE_URL", "https_proxy", "NODE_OPTIONS", "PATH", "TZ", "", "a=b", "A-B"] {
            assert!(!comes_late(fixed, ""), "{fixed}");
        }
        assert!(!comes_late("WORD", "a\0b"));
    }
}
