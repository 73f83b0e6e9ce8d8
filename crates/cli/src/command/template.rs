//! `hostel template`.

mod build;
mod install;
mod recipe;
mod tool;

use super::{Context, Outcome, SUCCESS, remove_each};
use crate::args::{ImportArgs, TemplateCommand};
use crate::failure::Failure;
use crate::output::{self, human, progress::Progress, table};
use hostel_client::domain::file::Compression;
use hostel_client::domain::template::TemplateSource;
use hostel_client::domain::{BackendName, TemplateId};
use hostel_client::model::Template;
use hostel_client::{Client, ImportTemplate};
use serde_json::json;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

pub(crate) async fn execute(context: &Context, command: TemplateCommand) -> Outcome {
    let client = context.connect().await?;
    match command {
        TemplateCommand::List { quiet, label } => list(context, &client, quiet, &label).await,
        TemplateCommand::Get { name } => {
            let template = client.get_template(&name).await?;
            if context.json {
                output::json(&template)?
            } else {
                output::line(&describe(&template))?
            }
            Ok(SUCCESS)
        }
        TemplateCommand::Build(args) if args.run.is_empty() => recipe::build(context, &client, args).await,
        TemplateCommand::Build(args) => build::build(context, &client, args).await,
        TemplateCommand::Import(args) => import(context, &client, args).await,
        TemplateCommand::InstallCli(args) => install::install(context, &client, args).await,
        TemplateCommand::Rm { names, backend } => {
            let remove = async |name: &TemplateId| client.delete_template_of(name, backend.as_ref()).await;
            remove_each(context, &names, remove).await
        }
    }
}

/// Tells of a template that was made.
fn made(context: &Context, template: &Template) -> Outcome {
    if context.json {
        output::json(template)?;
    } else {
        output::line(template.name.as_str())?;
    }
    Ok(SUCCESS)
}

/// The template of that name that a backend has, if there is one.
async fn existing(
    client: &Client,
    name: &TemplateId,
    backend: &BackendName,
) -> Result<Option<Template>, Failure> {
    match client.get_template_of(name, Some(backend)).await {
        Ok(template) => Ok(Some(template)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn list(context: &Context, client: &Client, quiet: bool, label: &str) -> Outcome {
    let templates = client.list_templates(label).await?;
    if context.json {
        output::json(&json!({ "templates": templates }))?;
    } else if quiet {
        for template in &templates {
            output::line(template.name.as_str())?;
        }
    } else {
        let columns = ["NAME", "ORIGIN", "BACKENDS", "BASE", "SIZE", "SANDBOXES", "AGE", "LABELS"];
        let mut table = table::Table::new(&columns).right(5);
        for template in &templates {
            let base = template.base_template.as_ref().or(template.image.as_ref());
            table.row([
                template.name.to_string(),
                origin(template),
                template.backends.join(","),
                base.cloned().unwrap_or_else(|| "-".to_owned()),
                human::size(template.size_bytes),
                template.sandbox_count.to_string(),
                human::age(template.create_time),
                human::labels(&template.labels),
            ]);
        }
        table.print()?;
    }
    Ok(SUCCESS)
}

fn origin(template: &Template) -> String {
    template.origin.map_or_else(|| "-".to_owned(), |origin| format!("{origin:?}").to_lowercase())
}

fn describe(template: &Template) -> String {
    let env: Vec<_> = template.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let start: Vec<_> = template.start_commands.iter().map(|command| command.argv.join(" ")).collect();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    table::facts(&[
        ("name", template.name.to_string()),
        ("origin", origin(template)),
        ("base", text(&template.base_template)),
        ("image", text(&template.image)),
        ("snapshot of", text(&template.source_sandbox_id)),
        ("declared in", text(&template.declared_in)),
        ("backends", template.backends.join(", ")),
        ("size", template.size_bytes.map_or_else(String::new, |bytes| human::size(Some(bytes)))),
        (
            "created",
            template.create_time.map_or_else(String::new, |time| format!("{} ago", human::age(Some(time)))),
        ),
        ("sandboxes", template.sandbox_count.to_string()),
        ("labels", human::labels(&template.labels)),
        ("user", text(&template.user)),
        ("directory", text(&template.working_directory)),
        ("network", template.network.as_ref().map_or_else(String::new, |policy| policy.mode.to_string())),
        ("env", env.join("\n")),
        ("start", start.join("\n")),
        (
            "probe",
            template.readiness_probe.as_ref().map(|probe| probe.command.argv.join(" ")).unwrap_or_default(),
        ),
    ])
}

async fn import(context: &Context, client: &Client, args: ImportArgs) -> Outcome {
    let mut import = ImportTemplate::new(args.name);
    if let Some(base) = args.base {
        import.template.source = TemplateSource::Layer { base };
    }
    import.backend = args.backend;
    import.template.labels = args.label.into_iter().collect();
    import.template.env = args.env.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    import.template.user = args.user;
    import.template.workdir = args.workdir;
    let template = import_from(client, import, args.source).await?;
    made(context, &template)
}

async fn import_from(client: &Client, import: ImportTemplate, source: PathBuf) -> Result<Template, Failure> {
    let bar = Progress::new(&source.display().to_string(), Progress::total(&source), false);
    let progress = |bytes| bar.add(bytes);
    if source == Path::new("-") {
        return import_archive(client, import, tokio::io::stdin(), &source, &progress).await;
    }
    if source.is_dir() {
        return Ok(client.import_template_directory(import, &source, &progress).await?);
    }
    let archive = tokio::fs::File::open(&source).await.map_err(|error| unreadable(&source, &error))?;
    import_archive(client, import, archive, &source, &progress).await
}

async fn import_archive(
    client: &Client,
    mut import: ImportTemplate,
    archive: impl AsyncRead + Send + Unpin,
    source: &Path,
    progress: &(impl Fn(u64) + Send + Sync),
) -> Result<Template, Failure> {
    let mut archive = BufReader::with_capacity(256 << 10, archive);
    let start = archive.fill_buf().await.map_err(|error| unreadable(source, &error))?;
    import.compression =
        compression(start).map_err(|problem| Failure::usage(format!("{}: {problem}", source.display())))?;
    Ok(client.import_template(import, hostel_client::counted(archive, progress)).await?)
}

fn unreadable(source: &Path, error: &std::io::Error) -> Failure {
    Failure::other("LOCAL_FILE", format!("cannot read {}: {error}", source.display()))
}

/// How an archive is packed, by its first bytes.
fn compression(start: &[u8]) -> Result<Compression, &'static str> {
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Compression::Zstd);
    }
    if start.starts_with(&[0x1f, 0x8b]) {
        return Err("this is gzip; unpack it first: gunzip -c FILE | hostel template import NAME -");
    }
    if start.starts_with(b"\xfd7zXZ") || start.starts_with(b"BZh") {
        return Err("this is xz or bzip2; unpack it first: xz -dc FILE | hostel template import NAME -");
    }
    if start.is_empty() {
        return Err("there is nothing in it");
    }
    Ok(Compression::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_apart_by_their_first_bytes() {
        assert_eq!(compression(&[0x28, 0xb5, 0x2f, 0xfd, 1]), Ok(Compression::Zstd));
        assert_eq!(compression(b"etc/"), Ok(Compression::None));
        assert!(compression(&[0x1f, 0x8b, 8]).unwrap_err().contains("gunzip"));
        assert!(compression(b"").is_err());
    }
}
