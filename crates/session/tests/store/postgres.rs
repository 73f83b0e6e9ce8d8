//! PostgreSQL servers for tests, on a socket in a directory of their own.

use sqlx::Connection as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Starts a server and ends it when its own stdin ends: with the test, however that ends. PostgreSQL refuses to be
/// root.
const SCRIPT: &str = r#"
set -eu
bin=$1 dir=$2 keep=$3
shift 3
as=
if [ "$(id -u)" = 0 ]; then
    chown -R nobody "$dir"
    as='setpriv --reuid=nobody --regid=nogroup --clear-groups'
fi
cd "$dir"
[ -d data ] || $as "$bin/initdb" -D data -U hostel -A trust -E UTF8 --locale=C --no-sync >log 2>&1
$as "$bin/postgres" -D data -k "$dir" -c listen_addresses= -c fsync=off -c max_connections=200 "$@" >>log 2>&1 &
server=$!
until grep -qs "^ready" data/postmaster.pid; do
    kill -0 $server || { cat log >&2; exit 1; }
    sleep 0.05
done
echo ready
cat >/dev/null
kill -INT $server
wait $server || true
[ "$keep" = keep ] || { cd /; rm -rf "$dir"; }
"#;

/// A server.
pub(crate) struct Server {
    directory: PathBuf,
    /// More arguments of the program.
    options: Vec<String>,
    databases: AtomicU32,
    /// While this is open it runs.
    running: Option<(Child, ChildStdin)>,
    /// Removed with it, where the script does not.
    _removed: Option<TempDir>,
}

/// The server that tests share, or none where PostgreSQL is not installed.
pub(crate) fn shared() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap().keep();
        Server::start_in(directory, "remove", None, Vec::new())
    });
    server.as_ref()
}

/// The directory of PostgreSQL's programs, the newest.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").is_file() && bin.join("postgres").is_file())
        .collect();
    versions.sort();
    versions.pop()
}

impl Server {
    /// A server of one test's own.
    pub(crate) fn own() -> Option<Self> {
        Self::own_with(tempfile::tempdir().unwrap(), Vec::new())
    }

    /// The same, in a directory that may have files for it, with more arguments.
    pub(crate) fn own_with(directory: TempDir, options: Vec<String>) -> Option<Self> {
        Self::start_in(directory.path().to_owned(), "keep", Some(directory), options)
    }

    fn start_in(
        directory: PathBuf,
        keep: &str,
        removed: Option<TempDir>,
        options: Vec<String>,
    ) -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("skipped: PostgreSQL is not installed (scripts/install-deps.sh test)");
            return None;
        };
        let running = Some(run(&programs, &directory, keep, &options));
        Some(Self { directory, options, databases: AtomicU32::new(0), running, _removed: removed })
    }

    pub(crate) fn stop(&mut self) {
        if let Some((mut child, stdin)) = self.running.take() {
            drop(stdin);
            assert!(child.wait().unwrap().success());
        }
    }

    pub(crate) fn start(&mut self) {
        self.running = Some(run(&programs().unwrap(), &self.directory, "keep", &self.options));
    }

    /// The address of a database that is new and empty.
    pub(crate) async fn new_database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = sqlx::PgConnection::connect(&self.url("postgres")).await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://hostel@{}/{database}", self.directory.display().to_string().replace('/', "%2F"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(programs: &Path, directory: &Path, keep: &str, options: &[String]) -> (Child, ChildStdin) {
    let mut child = Command::new("sh")
        .args(["-c", SCRIPT, "sh"])
        .args([programs, directory])
        .arg(keep)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "PostgreSQL did not start");
    (child, stdin)
}
