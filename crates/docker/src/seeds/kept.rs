//! The archives that are kept of one image: by place, and of its lists of users and groups.

use super::HEADER;
use crate::digits;
use crate::disk::Place;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(super) const PASSWD: &str = "/etc/passwd";
pub(super) const GROUP: &str = "/etc/group";
/// Most bytes of either that are looked at.
const MOST_USERS: u64 = 1 << 20;
/// Most archives of one image that are kept: callers choose where processes work, and each such place is one.
const MOST_KEPT: usize = 64;

/// Archives of an image's content, by place.
pub(crate) struct Seeds {
    pub(super) directory: PathBuf,
}

impl Seeds {
    /// Where a place's archive is. Paths may be longer than names, and have any characters.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.directory.join(digits::name_of(path.trim_matches('/'), 16) + ".tar")
    }

    pub(super) fn has(&self, path: &str) -> bool {
        std::fs::metadata(self.file(path)).is_ok_and(|found| found.len() > 0)
    }

    /// The archives that sandboxes with some places need.
    fn files(&self, places: &[Place]) -> HashSet<PathBuf> {
        let paths = [PASSWD, GROUP].into_iter().chain(places.iter().map(|place| place.path.as_str()));
        paths.map(|path| self.file(path)).collect()
    }

    /// Whether all of them are there. Then they were used just now.
    pub(super) fn has_all(&self, places: &[Place]) -> bool {
        let has = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|found| found.len() > 0);
        let files = self.files(places);
        let has_all = files.iter().all(has);
        if has_all {
            files.iter().for_each(|file| touch(file));
        }
        has_all
    }

    /// Removes what was not used for longest, beyond so many archives; nothing that `places` need.
    pub(super) fn evict(&self, places: &[Place]) -> io::Result<()> {
        let needed = self.files(places);
        let mut others = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if !needed.contains(&path) {
                others.push((std::fs::symlink_metadata(&path)?.modified()?, path));
            }
        }
        others.sort_unstable();
        let surplus = others.len().saturating_sub(MOST_KEPT.saturating_sub(needed.len()));
        others.iter().take(surplus).try_for_each(|(_, path)| std::fs::remove_file(path))
    }

    /// The ids of a user, as a name or uid; either with `:` and a group's name or gid.
    pub(crate) fn ids_of(&self, user: &str) -> Option<(u32, u32)> {
        let (who, group) = user.split_once(':').map_or((user, None), |(who, group)| (who, Some(group)));
        let passwd = self.text(PASSWD);
        let line = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { return None };
            (name == who || uid == who).then_some((uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?))
        });
        let number = who.parse::<u32>().ok().map(|uid| (uid, uid));
        let (uid, gid) = line.or(number)?;
        Some((uid, group.map_or(Some(gid), |group| self.group_id(group))?))
    }

    fn group_id(&self, wanted: &str) -> Option<u32> {
        let find = || {
            let group = self.text(GROUP);
            group.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let [name, _, gid, ..] = fields[..] else { return None };
                (name == wanted).then(|| gid.parse().ok()).flatten()
            })
        };
        wanted.parse().ok().or_else(find)
    }

    /// The image's list of users or groups; an archive of one file, of which only the file's bytes matter.
    fn text(&self, path: &str) -> String {
        let mut bytes = Vec::new();
        if let Ok(file) = std::fs::File::open(self.file(path)) {
            // What cannot be read says nothing.
            let _ = io::Read::read_to_end(&mut io::Read::take(file, MOST_USERS), &mut bytes);
        }
        let text = bytes.get(HEADER..).unwrap_or_default();
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        String::from_utf8_lossy(&text[..end]).into_owned()
    }
}

/// Notes that an archive was used. Where that fails, it is only taken for older than it is.
fn touch(file: &Path) {
    if let Ok(file) = std::fs::File::open(file) {
        let _ = file.set_modified(SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::NOTHING;

    #[test]
    fn users_are_found_by_name_and_number() {
        let home = tempfile::tempdir().unwrap();
        let seeds = Seeds { directory: home.path().to_owned() };
        let write = |path: &str, text: &str| {
            let mut archive = vec![b'h'; HEADER];
            archive.extend_from_slice(text.as_bytes());
            archive.resize(3 * HEADER, 0);
            std::fs::write(seeds.file(path), archive).unwrap();
        };
        write(PASSWD, "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1001::/home/agent:/bin/sh\n");
        write(GROUP, "root:x:0:\nbroken\nstaff:x:50:agent\n");
        assert_eq!(seeds.ids_of("agent"), Some((1000, 1001)));
        assert_eq!(seeds.ids_of("1000"), Some((1000, 1001)));
        assert_eq!(seeds.ids_of("1000:7"), Some((1000, 7)));
        assert_eq!(seeds.ids_of("agent:staff"), Some((1000, 50)));
        assert_eq!(seeds.ids_of("4242:staff"), Some((4242, 50)));
        assert_eq!(seeds.ids_of("agent:nobodies"), None);
        assert_eq!(seeds.ids_of("4242"), Some((4242, 4242)));
        assert_eq!(seeds.ids_of("nobody-here"), None);
    }

    #[test]
    fn what_is_kept_of_an_image_has_a_bound_and_what_was_used_last_stays() {
        let home = tempfile::tempdir().unwrap();
        let seeds = Seeds { directory: home.path().to_owned() };
        let place =
            |path: &str| Place { path: path.to_owned(), mode: 0o755, owned: false, directory: String::new() };
        let keep = |path: &str, age: u64| {
            let file = std::fs::File::create(seeds.file(path)).unwrap();
            std::io::Write::write_all(&mut &file, NOTHING).unwrap();
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
        };
        // No two places share one, however long or strange they are.
        let long = format!("/{}", "x/".repeat(2000));
        assert_ne!(seeds.file("/a/b"), seeds.file("/a%b"));
        [PASSWD, GROUP, "/tmp", &long].into_iter().for_each(|path| keep(path, 100_000));
        (0..100).for_each(|number| keep(&format!("/srv/{number}"), 1000 + number));
        let (now, before) = ([place("/tmp"), place(&long)], [place("/srv/99")]);
        assert!(!seeds.has_all(&[place("/none")]) && seeds.has_all(&before));
        seeds.evict(&now).unwrap();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), MOST_KEPT);
        assert!(seeds.has_all(&now) && seeds.has_all(&before), "what was used lately is gone");
        assert!(seeds.has("/srv/0") && !seeds.has("/srv/98"), "what was used longest ago is kept");
    }
}
