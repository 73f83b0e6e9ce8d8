//! A client in another language, made from the protos alone.
#![allow(clippy::unwrap_used, reason = "a test")]

use hostel_tests::{Setup, TestDaemon, eventually, skip};
use std::path::Path;
use std::process::Command;

#[test]
fn a_python_client_gets_along_with_the_protos_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let made = Command::new(root.join("scripts/python-client.sh")).output().unwrap();
    if !made.status.success() {
        skip(&format!("no Python client: {}", String::from_utf8_lossy(&made.stderr)));
        return;
    }
    let place = String::from_utf8(made.stdout).unwrap();
    let place = Path::new(place.lines().last().unwrap());
    let arguments = vec!["--listen".into(), "tcp://127.0.0.1:0".into()];
    for over_tcp in [false, true] {
        let mut daemon = TestDaemon::prepare(Setup {
            arguments: if over_tcp { arguments.clone() } else { vec![] },
            ..Setup::default()
        });
        daemon.launch();
        let mut address = None;
        eventually("it says where it listens", || {
            let log = daemon.log();
            let found = log.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
            address = found.map(ToOwned::to_owned);
            address.is_some()
        });
        // As gRPC for Python spells addresses.
        let address = address.unwrap();
        let address = address.strip_prefix("tcp://").unwrap_or(&address);
        let mut client = Command::new(place.join("venv/bin/python"));
        client.arg(root.join("tests/python/client.py")).arg(address).env("PYTHONPATH", place.join("stubs"));
        let output = client.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("all is well"), "{address}: {out}{err}");
        daemon.reach_at(if over_tcp { format!("http://{address}") } else { address.to_owned() });
        daemon.finish();
    }
}
