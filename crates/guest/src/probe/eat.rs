//! Taking more than a sandbox may have. Each prints `refused COUNT ERROR` when it was stopped, or `took COUNT`.

use crate::sys::{self, Errno, sys};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn refused(count: u64, errno: Errno) {
    println!("refused {count} {errno}");
}

fn took(count: u64) {
    println!("took {count}");
}

/// Opens netlink sockets until refused, beside so many that listen on TCP.
pub(crate) fn netlink(most: u64, beside: u64) -> std::io::Result<()> {
    let _listeners: Vec<TcpListener> =
        (0..beside).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    for count in 0..most {
        if let Err(errno) = sys!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) {
            refused(count, errno);
            return Ok(());
        }
    }
    took(most);
    Ok(())
}

/// Has children filter their own system calls, each so many times, until one is refused; then ends them.
pub(crate) fn filters(most: u64, each: u64) -> std::io::Result<()> {
    let mut children = Vec::new();
    let mut count = 0;
    let end = loop {
        if count >= most {
            break None;
        }
        let wanted = each.min(most - count);
        let (mut told, mut tells) = std::io::pipe()?;
        match sys::fork() {
            Ok(0) => {
                for turn in 0..wanted {
                    let error = filter(turn % 2 == 0).err().map_or(0, |Errno(number)| number);
                    tells.write_all(&error.to_ne_bytes())?;
                    if error != 0 {
                        break;
                    }
                }
                sys::sleep_for_good()
            }
            Ok(pid) => children.push(pid),
            Err(errno) => break Some(errno),
        }
        drop(tells);
        let mut refusal = None;
        for _ in 0..wanted {
            let mut error = [0; 4];
            told.read_exact(&mut error)?;
            match i32::from_ne_bytes(error) {
                0 => count += 1,
                number => {
                    refusal = Some(Errno(number));
                    break;
                }
            }
        }
        if refusal.is_some() {
            break refusal;
        }
    };
    for pid in &children {
        let _ = sys!(SYS_kill, *pid, libc::SIGKILL);
    }
    for pid in &children {
        let _ = sys::wait(*pid);
    }
    match end {
        Some(errno) => refused(count, errno),
        None => took(count),
    }
    Ok(())
}

/// Filters our system calls, in one of the two ways that there are: all are allowed.
fn filter(by_prctl: bool) -> sys::Outcome {
    let mut code = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    let at = (&raw const program).expose_provenance();
    if by_prctl {
        sys!(SYS_prctl, libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, at, 0, 0)
    } else {
        sys!(SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, at)
    }
}

/// Takes all netlink sockets that it can have, and asks for more until it is killed; says `refused` with the first that
/// it does not get.
pub(crate) fn beg() -> std::io::Result<()> {
    let mut told = false;
    loop {
        if let Err(errno) = sys!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)
            && !std::mem::replace(&mut told, true)
        {
            refused(0, errno);
        }
    }
}

/// Touches memory until all is held or the kernel kills us.
pub(crate) fn memory(bytes: u64) -> std::io::Result<()> {
    let mut held = Vec::new();
    for _ in 0..bytes >> 20 {
        held.push(vec![1_u8; 1 << 20]);
    }
    took(std::hint::black_box(&held).len() as u64 * (1 << 20));
    Ok(())
}

/// Forks sleeping children until refused, then ends them.
pub(crate) fn processes(most: u64) -> std::io::Result<()> {
    let mut children = Vec::new();
    let end = loop {
        if children.len() as u64 >= most {
            break None;
        }
        match sys::fork() {
            Ok(0) => sys::sleep_for_good(),
            Ok(pid) => children.push(pid),
            Err(errno) => break Some(errno),
        }
    };
    for pid in &children {
        let _ = sys!(SYS_kill, *pid, libc::SIGKILL);
    }
    for pid in &children {
        let _ = sys::wait(*pid);
    }
    match end {
        Some(errno) => refused(children.len() as u64, errno),
        None => took(children.len() as u64),
    }
    Ok(())
}

/// Says `lit` and forks without end, each process in a group of its own and deaf to hang-ups, until the time is over.
/// No more than `MOST` in all, or a few, should nobody else bound them.
pub(crate) fn multiply(milliseconds: u64) -> std::io::Result<()> {
    const MOST: u32 = 512;
    let until = Instant::now() + Duration::from_millis(milliseconds);
    // SAFETY: a page of our own, zeroed and shared with all that come of this process; a counter fits and is aligned.
    let count = unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        AtomicU32::from_ptr(page.cast())
    };
    println!("lit");
    while Instant::now() < until {
        if count.load(Ordering::Relaxed) < MOST && matches!(sys::fork(), Ok(0)) {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = sys!(SYS_setpgid, 0, 0);
        }
    }
    Ok(())
}

/// Writes a file until refused.
pub(crate) fn disk(path: &str, most: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let block = vec![0xa5_u8; 64 << 10];
    let mut written = 0;
    while written < most {
        match file.write(&block) {
            Ok(count) => written += count as u64,
            Err(error) => {
                refused(written, Errno(error.raw_os_error().unwrap_or(libc::EIO)));
                return Ok(());
            }
        }
    }
    took(written);
    Ok(())
}

/// Makes empty files until refused.
pub(crate) fn inodes(directory: &str, most: u64) -> std::io::Result<()> {
    for count in 0..most {
        if let Err(error) = File::create(format!("{directory}/i{count}")) {
            refused(count, Errno(error.raw_os_error().unwrap_or(libc::EIO)));
            return Ok(());
        }
    }
    took(most);
    Ok(())
}

/// Duplicates stdin until refused.
pub(crate) fn descriptors(most: u64) -> std::io::Result<()> {
    for count in 0..most {
        if let Err(errno) = sys!(SYS_dup, 0) {
            refused(count, errno);
            return Ok(());
        }
    }
    took(most);
    Ok(())
}

/// Makes System V shared memory segments of 4 MiB, which outlive this process, and touches them.
pub(crate) fn shared_memory(bytes: u64) -> std::io::Result<()> {
    const SEGMENT: usize = 4 << 20;
    let mut held = 0;
    while held < bytes {
        let id = match sys!(SYS_shmget, libc::IPC_PRIVATE, SEGMENT, libc::IPC_CREAT | 0o600) {
            Ok(id) => i32::try_from(id).unwrap_or_default(),
            Err(errno) => {
                refused(held, errno);
                return Ok(());
            }
        };
        // SAFETY: the kernel chooses the address of the new segment.
        let memory = unsafe { libc::shmat(id, std::ptr::null(), 0) };
        if memory.addr() == usize::MAX {
            refused(held, sys::last_error());
            return Ok(());
        }
        // SAFETY: the segment is SEGMENT bytes long, writable, and attached until this process ends.
        unsafe { std::ptr::write_bytes(memory.cast::<u8>(), 1, SEGMENT) };
        held += SEGMENT as u64;
    }
    took(held);
    Ok(())
}

/// Fills connections to itself that nobody reads, and says how many bytes the kernel keeps in them.
pub(crate) fn sockets(bytes: u64) -> std::io::Result<()> {
    const MOST_CONNECTIONS: usize = 512;
    /// Where memory is short the kernel drops what arrives, and asks again later and later.
    const PATIENCE: Duration = Duration::from_secs(3);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let block = vec![0x5a_u8; 64 << 10];
    let mut held = Vec::new();
    let (mut written, mut last) = (0, Errno(libc::EAGAIN));
    while held.len() < MOST_CONNECTIONS && written < bytes {
        let mut sender = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(sender) => sender,
            Err(error) => {
                last = Errno(error.raw_os_error().unwrap_or(libc::ETIMEDOUT));
                break;
            }
        };
        sender.set_nonblocking(true)?;
        while let Ok(count) = sender.write(&block) {
            written += count as u64;
        }
        held.push((sender, listener.accept()));
    }
    if written < bytes {
        refused(written, last)
    } else {
        took(written)
    }
    Ok(())
}

/// Makes one kernel object.
type Make = fn() -> sys::Outcome;

/// Takes kernel objects that are counted per user or per system, and holds them until stdin ends.
pub(crate) fn kernel_objects() -> std::io::Result<()> {
    /// Enough to see that something bounds it, without taking all that a host has.
    const MOST: u64 = 1024;
    let kinds: [(&str, Make); 4] = [
        ("terminals", || sys::open(c"/dev/ptmx", libc::O_RDWR)),
        ("inotify", || sys!(SYS_inotify_init1, 0)),
        ("epoll", || sys!(SYS_epoll_create1, 0)),
        ("pipes", || {
            let mut ends = [0_u8; 8];
            sys!(SYS_pipe2, ends.as_mut_slice(), 0)
        }),
    ];
    for (name, make) in kinds {
        let mut count = 0;
        while count < MOST && make().is_ok() {
            count += 1;
        }
        println!("{name} {count}");
    }
    println!("holding");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Makes directories in each other and goes down as it does.
pub(crate) fn deep(directory: &str, depth: u64) -> std::io::Result<()> {
    std::fs::create_dir(directory)?;
    std::env::set_current_dir(directory)?;
    for done in 0..depth {
        if let Err(errno) =
            sys!(SYS_mkdirat, libc::AT_FDCWD, c"dddd", 0o755).and_then(|_| sys!(SYS_chdir, c"dddd"))
        {
            refused(done, errno);
            return Ok(());
        }
    }
    took(depth);
    Ok(())
}

/// Computes until the clock says so.
pub(crate) fn spin(milliseconds: u64) -> std::io::Result<()> {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let mut sum = 0_u64;
    while Instant::now() < end {
        for value in 0..10_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(value));
        }
    }
    took(milliseconds);
    Ok(())
}

/// Leaves ended grandchildren behind, whose parent is gone.
pub(crate) fn orphans(count: u64) -> std::io::Result<()> {
    for done in 0..count {
        match sys::fork() {
            Ok(0) => {
                // The grandchild ends at once too; who ends first does not matter.
                let _ = sys::fork();
                sys::leave(0);
            }
            Ok(pid) => {
                let _ = sys::wait(pid);
            }
            Err(errno) => {
                refused(done, errno);
                return Ok(());
            }
        }
    }
    took(count);
    Ok(())
}
