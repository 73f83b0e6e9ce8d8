//! Loop devices (loop(4)): the pool's image as a block device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `struct loop_info64`.
#[repr(C)]
struct Status {
    device: u64,
    inode: u64,
    backing_device: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` (Linux 5.8).
#[repr(C)]
struct Configuration {
    backing_file: u32,
    block_size: u32,
    status: Status,
    reserved: [u64; 8],
}

const CONTROL_GET_FREE: libc::Ioctl = 0x4c82;
const CONFIGURE: libc::Ioctl = 0x4c0a;
const GET_STATUS: libc::Ioctl = 0x4c05;
/// The kernel lets go of the image when the last user closes the device.
const FLAG_AUTOCLEAR: u32 = 4;

fn empty_status() -> Status {
    // SAFETY: the structure is plain numbers, for which zero is valid.
    unsafe { std::mem::zeroed() }
}

/// The device of an image: the one that has it already, or a new one. Two devices over one image would be two
/// file systems writing over each other, so the search comes first. Keep the file open until it is mounted.
pub(super) fn attach(image: &Path) -> io::Result<(PathBuf, File)> {
    let backing = OpenOptions::new().read(true).write(true).open(image)?;
    if let Some(found) = find(&backing)? {
        return Ok(found);
    }
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    // Somebody else may take the free one before us.
    for _ in 0..16 {
        // SAFETY: this request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), CONTROL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut configuration = Configuration {
            backing_file: u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?,
            block_size: 4096,
            status: Status { flags: FLAG_AUTOCLEAR, ..empty_status() },
            reserved: [0; 8],
        };
        // SAFETY: the request takes a `loop_config`, which lives across the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw mut configuration) } == 0 {
            return Ok((path, device));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

fn find(backing: &File) -> io::Result<Option<(PathBuf, File)>> {
    let wanted = backing.metadata()?;
    for entry in std::fs::read_dir("/sys/block")?.flatten() {
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("loop") || !entry.path().join("loop/backing_file").exists() {
            continue;
        }
        let path = Path::new("/dev").join(name);
        let Ok(device) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
        let mut status = empty_status();
        // SAFETY: the request fills a `loop_info64`, which lives across the call.
        let known = unsafe { libc::ioctl(device.as_raw_fd(), GET_STATUS, &raw mut status) } == 0;
        if known && status.inode == wanted.ino() && same_device(status.device, wanted.dev()) {
            return Ok(Some((path, device)));
        }
    }
    Ok(None)
}

/// The kernel tells its own encoding of a device number (`huge_encode_dev`), stat(2) glibc's.
fn same_device(kernel: u64, stat: u64) -> bool {
    let (major, minor) = (libc::major(stat), libc::minor(stat));
    let encoded = u64::from((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12));
    kernel == encoded || kernel == stat
}
