//! Templates that are imported.

use crate::archive::{self, Archive};
use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox};
use crate::session::patiently;
use hostel_sandbox::file::Compression;
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{Capability, Error, TemplateId};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

cases! { "templates":
    the_default_template_is_listed,
    a_minimal_root_from_an_archive [TemplateImport],
    a_minimal_root_from_a_compressed_archive [TemplateImport],
    a_minimal_root_from_a_directory [TemplateImport],
    sandboxes_never_change_a_template [TemplateImport, WritableRoot],
    defaults_of_a_template_are_kept [TemplateImport],
    a_taken_name_is_refused [TemplateImport],
    broken_archives_leave_no_template [TemplateImport],
    hostile_archives_stay_inside [TemplateImport],
    a_hostile_root_leads_nowhere [TemplateImport],
    what_is_missing_cannot_be_deleted,
    a_deleted_template_is_gone [TemplateImport],
    a_template_takes_the_place_of_another_one [TemplateImport],
}

type H = Arc<Harness>;

/// A root with nothing but the probe.
fn minimal(h: &Harness) -> Outcome<Archive> {
    Ok(Archive::new()
        .directory("bin/")?
        .file("bin/hostel-probe", 0o755, h.factory().probe())?
        .directory("etc/")?
        .file("etc/marker", 0o640, b"from the template")?
        .symlink("etc/link", "marker")?)
}

async fn import(h: &Harness, archive: Archive, compression: Compression) -> Outcome<TemplateId> {
    let template = h.template(TemplateSource::Imported);
    let id = template.id.clone();
    let mut bytes = archive.bytes()?;
    if compression == Compression::Zstd {
        bytes = zstd::encode_all(bytes.as_slice(), 1)?;
    }
    let import = h.backend();
    let import = import.import_template(template, archive::stream(bytes), compression);
    ensure_eq!(patiently("an import", import).await??.id, id);
    Ok(id)
}

/// Whether a sandbox made of a minimal root works.
async fn works(h: &Harness, sandbox: &Sandbox) -> Outcome {
    let finished = sandbox.run(&["/bin/hostel-probe", "report"]).await?.success()?;
    let report: serde_json::Value = serde_json::from_slice(&finished.stdout)?;
    ensure!(report["pid"].as_u64() > Some(1), "the report is {report}");
    ensure_eq!(sandbox.get("/etc/marker").await?, b"from the template");
    ensure_eq!(sandbox.get("/etc/link").await?, b"from the template");
    ensure_eq!(sandbox.inside()?.stat("/etc/marker", false).await?.mode, 0o640);
    ensure!(!sandbox.exists("/usr/bin").await?, "the host's /usr is in an imported root");
    let own = if h.has(Capability::WritableRoot) { "/etc/own" } else { "/tmp/own" };
    sandbox.put(own, "written").await?;
    ensure_eq!(sandbox.get(own).await?, b"written");
    Ok(())
}

async fn the_default_template_is_listed(h: H) -> Outcome {
    let templates = h.backend().templates().await?;
    ensure!(!templates.is_empty(), "there is no template at all");
    let spec = h.spec();
    ensure!(spec.template.is_none(), "the suite asks for {:?}", spec.template);
    Ok(())
}

async fn a_minimal_root_from_an_archive(h: H) -> Outcome {
    let id = import(&h, minimal(&h)?, Compression::None).await?;
    works(&h, &h.sandbox_from(&id).await?).await
}

async fn a_minimal_root_from_a_compressed_archive(h: H) -> Outcome {
    let id = import(&h, minimal(&h)?, Compression::Zstd).await?;
    works(&h, &h.sandbox_from(&id).await?).await
}

async fn a_minimal_root_from_a_directory(h: H) -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    for name in ["bin", "etc"] {
        std::fs::create_dir(path(name))?;
    }
    for (name, content, mode) in
        [("bin/hostel-probe", h.factory().probe(), 0o755), ("etc/marker", b"from the template", 0o640)]
    {
        std::fs::write(path(name), content)?;
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode))?;
    }
    symlink("marker", path("etc/link"))?;
    let template = h.template(TemplateSource::Imported);
    let id = template.id.clone();
    let backend = h.backend();
    patiently("an import", backend.import_template_directory(template, directory.path())).await??;
    // The directory is not needed any more.
    drop(directory);
    works(&h, &h.sandbox_from(&id).await?).await
}

async fn sandboxes_never_change_a_template(h: H) -> Outcome {
    let id = import(&h, minimal(&h)?, Compression::None).await?;
    let first = h.sandbox_from(&id).await?;
    first.put("/etc/marker", "changed").await?;
    first.inside()?.remove("/etc/link", false).await?;
    first.put("/etc/new", "x").await?;
    works(&h, &h.sandbox_from(&id).await?).await
}

async fn defaults_of_a_template_are_kept(h: H) -> Outcome {
    let mut template = h.template(TemplateSource::Imported);
    template.env = [("FROM".to_owned(), "template".to_owned())].into();
    template.user = Some("1000".to_owned());
    template.workdir = Some("/etc".to_owned());
    template.labels = [("team".to_owned(), "blue".to_owned())].into();
    let wanted = template.clone();
    let bytes = minimal(&h)?.bytes()?;
    let backend = h.backend();
    patiently("an import", backend.import_template(template, archive::stream(bytes), Compression::None))
        .await??;
    let known = backend.templates().await?;
    let Some(known) = known.into_iter().find(|known| known.id == wanted.id) else {
        return Err(crate::Failure::new("it is not listed"));
    };
    ensure_eq!(
        (known.env, known.user, known.workdir, known.labels),
        (wanted.env, wanted.user, wanted.workdir, wanted.labels)
    );
    Ok(())
}

async fn a_taken_name_is_refused(h: H) -> Outcome {
    let id = import(&h, minimal(&h)?, Compression::None).await?;
    let again = Template::new(id.clone(), TemplateSource::Imported);
    let bytes = Archive::new().file("other", 0o644, b"x")?.bytes()?;
    let backend = h.backend();
    let import = backend.import_template(again, archive::stream(bytes), Compression::None);
    ensure_err!(patiently("an import", import).await?, Error::AlreadyExists { .. });
    works(&h, &h.sandbox_from(&id).await?).await
}

async fn refused(
    h: &Harness,
    what: &str,
    stream: hostel_sandbox::file::ByteStream,
    compression: Compression,
) -> Outcome {
    let template = h.template(TemplateSource::Imported);
    let id = template.id.clone();
    let backend = h.backend();
    let imported = patiently(what, backend.import_template(template, stream, compression)).await?;
    ensure!(imported.is_err(), "{what} was taken");
    let known = backend.templates().await?;
    ensure!(known.iter().all(|template| template.id != id), "{what} left a template");
    ensure_err!(h.sandbox_from_result(&id).await, Error::NotFound { .. });
    Ok(())
}

async fn broken_archives_leave_no_template(h: H) -> Outcome {
    let whole = minimal(&h)?.bytes()?;
    let cut = whole[..whole.len() / 2].to_vec();
    let noise = crate::pattern::bytes(1, 0, 100_000);
    refused(&h, "noise", archive::stream(noise.clone()), Compression::None).await?;
    refused(&h, "noise as zstd", archive::stream(noise), Compression::Zstd).await?;
    refused(&h, "a cut archive", archive::stream(cut), Compression::None).await?;
    refused(&h, "a broken source", archive::broken_stream(whole), Compression::None).await
}

async fn hostile_archives_stay_inside(h: H) -> Outcome {
    let name = format!("hostel-evil-{}", uuid::Uuid::new_v4());
    let outside = tempfile::tempdir()?;
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "safe")?;
    let (directory, victim_path) =
        (outside.path().to_string_lossy().into_owned(), victim.to_string_lossy().into_owned());
    let archives = [
        minimal(&h)?.file(&format!("../../../../../../tmp/{name}"), 0o644, b"evil")?,
        minimal(&h)?.file(&format!("/tmp/{name}"), 0o644, b"evil")?,
        minimal(&h)?.symlink("l", &directory)?.file(&format!("l/{name}"), 0o644, b"evil")?,
        minimal(&h)?.symlink("f", &victim_path)?.file("f", 0o644, b"evil")?,
        minimal(&h)?.hard_link("f", &victim_path)?.file("f", 0o644, b"evil")?,
    ];
    for archive in archives {
        let template = h.template(TemplateSource::Imported);
        let backend = h.backend();
        let import = backend.import_template(template, archive::stream(archive.bytes()?), Compression::None);
        if let Err(error) = patiently("an import", import).await? {
            ensure_err!(Err::<(), _>(error), Error::InvalidArgument { .. });
        }
        ensure!(
            !std::path::Path::new("/tmp").join(&name).exists(),
            "the archive wrote /tmp/{name} on the host"
        );
        ensure!(!outside.path().join(&name).exists(), "the archive wrote through a link on the host");
        ensure_eq!(std::fs::read_to_string(&victim)?, "safe");
    }
    Ok(())
}

/// Directories on which something is mounted are links: the mounts must not follow them out.
async fn a_hostile_root_leads_nowhere(h: H) -> Outcome {
    let outside = tempfile::tempdir()?;
    let target = outside.path().to_string_lossy().into_owned();
    for name in ["proc", "dev", "tmp", "run", "usr", "sys"] {
        let archive = minimal(&h)?.symlink(name, &target)?;
        let template = h.template(TemplateSource::Imported);
        let id = template.id.clone();
        let backend = h.backend();
        let import = backend.import_template(template, archive::stream(archive.bytes()?), Compression::None);
        if patiently("an import", import).await?.is_ok()
            && let Ok(sandbox) = h.sandbox_from_result(&id).await
        {
            // It may be refused; if not, it is a sandbox like any other.
            let _ = sandbox.run(&["/bin/hostel-probe", "report"]).await;
            sandbox.destroy().await?;
        }
        let seen: Vec<_> =
            std::fs::read_dir(outside.path())?.flatten().map(|entry| entry.file_name()).collect();
        ensure!(seen.is_empty(), "a root with a link at /{name} made {seen:?} on the host");
    }
    Ok(())
}

async fn a_template_takes_the_place_of_another_one(h: H) -> Outcome {
    let name = import(&h, minimal(&h)?, Compression::None).await?;
    let before = h.sandbox_from(&name).await?;
    let version = h.backend().template_version(&name).await?;
    let other = minimal(&h)?.file("etc/second", 0o644, b"another")?;
    let made = import(&h, other, Compression::None).await?;
    let wanted = h.backend().templates().await?.into_iter().find(|template| template.id == made);
    let replaced = h.backend().replace_template(&made, &name).await?;
    ensure_eq!(replaced.id, name);
    ensure_eq!(Some(replaced.created), wanted.map(|template| template.created));
    if version.is_some() {
        ensure!(h.backend().template_version(&name).await? != version, "what stands behind it is the same");
    }
    let known: Vec<_> = h.backend().templates().await?.into_iter().map(|template| template.id).collect();
    ensure_eq!((known.contains(&name), known.contains(&made)), (true, false));
    ensure_err!(h.sandbox_from_result(&made).await, Error::NotFound { .. });

    let after = h.sandbox_from(&name).await?;
    works(&h, &after).await?;
    ensure_eq!(after.get("/etc/second").await?, b"another");
    // The one before it goes on with its own files.
    works(&h, &before).await?;
    ensure!(!before.exists("/etc/second").await?, "a sandbox has files of the template after it");
    before.destroy().await?;
    works(&h, &h.sandbox_from(&name).await?).await?;
    ensure_err!(h.backend().replace_template(&made, &name).await, Error::NotFound { .. });
    Ok(())
}

async fn what_is_missing_cannot_be_deleted(h: H) -> Outcome {
    let id = TemplateId::generate();
    ensure_err!(
        h.backend().delete_template(&id).await,
        Error::NotFound { .. } | Error::CapabilityMissing { .. }
    );
    Ok(())
}

async fn a_deleted_template_is_gone(h: H) -> Outcome {
    let id = import(&h, minimal(&h)?, Compression::None).await?;
    h.backend().delete_template(&id).await?;
    ensure_err!(h.sandbox_from_result(&id).await, Error::NotFound { .. });
    ensure!(h.backend().templates().await?.iter().all(|template| template.id != id), "it is still listed");
    ensure_err!(h.backend().delete_template(&id).await, Error::NotFound { .. });
    Ok(())
}
