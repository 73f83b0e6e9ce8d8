//! Images, as far as sandboxes care.

use crate::disk;
use crate::engine::{Engine, QUESTION, bounded};
use hostel_sandbox::{Error, Result};
use std::collections::{BTreeMap, HashMap};

/// This host's architecture, as images name it.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "amd64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "arm64";

/// An image that the engine has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    /// `sha256:…`.
    pub(crate) id: String,
    /// What its files take, as the engine adds them up.
    pub(crate) bytes: u64,
    pub(crate) env: BTreeMap<String, String>,
    /// Who programs run as, where it is not root.
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) labels: HashMap<String, String>,
    /// Cleaned, each once.
    pub(crate) volumes: Vec<String>,
}

impl Image {
    /// Looks an image up by any of its names.
    ///
    /// # Errors
    /// `NotFound` where the engine does not have it; `InvalidArgument` for another architecture, or a volume that
    /// is nowhere; `Unavailable`.
    pub(crate) async fn look_up(engine: &Engine, reference: &str) -> Result<Self> {
        let client = engine.client().await?;
        let found = match bounded(QUESTION, client.inspect_image(reference)).await {
            Ok(found) => found,
            Err(fault) if fault.is_missing() => {
                let id = format!("{reference} (the engine does not have it: docker pull {reference})");
                return Err(Error::not_found("image", id));
            }
            Err(fault) => return Err(fault.during(format!("look the image {reference} up"))),
        };
        let (system, architecture) = (found.os.unwrap_or_default(), found.architecture.unwrap_or_default());
        let fits = |value: &str, wanted: &str| value.is_empty() || value == wanted;
        if !fits(&system, "linux") || !fits(&architecture, ARCHITECTURE) {
            let problem = format!(
                "the image {reference} is for {system}/{architecture}, this host is linux/{ARCHITECTURE}"
            );
            return Err(Error::invalid("template", problem));
        }
        let config = found.config.unwrap_or_default();
        let pair = |line: &String| {
            let (name, value) = line.split_once('=')?;
            (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
        };
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            id: found.id.unwrap_or_else(|| reference.to_owned()),
            bytes: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            env: config.env.unwrap_or_default().iter().filter_map(pair).collect(),
            user: said(config.user).filter(|user| !is_root(user)),
            workdir: said(config.working_dir).filter(|directory| directory != "/"),
            labels: config.labels.unwrap_or_default(),
            volumes: volumes(config.volumes.unwrap_or_default())
                .map_err(|problem| Error::invalid("template", format!("the image {reference} {problem}")))?,
        })
    }
}

/// Whether a user is root, whatever the group. It is what images say that say nothing.
fn is_root(user: &str) -> bool {
    let who = user.split(':').next().unwrap_or_default();
    matches!(who, "" | "root") || who.parse() == Ok(0_u32)
}

/// What an image declares as volumes, as the engine will understand it: where we mount nothing, it makes one of its
/// own, which has no cap.
fn volumes(declared: Vec<String>) -> std::result::Result<Vec<String>, String> {
    let cleaned = declared.iter().map(|path| {
        disk::clean(path)
            .ok_or_else(|| format!("declares a volume at {path:?}, not at an absolute path below /"))
    });
    let mut volumes = cleaned.collect::<std::result::Result<Vec<_>, _>>()?;
    volumes.sort_unstable();
    volumes.dedup();
    Ok(volumes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_however_it_is_written() {
        for root in ["root", "0", "00", "+0", "0:0", "0:5", "root:root", "root:0", "root:staff", ":5"] {
            assert!(is_root(root), "{root}");
        }
        for other in ["agent", "1000", "1000:0", "nobody:root", "10", "rooted", "0x0"] {
            assert!(!is_root(other), "{other}");
        }
    }

    #[test]
    fn volumes_are_where_the_engine_will_have_them() {
        let volumes = |declared: &[&str]| volumes(declared.iter().map(ToString::to_string).collect());
        assert_eq!(volumes(&["/x/../data", "/./data", "/a/"]).unwrap(), ["/a", "/data"]);
        assert!(volumes(&["data"]).unwrap_err().contains("data"));
        assert!(volumes(&["/a/.."]).is_err());
    }
}
