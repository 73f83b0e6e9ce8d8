//! Options of the daemon on a command line.

use crate::config::{MemoryPressure, OVERCOMMIT, Overcommit, ReachConfig};
use crate::listen::Address;
use crate::logging::LogFormat;
use crate::{Config, Error};
use clap::{Args, ValueEnum};
use hostel_egress::audit::Flush;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a daemon is told, by `hosteld` and `hostel up` alike.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where clients connect: unix:///path or tcp://127.0.0.1:port. May be given several times.
    #[arg(long, env = "HOSTEL_LISTEN", value_delimiter = ',', value_name = "ADDRESS")]
    pub listen: Vec<Address>,
    /// Most connections of clients at a time; more are closed. At most half of the open files that the daemon may have.
    /// [4096]
    #[arg(long, env = "HOSTEL_MAX_CONNECTIONS", value_name = "COUNT")]
    pub max_connections: Option<usize>,
    /// Most connections of one user at a time; who comes over TCP counts as one. [2048]
    #[arg(long, env = "HOSTEL_MAX_CONNECTIONS_PER_USER", value_name = "COUNT")]
    pub max_connections_per_user: Option<usize>,
    /// Threads that calls run on. More are for hosts that pass much through their model gateway or network at a time.
    /// [half of the processors]
    #[arg(long, env = "HOSTEL_THREADS", value_name = "COUNT")]
    pub threads: Option<usize>,
    /// What outlives a reboot: records and templates. [/var/lib/hostel, for users ~/.local/state/hostel]
    #[arg(long, env = "HOSTEL_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// What does not: the socket hosteld.sock. [/run/hostel, for users $XDG_RUNTIME_DIR/hostel]
    #[arg(long, env = "HOSTEL_RUNTIME_DIR", value_name = "DIRECTORY")]
    pub runtime_dir: Option<PathBuf>,
    /// The Docker engine: unix:///path or tcp://host:port. [unix:///var/run/docker.sock]
    #[arg(long, env = "DOCKER_HOST", value_name = "ADDRESS")]
    pub docker_host: Option<String>,
    /// Speak TLS with an engine at tcp://, and only with one whose certificate ca.pem of --docker-cert-path has signed.
    #[arg(long, env = "DOCKER_TLS_VERIFY", value_name = "1", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "1")]
    pub docker_tls_verify: Option<String>,
    /// Directory of ca.pem, cert.pem and key.pem for that. [~/.docker]
    #[arg(long, env = "DOCKER_CERT_PATH", value_name = "DIRECTORY")]
    pub docker_cert_path: Option<PathBuf>,
    /// The image of containers whose creator names no template. [debian:bookworm-slim]
    #[arg(long, env = "HOSTEL_DOCKER_IMAGE", value_name = "IMAGE")]
    pub docker_image: Option<String>,
    /// Directory of template declarations, *.toml and */template.toml. May be given several times.
    /// [/etc/hostel/templates.d, for users ~/.config/hostel/templates.d]
    #[arg(long, env = "HOSTEL_TEMPLATES_DIR", value_delimiter = ',', value_name = "DIRECTORY")]
    pub templates_dir: Vec<PathBuf>,
    /// Directory of pool declarations, *.toml. May be given several times.
    /// [/etc/hostel/pools.d, for users ~/.config/hostel/pools.d]
    #[arg(long, env = "HOSTEL_POOLS_DIR", value_delimiter = ',', value_name = "DIRECTORY")]
    pub pools_dir: Vec<PathBuf>,
    /// How many times the node's memory, processors, processes and disk may be promised to sandboxes, for example
    /// memory=1.5,disk=2. What is not named stays. [memory=16,cpu=inf,pids=16,disk=64]
    #[arg(long, env = "HOSTEL_OVERCOMMIT", value_parser = overcommit, value_name = "RATIOS")]
    pub overcommit: Option<Overcommit>,
    /// Below which percentages of the node's memory being available pools shrink to their least size (high), and keep
    /// nothing warm (critical), so that sandboxes in use have it. [high=10,critical=4]
    #[arg(long, env = "HOSTEL_MEMORY_PRESSURE", value_parser = memory_pressure, value_name = "PERCENTAGES")]
    pub memory_pressure: Option<MemoryPressure>,
    /// Where metrics are served for Prometheus, at /metrics: a loopback address and port, for example 127.0.0.1:9464.
    #[arg(long, env = "HOSTEL_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Directory of lists of network rules, NAME.toml each. May be given several times.
    /// [/etc/hostel/network.d, for users ~/.config/hostel/network.d]
    #[arg(long, env = "HOSTEL_NETWORK_DIR", value_delimiter = ',', value_name = "DIRECTORY")]
    pub network_dir: Vec<PathBuf>,
    /// Directory of values of secrets, a file each, readable by nobody else. May be given several times.
    /// [/etc/hostel/secrets.d, for users ~/.config/hostel/secrets.d]
    #[arg(long, env = "HOSTEL_SECRETS_DIR", value_delimiter = ',', value_name = "DIRECTORY")]
    pub secrets_dir: Vec<PathBuf>,
    /// The model gateway's upstreams and prices. [/etc/hostel/gateway.toml; without it, Anthropic's API where
    /// ANTHROPIC_API_KEY is set]
    #[arg(long, env = "HOSTEL_GATEWAY", value_name = "FILE")]
    pub gateway: Option<PathBuf>,
    /// DNS server that resolves names for sandboxes, address and port. May be given several times. [the host's own]
    #[arg(long, env = "HOSTEL_NAME_SERVER", value_delimiter = ',', value_name = "ADDRESS")]
    pub name_server: Vec<SocketAddr>,
    /// Block of addresses that sandboxes may reach like public ones although it is private or this host's own, where
    /// their policy allows the name or the block. May be given several times. [none]
    #[arg(long, env = "HOSTEL_REACHABLE", value_delimiter = ',', value_name = "CIDR")]
    pub reachable: Vec<IpNet>,
    /// Certificates (PEM) to trust besides the host's where TLS of sandboxes is opened.
    #[arg(long, env = "HOSTEL_TRUST", value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Let sandboxes reach things also while the audit log cannot be written, rather than refuse.
    #[arg(long, env = "HOSTEL_UNAUDITED")]
    pub unaudited: bool,
    /// When decisions in the audit log are on the disk: each before what it allows happens, or all within so many
    /// milliseconds, which is what a power cut can take of them. The daemon's own death takes none. [1000]
    #[arg(long, env = "HOSTEL_AUDIT_SYNC", value_parser = audit_sync, value_name = "each|MILLISECONDS")]
    pub audit_sync: Option<Flush>,
    /// How many full files of the audit log are kept, 64 MiB each; the oldest go. 0: all, however full the disk gets. [16]
    #[arg(long, env = "HOSTEL_AUDIT_KEEP", value_name = "FILES")]
    pub audit_keep: Option<usize>,
    /// What becomes of TLS connections with an encrypted ClientHello, or one that is only pretended, as browsers send,
    /// where a policy allows hosts by name: the name that they hide is not seen. [refuse]
    #[arg(long, env = "HOSTEL_ENCRYPTED_HELLO", value_enum, value_name = "allow|refuse")]
    pub encrypted_hello: Option<EncryptedHello>,
    /// How logs are written to standard error.
    #[arg(long, env = "HOSTEL_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// What becomes of connections whose name may be another than they tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EncryptedHello {
    /// They pass, by the name that they tell.
    Allow,
    /// They are refused.
    Refuse,
}

impl Arguments {
    /// The configuration that they mean, over the defaults of whoever runs this.
    ///
    /// # Errors
    /// [`Error::Config`] saying what would work.
    pub fn configure(self) -> Result<Config, Error> {
        let certificates = self.docker_cert_path.filter(|path| !path.as_os_str().is_empty());
        let certificates = certificates.or_else(|| Some(std::env::home_dir()?.join(".docker")));
        // As the docker command has it: whatever is said, if it is not nothing.
        let verify = self.docker_tls_verify.is_some_and(|said| !said.is_empty());
        let config = Config::for_this_user()?
            .with(self.state_dir, self.runtime_dir, self.listen)
            .with_connections(self.max_connections, self.max_connections_per_user)
            .with_threads(self.threads)
            .with_docker(self.docker_host, self.docker_image)
            .with_docker_certificates(certificates.filter(|_| verify))
            .with_templates(self.templates_dir)
            .with_pools(self.pools_dir, self.overcommit)
            .with_memory_pressure(self.memory_pressure)
            .with_metrics(self.metrics_listen)
            .with_reach(ReachConfig {
                preset_directories: self.network_dir,
                secret_directories: self.secrets_dir,
                gateway_file: self.gateway,
                name_servers: self.name_server,
                reachable: self.reachable,
                trust: self.trust,
                unaudited: self.unaudited,
                audit_sync: self.audit_sync,
                audit_keep: self.audit_keep,
                encrypted_hello: self.encrypted_hello == Some(EncryptedHello::Allow),
            });
        config.validate()?;
        Ok(config)
    }
}

/// Reads `each` or milliseconds, at most a minute.
fn audit_sync(text: &str) -> Result<Flush, String> {
    match text.parse::<u64>() {
        _ if text == "each" => Ok(Flush::Each),
        Ok(millis @ 1..=60_000) => Ok(Flush::Within(Duration::from_millis(millis))),
        _ => Err(format!("{text:?} is neither \"each\" nor milliseconds from 1 to 60000")),
    }
}

/// Reads `NAME=RATIO,…` over the defaults.
fn overcommit(text: &str) -> Result<Overcommit, String> {
    let mut overcommit = OVERCOMMIT;
    for part in text.split(',') {
        let (name, ratio) = part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=RATIO"))?;
        let ratio: f64 = ratio.trim().parse().map_err(|_| format!("{ratio:?} is not a number"))?;
        let field = match name.trim() {
            "memory" => &mut overcommit.memory,
            "cpu" => &mut overcommit.cpu,
            "pids" => &mut overcommit.pids,
            "disk" => &mut overcommit.disk,
            other => return Err(format!("{other:?} is not one of memory, cpu, pids and disk")),
        };
        *field = ratio;
    }
    overcommit.validate().map_err(|error| error.to_string())?;
    Ok(overcommit)
}

/// Reads `NAME=PERCENTAGE,…` over the defaults.
fn memory_pressure(text: &str) -> Result<MemoryPressure, String> {
    let mut bounds = MemoryPressure::default();
    for part in text.split(',') {
        let (name, percentage) =
            part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=PERCENTAGE"))?;
        let number = percentage.trim().trim_end_matches('%').parse().ok().filter(|number| *number <= 100);
        let number: u8 = number.ok_or_else(|| format!("{percentage:?} is not a percentage, 0 to 100"))?;
        match name.trim() {
            "high" => bounds.high = number,
            "critical" => bounds.critical = number,
            other => return Err(format!("{other:?} is not one of high and critical")),
        }
    }
    if bounds.critical > bounds.high {
        return Err(format!("critical is more than high: {} and {}", bounds.critical, bounds.high));
    }
    Ok(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_log_is_flushed_each_time_or_within_a_time() {
        assert_eq!(audit_sync("each"), Ok(Flush::Each));
        assert_eq!(audit_sync("200"), Ok(Flush::Within(Duration::from_millis(200))));
        for wrong in ["", "0", "1s", "never", "-1", "60001"] {
            assert!(audit_sync(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn percentages_are_put_over_the_defaults() {
        assert_eq!(memory_pressure("high=30%").unwrap(), MemoryPressure { high: 30, critical: 4 });
        assert_eq!(memory_pressure("critical=0, high=5").unwrap(), MemoryPressure { high: 5, critical: 0 });
        for wrong in ["high", "low=3", "high=101", "high=-1", "high=3", "critical=20"] {
            assert!(memory_pressure(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ratios_are_put_over_the_defaults() {
        let overcommit = overcommit("memory=1.5, disk=2").unwrap();
        assert_eq!((overcommit.memory, overcommit.disk, overcommit.pids), (1.5, 2.0, OVERCOMMIT.pids));
        for wrong in ["memory", "swap=2", "memory=0", "memory=lots"] {
            assert!(super::overcommit(wrong).is_err(), "{wrong}");
        }
    }
}
