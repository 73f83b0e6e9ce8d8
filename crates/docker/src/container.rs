//! What a container is asked to be: every limit set, nothing to reach, our guest first.

use crate::abilities::Facts;
use crate::disk::{self, Kind, Place, SPILL, SPILL_INSIDE};
use crate::ground::{CONFIG, Ground, REPORT, SOCKET};
use crate::remote;
use crate::seccomp;
use crate::snapshot::LABEL_FORK;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use hostel_sandbox::{ResourceLimits, SandboxId, TemplateId};
use std::collections::HashMap;
use std::path::Path;

/// On containers of ours: which daemon they belong to. What others run of an image inherits the image's labels, so no
/// image of ours has it; those of earlier daemons do, which is why a container's name has to say it, too.
pub(crate) const LABEL_INSTANCE: &str = "hostel.instance";
/// On containers: which sandbox.
pub(crate) const LABEL_SANDBOX: &str = "hostel.sandbox";
/// On containers: what it was made from.
pub(crate) const LABEL_TEMPLATE: &str = "hostel.from";

/// Everything of ours inside, the guest's executable, and its directory.
pub(crate) const HOME_INSIDE: &str = "/.hostel";
pub(crate) const GUEST_INSIDE: &str = "/.hostel/guest";
pub(crate) const CONTROL_INSIDE: &str = "/.hostel/run";
/// The kernel ends what runs in sandboxes before the host's own services, and processes before their guest.
const OOM_SCORE: i64 = 500;
/// What the guest needs to start processes as other users and to serve their files; it hands none of it on.
/// SETPCAP is to give up the rest for good, and goes with it.
const GUEST_CAPABILITIES: [&str; 7] =
    ["SETUID", "SETGID", "KILL", "CHOWN", "DAC_OVERRIDE", "FOWNER", "SETPCAP"];

/// What tells of the host's kernel or hardware, the engine's own list included.
const MASKED: [&str; 31] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/buddyinfo",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/pagetypeinfo",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/class",
    "/sys/dev",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/hypervisor",
    "/sys/kernel",
    "/sys/module",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// `(name, most)` of getrlimit(2), for every process. An engine may not raise what it has less of itself; the guest
/// sets the others: how many files may be open, and that on cores, which must not be 0 (`confine.rs` of the guest).
const LIMITS: [(&str, i64); 2] = [("msgqueue", 819_200), ("sigpending", 4096)];

/// Everything that decides what a container is.
pub(crate) struct Plan<'a> {
    pub(crate) sandbox: &'a SandboxId,
    pub(crate) template: &'a TemplateId,
    /// The image's id.
    pub(crate) image: &'a str,
    /// What the image itself takes.
    pub(crate) image_bytes: u64,
    pub(crate) limits: &'a ResourceLimits,
    pub(crate) disk: Kind,
    pub(crate) places: &'a [Place],
    pub(crate) volumes: &'a [String],
    pub(crate) facts: &'a Facts,
    pub(crate) ground: &'a Ground,
}

/// What the names of this daemon's containers begin with, and no others'.
pub(crate) fn prefix(ground: &Ground) -> String {
    format!("hostel-{}-", ground.instance)
}

/// The name of a sandbox's container: unique on an engine that several daemons share.
pub(crate) fn name(ground: &Ground, sandbox: &SandboxId) -> String {
    format!("{}{sandbox}", prefix(ground))
}

/// Whether labels are those of a sandbox's container.
pub(crate) fn is_of(ground: &Ground, sandbox: &SandboxId, labels: &HashMap<String, String>) -> bool {
    let has = |name: &str, value: &str| labels.get(name).is_some_and(|found| found == value);
    has(LABEL_INSTANCE, &ground.instance) && has(LABEL_SANDBOX, sandbox.as_str())
}

/// Labels that say nothing. For images that others may run: what is made of a container would have its labels. For
/// containers: one has its image's.
pub(crate) fn no_labels() -> HashMap<String, String> {
    [LABEL_INSTANCE, LABEL_SANDBOX, LABEL_TEMPLATE, LABEL_FORK]
        .map(|label| (label.to_owned(), String::new()))
        .into()
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        target: Some(target.to_owned()),
        source: Some(source.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

/// Options of a file system in memory. The engine would forbid programs in it unless told.
fn memory(bytes: u64, mode: u32) -> String {
    format!("rw,exec,nosuid,nodev,size={bytes},mode={mode:o}")
}

impl Plan<'_> {
    fn mounts(&self) -> Vec<Mount> {
        if self.facts.remote {
            return vec![remote::volume()];
        }
        let mut mounts = vec![
            bind(self.ground.guest(), GUEST_INSIDE, true),
            bind(&self.ground.control(self.sandbox), CONTROL_INSIDE, false),
        ];
        let point = self.ground.mount_point(self.sandbox);
        match self.disk {
            Kind::Image | Kind::Memory => {
                mounts.push(bind(&point.join(SPILL), SPILL_INSIDE, false));
                let place = |place: &Place| bind(&place.within(&point), &place.path, false);
                mounts.extend(self.places.iter().map(place));
            }
            Kind::Root | Kind::Engine => {}
        }
        mounts
    }

    /// What the engine mounts in memory: every place where we cannot, and else what an image declares as volumes,
    /// which would have no cap.
    fn memories(&self) -> HashMap<String, String> {
        let bytes = disk::engine_bytes(self.limits);
        match self.disk {
            Kind::Root => self.volumes.iter().map(|volume| (volume.clone(), memory(bytes, 0o755))).collect(),
            Kind::Image | Kind::Memory => HashMap::new(),
            Kind::Engine => {
                // Nobody can give these to the default user, so everybody may write where that one works.
                let mode = |place: &Place| if place.owned { 0o1777 } else { place.mode };
                let entry = |place: &Place| (place.path.clone(), memory(bytes, mode(place)));
                self.places.iter().map(entry).collect()
            }
        }
    }

    fn host_config(&self) -> HostConfig {
        let (limits, facts) = (self.limits, self.facts);
        let memory = limits.memory_bytes.filter(|_| facts.memory).map(number);
        let mut security = vec!["no-new-privileges:true".to_owned()];
        // Without it the guest's own filter holds, which is the same and without which no guest starts.
        if facts.seccomp {
            security.push(format!("seccomp={}", seccomp::profile()));
        }
        let own = if facts.counts_image { self.image_bytes } else { 0 };
        let root_bytes = limits.disk_bytes.filter(|_| self.disk == Kind::Root);
        let root_bytes = root_bytes.map(|bytes| bytes.saturating_add(own));
        HostConfig {
            memory,
            memory_swap: facts.memory_swap(memory),
            memory_swappiness: (facts.cgroup1 && memory.is_some()).then_some(0),
            nano_cpus: limits.cpu_millis.filter(|_| facts.cpu).map(|millis| i64::from(millis) * 1_000_000),
            pids_limit: limits.pids.filter(|_| facts.pids).map(i64::from),
            oom_score_adj: Some(OOM_SCORE),
            ulimits: Some(LIMITS.map(|(name, most)| ulimit(name, most)).to_vec()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(GUEST_CAPABILITIES.map(str::to_owned).to_vec()),
            security_opt: Some(security),
            masked_paths: Some(MASKED.map(str::to_owned).to_vec()),
            readonly_paths: Some(READ_ONLY.map(str::to_owned).to_vec()),
            readonly_rootfs: Some(self.disk.has_places()),
            storage_opt: root_bytes.map(|bytes| HashMap::from([("size".to_owned(), bytes.to_string())])),
            shm_size: Some(limits.memory_bytes.map_or(64 << 20, |bytes| number((bytes / 2).min(1 << 30)))),
            mounts: Some(self.mounts()),
            tmpfs: Some(self.memories()),
            network_mode: Some("none".to_owned()),
            ipc_mode: Some("private".to_owned()),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            privileged: Some(false),
            publish_all_ports: Some(false),
            init: Some(false),
            auto_remove: Some(false),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..HostConfig::default()
        }
    }

    /// Over all that an image may have: one of a fork says that it goes with that, and an image that others make of
    /// the container would say so, too.
    fn labels(&self) -> HashMap<String, String> {
        let mut labels = no_labels();
        labels.insert(LABEL_INSTANCE.to_owned(), self.ground.instance.clone());
        labels.insert(LABEL_SANDBOX.to_owned(), self.sandbox.to_string());
        labels.insert(LABEL_TEMPLATE.to_owned(), self.template.to_string());
        labels
    }

    /// The whole request.
    pub(crate) fn body(&self) -> ContainerCreateBody {
        let inside = |name: &str| format!("{CONTROL_INSIDE}/{name}");
        let mut words = vec![
            GUEST_INSIDE.to_owned(),
            "supervise".to_owned(),
            "--socket".to_owned(),
            inside(SOCKET),
            "--config".to_owned(),
            inside(CONFIG),
            "--spill".to_owned(),
            SPILL_INSIDE.to_owned(),
            "--confine".to_owned(),
        ];
        if !self.facts.remote {
            words.extend(["--report".to_owned(), inside(REPORT)]);
        }
        ContainerCreateBody {
            hostname: Some(self.sandbox.to_string()),
            image: Some(self.image.to_owned()),
            // The guest: whom processes run as is its business, and never root unless asked for.
            user: Some("0:0".to_owned()),
            working_dir: Some("/".to_owned()),
            entrypoint: Some(words),
            cmd: Some(Vec::new()),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            labels: Some(self.labels()),
            attach_stdin: Some(false),
            attach_stdout: Some(false),
            attach_stderr: Some(false),
            tty: Some(false),
            open_stdin: Some(false),
            host_config: Some(self.host_config()),
            ..ContainerCreateBody::default()
        }
    }
}

fn ulimit(name: &str, most: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(most), hard: Some(most) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Asks a plan of a sandbox with 64 MiB on such an engine.
    fn plan_on<T>(facts: &Facts, ask: impl FnOnce(&Plan<'_>) -> T) -> T {
        let home = tempfile::tempdir().unwrap();
        let ground =
            Ground::open(&Config::new(home.path().join("s"), home.path().join("r"), b"guest")).unwrap();
        ask(&Plan {
            sandbox: &SandboxId::generate(),
            template: &TemplateId::generate(),
            image: "sha256:0",
            image_bytes: 0,
            limits: &ResourceLimits { memory_bytes: Some(64 << 20), ..ResourceLimits::defaults() },
            disk: Kind::Root,
            places: &[],
            volumes: &[],
            facts,
            ground: &ground,
        })
    }

    #[test]
    fn an_engine_that_does_not_count_swap_is_not_asked_to() {
        let asked = |facts: &Facts| {
            plan_on(facts, |plan| {
                let host = plan.host_config();
                (host.memory, host.memory_swap)
            })
        };
        assert_eq!(asked(&Facts::usual(false)), (Some(64 << 20), Some(64 << 20)));
        // Nothing said would be twice the memory, with a warning.
        assert_eq!(asked(&Facts { swap: false, ..Facts::usual(false) }), (Some(64 << 20), Some(-1)));
        assert_eq!(asked(&Facts { memory: false, ..Facts::usual(false) }), (None, None));
    }

    #[test]
    fn labels_say_whose_a_container_is_and_nothing_of_forks() {
        plan_on(&Facts::usual(false), |plan| {
            let labels = plan.body().labels.unwrap();
            assert!(is_of(plan.ground, plan.sandbox, &labels), "{labels:?}");
            assert!(!is_of(plan.ground, &SandboxId::generate(), &labels), "it is another's");
            assert!(!is_of(plan.ground, plan.sandbox, &no_labels()));
            // It has its image's otherwise, and what others make of it has its own.
            assert_eq!(labels[LABEL_FORK], "");
        });
    }
}
