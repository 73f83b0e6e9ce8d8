//! `hostel cp`.

use clap::Args;
use hostel_sandbox::SandboxId;
use std::path::PathBuf;

/// What to copy where.
#[derive(Debug, Args)]
#[command(after_help = "\
One side is ID:PATH, with an absolute path in the sandbox; the other is local, or - for the bytes of one file from stdin or to stdout. Directories are copied with everything below. When DST is a directory, the copy goes into it; otherwise it becomes DST. Of ID:PATH/. and DIR/. it is the content that is copied. A link that is named itself is followed; links below are copied as links. A local name with a colon is written ./name.

Examples:
  hostel cp ./project sb-1:/workspace
  hostel cp sb-1:/workspace/result.csv .
  hostel cp sb-1:/var/log/build.log - | tail")]
pub(crate) struct CpArgs {
    /// What to copy.
    #[arg(value_name = "SRC", value_parser = Place::parse)]
    pub(crate) source: Place,
    /// Where to.
    #[arg(value_name = "DST", value_parser = Place::parse)]
    pub(crate) target: Place,
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A path in a sandbox.
    Sandbox(SandboxId, String),
    /// A path here.
    Local(PathBuf),
    /// Standard input or output.
    Standard,
}

impl Place {
    /// Reads `ID:PATH`, `PATH` or `-`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Standard);
        }
        let Some((id, path)) = text.split_once(':') else {
            return if text.is_empty() {
                Err("a path is not empty".to_owned())
            } else {
                Ok(Self::Local(text.into()))
            };
        };
        let Ok(id) = SandboxId::parse(id) else { return Ok(Self::Local(text.into())) };
        if !path.starts_with('/') {
            return Err(format!(
                "{path:?} is not an absolute path in {id}; a local file is written ./{text}"
            ));
        }
        Ok(Self::Sandbox(id, path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_are_told_from_local_paths() {
        let id = SandboxId::parse("sb-1").unwrap();
        assert_eq!(Place::parse("sb-1:/a:b"), Ok(Place::Sandbox(id, "/a:b".to_owned())));
        assert_eq!(Place::parse("-"), Ok(Place::Standard));
        for local in ["file", "./sb-1:/x", "/a:b", "A:/b", "dir/x:y"] {
            assert_eq!(Place::parse(local), Ok(Place::Local(local.into())), "{local}");
        }
        assert!(Place::parse("sb-1:relative").is_err() && Place::parse("").is_err());
    }
}
