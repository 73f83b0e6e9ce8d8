//! Templates of the configuration, given to the backends at the start.
//!
//! A declaration has no files of its own: it names an image, or another template. A root file system that one names
//! is imported once, in the background, as a template of its own whose name tells path, size and age of it; when
//! those change it is imported again.

use super::Sandboxes;
use crate::lock::lock;
use crate::templates::{self, Declaration, Problem};
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{Backend, BackendName, Error as DomainError, Result, TemplateId};
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The backend that images are for.
const IMAGES: &str = "docker";
/// The label of an imported root file system: the template that it is for.
const FILES_OF: &str = "hostel.files-of";

type Key = (BackendName, TemplateId);

/// What the configuration declared.
#[derive(Default)]
pub(super) struct Declared {
    files: HashMap<Key, PathBuf>,
    /// Their files are being imported.
    importing: HashSet<Key>,
    problems: Vec<Problem>,
}

/// One declaration for one backend.
struct Order {
    backend: Arc<dyn Backend>,
    template: Template,
    file: PathBuf,
}

impl Sandboxes {
    /// Reads the declarations in these directories and makes them known. What is wrong is logged and kept for the
    /// doctor.
    pub(crate) async fn declare(&self, directories: &[PathBuf]) {
        let directories = directories.to_owned();
        let read = tokio::task::spawn_blocking(move || templates::read(&directories)).await;
        let Ok((declarations, problems)) = read else { return };
        problems.into_iter().for_each(|problem| self.complain(problem));
        let mut orders = Vec::new();
        for declaration in declarations {
            self.order(declaration, &mut orders).await;
        }
        self.give(orders).await;
    }

    /// The file that declares a template, if one does.
    pub(crate) fn declared_in(&self, backend: &BackendName, id: &TemplateId) -> Option<PathBuf> {
        lock(&self.0.declared).files.get(&(backend.clone(), id.clone())).cloned()
    }

    /// How many templates are declared, and what is wrong with declarations.
    pub(crate) fn declarations(&self) -> (usize, Vec<Problem>) {
        let declared = lock(&self.0.declared);
        (declared.files.len(), declared.problems.clone())
    }

    /// Whether the files of a template are on their way.
    pub(super) fn is_being_imported(&self, backend: &BackendName, id: &TemplateId) -> bool {
        lock(&self.0.declared).importing.contains(&(backend.clone(), id.clone()))
    }

    fn complain(&self, problem: Problem) {
        tracing::warn!("a template of the configuration is left out: {problem}");
        lock(&self.0.declared).problems.push(problem);
    }

    /// What a declaration asks of which backend. Files that are not imported yet are, in the background.
    async fn order(&self, declaration: Declaration, orders: &mut Vec<Order>) {
        let Declaration { file, template, image, rootfs, base } = declaration;
        if let Some(reference) = image {
            let found = self.0.backends.all().find(|backend| backend.name().as_str() == IMAGES);
            match found.cloned() {
                Some(backend) => {
                    let template =
                        Template { source: TemplateSource::Image { reference }, ..template.clone() };
                    orders.push(Order { backend, template, file: file.clone() });
                }
                None if rootfs.is_none() && base.is_none() => {
                    self.complain(Problem::of_file(
                        &file,
                        "it names an image, but there is no backend docker",
                    ));
                }
                None => {}
            }
        }
        let Some(backend) = self.0.backends.default() else { return };
        match (rootfs, base) {
            (Some(path), base) => {
                let import = Import { backend, template, file, path, base };
                let file = import.file.clone();
                match self.files_of(&import).await {
                    Ok(files) => orders.extend(self.with_files(import, files)),
                    Err(error) => self.complain(Problem {
                        key: "rootfs".to_owned(),
                        ..Problem::of_file(&file, error.to_string())
                    }),
                }
            }
            (None, Some(base)) => {
                let template = Template { source: TemplateSource::Layer { base }, ..template };
                orders.push(Order { backend, template, file });
            }
            (None, None) => {}
        }
    }

    /// Gives orders to their backends. One may stand on another, so they are tried as long as that helps.
    async fn give(&self, mut orders: Vec<Order>) {
        loop {
            let (before, mut left) = (orders.len(), Vec::new());
            for order in orders {
                match self.give_one(&order).await {
                    Ok(()) => {}
                    Err(error @ DomainError::NotFound { .. }) => left.push((order, error)),
                    Err(error) => self.complain(Problem::of_file(&order.file, error.to_string())),
                }
            }
            if left.is_empty() {
                return;
            }
            if left.len() == before {
                for (order, error) in left {
                    let problem = Problem::of_file(&order.file, error.to_string());
                    self.complain(Problem { key: "base".to_owned(), ..problem });
                }
                return;
            }
            orders = left.into_iter().map(|(order, _)| order).collect();
        }
    }

    async fn give_one(&self, order: &Order) -> Result<()> {
        let mut template = order.template.clone();
        if let Some(base) = template.source.base() {
            let below = order.backend.templates().await?.into_iter().find(|other| other.id == *base);
            template.inherit(&below.ok_or_else(|| DomainError::not_found("template", base))?);
        }
        let template = order.backend.declare_template(template).await?;
        let (backend, id) = (order.backend.name(), template.id.clone());
        tracing::info!(template = %id, %backend, file = %order.file.display(), "template declared");
        self.template_made(backend.clone(), template);
        lock(&self.0.declared).files.insert((backend, id), order.file.clone());
        Ok(())
    }

    /// The template that holds, or shall hold, the files of a declaration, and whether it is there.
    async fn files_of(&self, import: &Import) -> Result<(TemplateId, bool)> {
        let name = import.files_name()?;
        let there = import.backend.templates().await?.iter().any(|template| template.id == name);
        Ok((name, there))
    }

    /// The order for a template whose files are there; otherwise they are imported and it is given after that.
    fn with_files(&self, import: Import, (files, there): (TemplateId, bool)) -> Option<Order> {
        let order = Order {
            backend: Arc::clone(&import.backend),
            template: Template {
                source: TemplateSource::Layer { base: files.clone() },
                ..import.template.clone()
            },
            file: import.file.clone(),
        };
        if there {
            return Some(order);
        }
        let key = (import.backend.name(), import.template.id.clone());
        lock(&self.0.declared).importing.insert(key.clone());
        let this = self.clone();
        self.0.tasks.spawn(async move {
            let imported = tokio::select! {
                imported = this.import_files(&import, files) => imported,
                () = this.0.stop.cancelled() => return,
            };
            match imported {
                Ok(()) => this.give(vec![order]).await,
                Err(error) => this.complain(Problem {
                    key: "rootfs".to_owned(),
                    ..Problem::of_file(&import.file, error.to_string())
                }),
            }
            lock(&this.0.declared).importing.remove(&key);
        });
        None
    }

    async fn import_files(&self, import: &Import, files: TemplateId) -> crate::Result<()> {
        let source = match &import.base {
            Some(base) => TemplateSource::Layer { base: base.clone() },
            None => TemplateSource::Imported,
        };
        let mut template = Template::new(files, source);
        template.labels.insert(FILES_OF.to_owned(), import.template.id.to_string());
        tracing::info!(template = %import.template.id, path = %import.path.display(), "importing its files");
        let made = self.import_path(&import.backend, template, None, &import.path).await?;
        // Those of an earlier version go, unless a sandbox stands on them.
        for old in import.backend.templates().await? {
            if old.id != made.id && old.labels.get(FILES_OF) == made.labels.get(FILES_OF) {
                let removed = import.backend.delete_template(&old.id).await;
                tracing::info!(template = %old.id, removed = removed.is_ok(), "files of an earlier version");
            }
        }
        Ok(())
    }
}

/// A declaration with files of its own.
struct Import {
    backend: Arc<dyn Backend>,
    template: Template,
    file: PathBuf,
    path: PathBuf,
    base: Option<TemplateId>,
}

impl Import {
    /// The name of the template that holds the files.
    fn files_name(&self) -> Result<TemplateId> {
        let path = Path::new(&self.path);
        let metadata = path
            .metadata()
            .map_err(|error| DomainError::invalid("rootfs", format!("{}: {error}", path.display())))?;
        let mut hash = Sha256::new();
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update(format!("{:?}", (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), &self.base)));
        let version = &crate::page::hex(&hash.finalize())[..8];
        TemplateId::parse(format!("{}-files-{version}", self.template.id))
    }
}
