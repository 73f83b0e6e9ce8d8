//! Templates of the configuration: TOML files, read once at the start. A bad file is told with its line and key
//! and does not keep the others, or the daemon, from working.

mod format;
mod keys;

use hostel_sandbox::TemplateId;
use hostel_sandbox::template::Template;
use std::fmt;
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes. Nobody writes one by hand that comes near.
const LARGEST: u64 = 1 << 20;
/// The file in a directory that holds an image's recipe.
const IN_RECIPE: &str = "template.toml";

/// What a file declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The file.
    pub file: PathBuf,
    /// Name and defaults. Its source means nothing yet.
    pub template: Template,
    /// The container image that it is made of, for the backend `docker`.
    pub image: Option<String>,
    /// Where its files are, for jails: a directory, or a tar archive, plain or zstd.
    pub rootfs: Option<PathBuf>,
    /// The template whose files it has, for jails; with `rootfs`, the one that those go on top of.
    pub base: Option<TemplateId>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, where one is at fault.
    pub line: Option<usize>,
    /// The key, with the tables that it is in: `resources.memory`. May be empty.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem with a file as a whole.
    pub(crate) fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, key: String::new(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Reads every declaration: `DIRECTORY/*.toml` and `DIRECTORY/*/template.toml`, in the order of their names. A
/// directory that is not there declares nothing.
#[must_use]
pub fn read(directories: &[PathBuf]) -> (Vec<Declaration>, Vec<Problem>) {
    let (mut declarations, mut problems) = (Vec::<Declaration>::new(), Vec::new());
    for file in directories.iter().flat_map(|directory| files(directory, &mut problems)).collect::<Vec<_>>() {
        match read_file(&file) {
            Ok(declaration) => {
                let same = |other: &&Declaration| other.template.id == declaration.template.id;
                match declarations.iter().find(same) {
                    None => declarations.push(declaration),
                    Some(other) => problems.push(Problem {
                        key: "name".to_owned(),
                        ..Problem::of_file(
                            &file,
                            format!("{} is declared in {} already", other.template.id, other.file.display()),
                        )
                    }),
                }
            }
            Err(wrong) => problems.extend(wrong),
        }
    }
    (declarations, problems)
}

/// What `hosteld --check` says: the configuration with the templates that it declares, and what is wrong with them.
#[must_use]
pub fn check(config: &crate::Config) -> (String, Vec<Problem>) {
    let (declared, mut problems) = read(&config.template_directories);
    let names: Vec<&str> = declared.iter().map(|one| one.template.id.as_str()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let (pools, wrong) = crate::pools::read_declarations(&config.pool_directories);
    problems.extend(wrong);
    let pools: Vec<&str> = pools.iter().map(|one| one.record.name.as_str()).collect();
    let pools = if pools.is_empty() { "none".to_owned() } else { pools.join(", ") };
    (format!("{config}\ntemplates: {names}\npools: {pools}"), problems)
}

/// Reads one declaration.
///
/// # Errors
/// Everything that is wrong with it, as far as it can be told at once.
pub fn read_file(file: &Path) -> Result<Declaration, Vec<Problem>> {
    let unreadable = |error: std::io::Error| vec![Problem::of_file(file, format!("cannot be read: {error}"))];
    let length = file.metadata().map_err(unreadable)?.len();
    if length > LARGEST {
        return Err(vec![Problem::of_file(file, format!("has {length} bytes, at most {LARGEST}"))]);
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    format::parse(file, &text)
}

fn files(directory: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.push(Problem::of_file(directory, format!("cannot be read: {error}")));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let inside = path.join(IN_RECIPE);
            if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
                return Some(path);
            }
            inside.is_file().then_some(inside)
        })
        .collect();
    files.sort();
    files
}

/// The name of a declaration that gives none: its file's, or its directory's for `template.toml`.
fn default_name(file: &Path) -> String {
    let named = match file.file_name() {
        Some(name) if name == IN_RECIPE => file.parent().and_then(Path::file_name),
        _ => file.file_stem(),
    };
    named.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
