//! Compiles `proto/hostel/v1` without protoc: one descriptor set feeds the generated code and reflection.

use prost::Message as _;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let package = root.join("hostel/v1");
    // A directory is looked at with all that is in it, so that a new file counts as a change.
    println!("cargo::rerun-if-changed={}", package.display());

    let descriptors = protox::compile(proto_files(&package)?, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("hostel_descriptor.bin"), descriptors.encode_to_vec())?;

    // Payload bytes are shared, not copied, on their way through.
    // Maps are ordered, so that one message has one encoding and request bodies can be compared by hash.
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    Ok(())
}

/// The `.proto` files of a directory, by name, so that builds are reproducible.
fn proto_files(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
