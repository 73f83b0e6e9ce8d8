//! Snapshots and forks.

use crate::case::cases;
use crate::failure::{Outcome, ensure, ensure_eq, ensure_err};
use crate::harness::{Harness, Sandbox, script};
use crate::session::patiently;
use futures::future::try_join_all;
use hostel_sandbox::process::ProcessSpec;
use hostel_sandbox::template::{Template, TemplateSource};
use hostel_sandbox::{Capability, Error, SandboxId, TemplateId};
use std::sync::Arc;

cases! { "snapshot":
    a_snapshot_is_a_template [Snapshot],
    the_original_goes_on_independently [Snapshot],
    sandboxes_of_one_snapshot_are_independent [Snapshot],
    a_snapshot_of_a_snapshot [Snapshot],
    modes_owners_links_and_removals_survive [Snapshot],
    a_snapshot_is_taken_while_processes_write [Snapshot],
    a_taken_name_is_refused [Snapshot],
    a_snapshot_outlives_its_sandbox [Snapshot],
    a_snapshot_can_be_deleted_while_used [Snapshot],
    a_sparse_file_takes_no_more_than_a_disk_holds [Snapshot, DiskLimit],
    a_fork_sees_the_files_and_diverges [Fork],
    a_fork_has_no_processes [Fork],
    a_fork_outlives_its_parent [Fork],
    a_fork_of_a_fork [Fork],
    many_forks_at_once [Fork],
    a_fork_has_limits_of_its_own [Fork, PidsLimit],
}

type H = Arc<Harness>;

async fn snapshot(h: &Harness, sandbox: &Sandbox) -> Outcome<TemplateId> {
    let base = TemplateId::parse("host")?;
    let template = h.template(TemplateSource::Snapshot { base, sandbox: None });
    let id = template.id.clone();
    let made = patiently("a snapshot", sandbox.snapshot(template)).await??;
    ensure_eq!(made.id, id);
    ensure!(matches!(made.source, TemplateSource::Snapshot { .. }), "its source is {:?}", made.source);
    Ok(id)
}

async fn a_snapshot_is_a_template(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir -p /tmp/work; echo saved > /tmp/work/file").await?;
    let id = snapshot(&h, &sandbox).await?;
    let known: Vec<TemplateId> =
        h.backend().templates().await?.into_iter().map(|template| template.id).collect();
    ensure!(known.contains(&id), "{id} is not among {known:?}");
    let copy = h.sandbox_from(&id).await?;
    ensure_eq!(copy.sh("cat /tmp/work/file; ls /usr/bin/env").await?, "saved\n/usr/bin/env\n");
    Ok(())
}

async fn the_original_goes_on_independently(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let mut session = sandbox
        .open(script("echo 1 > /tmp/n; echo on; while [ ! -e /tmp/go ]; do sleep 0.05; done; cat /tmp/n"))
        .await?;
    session.reader.until("on").await?;
    let id = snapshot(&h, &sandbox).await?;
    let copy = h.sandbox_from(&id).await?;
    sandbox.sh("echo 2 > /tmp/n; echo x > /tmp/later; touch /tmp/go").await?;
    ensure_eq!(session.finish().await?.success()?.text(), "on\n2\n");
    ensure_eq!(copy.sh("cat /tmp/n; ls /tmp").await?, "1\nn\n");
    let second = h.sandbox_from(&id).await?;
    ensure_eq!(second.sh("cat /tmp/n; ls /tmp").await?, "1\nn\n");
    Ok(())
}

async fn sandboxes_of_one_snapshot_are_independent(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("echo base > /tmp/f; mkdir /tmp/d").await?;
    let id = snapshot(&h, &sandbox).await?;
    let copies = try_join_all((0..4).map(|_| h.sandbox_from(&id))).await?;
    for (number, copy) in copies.iter().enumerate() {
        copy.sh(&format!("cat /tmp/f; echo {number} > /tmp/f; rm -r /tmp/d; echo > /tmp/own{number}"))
            .await?;
    }
    for (number, copy) in copies.iter().enumerate() {
        ensure_eq!(copy.sh("cat /tmp/f; ls /tmp").await?, format!("{number}\nf\nown{number}\n"));
    }
    Ok(())
}

async fn a_snapshot_of_a_snapshot(h: H) -> Outcome {
    let mut sandbox = h.sandbox().await?;
    for layer in 0..5 {
        sandbox
            .sh(&format!(
                "echo {layer} > /tmp/layer{layer}; echo {layer} > /tmp/last; rm -f /tmp/layer{}",
                layer - 2
            ))
            .await?;
        let id = snapshot(&h, &sandbox).await?;
        sandbox = h.sandbox_from(&id).await?;
    }
    ensure_eq!(sandbox.sh("cat /tmp/last; ls /tmp").await?, "4\nlast\nlayer3\nlayer4\n");
    Ok(())
}

async fn modes_owners_links_and_removals_survive(h: H) -> Outcome {
    let sandbox = h.sandbox_with(|spec| spec.user = Some("0".to_owned())).await?;
    let place = if h.has(Capability::WritableRoot) { "/opt" } else { "/workspace/opt" };
    let text = "mkdir -p gone replaced; echo x > gone/x; echo x > replaced/x";
    sandbox.sh(&format!("mkdir -p {place}; cd {place}; {text}")).await?;
    let first = snapshot(&h, &sandbox).await?;
    let second = h.sandbox_with(|spec| {
        spec.user = Some("0".to_owned());
        spec.template = Some(first);
    });
    let second = second.await?;
    let text = "rm -r gone; rm -r replaced; mkdir replaced; echo y > replaced/y; mkdir -m 1777 sticky
        echo f > f; chmod 4751 f; ln -s f l; ln f hard; mkfifo p";
    second.sh(&format!("cd {place}; {text}")).await?;
    // Root inside need not have the right to give files away.
    let spec = ProcessSpec {
        user: Some("1234:55".to_owned()),
        ..script(&format!("cd {place}/sticky; echo own > own; chmod 640 own"))
    };
    second.finish(spec).await?.success()?;
    let look = "ls -A . replaced; stat -c '%n %F %a %u %g %h' f l hard p sticky sticky/own";
    let look = &format!("cd {place}; {look}");
    let before = second.sh(look).await?;
    let id = snapshot(&h, &second).await?;
    ensure_eq!(h.sandbox_from(&id).await?.sh(look).await?, before);
    ensure!(
        !before.contains("gone")
            && before.contains("own regular file 640 1234 55 1")
            && before.contains("f regular file 4751 0 0 2"),
        "{before}"
    );
    Ok(())
}

async fn a_snapshot_is_taken_while_processes_write(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    let text = "echo on; i=0; while [ ! -e /tmp/stop ]; do echo $i > /tmp/a.new; mv /tmp/a.new /tmp/a; i=$((i + 1)); done";
    let mut session = sandbox.open(script(text)).await?;
    session.reader.until("on").await?;
    for _ in 0..3 {
        let id = snapshot(&h, &sandbox).await?;
        // Each file is whole: what was renamed into place has its line.
        let copy = h.sandbox_from(&id).await?;
        let value = copy.sh("if [ -e /tmp/a ]; then cat /tmp/a; else echo 0; fi").await?;
        ensure!(value.trim().parse::<u64>().is_ok(), "{value:?}");
    }
    sandbox.sh("touch /tmp/stop").await?;
    session.finish().await?.success()?;
    Ok(())
}

async fn a_taken_name_is_refused(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("echo first > /tmp/f").await?;
    let id = snapshot(&h, &sandbox).await?;
    sandbox.sh("echo second > /tmp/f").await?;
    let again = Template::new(
        id.clone(),
        TemplateSource::Snapshot { base: TemplateId::parse("host")?, sandbox: None },
    );
    ensure_err!(sandbox.snapshot(again).await, Error::AlreadyExists { .. });
    ensure_eq!(h.sandbox_from(&id).await?.sh("cat /tmp/f").await?, "first\n");
    Ok(())
}

async fn a_snapshot_outlives_its_sandbox(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("echo kept > /tmp/f").await?;
    let id = snapshot(&h, &sandbox).await?;
    sandbox.destroy().await?;
    h.nothing_left(sandbox.id()).await?;
    ensure_eq!(h.sandbox_from(&id).await?.sh("cat /tmp/f").await?, "kept\n");
    Ok(())
}

async fn a_snapshot_can_be_deleted_while_used(h: H) -> Outcome {
    let sandbox = h.sandbox().await?;
    sandbox.sh("mkdir /tmp/d; echo deep > /tmp/d/f").await?;
    let id = snapshot(&h, &sandbox).await?;
    let copy = h.sandbox_from(&id).await?;
    match h.backend().delete_template(&id).await {
        Ok(()) => {
            ensure_err!(h.sandbox_from_result(&id).await, Error::NotFound { kind: "template", .. });
        }
        Err(error) => ensure_err!(Err::<(), _>(error), Error::WrongState { .. }),
    }
    ensure_eq!(copy.sh("cat /tmp/d/f; ls /tmp").await?, "deep\nd\n");
    copy.destroy().await?;
    Ok(())
}

async fn fork(h: &Harness, sandbox: &Sandbox) -> Outcome<Sandbox> {
    let created = patiently("a fork", sandbox.fork(&SandboxId::generate(), &h.spec())).await??;
    Ok(h.keep(created))
}

async fn a_fork_sees_the_files_and_diverges(h: H) -> Outcome {
    let parent = h.sandbox().await?;
    parent.sh("echo shared > /tmp/f; mkdir /tmp/d; echo x > /tmp/d/x; ln -s f /tmp/l").await?;
    let child = fork(&h, &parent).await?;
    ensure!(child.id() != parent.id(), "both are {}", child.id());
    ensure_eq!(child.sh("cat /tmp/f /tmp/l /tmp/d/x").await?, "shared\nshared\nx\n");
    parent.sh("echo parent > /tmp/f; rm -r /tmp/d").await?;
    child.sh("echo child >> /tmp/f; echo new > /tmp/d/new").await?;
    ensure_eq!(parent.sh("cat /tmp/f; ls /tmp").await?, "parent\nf\nl\n");
    ensure_eq!(child.sh("cat /tmp/f; ls /tmp/d").await?, "shared\nchild\nnew\nx\n");
    Ok(())
}

async fn a_fork_has_no_processes(h: H) -> Outcome {
    let parent = h.sandbox().await?;
    let mut session =
        parent.open(script("echo on; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 7")).await?;
    session.reader.until("on").await?;
    let child = fork(&h, &parent).await?;
    ensure_eq!(child.inside()?.processes().await?.len(), 0);
    let report = child.report().await?;
    let count = report["processes"].as_array().map_or(0, Vec::len);
    ensure!(count <= 3, "{count} processes in a fork: {}", report["processes"]);
    parent.sh("touch /tmp/go").await?;
    ensure_eq!(session.finish().await?.code(), Some(7));
    Ok(())
}

async fn a_fork_outlives_its_parent(h: H) -> Outcome {
    let parent = h.sandbox().await?;
    parent.sh("head -c 5000000 /dev/urandom > /tmp/big; cksum < /tmp/big > /tmp/sum").await?;
    let child = fork(&h, &parent).await?;
    parent.destroy().await?;
    h.nothing_left(parent.id()).await?;
    child.sh("cksum < /tmp/big | cmp - /tmp/sum").await?;
    ensure_eq!(child.sh("echo more >> /tmp/big; tail -n 1 /tmp/big | tail -c 5").await?, "more\n");
    Ok(())
}

async fn a_fork_of_a_fork(h: H) -> Outcome {
    let mut sandbox = h.sandbox().await?;
    for generation in 0..4 {
        sandbox.sh(&format!("echo {generation} >> /tmp/line")).await?;
        let child = fork(&h, &sandbox).await?;
        sandbox.destroy().await?;
        sandbox = child;
    }
    ensure_eq!(sandbox.sh("cat /tmp/line").await?, "0\n1\n2\n3\n");
    Ok(())
}

async fn many_forks_at_once(h: H) -> Outcome {
    let parent = h.sandbox().await?;
    parent.sh("echo base > /tmp/f").await?;
    let children = try_join_all((0..8).map(|_| fork(&h, &parent))).await?;
    for (number, child) in children.iter().enumerate() {
        ensure_eq!(
            child.sh(&format!("echo {number} >> /tmp/f; cat /tmp/f")).await?,
            format!("base\n{number}\n")
        );
    }
    ensure_eq!(parent.sh("cat /tmp/f").await?, "base\n");
    Ok(())
}

async fn a_fork_has_limits_of_its_own(h: H) -> Outcome {
    let parent = h.sandbox().await?;
    let mut spec = h.spec();
    spec.limits.pids = Some(20);
    let created = patiently("a fork", parent.fork(&SandboxId::generate(), &spec)).await??;
    let child = h.keep(created);
    ensure_eq!(child.limits.pids, Some(20));
    let count = super::limits::refused(&child.run_probe(&["eat-pids", "2000"]).await?.success()?.text())?;
    ensure!(count < 20, "{count} processes of 20");
    let count = super::limits::refused(&parent.run_probe(&["eat-pids", "2000"]).await?.success()?.text())?;
    ensure!(count > 20, "the parent has {count} processes");
    Ok(())
}

async fn a_sparse_file_takes_no_more_than_a_disk_holds(h: H) -> Outcome {
    let sandbox = h.sandbox_with(|spec| spec.limits.disk_bytes = Some(16 << 20)).await?;
    sandbox.sh("truncate -s 4G /tmp/sparse").await?;
    let base = TemplateId::parse("host")?;
    let template = h.template(TemplateSource::Snapshot { base, sandbox: None });
    let id = template.id.clone();
    // Where its holes cannot be kept it is refused.
    match patiently("a snapshot", sandbox.snapshot(template)).await? {
        Ok(_) => {
            let copy = h.sandbox_from(&id).await?;
            ensure_eq!(copy.sh("stat -c %s /tmp/sparse").await?, "4294967296\n");
        }
        refused => ensure_err!(refused, Error::LimitReached { what: "disk", .. }),
    }
    sandbox.sh("rm /tmp/sparse; echo small > /tmp/small").await?;
    let id = snapshot(&h, &sandbox).await?;
    ensure_eq!(h.sandbox_from(&id).await?.sh("cat /tmp/small").await?, "small\n");
    Ok(())
}
