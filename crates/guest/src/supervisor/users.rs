//! Users, from the sandbox's own `/etc/passwd` and `/etc/group`, read by hand: no name service runs here.

use super::failure::{Outcome, invalid};
use super::files::Root;
use crate::zygote::confine::GUEST_ID;
use hostel_guest_protocol::Failure;
use rustix::fs::{Stat, fstat};
use std::io::Read;
use std::time::{Duration, SystemTime};

/// Most bytes of either file that are read.
const MOST: u64 = 1 << 20;
/// Most groups of one user.
const MOST_GROUPS: usize = 64;
/// A longer file is read each time, in bytes.
const MOST_KEPT: usize = 16 << 10;
/// A file that changed this short a time ago could change again without its times telling.
const SETTLED: Duration = Duration::from_secs(2);

/// Both files, read again only after they changed: most processes are started between two changes of them.
#[derive(Debug, Default)]
pub(crate) struct Users {
    passwd: Kept,
    group: Kept,
}

/// A file as it was read.
#[derive(Debug, Default)]
struct Kept {
    /// What it was then; `None` where it has to be read in any case.
    state: Option<State>,
    text: String,
}

/// Two files with the same are the same one, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    file: [u64; 2],
    size: i64,
    times: [i128; 2],
}

impl State {
    fn of(stat: &Stat) -> Self {
        let time =
            |seconds: i64, nanoseconds: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        let times = [time(stat.st_mtime, stat.st_mtime_nsec), time(stat.st_ctime, stat.st_ctime_nsec)];
        Self { file: [stat.st_dev, stat.st_ino], size: stat.st_size, times }
    }

    /// Whether a change after this moment shows.
    fn is_settled(&self) -> bool {
        let since = |time: &i128| {
            let time = u64::try_from(*time)
                .map_or(SystemTime::UNIX_EPOCH, |time| SystemTime::UNIX_EPOCH + Duration::from_nanos(time));
            SystemTime::now().duration_since(time)
        };
        self.times.iter().all(|time| since(time).is_ok_and(|since| since > SETTLED))
    }
}

impl Kept {
    /// The file's text, empty where it cannot be read.
    fn read(&mut self, root: &Root, path: &str) -> &str {
        let is_same = |state| {
            // Only looked at: whatever it is, it is opened as carefully as ever before it is read.
            rustix::fs::stat(path).is_ok_and(|stat| State::of(&stat) == state)
        };
        if !self.state.is_some_and(is_same) {
            (self.state, self.text) = read(root, path);
        }
        &self.text
    }
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) name: String,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// A line of passwd(5).
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Entry { name, uid, gid, home, shell: fields.next().unwrap_or_default() })
    })
}

fn groups_of(group: &str, user: &str) -> Vec<u32> {
    let member = |line: &str| {
        let mut fields = line.split(':');
        let gid = fields.nth(2)?.parse().ok()?;
        fields.next()?.split(',').any(|name| name == user).then_some(gid)
    };
    group.lines().filter_map(member).take(MOST_GROUPS).collect()
}

/// The id of a group, by its name or number. A number need not be in the file.
fn group_id(group: &str, wanted: &str) -> Option<u32> {
    let named = |line: &str| {
        let mut fields = line.split(':');
        (fields.next()? == wanted).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    wanted.parse().ok().or_else(|| group.lines().find_map(named))
}

/// Understands a user's name or id, and either with `:` and the name or id of a group. A number need not be in the
/// files.
fn look_up(user: &str, passwd: &str, group: &str) -> Option<Identity> {
    let (who, gid) = match user.split_once(':') {
        Some((who, wanted)) => (who, Some(group_id(group, wanted)?)),
        None => (user, None),
    };
    let number = who.parse::<u32>().ok();
    let entry = entries(passwd).find(|entry| number.map_or(entry.name == who, |uid| entry.uid == uid));
    let mut identity = match (entry, number) {
        (Some(entry), _) => Identity {
            uid: entry.uid,
            gid: entry.gid,
            groups: groups_of(group, entry.name),
            name: entry.name.to_owned(),
            home: entry.home.to_owned(),
            shell: entry.shell.to_owned(),
        },
        (None, Some(uid)) => nameless(uid, if uid == 0 { 0 } else { gid.unwrap_or(uid) }),
        (None, None) if who == "root" => nameless(0, 0),
        (None, None) => return None,
    };
    if let Some(gid) = gid {
        identity.gid = gid;
        identity.groups.clear();
    }
    // u32::MAX means "unchanged" to the kernel.
    (identity.uid != u32::MAX && identity.gid != u32::MAX).then_some(identity)
}

fn nameless(uid: u32, gid: u32) -> Identity {
    let (name, home) = if uid == 0 { ("root".to_owned(), "/root") } else { (uid.to_string(), "/") };
    Identity { uid, gid, groups: Vec::new(), name, home: home.to_owned(), shell: String::new() }
}

/// → what it is, if it may be kept, and its text.
fn read(root: &Root, path: &str) -> (Option<State>, String) {
    let Ok(file) = root.open_regular(path, rustix::fs::OFlags::RDONLY) else { return (None, String::new()) };
    // Before its content: what changes meanwhile is then read again.
    let state = fstat(&file).ok().map(|stat| State::of(&stat)).filter(State::is_settled);
    // Small as it is everywhere, it takes two calls; growing from nothing would take five.
    let mut bytes = Vec::with_capacity(4 << 10);
    let _ = std::fs::File::from(file).take(MOST).read_to_end(&mut bytes);
    (state.filter(|_| bytes.len() <= MOST_KEPT), String::from_utf8_lossy(&bytes).into_owned())
}

impl Users {
    /// Finds a user; empty is root, or ourselves where nobody else is possible.
    ///
    /// # Errors
    /// `Invalid` for a user who does not exist, or whom we cannot become.
    pub(crate) fn find(&mut self, root: &Root, user: &str, can_switch: bool) -> Outcome<Identity> {
        let own = rustix::process::getuid().as_raw();
        let passwd = self.passwd.read(root, "/etc/passwd");
        if !can_switch {
            // The group only has to be one: ours is kept.
            let group = if user.contains(':') { self.group.read(root, "/etc/group") } else { "" };
            let own_identity = look_up(&own.to_string(), passwd, "").unwrap_or_else(|| nameless(own, own));
            let wanted =
                if user.is_empty() { Some(own) } else { look_up(user, passwd, group).map(|found| found.uid) };
            return match wanted {
                Some(uid) if uid == own => Ok(Identity {
                    gid: rustix::process::getgid().as_raw(),
                    groups: Vec::new(),
                    ..own_identity
                }),
                Some(_) => {
                    let name = own_identity.name;
                    Err(invalid("user", format!("this sandbox has no other user than {name}")))
                }
                None => Err(unknown(user)),
            };
        }
        let user = if user.is_empty() { "0" } else { user };
        let group = self.group.read(root, "/etc/group");
        let found = look_up(user, passwd, group).ok_or_else(|| unknown(user))?;
        if own == GUEST_ID && found.uid == own {
            return Err(invalid("user", format!("the user {user} is the supervisor's own")));
        }
        Ok(found)
    }
}

fn unknown(user: &str) -> Failure {
    match user.split_once(':') {
        Some((who, group)) => {
            let problem =
                format!("there is no user {who:?} in /etc/passwd, or no group {group:?} in /etc/group");
            invalid("user", problem)
        }
        None => invalid("user", format!("there is no user {user:?} in /etc/passwd")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nbroken\nagent:x:1000:1001:,,:/home/agent:/bin/sh\n::\n";
    const GROUP: &str = "root:x:0:\nvideo:x:44:agent,other\nstaff:x:50:agents\naudio:x:29:agent\n";

    #[test]
    fn names_numbers_and_pairs_are_understood() {
        let agent = look_up("agent", PASSWD, GROUP).unwrap();
        assert_eq!((agent.uid, agent.gid, agent.groups.as_slice()), (1000, 1001, &[44, 29][..]));
        assert_eq!((agent.home.as_str(), agent.shell.as_str()), ("/home/agent", "/bin/sh"));
        assert_eq!(look_up("1000", PASSWD, GROUP), Some(agent));
        let pair = look_up("1000:7", PASSWD, GROUP).unwrap();
        assert_eq!((pair.uid, pair.gid, pair.groups.len()), (1000, 7, 0));
        let named = look_up("agent:video", PASSWD, GROUP).unwrap();
        assert_eq!((named.uid, named.gid, named.groups.len()), (1000, 44, 0));
        assert_eq!(look_up("4242:staff", PASSWD, GROUP).unwrap().gid, 50);
        for nobody in ["agent:nobodies", "agent:", "nobody:video", ":"] {
            assert_eq!(look_up(nobody, PASSWD, GROUP), None, "{nobody}");
        }
        let stranger = look_up("4242", PASSWD, GROUP).unwrap();
        assert_eq!((stranger.uid, stranger.gid, stranger.home.as_str()), (4242, 4242, "/"));
        assert_eq!(look_up("nobody", PASSWD, GROUP), None);
        assert_eq!(look_up("4294967295", PASSWD, GROUP), None);
        assert_eq!(look_up("root", "", "").unwrap().home, "/root");
    }

    #[test]
    fn a_file_is_read_again_when_it_changed_and_not_before() {
        use std::fs::{File, FileTimes, rename, write};
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("passwd"), directory.path().join("other"));
        let (path, root) = (path.to_str().unwrap(), Root::new().unwrap());
        let old = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(60));
        let mut kept = Kept::default();
        assert_eq!(kept.read(&root, path), "");
        write(path, "one").unwrap();
        assert_eq!(kept.read(&root, path), "one");
        assert_eq!(kept.state, None, "it is too young to be kept");
        // Its inode changed just now, which nobody can make undone; the state is what it will be.
        kept.state = Some(State::of(&rustix::fs::stat(path).unwrap()));
        kept.text = "kept".to_owned();
        assert_eq!(kept.read(&root, path), "kept");
        write(&other, "two").unwrap();
        File::options().write(true).open(&other).unwrap().set_times(old).unwrap();
        rename(&other, path).unwrap();
        assert_eq!(kept.read(&root, path), "two");
        std::fs::remove_file(path).unwrap();
        assert_eq!(kept.read(&root, path), "");
    }

    proptest! {
        #[test]
        fn any_file_is_survived(user: String, passwd: String, group: String) {
            let _ = look_up(&user, &passwd, &group);
        }
    }
}
