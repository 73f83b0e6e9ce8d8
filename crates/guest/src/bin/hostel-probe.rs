//! What runs inside a sandbox and tries things: the conformance and abuse tests' hands.
//!
//! One static executable without any need of its surroundings, so that it works in an empty root. It is never
//! part of a deployed sandbox. Nothing it does harms a host it is run on by mistake: calls that would change
//! the host are made with arguments that fail after the permission check.

#[path = "../probe/abuse.rs"]
mod abuse;
#[path = "../probe/eat.rs"]
mod eat;
#[path = "../probe/kernel.rs"]
mod kernel;
#[path = "../probe/namespaces.rs"]
mod namespaces;
#[path = "../probe/network.rs"]
mod network;
#[path = "../probe/pattern.rs"]
mod pattern;
#[path = "../probe/procfs.rs"]
mod procfs;
#[path = "../probe/report.rs"]
mod report;
#[path = "../probe/supervisor.rs"]
mod supervisor;
#[path = "../probe/sys.rs"]
mod sys;
#[path = "../probe/terminal.rs"]
mod terminal;
#[path = "../probe/verdict.rs"]
mod verdict;

use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "\
hostel-probe abuse [NAME…]         try to get out; one line each: NAME<TAB>refused|ESCAPED|skipped<TAB>detail
hostel-probe list                  names of the abuse probes
hostel-probe eat-memory BYTES      touch that much memory
hostel-probe eat-pids [MAX]        fork until refused
hostel-probe multiply MS           fork without end for that long, at most to 512 processes
hostel-probe eat-disk PATH [MAX]   write a file until refused, at most MAX bytes
hostel-probe eat-inodes DIR [MAX]  make files until refused
hostel-probe eat-fds [MAX]         open descriptors until refused
hostel-probe eat-netlink MAX [TCP] open netlink sockets until refused, beside so many of TCP
hostel-probe eat-filters MAX EACH  filter system calls until refused, in processes with so many filters of their own
hostel-probe beg                   open netlink sockets, and go on when refused
hostel-probe eat-shm BYTES         make System V shared memory and touch it
hostel-probe eat-sockets BYTES     fill connections to itself that nobody reads
hostel-probe eat-kernel            take inotify instances, pipes and terminals; hold them until stdin ends
hostel-probe deep DIR DEPTH        make a tree deeper than a path can be long
hostel-probe spin MS               compute for that long by the clock
hostel-probe orphans N             leave N ended processes to PID 1
hostel-probe pattern BYTES SEED    write a pattern to stdout
hostel-probe verify SEED           read stdin, compare with the pattern, print the count
hostel-probe report                what this process sees, as JSON
hostel-probe terminal              whether stdin is one, and its size
hostel-probe argv [ARG…]           the arguments, each followed by NUL
hostel-probe bytes                 every byte value from 0 to 255
hostel-probe connect ADDRESS WORD  to a unix socket or HOST:PORT; say the word, print the answer
hostel-probe exit CODE             end with that code
";

fn main() -> ExitCode {
    // Before anything is opened: what was inherited.
    let inherited = supervisor::open_descriptors();
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let Some((command, rest)) = arguments.split_first() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(command, rest, &inherited) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hostel-probe {command}: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &str, rest: &[String], inherited: &[i32]) -> std::io::Result<ExitCode> {
    match command {
        "abuse" => return abuse::run(rest, inherited),
        "list" => abuse::list()?,
        "eat-memory" => eat::memory(number(rest, 0)?)?,
        "eat-pids" => eat::processes(number_or(rest, 0, 100_000)?)?,
        "eat-disk" => eat::disk(text(rest, 0)?, number_or(rest, 1, 4 << 30)?)?,
        "eat-inodes" => eat::inodes(text(rest, 0)?, number_or(rest, 1, 1 << 20)?)?,
        "eat-fds" => eat::descriptors(number_or(rest, 0, 2 << 20)?)?,
        "eat-netlink" => eat::netlink(number(rest, 0)?, number_or(rest, 1, 0)?)?,
        "eat-filters" => eat::filters(number(rest, 0)?, number(rest, 1)?)?,
        "beg" => eat::beg()?,
        "eat-shm" => eat::shared_memory(number(rest, 0)?)?,
        "eat-sockets" => eat::sockets(number(rest, 0)?)?,
        "eat-kernel" => eat::kernel_objects()?,
        "deep" => eat::deep(text(rest, 0)?, number(rest, 1)?)?,
        "multiply" => eat::multiply(number(rest, 0)?)?,
        "spin" => eat::spin(number(rest, 0)?)?,
        "orphans" => eat::orphans(number(rest, 0)?)?,
        "pattern" => pattern::write(number(rest, 0)?, number(rest, 1)?)?,
        "verify" => pattern::verify(number(rest, 0)?)?,
        "report" => report::print()?,
        "terminal" => terminal::print()?,
        "argv" => {
            print_raw(&rest.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>())?
        }
        "connect" => network::connect(text(rest, 0)?, text(rest, 1)?)?,
        "bytes" => print_raw(&(0..=u8::MAX).collect::<Vec<u8>>())?,
        "exit" => return Ok(ExitCode::from(u8::try_from(number(rest, 0)?).unwrap_or(u8::MAX))),
        _ => {
            eprint!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_raw(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

fn text(rest: &[String], index: usize) -> std::io::Result<&str> {
    rest.get(index).map(String::as_str).ok_or_else(|| std::io::Error::other("an argument is missing"))
}

fn number(rest: &[String], index: usize) -> std::io::Result<u64> {
    text(rest, index)?.parse().map_err(std::io::Error::other)
}

fn number_or(rest: &[String], index: usize, default: u64) -> std::io::Result<u64> {
    if rest.len() > index { number(rest, index) } else { Ok(default) }
}
