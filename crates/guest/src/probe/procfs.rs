//! Probes at /proc, /sys and the file system: jail.md §7c 37 to 41.

use crate::abuse::{Context, Probe};
use crate::sys::{self, sys};
use crate::verdict::{Verdict, all, must_fail};
use std::ffi::CString;

pub(crate) const PROBES: &[Probe] = &[
    ("proc-sys-write", proc_sys_write),
    ("sysrq-trigger", |_| must_fail("sysrq", sys::open(c"/proc/sysrq-trigger", libc::O_WRONLY))),
    ("proc-kcore", |_| must_give_nothing(&["/proc/kcore", "/proc/vmcore"])),
    ("proc-kmsg", |_| must_give_nothing(&["/proc/kmsg", "/dev/kmsg"])),
    ("proc-keys", |_| must_give_nothing(&["/proc/keys", "/proc/key-users"])),
    ("proc-timers", |_| must_give_nothing(&["/proc/timer_list", "/proc/sched_debug"])),
    ("proc-config", |_| must_give_nothing(&["/proc/config.gz"])),
    ("proc-pressure", |_| must_give_nothing(&["/proc/pressure", "/proc/pressure/memory"])),
    ("proc-command-line", |_| must_give_nothing(&["/proc/cmdline"])),
    ("proc-memory-maps", |_| {
        must_give_nothing(&["/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup", "/proc/vmallocinfo"])
    }),
    ("kernel-addresses", kernel_addresses),
    ("oom-score-adjust", oom_score),
    ("sys-write", sys_write),
    ("debug-file-systems", |_| {
        must_give_nothing(&["/sys/kernel/debug", "/sys/kernel/tracing", "/sys/firmware/efi"])
    }),
    ("host-files", host_files),
    ("host-file-descriptor-paths", descriptor_paths),
    ("link-out", link_out),
];

fn proc_sys_write(_: &Context) -> Verdict {
    let names = [
        "kernel/core_pattern",
        "kernel/modprobe",
        "kernel/hotplug",
        "kernel/hostname",
        "kernel/panic",
        "kernel/sysrq",
        "kernel/dmesg_restrict",
        "kernel/kptr_restrict",
        "kernel/perf_event_paranoid",
        "kernel/randomize_va_space",
        "kernel/unprivileged_bpf_disabled",
        "kernel/pid_max",
        "kernel/threads-max",
        "kernel/poweroff_cmd",
        "kernel/core_pipe_limit",
        "kernel/usermodehelper/bset",
        "kernel/ns_last_pid",
        "vm/overcommit_memory",
        "vm/drop_caches",
        "vm/swappiness",
        "vm/panic_on_oom",
        "vm/mmap_min_addr",
        "fs/file-max",
        "fs/protected_symlinks",
        "fs/suid_dumpable",
        "fs/binfmt_misc/register",
        "net/ipv4/ip_forward",
        "net/ipv4/ip_unprivileged_port_start",
    ];
    all(names.map(|name| {
        let path = CString::new(format!("/proc/sys/{name}")).unwrap_or_default();
        must_fail(name, sys::open(&path, libc::O_WRONLY))
    }))
}

/// Each must be absent, closed, or empty.
fn must_give_nothing(paths: &[&str]) -> Verdict {
    all(paths.iter().map(|path| {
        if let Ok(entries) = std::fs::read_dir(path) {
            return match entries.flatten().count() {
                0 => Verdict::refused(format!("{path} is empty")),
                count => Verdict::escaped(format!("{path} lists {count} entries")),
            };
        }
        let name = CString::new(*path).unwrap_or_default();
        match sys::open(&name, libc::O_RDONLY) {
            Err(errno) => Verdict::refused(format!("{path}: {errno}")),
            Ok(descriptor) => {
                let mut buffer = [0_u8; 64];
                match sys!(SYS_read, descriptor, buffer.as_mut_slice(), 64) {
                    Ok(0) => Verdict::refused(format!("{path} is empty")),
                    Err(errno) => Verdict::refused(format!("read {path}: {errno}")),
                    Ok(count) => Verdict::escaped(format!("{path} gave {count} bytes")),
                }
            }
        }
    }))
}

fn kernel_addresses(_: &Context) -> Verdict {
    all(["/proc/kallsyms", "/proc/modules", "/proc/self/stack", "/proc/self/wchan"].map(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let shown = text.split_whitespace().find(|word| {
            let digits = word.trim_start_matches("0x").trim_start_matches("[<").trim_end_matches(">]");
            digits.len() == 16
                && digits.starts_with("ffff")
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        match shown {
            Some(address) => Verdict::escaped(format!("{path} shows {address}")),
            None => Verdict::refused(format!("{path} shows no address")),
        }
    }))
}

fn oom_score(_: &Context) -> Verdict {
    match std::fs::write("/proc/self/oom_score_adj", "-1000") {
        Ok(()) => Verdict::escaped("this process can no longer be killed for memory"),
        Err(error) => Verdict::refused(format!("oom_score_adj: {error}")),
    }
}

fn sys_write(_: &Context) -> Verdict {
    let names = [
        "kernel/uevent_helper",
        "kernel/mm/transparent_hugepage/enabled",
        "power/state",
        "power/disk",
        "kernel/profiling",
        "kernel/uevent_seqnum",
        "module/kernel/parameters/panic",
        "fs/cgroup/cgroup.procs",
        "fs/cgroup/release_agent",
        "kernel/security/apparmor/.load",
    ];
    let opened = names.map(|name| {
        let path = CString::new(format!("/sys/{name}")).unwrap_or_default();
        must_fail(name, sys::open(&path, libc::O_WRONLY))
    });
    let made = sys!(SYS_mkdirat, libc::AT_FDCWD, c"/sys/fs/cgroup/hostel-probe", 0o755);
    if made.is_ok() {
        let _ = sys!(SYS_unlinkat, libc::AT_FDCWD, c"/sys/fs/cgroup/hostel-probe", libc::AT_REMOVEDIR);
    }
    all(opened.into_iter().chain([must_fail("make a cgroup", made)]))
}

/// Files that every host has, under names that a sandbox has no reason to have.
fn host_files(context: &Context) -> Verdict {
    let mut paths = vec![
        "/boot/grub/grub.cfg",
        "/var/lib/docker",
        "/var/lib/containerd",
        "/run/systemd/private",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/containerd",
        "/root/.ssh",
        "/root/.cargo",
        "/root/.bash_history",
        "/var/log/syslog",
        "/etc/ssh/ssh_host_rsa_key",
        "/run/hostel",
        "/var/lib/hostel",
    ];
    paths.extend(context.host_paths.iter().map(String::as_str));
    all(paths.into_iter().map(|path| match std::fs::symlink_metadata(path) {
        Err(error) => Verdict::refused(format!("{path}: {error}")),
        Ok(_) => Verdict::escaped(format!("{path} of the host shows")),
    }))
}

/// Through the descriptors of this process, `..` must end at the sandbox's root as well.
fn descriptor_paths(_: &Context) -> Verdict {
    let mut verdicts = vec![Verdict::refused("no descriptor leads out")];
    for descriptor in 0..3 {
        for path in
            [format!("/proc/self/fd/{descriptor}/../../../../etc"), format!("/dev/fd/{descriptor}/..")]
        {
            let path = CString::new(path).unwrap_or_default();
            if sys::open(&path, libc::O_RDONLY | libc::O_DIRECTORY).is_ok() {
                verdicts.push(Verdict::escaped(format!("descriptor {descriptor} is a directory")));
            }
        }
    }
    all(verdicts)
}

/// A hard link to a file of the host's /usr in a directory that can be written.
fn link_out(_: &Context) -> Verdict {
    let path = CString::new(format!("/tmp/hostel-probe-link-{}", std::process::id())).unwrap_or_default();
    let outcome = sys!(
        SYS_linkat,
        libc::AT_FDCWD,
        c"/proc/1/exe",
        libc::AT_FDCWD,
        path.as_c_str(),
        libc::AT_SYMLINK_FOLLOW
    );
    let _ = sys!(SYS_unlinkat, libc::AT_FDCWD, path.as_c_str(), 0);
    must_fail("link to the supervisor", outcome)
}
