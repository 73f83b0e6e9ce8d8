//! Decides each HTTP request of a connection whose requests are seen.

use crate::connections::{Basis, Live};
use crate::decision::{Kind, Reason, Refused};
use crate::dial::{Dialled, Route};
use crate::enforcer::{About, Enforcer};
use crate::error::{Error, Result};
use crate::http::{Gate, Refusal};
use crate::plan::Plan;
use crate::rules::Verdict;
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// The requests of one connection.
pub(crate) struct Requests {
    enforcer: Arc<Enforcer>,
    live: Arc<Live>,
    route: Route,
    /// A connection to the host that was made before it was known that requests would be seen.
    spare: Mutex<Option<Dialled>>,
}

impl Requests {
    pub(crate) fn new(
        enforcer: Arc<Enforcer>,
        live: Arc<Live>,
        route: Route,
        spare: Option<Dialled>,
    ) -> Self {
        Self { enforcer, live, route, spare: Mutex::new(spare) }
    }

    fn about(&self) -> About {
        About {
            host: self.live.basis.name().map(str::to_owned),
            address: self.live.address(),
            port: Some(self.live.port),
            ..About::default()
        }
    }

    fn verdict(&self, method: &str, path: &str) -> Result<Verdict, Refused> {
        let rules = self.enforcer.rules();
        let port = self.live.port;
        let what = |host: &str| format!("{method} {path} on {host} port {port}");
        match &self.live.basis {
            Basis::Name { name, .. } => rules.request(name, port, method, path).or_refuse(&what(name)),
            Basis::Address { address, name } => {
                if let Some(name) = name {
                    let verdict = rules.request(name, port, method, path);
                    if verdict.reason == Reason::DeniedByRule {
                        return verdict.or_refuse(&what(name));
                    }
                }
                rules.address(*address, port).or_refuse(&what(&address.to_string()))
            }
        }
    }

    async fn connection(&self) -> Result<TcpStream, Refused> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        let verdict = self.enforcer.stands(&self.live)?;
        let plan = Plan {
            basis: self.live.basis.clone(),
            route: self.route.clone(),
            protocol: self.live.protocol,
            verdict,
        };
        let dialled = match spare {
            Some(dialled) => {
                self.enforcer.take(&dialled, &plan, self.live.port).await?;
                dialled
            }
            None => self.enforcer.dial(&plan, self.live.port).await?,
        };
        self.live.add_address(dialled.address);
        // A policy that changed while it was connected did not see where to.
        self.enforcer.stands(&self.live)?;
        Ok(dialled.stream)
    }
}

#[async_trait]
impl Gate for Requests {
    async fn admit(&self, method: &str, path: &str, _host: &str) -> Result<(), Refusal> {
        let path = path.split_once(['?', '#']).map_or(path, |(path, _)| path);
        let about = About {
            method: Some(method.chars().take(32).collect()),
            path: Some(path.chars().take(1024).collect()),
            ..self.about()
        };
        let decided = match self.verdict(method, path) {
            Ok(verdict) => {
                self.enforcer.allow(Kind::Request, self.live.protocol, about.clone(), verdict).await
            }
            Err(refused) => Err(refused),
        };
        if let Err(refused) = decided {
            self.enforcer.refuse(Kind::Request, self.live.protocol, about, &refused).await;
            return Err(refusal(refused));
        }
        Ok(())
    }

    async fn dial(&self) -> Result<TcpStream> {
        match self.connection().await {
            Ok(stream) => Ok(stream),
            Err(refused) => {
                self.enforcer.refuse(Kind::Connect, self.live.protocol, self.about(), &refused).await;
                Err(Error::Refused { reason: refused.reason, message: refused.message })
            }
        }
    }

    fn place(&self) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let full = |_| refusal(Refused::new(Reason::Limit, "too many connections to hosts are open"));
        Arc::clone(&self.enforcer.upstream).try_acquire_owned().map(Some).map_err(full)
    }

    fn reads_paths(&self) -> bool {
        let name = self.live.basis.name();
        name.is_some_and(|name| self.enforcer.rules().looks_at_paths(name, self.live.port))
    }

    async fn secret_used(&self, secret: &str) -> Result<(), Refusal> {
        let about = About { secret: Some(secret.to_owned()), ..self.about() };
        let rule = self.live.rule.clone();
        let verdict = Verdict { allowed: true, rule, reason: Reason::Rule };
        self.enforcer.allow(Kind::Secret, self.live.protocol, about, verdict).await.map_err(refusal)
    }
}

fn refusal(refused: Refused) -> Refusal {
    Refusal { reason: refused.reason.as_str(), message: refused.message }
}
