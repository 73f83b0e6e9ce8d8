//! What an image has in the writable places: those are mounted over, so it is put there anew for each sandbox.
//!
//! The engine hands the content out as archives, which are kept by image and unpacked by `hostel-guest unpack`, a
//! process that has changed its root into the disk first.

mod kept;

pub(crate) use kept::Seeds;

use crate::backend::{Inner, lock};
use crate::container::{self, LABEL_INSTANCE};
use crate::disk::{self, Place};
use crate::engine::{Fault, QUESTION, TRANSFER, WORK, bounded};
use crate::image::Image;
use crate::tools;
use bollard::models::{ContainerCreateBody, ContainerSummary, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, InspectContainerOptions,
};
use bytes::Bytes;
use futures::StreamExt as _;
use hostel_guest_client::Guest;
use hostel_sandbox::file::Compression;
use hostel_sandbox::{Error, Files as _, Result};
use kept::{GROUP, PASSWD};
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// On images of ours: below which directory the content of the places is kept, apart from what the image had there.
pub(crate) const LABEL_SEEDS: &str = "hostel.seeds";
/// That directory.
pub(crate) const SEEDS_INSIDE: &str = "/.hostel/places";
/// What is kept where an image has nothing; an empty file is one that a power cut left.
const NOTHING: &[u8] = b"nothing\n";
/// Of an archive's headers: their size, and where they say what they are of.
const HEADER: usize = 512;
const TYPE_FLAG: usize = 156;
/// Places that programs fill when they run: nobody misses there what an image has.
const SCRATCH: [&str; 3] = ["/run", "/tmp", "/var/tmp"];
/// Bytes read at once.
const PIECE: usize = 256 << 10;
/// Most bytes of one place of an image, unless the image itself is larger than half of that.
const MOST: u64 = 8 << 30;

impl Inner {
    /// What an image has in places, asked of the engine once for each image.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    pub(crate) async fn seeds(self: &Arc<Self>, image: &Image, places: &[Place]) -> Result<Seeds> {
        let seeds = Seeds { directory: self.ground.seeds(&image.id) };
        if seeds.has_all(places) {
            return Ok(seeds);
        }
        // One at a time: others want the same.
        let _turn = self.seeding.lock().await;
        if seeds.has_all(places) {
            return Ok(seeds);
        }
        let fail = |error: io::Error| Error::internal(format!("make {}", seeds.directory.display()), error);
        std::fs::create_dir_all(&seeds.directory).map_err(fail)?;
        let helper = self.make_helper(&image.id).await?;
        self.take_seeds(&helper.container, image, &seeds, places).await?;
        // What is kept beyond measure fails no sandbox.
        if let Err(error) = seeds.evict(places) {
            let path = seeds.directory.display();
            tracing::warn!(%path, %error, "what is kept of an image and was not used for long could not be removed");
        }
        Ok(seeds)
    }

    /// Removes what is kept of images that the engine has no more.
    pub(crate) async fn remove_old_seeds(&self) {
        let Ok(client) = self.engine.client().await else { return };
        for image in self.ground.seeded() {
            let found = bounded(QUESTION, client.inspect_image(&image)).await;
            if !found.is_err_and(|fault| fault.is_missing()) {
                continue;
            }
            let _turn = self.seeding.lock().await;
            let directory = self.ground.seeds(&image);
            if let Err(error) = std::fs::remove_dir_all(&directory) {
                tracing::warn!(path = %directory.display(), %error, "what is kept of an image could not be removed");
            }
        }
    }

    async fn take_seeds(&self, helper: &str, image: &Image, seeds: &Seeds, places: &[Place]) -> Result<()> {
        // What an archive adds to an image's own files is less than they are.
        let most = MOST.max(image.bytes.saturating_mul(2));
        for list in [PASSWD, GROUP].into_iter().filter(|list| !seeds.has(list)) {
            self.take_seed(helper, &[list.to_owned()], &seeds.file(list), most).await?;
        }
        for place in places.iter().filter(|place| !seeds.has(&place.path)) {
            let sources = sources(image.labels.get(LABEL_SEEDS).map(String::as_str), &place.path);
            self.take_seed(helper, &sources, &seeds.file(&place.path), most).await?;
        }
        Ok(())
    }

    /// Keeps the first that is there of some paths, which has no more than `most` bytes.
    async fn take_seed(&self, helper: &str, sources: &[String], file: &Path, most: u64) -> Result<()> {
        let new = file.with_extension("new");
        let failed = |error: io::Error| Error::internal(format!("make {}", file.display()), error);
        let taken = match self.fetch_first(helper, sources, &new, most).await {
            Ok(true) => Ok(()),
            Ok(false) => std::fs::write(&new, NOTHING).map_err(failed),
            Err(error) => Err(error),
        };
        let kept = taken.and_then(|()| std::fs::rename(&new, file).map_err(failed));
        if kept.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        kept
    }

    /// Writes an archive of the first that is there of some paths into a file. → whether there is one.
    async fn fetch_first(&self, helper: &str, sources: &[String], file: &Path, most: u64) -> Result<bool> {
        for source in sources {
            let found = tokio::time::timeout(TRANSFER, self.fetch_archive(helper, source, file, most))
                .await
                .map_err(|_| Error::DeadlineExceeded { what: format!("reading {source} of an image") })??;
            if found {
                return Ok(true);
            }
        }
        // Somebody may have removed the helper; its image has the path all the same.
        let client = self.engine.client().await?;
        bounded(QUESTION, client.inspect_container(helper, None::<InspectContainerOptions>))
            .await
            .map_err(|fault| fault.during("look into an image"))?;
        Ok(false)
    }

    /// Writes an archive of a path into a file. → whether there is such a path.
    async fn fetch_archive(&self, container: &str, path: &str, file: &Path, most: u64) -> Result<bool> {
        let fail = |error: io::Error| Error::internal(format!("write {}", file.display()), error);
        let client = self.engine.client().await?;
        let mut output = tokio::fs::File::create(file).await.map_err(fail)?;
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut archive = std::pin::pin!(client.download_from_container(container, Some(options)));
        let mut total = 0;
        while let Some(piece) = archive.next().await {
            match piece.map_err(Fault::from) {
                Ok(piece) => {
                    total += piece.len() as u64;
                    if total > most {
                        let detail = format!("{path} of the image has more than {most} bytes");
                        return Err(Error::LimitReached { what: "disk", detail });
                    }
                    output.write_all(&piece).await.map_err(fail)?;
                }
                Err(fault) if fault.is_missing() && total == 0 => return Ok(false),
                Err(fault) => return Err(fault.during(format!("read {path} of an image"))),
            }
        }
        output.flush().await.map_err(fail)?;
        output.sync_all().await.map_err(fail)?;
        Ok(true)
    }

    /// Unpacks what an image has into a mounted disk.
    ///
    /// # Errors
    /// `LimitReached` for a disk too small for it; `Internal`.
    pub(crate) async fn plant(&self, seeds: &Seeds, places: &[Place], point: &Path) -> Result<()> {
        for place in places {
            let file = seeds.file(&place.path);
            let failed = |error: io::Error| Error::internal(format!("read {}", file.display()), error);
            match start_of(&file).map_err(failed)? {
                Start::Filled => {}
                // No process for each: most images have most places empty.
                Start::Empty { mode, owner, group } => {
                    disk::set_owner(&place.within(point), mode, (owner, group)).map_err(failed)?;
                    continue;
                }
                Start::Other => continue,
            }
            // Where no image or sandbox ever wrote.
            let path = place.within(point);
            let parent = path.parent().unwrap_or(point);
            let fail = |error: io::Error| Error::internal(format!("fill {}", path.display()), error);
            std::fs::create_dir_all(parent).map_err(fail)?;
            let input = std::fs::File::open(&file).map_err(fail)?;
            let mut unpack = tools::command(&self.ground.guest().display().to_string());
            unpack.arg("unpack").current_dir(parent).stdin(Stdio::from(input));
            tools::finish("hostel-guest unpack", &mut unpack, TRANSFER).await?;
        }
        Ok(())
    }

    /// Unpacks what an image has into the engine's own places, through the guest: it then belongs to the default user.
    ///
    /// # Errors
    /// `LimitReached` for places too small for it; `Unavailable`, `Internal`.
    pub(crate) async fn sow(self: &Arc<Self>, guest: &Guest, image: &Image, places: &[Place]) -> Result<()> {
        let seeds = self.seeds(image, places).await?;
        for place in places.iter().filter(|place| !SCRATCH.contains(&place.path.as_str())) {
            let file = seeds.file(&place.path);
            let shown = file.display().to_string();
            let failed = move |error: io::Error| Error::internal(format!("read {shown}"), error);
            if !matches!(start_of(&file).map_err(failed.clone())?, Start::Filled) {
                continue;
            }
            let mut file = tokio::fs::File::open(&file).await.map_err(failed.clone())?;
            let (sender, archive) = mpsc::channel(2);
            let send = async move {
                loop {
                    let mut piece = Vec::with_capacity(PIECE);
                    let sent = match file.read_buf(&mut piece).await {
                        Ok(0) => return,
                        Ok(_) => sender.send(Ok(Bytes::from(piece))).await,
                        Err(error) => sender.send(Err(failed.clone()(error))).await,
                    };
                    if sent.is_err() {
                        return;
                    }
                }
            };
            let parent = place.path.rsplit_once('/').map_or("", |(parent, _)| parent);
            let parent = if parent.is_empty() { "/" } else { parent };
            let import = guest.import(parent, Compression::None, archive);
            futures::future::join(send, import).await.1?;
        }
        Ok(())
    }

    /// A container of an image that is never started.
    ///
    /// # Errors
    /// `Unavailable`, `Internal`.
    pub(crate) async fn make_helper(self: &Arc<Self>, image: &str) -> Result<Helper> {
        let client = self.engine.client().await?;
        let unique = uuid::Uuid::new_v4().simple();
        let name = format!("{}helper-{unique}", container::prefix(&self.ground));
        // The image may be of a sandbox; this is none.
        let mut labels = container::no_labels();
        labels.insert(LABEL_INSTANCE.to_owned(), self.ground.instance.clone());
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec!["/never-started".to_owned()]),
            cmd: Some(Vec::new()),
            labels: Some(labels),
            host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        // By its name, and before it is there: whoever waits for the engine may be dropped, and whoever tidies up
        // sees it from its first moment.
        lock(&self.helpers).insert(name.clone());
        let helper = Helper { inner: Arc::clone(self), container: name };
        bounded(WORK, client.create_container(Some(options), body))
            .await
            .map_err(|fault| fault.during("make a container to look into an image"))?;
        Ok(helper)
    }

    /// Whether somebody works with a container of ours as a helper.
    pub(crate) fn is_helper(&self, container: &ContainerSummary) -> bool {
        let helpers = lock(&self.helpers);
        // The engine puts a slash before them.
        container.names.iter().flatten().any(|name| helpers.contains(name.trim_start_matches('/')))
    }
}

/// Where an image may have what belongs into a place, the best first; `below` is where a snapshot keeps the places of
/// its sandbox.
fn sources(below: Option<&str>, path: &str) -> Vec<String> {
    let mut sources = Vec::new();
    if let Some(below) = below {
        // It may have been a place there, or in one.
        let mut upper = path;
        while !upper.is_empty() {
            let within = path.strip_prefix(upper).unwrap_or_default();
            sources.push(format!("{below}/{}{within}", disk::directory_of(upper)));
            upper = upper.rsplit_once('/').map_or("", |(upper, _)| upper);
        }
        // Where snapshots of earlier daemons have it.
        sources.push(format!("{below}{path}"));
        sources.dedup();
    }
    // What was no place in a snapshot's sandbox could not be written there: the image has it as it was.
    sources.push(path.to_owned());
    sources
}

/// What an archive of a place begins with.
enum Start {
    /// A directory.
    Filled,
    /// A directory in which nothing is.
    Empty { mode: u32, owner: u32, group: u32 },
    /// A link or a file, or nothing: an empty directory for us.
    Other,
}

/// Looks at the first header, as pax(1) describes it.
fn start_of(archive: &Path) -> io::Result<Start> {
    let mut header = [0; HEADER];
    let mut file = std::fs::File::open(archive)?;
    let length = file.metadata()?.len();
    if length < HEADER as u64 {
        return Ok(Start::Other);
    }
    io::Read::read_exact(&mut file, &mut header)?;
    let octal = |from: usize, to: usize| {
        let text = String::from_utf8_lossy(&header[from..to]);
        u32::from_str_radix(text.trim_matches(|c: char| c == '\0' || c == ' '), 8).ok()
    };
    Ok(match (header[TYPE_FLAG], octal(100, 108), octal(108, 116), octal(116, 124)) {
        // Two blocks of zeros end an archive.
        (b'5', Some(mode), Some(owner), Some(group)) if length <= 3 * HEADER as u64 => {
            Start::Empty { mode: mode & 0o7777, owner, group }
        }
        // A directory, or a header that extends the next one.
        (b'5' | b'x' | b'g', ..) => Start::Filled,
        _ => Start::Other,
    })
}

/// A container that is removed once nobody needs it.
pub(crate) struct Helper {
    inner: Arc<Inner>,
    pub(crate) container: String,
}

impl Drop for Helper {
    fn drop(&mut self) {
        let (inner, container) = (Arc::clone(&self.inner), std::mem::take(&mut self.container));
        lock(&inner.helpers).remove(&container);
        self.inner.tasks.spawn(async move {
            if let Err(error) = inner.remove_container(&container).await {
                tracing::debug!(container, %error, "a helper is left for the next sweep");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_empty_directories_need_no_unpacking() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, kind: u8, length: usize| {
            let mut archive = vec![0; length];
            archive[100..107].copy_from_slice(b"0041777");
            archive[108..115].copy_from_slice(b"0001750");
            archive[116..123].copy_from_slice(b"0000007");
            archive[TYPE_FLAG] = kind;
            std::fs::write(home.path().join(name), archive).unwrap();
            start_of(&home.path().join(name)).unwrap()
        };
        assert!(matches!(write("empty", b'5', 1536), Start::Empty { mode: 0o1777, owner: 1000, group: 7 }));
        assert!(matches!(write("filled", b'5', 4096), Start::Filled));
        assert!(matches!(write("link", b'2', 1536), Start::Other));
        std::fs::write(home.path().join("nothing"), NOTHING).unwrap();
        assert!(matches!(start_of(&home.path().join("nothing")), Ok(Start::Other)));
        assert!(start_of(&home.path().join("none")).is_err(), "what was removed meanwhile is not nothing");
    }

    #[test]
    fn a_snapshot_has_what_was_a_place_and_what_was_in_one_and_what_was_none() {
        assert_eq!(sources(None, "/srv/x"), ["/srv/x"]);
        assert_eq!(sources(Some("/s"), "/tmp"), ["/s/tmp", "/tmp"]);
        let kept = |path: &str| format!("/s/{}", disk::directory_of(path));
        assert!(kept("/srv/x").ends_with("/x") && kept("/srv/x") != "/s/srv/x");
        let nested = [kept("/srv/x"), kept("/srv") + "/x", "/s/srv/x".to_owned(), "/srv/x".to_owned()];
        assert_eq!(sources(Some("/s"), "/srv/x"), nested);
        assert_eq!(sources(Some("/s"), "/home/a")[1..], ["/s/home/a", "/home/a"]);
    }
}
