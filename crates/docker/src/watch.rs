//! What happens to containers by themselves: the engine's events, and a look at everything after each time that the
//! engine was away and now and then, for an engine may fall silent or forget an event.

use crate::backend::Inner;
use crate::container::{self, LABEL_INSTANCE, LABEL_SANDBOX};
use crate::engine::{QUESTION, bounded};
use bollard::models::{ContainerState, ContainerSummary, ContainerSummaryStateEnum, EventMessage};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
};
use futures::StreamExt as _;
use hostel_sandbox::{BackendEvent, Result, SandboxId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::MissedTickBehavior;

/// Pauses between two tries to reach an engine that is away.
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// Time between two looks.
const TICK: Duration = Duration::from_secs(10);
/// Every so many looks images are tidied up, too.
const THOROUGH: u32 = 6;
/// The kernel ends a guest for want of memory at once, and says so at the same time.
const OOM_TO_DEATH: Duration = Duration::from_secs(2);
/// How the engine tells of SIGKILL.
const KILLED: i64 = 137;

/// What the kernel killed; any process of a container that it kills makes the engine say the first.
fn is_end_by_oom(state: &ContainerState) -> bool {
    state.oom_killed == Some(true) && state.exit_code == Some(KILLED)
}

impl Inner {
    /// Listens to the engine for as long as the backend lives.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut pause = SHORTEST;
        while !self.stop.is_cancelled() {
            let listened = tokio::select! {
                () = self.stop.cancelled() => return,
                listened = self.listen() => listened,
            };
            match listened {
                Ok(()) => pause = SHORTEST,
                Err(error) => {
                    self.set_trouble(Some(error.to_string()));
                    pause = (pause * 2).min(LONGEST);
                }
            }
            self.engine.forget();
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One connection's worth of events. Ends when the engine hangs up.
    async fn listen(self: &Arc<Self>) -> Result<()> {
        let client = self.engine.client().await?;
        self.facts().await?;
        // From a moment ago, so that nothing falls between the look and the first event.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = now.as_secs().saturating_sub(1).to_string();
        let instance = format!("{LABEL_INSTANCE}={}", self.ground.instance);
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("label", vec![instance.as_str()]),
            ("event", vec!["create", "oom", "die", "destroy"]),
        ]);
        let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
        let mut events = std::pin::pin!(client.events(Some(options)));
        self.look_after_everything(true).await?;
        self.set_trouble(None);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                // An engine that is stuck hangs up no more than it answers this.
                _ = ticks.tick() => {
                    looks = (looks + 1) % THOROUGH;
                    self.look_after_everything(looks == 0).await?;
                    continue;
                }
            };
            match event {
                Some(Ok(event)) => self.handle(&event).await,
                Some(Err(error)) => {
                    self.set_trouble(Some(format!("the engine hung up: {error}")));
                    return Ok(());
                }
                None => {
                    self.set_trouble(Some("the engine hung up".to_owned()));
                    return Ok(());
                }
            }
        }
    }

    async fn handle(self: &Arc<Self>, event: &EventMessage) {
        let Some(actor) = &event.actor else { return };
        let (Some(container), Some(attributes)) = (&actor.id, &actor.attributes) else { return };
        let Some(sandbox) = attributes.get(LABEL_SANDBOX).and_then(|id| SandboxId::parse(id).ok()) else {
            return;
        };
        // What others run of an image of ours may have all of its labels.
        let is_ours =
            attributes.get("name").is_some_and(|name| *name == container::name(&self.ground, &sandbox))
                || self.lives_in(&sandbox, container);
        if !is_ours {
            return;
        }
        match event.action.as_deref() {
            Some("oom") => self.note_oom(&sandbox),
            Some("die") => {
                let killed = attributes.get("exitCode").is_some_and(|code| *code == KILLED.to_string());
                self.died(&sandbox, container, "guest_died", event.time.filter(|_| killed)).await;
            }
            Some("destroy") => self.died(&sandbox, container, "removed", None).await,
            // Made by a daemon that was killed while the engine still worked for it.
            Some("create") if self.is_swept() && !self.stands(&sandbox) => {
                tracing::warn!(%sandbox, "a container that nobody asked for is removed");
                // Aside: what happens meanwhile is to be heard.
                let (inner, container) = (Arc::clone(self), container.clone());
                self.tasks.spawn(async move {
                    let _ = inner.remove_container(&container).await;
                });
            }
            _ => {}
        }
    }

    /// Tells of a death, once; of one by SIGKILL when that was, in the engine's seconds, where that is known.
    async fn died(&self, sandbox: &SandboxId, container: &str, reason: &str, killed: Option<i64>) {
        let Some(last_oom) = self.take_dead(sandbox, container) else { return };
        let oom = match last_oom {
            _ if reason != "guest_died" => false,
            Some(ago) if ago < OOM_TO_DEATH => true,
            // The event may come after that of the death, or was forgotten.
            None => self.ended_by_oom(container).await,
            // Since an earlier one the engine says for ever that there was one.
            Some(_) => match killed {
                Some(time) => self.ran_out_at(container, time).await,
                None => false,
            },
        };
        let reason = if oom { "out_of_memory" } else { reason };
        let died = BackendEvent::Died { sandbox: sandbox.clone(), reason: reason.to_owned() };
        let _ = self.deaths.send(died).await;
    }

    /// Whether the engine says of a dead container, of which it told of no want of memory, that this was its end.
    async fn ended_by_oom(&self, container: &str) -> bool {
        let Ok(client) = self.engine.client().await else { return false };
        let inspected = client.inspect_container(container, None::<InspectContainerOptions>);
        let found = bounded(QUESTION, inspected).await;
        found.is_ok_and(|found| found.state.is_some_and(|state| is_end_by_oom(&state)))
    }

    /// Whether the engine tells of want of memory beside a death.
    async fn ran_out_at(&self, container: &str, death: i64) -> bool {
        let Ok(client) = self.engine.client().await else { return false };
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("container", vec![container]),
            ("event", vec!["oom"]),
        ]);
        let apart = i64::try_from(OOM_TO_DEATH.as_secs()).unwrap_or(0);
        // The engine ends its answer by itself.
        let (since, until) = (death.saturating_sub(apart), death.saturating_add(apart));
        let options = EventsOptionsBuilder::default()
            .since(&since.to_string())
            .until(&until.to_string())
            .filters(&filters)
            .build();
        let mut events = std::pin::pin!(client.events(Some(options)));
        matches!(tokio::time::timeout(QUESTION, events.next()).await, Ok(Some(Ok(_))))
    }

    /// Compares what we think is there with what is, and starts tidying up.
    async fn look_after_everything(self: &Arc<Self>, thorough: bool) -> Result<()> {
        // Before the list: what is made meanwhile is not in it.
        let living = self.living();
        let found = self.containers().await?;
        let alive: HashSet<&str> = found
            .iter()
            .filter(|container| {
                use ContainerSummaryStateEnum as State;
                // A guest speaks before the engine notes that it started.
                matches!(container.state, Some(State::CREATED | State::RUNNING | State::PAUSED))
            })
            .filter_map(|container| container.id.as_deref())
            .collect();
        for (sandbox, container, pause) in living {
            if alive.contains(container.as_str()) {
                self.let_go_on(&sandbox, &container, &pause).await;
            } else {
                self.died(&sandbox, &container, "guest_died", None).await;
            }
        }
        self.tidy(found, thorough);
        Ok(())
    }

    /// Every container of ours, running or not.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn containers(&self) -> Result<Vec<ContainerSummary>> {
        let client = self.engine.client().await?;
        let instance = format!("{LABEL_INSTANCE}={}", self.ground.instance);
        let filters = HashMap::from([("label", vec![instance.as_str()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let mut found = bounded(QUESTION, client.list_containers(Some(options)))
            .await
            .map_err(|fault| fault.while_asking("list containers"))?;
        found.retain(|container| self.is_ours(container));
        Ok(found)
    }

    /// Whether a container with our label is ours: by its name, or where somebody renamed it, by what lives in it.
    /// What others run of an image may have all labels that we ever gave.
    fn is_ours(&self, found: &ContainerSummary) -> bool {
        let prefix = container::prefix(&self.ground);
        // The engine puts a slash before them.
        let mut names = found.names.iter().flatten().map(|name| name.trim_start_matches('/'));
        let labels = found.labels.as_ref();
        let sandbox = labels.and_then(|labels| SandboxId::parse(labels.get(LABEL_SANDBOX)?).ok());
        names.any(|name| name.starts_with(&prefix))
            || sandbox.zip(found.id.as_ref()).is_some_and(|(sandbox, id)| self.lives_in(&sandbox, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kill_beside_want_of_memory_is_an_end_by_it() {
        let state =
            |oom_killed, exit_code| ContainerState { oom_killed, exit_code, ..ContainerState::default() };
        assert!(is_end_by_oom(&state(Some(true), Some(137))));
        // Another process of it was killed, earlier; the guest ended by itself.
        assert!(!is_end_by_oom(&state(Some(true), Some(0))));
        assert!(!is_end_by_oom(&state(Some(false), Some(137))));
        assert!(!is_end_by_oom(&state(None, None)));
    }
}
