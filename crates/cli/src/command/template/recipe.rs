//! `hostel template build` of an image recipe: `docker build`, and for jails the image's files as a root file system.

use super::{existing, made, tool};
use crate::args::BuildArgs;
use crate::command::{Context, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::signals::Signals;
use hostel_client::domain::template::{Template, TemplateSource};
use hostel_client::domain::{BackendName, TemplateId};
use hostel_client::model::Template as Made;
use hostel_client::{Client, ImportTemplate};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;
use tokio::io::AsyncWriteExt as _;

/// The label that says of which image a template was made.
const IMAGE: &str = "hostel.image-id";
/// The label that says of which image, and as what template: what has the same needs no building.
const BUILD: &str = "hostel.build";
/// The label with the record of a template, as the backend docker has it.
const RECORD: &str = "hostel.template";
/// Where images of templates that are gone wait for the last sandbox that stands on them, as the backend docker has it.
const DELETED: &str = "hostel-deleted";
/// Where recipes are when nobody says.
const PLACES: [&str; 2] = ["images", "/usr/share/hostel/images"];
const JAIL: &str = "jail";
const DOCKER: &str = "docker";
const WITHOUT_DOCKER: &str = "building an image takes Docker: install it, or set DOCKER_HOST to an engine; \
    `hostel template install-cli` needs none";

/// What an image says of its containers.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ImageConfig {
    env: Option<Vec<String>>,
    user: String,
    working_dir: String,
}

pub(super) async fn build(context: &Context, client: &Client, args: BuildArgs) -> Outcome {
    let backend = match args.backend.clone() {
        Some(backend) => backend,
        None => BackendName::parse(JAIL).map_err(hostel_client::Error::from)?,
    };
    if ![JAIL, DOCKER].contains(&backend.as_str()) {
        return Err(Failure::usage(format!("{backend} takes no images: --backend jail or docker")));
    }
    let recipes = recipes(args.recipes.as_deref(), &args.name)?;
    let mut wanted = wanted(&recipes, &args)?;
    let mut signals = Signals::listen()?;
    let (image, id) = signals.guard(Box::pin(image(&recipes, &args.name))).await?;
    let build = fingerprint(&wanted, &id)?;
    wanted.labels.extend([(IMAGE.to_owned(), id), (BUILD.to_owned(), build.clone())]);
    let old = existing(client, &args.name, &backend).await?;
    if let Some(template) = &old {
        if template.labels.get(BUILD) == Some(&build)
            || template.image.as_ref().is_some_and(|other| is(other, &image))
        {
            output::note(&format!("{backend} has this template {} already", args.name));
            return made(context, template);
        }
        if !args.replace {
            let message = format!(
                "{backend} has another template {}: --replace replaces it, `hostel template rm {0}` removes it",
                args.name
            );
            return Err(Failure::other("TEMPLATE_EXISTS", message));
        }
    }
    let template = if backend.as_str() == DOCKER {
        signals.guard(Box::pin(name(client, &backend, wanted, &image, old.as_ref()))).await?
    } else {
        import(client, wanted, &image, args.replace, &mut signals).await?
    };
    made(context, &template)
}

/// Builds the image of a recipe. → its name and its id.
async fn image(recipes: &Path, name: &TemplateId) -> Result<(String, String), Failure> {
    let version = ["version", "--format", "{{.Server.Version}}"];
    tool::output(tool::command("docker").args(version), WITHOUT_DOCKER).await.map_err(|error| {
        Failure::other("DOCKER_UNUSABLE", format!("{}; {WITHOUT_DOCKER}", error.message()))
    })?;
    let mut script = tool::command(&recipes.join("build.sh").display().to_string());
    let said = tool::output_shown(script.arg(name.as_str()), "the recipes' build.sh is missing").await?;
    let image = said.lines().last().unwrap_or_default().to_owned();
    let id = inspect(&image, "{{.Id}}").await?;
    Ok((image, id))
}

/// What a template of an image is, whenever it is made.
fn fingerprint(wanted: &Template, image: &str) -> Result<String, Failure> {
    let timeless = Template { created: SystemTime::UNIX_EPOCH, ..wanted.clone() };
    let mut digest = Sha256::new_with_prefix(image);
    digest.update(in_json(&timeless)?);
    Ok(hex(&digest.finalize()[..16]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn in_json(template: &Template) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(template).map_err(|error| Failure::other("JSON", error.to_string()))
}

/// Whether two references name one image; the tag `latest` need not be said.
fn is(one: &str, other: &str) -> bool {
    let bare = |reference: &str| reference.strip_suffix(":latest").unwrap_or(reference).to_owned();
    bare(one) == bare(other)
}

/// Makes the image a template of the backend docker: those are the images `hostel/NAME` that carry the template's
/// record, JSON in hexadecimal, in a label. `old` is the one that the daemon has under this name, whose place the new one
/// takes: there is always one, and pools see that it is another.
async fn name(
    client: &Client,
    backend: &BackendName,
    wanted: Template,
    image: &str,
    old: Option<&Made>,
) -> Result<Made, Failure> {
    let tag = format!("hostel/{}:latest", wanted.id);
    if let Some(file) = old.and_then(|old| old.declared_in.as_ref()) {
        let message = format!(
            "the template {} is declared in {file}: remove that file and restart the daemon",
            wanted.id
        );
        return Err(Failure::other("TEMPLATE_DECLARED", message));
    }
    must_be_free(&tag, old).await?;
    let record = hex(&in_json(&wanted)?);
    let mut docker = tool::command("docker");
    docker.args(["build", "--quiet", "-"]).stdin(Stdio::piped());
    docker.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tool::start(&mut docker, WITHOUT_DOCKER)?;
    if let Some(mut stdin) = child.stdin.take() {
        let recipe = format!("FROM {image}\nLABEL {RECORD}={record}\n");
        // Where docker does not listen, it says why.
        let _ = stdin.write_all(recipe.as_bytes()).await;
    }
    let said = tool::finish(child, &docker).await?;
    let labelled = said.lines().last().unwrap_or_default();
    let name_image = async |image: &str, name: &str| {
        tool::output(tool::command("docker").args(["tag", image, name]), WITHOUT_DOCKER).await
    };
    let aside = format!("{DELETED}:{}", TemplateId::generate());
    if old.is_some() {
        name_image(&tag, &aside).await?;
    }
    name_image(labelled, &tag).await?;
    let made = match existing(client, &wanted.id, backend).await? {
        Some(made) if made.labels.get(BUILD) == wanted.labels.get(BUILD) => Ok(made),
        // Nobody would find it there.
        _ if old.is_some() => {
            name_image(&aside, &tag).await?;
            Err(elsewhere("does not see the image that was made"))
        }
        _ => {
            let mut docker = tool::command("docker");
            let removed = tool::output(docker.args(["rmi", "--no-prune", &tag]), WITHOUT_DOCKER).await;
            if let Err(error) = removed {
                output::note(&format!("the image {tag} is left: {}", error.message()));
            }
            Err(elsewhere("does not see the image that was made"))
        }
    };
    if old.is_some() {
        // Where sandboxes stand on it, it goes with the last of them: the daemon sees to that.
        let _ = tool::output(tool::command("docker").args(["rmi", &aside]), WITHOUT_DOCKER).await;
    }
    made
}

/// Fails where an image has that name which is not the daemon's template: ours would take the name away from it.
async fn must_be_free(tag: &str, old: Option<&Made>) -> Result<(), Failure> {
    let is_expected = old.is_some();
    let mut list = tool::command("docker");
    list.args(["image", "ls", "--quiet", "--filter", &format!("reference={tag}")]);
    let is_there = !tool::output(&mut list, WITHOUT_DOCKER).await?.is_empty();
    if !is_there {
        return if is_expected { Err(elsewhere("has another template of this name")) } else { Ok(()) };
    }
    if inspect(tag, &format!("{{{{index .Config.Labels {RECORD:?}}}}}")).await?.is_empty() {
        let message = format!(
            "there is an image {tag}, which is no template: give it another name (docker tag, docker rmi), or the recipe"
        );
        return Err(Failure::other("IMAGE_EXISTS", message));
    }
    if is_expected {
        Ok(())
    } else {
        Err(elsewhere(&format!("does not see the template {tag} that is there")))
    }
}

/// Of a daemon whose engine is not ours.
fn elsewhere(what: &str) -> Failure {
    let ours =
        std::env::var("DOCKER_HOST").unwrap_or_else(|_| "the one that `docker` uses by itself".to_owned());
    let message = format!(
        "the daemon {what}: images are built on the engine {ours}, and its backend docker is off, or uses another one; \
         set DOCKER_HOST to what hosteld has (`hostel doctor` tells whether it reaches it)"
    );
    Failure::other("OTHER_ENGINE", message)
}

/// The directory of recipes that has this one.
fn recipes(given: Option<&Path>, name: &TemplateId) -> Result<PathBuf, Failure> {
    let places: Vec<PathBuf> = match given {
        Some(place) => vec![place.to_owned()],
        None => PLACES.iter().map(PathBuf::from).collect(),
    };
    let found = places.iter().find(|place| place.join(name.as_str()).join("Dockerfile").is_file());
    let shown: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    let missing = || {
        let message = format!(
            "there is no recipe {name}/Dockerfile in {}: say where with --recipes, or what to run with --run",
            shown.join(" or ")
        );
        Failure::other("NO_RECIPE", message)
    };
    let found = found.ok_or_else(missing)?;
    found.canonicalize().map_err(|error| Failure::other("NO_RECIPE", format!("{}: {error}", found.display())))
}

/// The template as its recipe declares it.
fn wanted(recipes: &Path, args: &BuildArgs) -> Result<Template, Failure> {
    let file = recipes.join(args.name.as_str()).join("template.toml");
    let mut template = Template::new(args.name.clone(), TemplateSource::Imported);
    if file.is_file() {
        let declared = hosteld::templates::read_file(&file).map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Failure::other("TEMPLATE_FILE", lines.join("\n"))
        })?;
        template = Template { id: args.name.clone(), ..declared.template };
    }
    template.labels.extend(args.label.iter().cloned());
    Ok(template)
}

async fn inspect(image: &str, format: &str) -> Result<String, Failure> {
    let mut docker = tool::command("docker");
    docker.args(["image", "inspect", "--format", format, image]);
    tool::output(&mut docker, WITHOUT_DOCKER).await
}

async fn import(
    client: &Client,
    mut template: Template,
    image: &str,
    replace: bool,
    signals: &mut Signals,
) -> Result<Made, Failure> {
    let config = inspect(image, "{{json .Config}}").await?;
    let config: ImageConfig = serde_json::from_str(&config).map_err(|error| {
        Failure::other("TOOL_FAILED", format!("docker said what nobody understands: {error}"))
    })?;
    template.inherit(&defaults(config, &template.id));
    let size = inspect(image, "{{.Size}}").await?.parse().ok();
    let backend = BackendName::parse(JAIL).map_err(hostel_client::Error::from)?;
    // Named by us, so that it can be removed also where docker is ended before it says a name.
    let container = format!("hostel-export-{}", TemplateId::generate());
    let mut docker = tool::command("docker");
    // It is never started: the command only has to be one.
    docker.args(["create", "--name", &container, image, "true"]);
    let created = tool::output(&mut docker, WITHOUT_DOCKER).await;
    let is_there = created.is_ok();
    let exported = match created {
        Ok(_) => {
            let mut import = ImportTemplate::new(template.id.clone());
            (import.template, import.backend, import.replace) = (template, Some(backend), replace);
            let mut docker = tool::command("docker");
            docker.args(["export", &container]);
            let exported = tool::import(client, import, &mut docker, WITHOUT_DOCKER, size);
            signals.guard(Box::pin(exported)).await
        }
        Err(failure) => Err(failure),
    };
    let mut docker = tool::command("docker");
    let removed = tool::output(docker.args(["rm", "--force", "--volumes", &container]), WITHOUT_DOCKER).await;
    if let (true, Err(error)) = (is_there, removed) {
        output::note(&format!("the container {container} is left: {}", error.message()));
    }
    exported
}

/// What the image says, as far as the recipe's template does not.
fn defaults(config: ImageConfig, name: &TemplateId) -> Template {
    let mut template = Template::new(name.clone(), TemplateSource::Imported);
    let variables = config.env.unwrap_or_default();
    let pairs = variables.iter().filter_map(|variable| variable.split_once('='));
    template.env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    template.user = Some(config.user).filter(|user| !user.is_empty());
    template.workdir = Some(config.working_dir).filter(|directory| !directory.is_empty());
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_how_its_containers_are() {
        let config = r#"{"Env":["PATH=/bin","A=b=c"],"User":"agent","WorkingDir":"/workspace","Cmd":null}"#;
        let template = defaults(serde_json::from_str(config).unwrap(), &TemplateId::parse("agent").unwrap());
        assert_eq!(template.env["A"], "b=c");
        assert_eq!(
            (template.user.as_deref(), template.workdir.as_deref()),
            (Some("agent"), Some("/workspace"))
        );
        assert!(serde_json::from_str::<ImageConfig>(r#"{"Env":null}"#).is_ok());
    }

    #[test]
    fn a_template_is_another_with_another_image_or_anything_else_in_its_file() {
        let template = |user: &str| {
            let mut template = Template::new(TemplateId::parse("agent").unwrap(), TemplateSource::Imported);
            template.user = Some(user.to_owned());
            template
        };
        let (one, mut later) = (template("agent"), template("agent"));
        later.created += std::time::Duration::from_secs(60);
        assert_eq!(fingerprint(&one, "sha256:1").unwrap(), fingerprint(&later, "sha256:1").unwrap());
        assert_ne!(fingerprint(&one, "sha256:1").unwrap(), fingerprint(&one, "sha256:2").unwrap());
        assert_ne!(
            fingerprint(&one, "sha256:1").unwrap(),
            fingerprint(&template("root"), "sha256:1").unwrap()
        );
    }

    #[test]
    fn a_recipe_that_is_not_there_is_told() {
        let place = tempfile::tempdir().unwrap();
        let name = TemplateId::parse("nothing").unwrap();
        let message = recipes(Some(place.path()), &name).unwrap_err().message();
        assert!(message.contains("nothing/Dockerfile") && message.contains("--run"), "{message}");
    }
}
