//! The templates of jails: a directory each below the state directory, with its files and what is known of it.
//!
//! A template is a stack of layers, uppermost first, as paths in the zygote's world: `templates/…` for what
//! was imported or generated, `cells/template-…` for what was snapshotted in the pool.
//!
//! A template's directory has its name, unless it took the place of another one: those that stand on that one's files
//! know them by their path.

mod host;
mod import;
mod replace;

pub(crate) use import::{import_archive, import_directory};
pub(crate) use replace::Files;

use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{Capability, Error, Result, TemplateId};
use replace::{Places, REPLACED, Record};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The name of the template that needs no import.
pub(crate) const HOST: &str = "host";
const RECORD: &str = "template.json";
/// Most layers of one template, as the zygote has places for.
const MAX_LAYERS: usize = 60;

/// A template and how to stack it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Recipe {
    pub(crate) template: Template,
    pub(crate) layers: Vec<String>,
    /// The host's `/usr` comes on top, read-only.
    pub(crate) host_usr: bool,
}

/// All templates of this daemon.
pub(crate) struct Templates {
    directory: PathBuf,
    recipes: Mutex<HashMap<TemplateId, Recipe>>,
    /// Taken after the recipes.
    places: Mutex<Places>,
    /// A record could not be read: what it says is not known, nor then what nobody needs.
    incomplete: bool,
    uses: Uses,
}

/// How many are about to stand on a layer, by its path.
type Uses = Arc<Mutex<HashMap<String, usize>>>;

/// Layers that nobody removes, for as long as this is kept: until a jail, or another template, stands on them.
#[derive(Debug)]
pub(crate) struct Held {
    layers: Vec<String>,
    uses: Uses,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in &self.layers {
            if let Some(count) = uses.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    uses.remove(layer);
                }
            }
        }
    }
}

impl Templates {
    /// Reads what is there, makes `host` anew where the host has changed, and forgets half-imported ones.
    ///
    /// # Errors
    /// `Internal` where the directory cannot be read or written.
    pub(crate) fn open(directory: PathBuf, own_ids: bool) -> Result<Self> {
        let fail =
            |error: io::Error| Error::internal(format!("read templates in {}", directory.display()), error);
        let (mut records, mut places, mut incomplete) = (Vec::new(), Places::default(), false);
        for entry in fs::read_dir(&directory).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            match fs::read(path.join(RECORD)).map(|bytes| serde_json::from_slice::<Record>(&bytes)) {
                Ok(Ok(record)) => records.push((path, record)),
                Ok(Err(error)) => {
                    incomplete = true;
                    tracing::warn!(path = %path.display(), %error, "a template's record cannot be read");
                }
                Err(error) if path.join(RECORD).exists() => {
                    incomplete = true;
                    tracing::warn!(path = %path.display(), %error, "a template's record cannot be read");
                }
                Err(_) if path.file_name().is_some_and(|name| name == HOST) => {}
                Err(_) if path.join(REPLACED).exists() => incomplete |= !places.take_replaced(&path),
                Err(_) => remove_in_place(&path),
            }
        }
        let mut recipes = places.settle(records);
        let host = host::generate(&directory, own_ids).map_err(fail)?;
        for recipe in recipes.values_mut() {
            let on_host = recipe.template.source.base() == Some(&host.template.id);
            // What was imported on top of the host's files goes on top of them as they are now. A snapshot stays
            // with those that it was taken on: it may hold what was removed from them.
            if on_host && matches!(recipe.template.source, TemplateSource::Layer { .. }) {
                recipe.layers.truncate(1);
                recipe.layers.extend(host.layers.iter().cloned());
            }
        }
        places.take_earlier(host::earlier(&directory, &host).map_err(fail)?);
        recipes.insert(host.template.id.clone(), host);
        let (recipes, places) = (Mutex::new(recipes), Mutex::new(places));
        Ok(Self { directory, recipes, places, incomplete, uses: Uses::default() })
    }

    /// The names of all layers in the pool that templates consist of; `None` where that is not known.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn pool_layers(&self) -> Result<Option<HashSet<String>>> {
        let (recipes, places) = (self.recipes()?, self.places());
        let layers = recipes.values().chain(places.replaced()).flat_map(|recipe| &recipe.layers);
        let names = layers.filter_map(|layer| layer.strip_prefix("cells/")?.split('/').next());
        Ok((!self.incomplete).then(|| names.map(str::to_owned).collect()))
    }

    fn recipes(&self) -> Result<std::sync::MutexGuard<'_, HashMap<TemplateId, Recipe>>> {
        self.recipes
            .lock()
            .map_err(|_| Error::internal("look templates up", "a task broke while it changed them"))
    }

    /// How to make a sandbox from a template.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn recipe(&self, id: Option<&TemplateId>) -> Result<Recipe> {
        find(&*self.recipes()?, id)
    }

    /// The same for whoever is about to use it: it is not removed meanwhile.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn hold(&self, id: Option<&TemplateId>) -> Result<(Recipe, Held)> {
        // Under the lock that removals take too.
        let recipes = self.recipes()?;
        let recipe = find(&recipes, id)?;
        let held = self.hold_layers(&recipe.layers);
        Ok((recipe, held))
    }

    /// Holds layers that somebody stands on already.
    pub(crate) fn hold_layers(&self, layers: &[String]) -> Held {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        layers.iter().for_each(|layer| *uses.entry(layer.clone()).or_default() += 1);
        Held { layers: layers.to_vec(), uses: self.uses.clone() }
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn list(&self) -> Result<Vec<Template>> {
        let mut list: Vec<Template> =
            self.recipes()?.values().map(|recipe| recipe.template.clone()).collect();
        list.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(list)
    }

    /// The template that one to be imported goes on top of, if any. Any other source becomes an import.
    ///
    /// # Errors
    /// `NotFound` for the one below.
    pub(crate) fn below(&self, template: &mut Template) -> Result<Option<(Recipe, Held)>> {
        if let TemplateSource::Layer { base } = &template.source {
            return self.hold(Some(base)).map(Some);
        }
        template.source = TemplateSource::Imported;
        Ok(None)
    }

    /// Makes a template known that has the files of the one below it, until the daemon ends.
    ///
    /// # Errors
    /// `NotFound` for the one below; `AlreadyExists`; `CapabilityMissing` for any other source.
    pub(crate) fn declare(&self, template: Template) -> Result<Template> {
        let TemplateSource::Layer { base } = &template.source else {
            let detail = format!("{}: a jail's template needs a root file system or a base", template.id);
            return Err(Error::missing(Capability::TemplateImport, detail));
        };
        let mut recipes = self.recipes()?;
        let below = find(&recipes, Some(base))?;
        // What has a directory was made otherwise.
        if *base == template.id || self.is_made(&template.id) {
            return Err(Error::AlreadyExists { kind: "template", id: template.id.to_string() });
        }
        let recipe = Recipe { template, ..below };
        recipes.insert(recipe.template.id.clone(), recipe.clone());
        Ok(recipe.template)
    }

    /// A directory for a new template. Without [`Self::add`] it is forgotten at the next start.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub(crate) fn reserve(&self, id: &TemplateId) -> Result<PathBuf> {
        if self.recipes()?.contains_key(id) {
            return Err(Error::AlreadyExists { kind: "template", id: id.to_string() });
        }
        let directory = self.directory.join(id.as_str());
        match fs::create_dir(&directory) {
            Ok(()) => Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.places().must_not_keep(id.as_str())?;
                Err(Error::AlreadyExists { kind: "template", id: id.to_string() })
            }
            Err(error) => Err(Error::internal(format!("make {}", directory.display()), error)),
        }
    }

    /// Gives a reserved directory up.
    pub(crate) fn give_up(&self, id: &TemplateId) {
        self.discard(id.as_str());
    }

    /// Removes a directory that no template has any more.
    pub(crate) fn discard(&self, directory: &str) {
        remove_in_place(&self.directory.join(directory));
    }

    /// Makes a template known, for good.
    ///
    /// # Errors
    /// `Internal` where its record cannot be written.
    pub(crate) fn add(&self, recipe: Recipe) -> Result<Template> {
        if recipe.layers.len() > MAX_LAYERS {
            return Err(Error::LimitReached {
                what: "layers",
                detail: format!(
                    "a template stands on at most {MAX_LAYERS} snapshots; export the files and import them as one"
                ),
            });
        }
        let template = recipe.template.clone();
        let record = Record { recipe, replaces: None };
        record.write(&self.directory.join(template.id.as_str()))?;
        self.recipes()?.insert(template.id.clone(), record.recipe);
        Ok(template)
    }

    /// Forgets a template. Its files are the caller's to remove, who says whether a jail stands on a layer.
    ///
    /// # Errors
    /// `NotFound`; `WrongState` for `host`, and where a jail or another template stands on it or is about to.
    pub(crate) fn remove(&self, id: &TemplateId, stands: impl FnOnce(&str) -> bool) -> Result<Files> {
        let mut recipes = self.recipes()?;
        let recipe = recipes.get(id).cloned().ok_or_else(|| Error::not_found("template", id))?;
        if recipe.template.source == TemplateSource::Host {
            return Err(Error::wrong_state("TEMPLATE_BUILT_IN", "the template host is part of the backend"));
        }
        let above = recipes.values().find(|other| {
            other.template.id != *id && recipe.layers.first().is_some_and(|own| other.layers.contains(own))
        });
        if let Some(above) = above {
            return Err(Error::wrong_state(
                "TEMPLATE_IN_USE",
                format!("the template {} stands on it; remove that first", above.template.id),
            ));
        }
        let own = recipe.layers.first().map_or("", String::as_str);
        // In this order: whoever stops to hold it stands on it before.
        let held = self.uses.lock().unwrap_or_else(PoisonError::into_inner).contains_key(own);
        if held || stands(own) {
            return Err(Error::wrong_state(
                "TEMPLATE_IN_USE",
                format!("sandboxes made from the template {id} still run; remove them first"),
            ));
        }
        // Before anything else is removed: a half-removed template must not come back.
        let mut places = self.places();
        let directory = places.of(id);
        fs::remove_file(self.directory.join(&directory).join(RECORD))
            .map_err(|error| Error::internal(format!("forget the template {id}"), error))?;
        recipes.remove(id);
        places.forget(id);
        Ok(Files { directory, layer: recipe.layers.into_iter().next().unwrap_or_default() })
    }
}

fn find(recipes: &HashMap<TemplateId, Recipe>, id: Option<&TemplateId>) -> Result<Recipe> {
    let name = id.map_or(HOST, TemplateId::as_str);
    let mut known = recipes.iter();
    let found = known.find(|(known, _)| known.as_str() == name).map(|(_, recipe)| recipe.clone());
    found.ok_or_else(|| Error::not_found("template", name))
}

/// Removes a directory; leftovers go at the next start.
fn remove_in_place(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "a template's files could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_is_about_to_be_used_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let templates = Templates::open(directory.path().to_owned(), false).unwrap();
        let id = TemplateId::parse("base").unwrap();
        templates.reserve(&id).unwrap();
        let layers = vec!["templates/base/rootfs".to_owned()];
        let template = Template::new(id.clone(), TemplateSource::Imported);
        templates.add(Recipe { template, layers: layers.clone(), host_usr: false }).unwrap();
        let remove = |stands: bool| templates.remove(&id, |_| stands);
        // By a creation, an import on top of it, and whoever copies a jail.
        let (recipe, creation) = templates.hold(Some(&id)).unwrap();
        let mut above =
            Template::new(TemplateId::parse("above").unwrap(), TemplateSource::Layer { base: id.clone() });
        let import = templates.below(&mut above).unwrap();
        let copy = templates.hold_layers(&recipe.layers);
        assert!(matches!(remove(false), Err(Error::WrongState { .. })));
        drop((creation, copy));
        assert!(matches!(remove(false), Err(Error::WrongState { .. })));
        drop(import);
        assert!(matches!(remove(true), Err(Error::WrongState { .. })));
        assert_eq!(remove(false).unwrap().layer, layers[0]);
        assert!(matches!(templates.hold(Some(&id)), Err(Error::NotFound { .. })));
    }
}
