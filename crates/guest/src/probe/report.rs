//! What a process inside sees, as JSON, for tests to look at.

use std::fmt::Write as _;

/// Text as a JSON string (RFC 8259 §7).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn object(fields: impl IntoIterator<Item = (String, String)>) -> String {
    let fields: Vec<String> =
        fields.into_iter().map(|(name, value)| format!("{}:{value}", quoted(&name))).collect();
    format!("{{{}}}", fields.join(","))
}

fn array(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

/// Lines of a file; empty where it cannot be read.
fn lines(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    array(text.lines().map(quoted))
}

fn status() -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = [
        "Uid",
        "Gid",
        "Groups",
        "NoNewPrivs",
        "Seccomp",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NSpid",
    ];
    object(text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        wanted.contains(&name).then(|| (name.to_owned(), quoted(value.trim())))
    }))
}

fn namespaces() -> String {
    object(["mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"].into_iter().map(|kind| {
        let target = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        (kind.to_owned(), quoted(&target.to_string_lossy()))
    }))
}

fn limits() -> String {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    array(text.lines().skip(1).map(quoted))
}

fn processes() -> String {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    array(entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?');
        let fields = [
            ("pid".to_owned(), pid.to_string()),
            ("name".to_owned(), quoted(name.trim())),
            ("state".to_owned(), quoted(&state.to_string())),
        ];
        Some(object(fields))
    }))
}

/// Prints one JSON object.
pub(crate) fn print() -> std::io::Result<()> {
    // SAFETY: these take nothing and cannot fail.
    let (uid, gid, sid) = unsafe { (libc::getuid(), libc::getgid(), libc::getsid(0)) };
    let cwd = std::env::current_dir().unwrap_or_default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let signals = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let masks = signals.lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn"));
    let fields = [
        ("pid", std::process::id().to_string()),
        ("uid", uid.to_string()),
        ("gid", gid.to_string()),
        ("session", sid.to_string()),
        ("cwd", quoted(&cwd.to_string_lossy())),
        ("hostname", quoted(host.trim())),
        ("status", status()),
        ("signals", array(masks.map(quoted))),
        ("namespaces", namespaces()),
        ("uid_map", lines("/proc/self/uid_map")),
        ("mounts", lines("/proc/self/mountinfo")),
        ("interfaces", lines("/proc/net/dev")),
        ("cgroup", lines("/proc/self/cgroup")),
        ("limits", limits()),
        ("processes", processes()),
        ("environment", array(std::env::vars_os().map(|(name, _)| quoted(&name.to_string_lossy())))),
        ("descriptors", array(crate::supervisor::open_descriptors().iter().map(i32::to_string))),
        ("oom_score_adj", lines("/proc/self/oom_score_adj")),
    ];
    println!("{}", object(fields.into_iter().map(|(name, value)| (name.to_owned(), value))));
    Ok(())
}
