//! Templates that take the place of others. Those who stand on the files of the one before, which they know by their
//! path, keep them: these are removed when nobody does any more.

use super::{RECORD, Recipe, Templates};
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{Error, Result, TemplateId};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

/// The record of a template that was replaced, in its directory.
pub(super) const REPLACED: &str = "replaced.json";

/// What a template's directory says of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) recipe: Recipe,
    /// The directory of the template that it took the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaces: Option<String>,
}

impl Record {
    /// Writes it into a directory, at once and whole.
    ///
    /// # Errors
    /// `Internal`.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let id = &self.recipe.template.id;
        let fail = |error: io::Error| Error::internal(format!("record the template {id}"), error);
        let record = serde_json::to_vec_pretty(self).map_err(|error| fail(error.into()))?;
        fs::write(directory.join("record.new"), record).map_err(fail)?;
        fs::rename(directory.join("record.new"), directory.join(RECORD)).map_err(fail)
    }
}

/// The files of a template that is known no longer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// Its directory, by its name.
    pub(crate) directory: String,
    /// Its own layer.
    pub(crate) layer: String,
}

impl Files {
    /// The subvolume in the pool that holds its layer, if one does.
    pub(crate) fn subvolume(&self) -> Option<&str> {
        self.layer.strip_prefix("cells/")?.split('/').next()
    }
}

/// Which directories are other than the names of templates say.
#[derive(Default)]
pub(super) struct Places {
    /// Those of templates that took another's place.
    moved: HashMap<TemplateId, String>,
    /// Those of templates that were replaced, and what stands on them may still need.
    replaced: HashMap<String, Recipe>,
}

impl Places {
    /// Takes the directory of a template that was replaced; false where its record cannot be read, and then it stays.
    pub(super) fn take_replaced(&mut self, path: &Path) -> bool {
        let read = fs::read(path.join(REPLACED)).map_err(|error| error.to_string());
        let record = read
            .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).map_err(|error| error.to_string()));
        match record {
            Ok(Record { recipe, .. }) => {
                self.replaced.insert(name_of(path), recipe);
                true
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), error, "the record of a replaced template cannot be read");
                false
            }
        }
    }

    /// Takes directories of what was the template of the host before.
    pub(super) fn take_earlier(&mut self, earlier: Vec<(String, Recipe)>) {
        self.replaced.extend(earlier);
    }

    /// The templates of these records. A replacement that was cut short is finished.
    pub(super) fn settle(&mut self, records: Vec<(PathBuf, Record)>) -> HashMap<TemplateId, Recipe> {
        let gone: HashSet<String> =
            records.iter().filter_map(|(_, record)| record.replaces.clone()).collect();
        let mut recipes = HashMap::new();
        for (path, Record { recipe, .. }) in records {
            let (directory, id) = (name_of(&path), recipe.template.id.clone());
            if gone.contains(&directory) {
                set_aside(&path);
                self.replaced.insert(directory, recipe);
                continue;
            }
            if directory != id.as_str() {
                self.moved.insert(id.clone(), directory);
            }
            recipes.insert(id, recipe);
        }
        recipes
    }

    /// The directory of a template.
    pub(super) fn of(&self, id: &TemplateId) -> String {
        self.moved.get(id).cloned().unwrap_or_else(|| id.to_string())
    }

    pub(super) fn forget(&mut self, id: &TemplateId) {
        self.moved.remove(id);
    }

    pub(super) fn replaced(&self) -> impl Iterator<Item = &Recipe> {
        self.replaced.values()
    }

    /// Refuses a directory that is needed as it is.
    pub(super) fn must_not_keep(&self, directory: &str) -> Result<()> {
        if !self.replaced.contains_key(directory) {
            return Ok(());
        }
        let message = format!(
            "sandboxes made from an earlier template {directory} still run; remove them first, or choose another name"
        );
        Err(Error::wrong_state("TEMPLATE_IN_USE", message))
    }
}

impl Templates {
    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a template has a directory, or is about to: then nobody declared it.
    pub(super) fn is_made(&self, id: &TemplateId) -> bool {
        let places = self.places();
        places.moved.contains_key(id)
            || (self.directory.join(id.as_str()).exists() && !places.replaced.contains_key(id.as_str()))
    }

    /// Gives the template `made` another name, in place of the template that has it, if one has. The files of that one
    /// stay until [`Self::unneeded`] tells of them.
    ///
    /// # Errors
    /// `NotFound` for `made`; `WrongState` where the other has no files of its own to be replaced; `AlreadyExists` where
    /// one of that name is being made; `Internal` where that cannot be recorded.
    pub(crate) fn replace(&self, made: &TemplateId, name: &TemplateId) -> Result<Template> {
        let mut recipes = self.recipes()?;
        let mut recipe = recipes.get(made).cloned().ok_or_else(|| Error::not_found("template", made))?;
        let old = recipes.get(name).cloned();
        match (&old, self.is_made(name)) {
            (Some(old), _) if old.template.source == TemplateSource::Host => {
                let message = format!("the template {name} is part of the backend");
                return Err(Error::wrong_state("TEMPLATE_BUILT_IN", message));
            }
            (Some(_), false) => {
                let message = format!("the template {name} is declared in a file; change it there");
                return Err(Error::wrong_state("TEMPLATE_DECLARED", message));
            }
            (None, true) => return Err(Error::AlreadyExists { kind: "template", id: name.to_string() }),
            _ => {}
        }
        let mut places = self.places();
        let directory = places.of(made);
        let replaces = old.as_ref().map(|_| places.of(name));
        recipe.template.id = name.clone();
        let record = Record { recipe, replaces };
        // From here on the next start has the new one, whatever comes.
        record.write(&self.directory.join(&directory))?;
        recipes.remove(made);
        places.forget(made);
        places.moved.insert(name.clone(), directory);
        let Record { recipe, replaces } = record;
        if let (Some(old), Some(replaced)) = (old, replaces) {
            set_aside(&self.directory.join(&replaced));
            places.replaced.insert(replaced, old);
        }
        let template = recipe.template.clone();
        recipes.insert(name.clone(), recipe);
        Ok(template)
    }

    /// Whether there is any template that was replaced and of which files are there.
    pub(crate) fn has_replaced(&self) -> bool {
        !self.places().replaced.is_empty()
    }

    /// The files of replaced templates that nobody stands on, which are the caller's to remove. The caller says whether
    /// a jail stands on a layer.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn unneeded(&self, stands: impl Fn(&str) -> bool) -> Result<Vec<Files>> {
        let (recipes, mut places) = (self.recipes()?, self.places());
        let mut found = Vec::new();
        // What is not known may stand on any of them.
        if self.incomplete {
            return Ok(found);
        }
        // The files of one may be what keeps those of another.
        while let Some(files) = self.next_unneeded(&recipes, &places, &stands) {
            places.replaced.remove(&files.directory);
            found.push(files);
        }
        Ok(found)
    }

    fn next_unneeded(
        &self,
        recipes: &HashMap<TemplateId, Recipe>,
        places: &Places,
        stands: impl Fn(&str) -> bool,
    ) -> Option<Files> {
        let is_free = |directory: &str, layer: &str| {
            let others = places.replaced.iter().filter(|(other, _)| *other != directory);
            let mut above = recipes.values().chain(others.map(|(_, recipe)| recipe));
            !above.any(|recipe| recipe.layers.iter().any(|other| other == layer))
                // In this order: whoever stops to hold it stands on it before.
                && !self.uses.lock().unwrap_or_else(PoisonError::into_inner).contains_key(layer)
                && !stands(layer)
        };
        let mut all = places.replaced.iter().filter_map(|(directory, recipe)| {
            Some(Files { directory: directory.clone(), layer: recipe.layers.first()?.clone() })
        });
        all.find(|files| is_free(&files.directory, &files.layer))
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Has a directory be that of a template that was replaced. What fails is done again at the next start.
fn set_aside(directory: &Path) {
    if let Err(error) = fs::rename(directory.join(RECORD), directory.join(REPLACED)) {
        tracing::warn!(path = %directory.display(), %error, "the record of a replaced template could not be set aside");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> TemplateId {
        TemplateId::parse(name).unwrap()
    }

    fn layer(name: &str) -> String {
        format!("templates/{name}/rootfs")
    }

    /// Makes a template as an import does, on top of these layers.
    fn make(templates: &Templates, name: &str, below: &[String]) {
        let directory = templates.reserve(&id(name)).unwrap();
        fs::create_dir(directory.join("rootfs")).unwrap();
        let mut layers = vec![layer(name)];
        layers.extend_from_slice(below);
        let template = Template::new(id(name), TemplateSource::Imported);
        templates.add(Recipe { template, layers, host_usr: false }).unwrap();
    }

    fn layers(templates: &Templates, name: &str) -> Vec<String> {
        templates.recipe(Some(&id(name))).unwrap().layers
    }

    #[test]
    fn the_files_of_a_replaced_template_stay_as_long_as_somebody_stands_on_them() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Templates::open(directory.path().to_owned(), false).unwrap();
        let there = |name: &str| directory.path().join(name).join("rootfs").exists();
        let templates = open();
        make(&templates, "agent", &[]);
        make(&templates, "above", &layers(&templates, "agent"));
        make(&templates, "new", &[]);
        let (_, held) = templates.hold(Some(&id("agent"))).unwrap();
        assert_eq!(templates.replace(&id("new"), &id("agent")).unwrap().id, id("agent"));
        assert_eq!(layers(&templates, "agent"), [layer("new")]);
        assert!(matches!(templates.recipe(Some(&id("new"))), Err(Error::NotFound { .. })));
        assert!(templates.has_replaced());
        assert!(templates.unneeded(|_| false).unwrap().is_empty(), "a template stands on them");
        let above = templates.remove(&id("above"), |_| false).unwrap();
        templates.discard(&above.directory);
        assert!(templates.unneeded(|_| false).unwrap().is_empty(), "somebody is about to");
        drop(held);
        assert!(templates.unneeded(|layer| layer == "templates/agent/rootfs").unwrap().is_empty());

        // The next daemon knows which is which, and what jails that it takes back may stand on.
        let templates = open();
        assert_eq!(layers(&templates, "agent"), [layer("new")]);
        assert!(there("agent") && there("new"));
        let files = templates.unneeded(|_| false).unwrap();
        assert_eq!(files, [Files { directory: "agent".to_owned(), layer: layer("agent") }]);
        templates.discard("agent");
        assert!(!templates.has_replaced() && !there("agent"));

        // Again, and gone for good.
        make(&templates, "newer", &[]);
        templates.replace(&id("newer"), &id("agent")).unwrap();
        assert_eq!(templates.unneeded(|_| false).unwrap()[0].directory, "new");
        assert_eq!(templates.remove(&id("agent"), |_| false).unwrap().directory, "newer");
        let templates = open();
        assert!(matches!(templates.recipe(Some(&id("agent"))), Err(Error::NotFound { .. })));
        assert!(!there("newer"));
    }

    #[test]
    fn a_replacement_that_was_cut_short_is_finished_by_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let templates = Templates::open(directory.path().to_owned(), false).unwrap();
        make(&templates, "agent", &[]);
        make(&templates, "new", &[]);
        templates.replace(&id("new"), &id("agent")).unwrap();
        let old = directory.path().join("agent");
        fs::rename(old.join(REPLACED), old.join(RECORD)).unwrap();
        let templates = Templates::open(directory.path().to_owned(), false).unwrap();
        assert_eq!(layers(&templates, "agent"), [layer("new")]);
        assert!(old.join(REPLACED).exists());
        assert_eq!(templates.unneeded(|_| false).unwrap().len(), 1);
    }

    #[test]
    fn only_what_has_files_of_its_own_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let templates = Templates::open(directory.path().to_owned(), false).unwrap();
        make(&templates, "new", &[]);
        templates.declare(Template::new(id("web"), TemplateSource::Layer { base: id("new") })).unwrap();
        templates.reserve(&id("coming")).unwrap();
        for (name, reason) in
            [("host", "TEMPLATE_BUILT_IN"), ("web", "TEMPLATE_DECLARED"), ("coming", "ALREADY_EXISTS")]
        {
            assert_eq!(templates.replace(&id("new"), &id(name)).unwrap_err().reason(), reason);
        }
        assert_eq!(templates.replace(&id("none"), &id("web")).unwrap_err().reason(), "NOT_FOUND");
        // Where there is none such it only gets the name.
        templates.replace(&id("new"), &id("other")).unwrap();
        assert!(!templates.has_replaced());
        assert_eq!(layers(&templates, "other"), [layer("new")]);
    }
}
