//! `hostel-guest zygote` clones jails; `hostel-guest supervise` is the first program of a container;
//! `hostel-guest relay` carries a far host's connections to it; `hostel-guest unpack` unpacks a template's archive;
//! `hostel-guest tied` becomes another program that ends with its parent.

use hostel_guest::{container, relay, tied, unpack, zygote};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(command) if command == "zygote" => zygote::main(),
        Some(command) if command == "unpack" => unpack::main(),
        Some(command) if command == "tied" => tied::main(arguments),
        Some(command) if command == "relay" => relay::main(arguments),
        Some(command) if command == "supervise" => container::main(arguments),
        _ => {
            let usage = "usage: hostel-guest zygote\n       hostel-guest unpack\n";
            let _ = std::io::stderr()
                .write_all([usage, tied::USAGE, relay::USAGE, container::USAGE].concat().as_bytes());
            ExitCode::from(2)
        }
    }
}
