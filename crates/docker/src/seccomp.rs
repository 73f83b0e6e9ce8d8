//! The list of system calls as the engine wants it. The guest puts the same list, with every argument looked at, on
//! what it starts; this one holds from the container's first instruction, and cannot say "all but these": an ioctl is
//! whatever it asks, a limit whatever it limits, an option of a socket whatever it sets.

use hostel_system_calls::{
    AF_NETLINK, AF_UNIX, DONE_AT_ONCE, INTERNET_FAMILIES, INTERNET_PROTOCOLS, INTERNET_TYPES, NEW_NAMESPACES,
    PERSONALITIES, SOCKET_TYPE_MASK, SystemCall, allowed,
};
use serde_json::{Value, json};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "SCMP_ARCH_AARCH64";

/// What refused calls answer: EPERM. Calls that are newer than the engine's library answer ENOSYS by themselves.
const REFUSED: u32 = 1;
/// ENOSYS: glibc falls back to clone(2), whose flags can be seen.
const UNKNOWN: u32 = 38;

/// Allowed here whatever they ask for.
const LOOKED_AT_INSIDE: [&str; 4] = ["ioctl", "setsockopt", "fcntl", "prctl"];

/// The profile, in the engine's own format.
pub(crate) fn profile() -> String {
    let names: Vec<&str> = allowed().map(SystemCall::plain_name).chain(LOOKED_AT_INSIDE).collect();
    let done: Vec<&str> = DONE_AT_ONCE.iter().map(|call| call.plain_name()).collect();
    let mut rules = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": done, "action": "SCMP_ACT_ERRNO", "errnoRet": 0}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": UNKNOWN}),
        allow("clone", &[argument(0, "SCMP_CMP_MASKED_EQ", NEW_NAMESPACES.into())]),
        allow("prlimit64", &[argument(0, "SCMP_CMP_EQ", 0)]),
    ];
    for personality in PERSONALITIES {
        rules.push(allow("personality", &[argument(0, "SCMP_CMP_EQ", personality.into())]));
    }
    for name in ["socket", "socketpair"] {
        rules.push(allow(name, &[argument(0, "SCMP_CMP_EQ", AF_UNIX.into())]));
        let netlink = [argument(0, "SCMP_CMP_EQ", AF_NETLINK.into()), argument(2, "SCMP_CMP_EQ", 0)];
        rules.push(allow(name, &netlink));
        rules.extend(internet_sockets(name));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": REFUSED,
        "architectures": [ARCHITECTURE],
        "syscalls": rules,
    })
    .to_string()
}

/// A rule for each family, type and protocol: the engine knows no sets.
fn internet_sockets(name: &str) -> impl Iterator<Item = Value> {
    let kinds =
        INTERNET_TYPES.into_iter().flat_map(|kind| INTERNET_PROTOCOLS.map(|protocol| (kind, protocol)));
    kinds.flat_map(|(kind, protocol)| INTERNET_FAMILIES.map(|family| (family, kind, protocol))).map(
        move |(family, kind, protocol)| {
            let of_type = json!({
                "index": 1, "value": SOCKET_TYPE_MASK, "valueTwo": kind, "op": "SCMP_CMP_MASKED_EQ",
            });
            let family = argument(0, "SCMP_CMP_EQ", family.into());
            allow(name, &[family, of_type, argument(2, "SCMP_CMP_EQ", protocol.into())])
        },
    )
}

fn allow(name: &str, arguments: &[Value]) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": arguments})
}

fn argument(index: u32, comparison: &str, value: u64) -> Value {
    json!({"index": index, "value": value, "valueTwo": 0, "op": comparison})
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_profile_has_the_list_and_no_more() {
        let profile: serde_json::Value = serde_json::from_str(&super::profile()).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let text = profile["syscalls"].to_string();
        for inside in ["\"read\"", "\"futex_wait\"", "\"openat2\""] {
            assert!(text.contains(inside), "{inside}");
        }
        for outside in ["\"mount\"", "\"bpf\"", "\"unshare\"", "\"ptrace\"", "\"setns\""] {
            assert!(!text.contains(outside), "{outside}");
        }
    }

    #[test]
    fn internet_sockets_are_allowed_by_type_and_protocol_only() {
        let profile: serde_json::Value = serde_json::from_str(&super::profile()).unwrap();
        let rules = profile["syscalls"].as_array().unwrap();
        let of_socket: Vec<_> = rules.iter().filter(|rule| rule["names"][0] == "socket").collect();
        assert_eq!(of_socket.len(), 2 + 2 * 3 * 6);
        for rule in of_socket {
            let arguments = rule["args"].as_array().unwrap();
            let values: Vec<_> = arguments.iter().map(|one| (&one["index"], &one["value"])).collect();
            if values[0].1 == 2 || values[0].1 == 10 {
                assert_eq!(arguments.len(), 3, "{rule}");
                assert_eq!(
                    (values[1].0, values[1].1, &arguments[1]["op"]),
                    (&1.into(), &0xf.into(), &"SCMP_CMP_MASKED_EQ".into())
                );
            }
        }
    }
}
