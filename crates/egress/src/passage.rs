//! One connection from its first bytes to its end.

use crate::connections::Listed;
use crate::decision::{Kind, Protocol, Reason, Refused};
use crate::destination::Destination;
use crate::dial::{Dialled, Route};
use crate::enforcer::{About, Enforcer};
use crate::http::Target;
use crate::plan::{Plan, is_web, protocol};
use crate::pump::{Activity, pass, write_all};
use crate::requests::Requests;
use crate::sniff::{Bounds, First, sniff};
use crate::socks::Answer;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

mod joined;
pub(crate) mod refusal;

pub(crate) use joined::Joined;

/// For what ends otherwise.
const FOREVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How the program asked, and so how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It knows nothing of us.
    Transparent,
    /// By CONNECT.
    Connect,
    /// By SOCKS 5.
    Socks,
    /// By a request with an absolute URI, which is in the buffer.
    Absolute,
}

/// A connection whose destination is known.
pub(crate) struct Passage {
    pub(crate) enforcer: Arc<Enforcer>,
    pub(crate) client: TcpStream,
    /// What the client sent and nobody has read.
    pub(crate) buffer: Vec<u8>,
    pub(crate) to: Destination,
    pub(crate) port: u16,
    pub(crate) asked: Asked,
    /// Until when the client must have said what it wants.
    pub(crate) deadline: Instant,
}

impl Passage {
    /// Decides and carries it.
    pub(crate) async fn run(mut self, undecided: OwnedSemaphorePermit) {
        let (spare, undecided) = match self.ahead(undecided).await {
            Ok(ahead) => ahead,
            Err(refused) => return self.refuse(&First::Quiet, &refused).await,
        };
        if self.accept().await.is_err() {
            return;
        }
        // Where requests are to be seen the client must speak, however slow it is.
        let opened = self.to.name().is_some_and(|name| self.enforcer.opens(name, self.port));
        let waits = !is_web(self.port) && !opened;
        let quiet = waits.then_some(self.enforcer.shared.settings.timeouts.quiet);
        let meanwhile = self.meanwhile();
        let (enforcer, port) = (Arc::clone(&self.enforcer), self.port);
        let sniffing = async {
            let first = self.sniff(quiet).await;
            drop(undecided);
            first
        };
        let (early, first) = match &meanwhile {
            Some(plan) => {
                let (dialled, first) = tokio::join!(enforcer.dial(plan, port), sniffing);
                (Some(dialled), first)
            }
            None => (None, sniffing.await),
        };
        let first = match first {
            First::Closed if is_web(self.port) => return,
            // A client that only listens has ended its own side.
            First::Closed => First::Quiet,
            first => first,
        };
        let plan = match self.enforcer.plan(&self.to, self.port, &first).await {
            Ok(plan) => plan,
            Err(refused) => return self.refuse(&first, &refused).await,
        };
        let serves = matches!(plan.protocol, Protocol::Http | Protocol::Https);
        let spare = match early {
            Some(Ok(dialled)) => Some(dialled),
            Some(Err(refused)) if !serves && matches!(plan.route, Route::Address(_)) => {
                return self.refuse(&first, &refused).await;
            }
            // Its host may have other addresses.
            Some(Err(_)) | None => spare,
        };
        let (basis, rule) = (plan.basis.clone(), plan.verdict.rule.clone());
        match self.enforcer.list(plan.protocol, basis, self.port, rule) {
            Ok(listed) if serves => self.serve(listed, plan, spare).await,
            Ok(listed) => self.splice(listed, plan, spare, first).await,
            Err(refused) => self.refuse(&first, &refused).await,
        }
    }

    /// Connects where that is done before the client's first bytes. Meanwhile others may say what they want, and the
    /// client has its whole time afterwards: it waits for us.
    async fn ahead(
        &mut self,
        undecided: OwnedSemaphorePermit,
    ) -> Result<(Option<Dialled>, OwnedSemaphorePermit), Refused> {
        let Some(plan) = self.before()? else { return Ok((None, undecided)) };
        drop(undecided);
        let dialled = self.enforcer.dial(&plan, self.port).await;
        let again = match dialled {
            Ok(dialled) => self.enforcer.undecided().await.map(|permit| (Some(dialled), permit)),
            Err(refused) => Err(refused),
        };
        self.deadline = Instant::now() + self.enforcer.shared.settings.timeouts.sniff;
        again
    }

    /// What can be said before the client's first bytes. A proxy's client is told at once what is refused; a host
    /// by its name is connected to as planned here, so that a failure can be told.
    fn before(&self) -> Result<Option<Plan>, Refused> {
        let (enforcer, port) = (&self.enforcer, self.port);
        match (&self.to, self.asked) {
            (_, Asked::Transparent) => Ok(None),
            (Destination::Address(address), _) => {
                let rules = enforcer.rules();
                enforcer.shared.reach.check(*address, Some(port), &rules)?;
                let verdict = rules.address(*address, port);
                if verdict.allowed || !enforcer.pinned(*address).is_empty() {
                    return Ok(None);
                }
                verdict.or_refuse(&format!("{address} port {port}")).map(|_| None)
            }
            (Destination::Name(name), asked) => {
                let plan = enforcer.plan_ahead(name, port)?;
                let later = asked == Asked::Absolute || enforcer.opens(name, port);
                Ok((!later).then_some(plan))
            }
        }
    }

    /// What is connected to while the client, which was answered, says its first words.
    fn meanwhile(&self) -> Option<Plan> {
        match self.asked {
            Asked::Connect | Asked::Socks => self.enforcer.plan_meanwhile(self.to.address()?, self.port),
            Asked::Transparent | Asked::Absolute => None,
        }
    }

    async fn accept(&self) -> io::Result<()> {
        match self.asked {
            Asked::Transparent | Asked::Absolute => Ok(()),
            Asked::Connect => self.say(b"HTTP/1.1 200 Connection established\r\n\r\n").await,
            Asked::Socks => self.say(&Answer::Succeeded.bytes()).await,
        }
    }

    async fn sniff(&mut self, quiet: Option<Duration>) -> First {
        let bytes = self.enforcer.shared.settings.limits.head_bytes;
        sniff(&self.client, &mut self.buffer, Bounds { bytes, deadline: self.deadline, quiet }).await
    }

    fn about(&self) -> About {
        About {
            host: self.to.name().map(str::to_owned),
            address: self.to.address(),
            port: Some(self.port),
            ..About::default()
        }
    }

    /// Serves HTTP; each request is decided.
    async fn serve(self, listed: Listed, plan: Plan, spare: Option<Dialled>) {
        let host = match (plan.basis.name(), &self.to) {
            (Some(name), _) => name.to_owned(),
            (None, to) => to.to_string(),
        };
        let (tls, once) = (plan.protocol == Protocol::Https, self.asked == Asked::Absolute);
        let target = Target { host, port: self.port, tls, once };
        let about = self.about();
        let Self { enforcer, client, buffer, .. } = self;
        let gate = Requests::new(Arc::clone(&enforcer), Arc::clone(&listed.live), plan.route, spare);
        let opener = Arc::clone(&enforcer.shared.opener);
        let served =
            Box::pin(opener.serve(Joined::new(buffer, client), target, Arc::new(gate), enforcer.secrets()));
        tokio::select! {
            biased;
            () = listed.live.cut.cancelled() => enforcer.told_cut(&listed, about).await,
            done = served => if let Err(error) = done {
                tracing::debug!(sandbox = %enforcer.sandbox, %error, "a connection that was served ended");
            },
        }
    }

    /// Passes the bytes as they are.
    async fn splice(mut self, listed: Listed, plan: Plan, spare: Option<Dialled>, first: First) {
        let dialled = match spare {
            Some(dialled) => self.enforcer.take(&dialled, &plan, self.port).await.map(|()| dialled),
            None => self.enforcer.dial(&plan, self.port).await,
        };
        let dialled = match dialled {
            Ok(dialled) => dialled,
            Err(refused) => return self.refuse(&first, &refused).await,
        };
        listed.live.add_address(dialled.address);
        // A policy that changed while it was connected did not see where to.
        if let Err(refused) = self.enforcer.stands(&listed.live) {
            return self.refuse(&first, &refused).await;
        }
        let host = plan.basis.name().map(str::to_owned);
        let about = About { host, address: Some(dialled.address), port: Some(self.port), ..About::default() };
        let enforcer = Arc::clone(&self.enforcer);
        let cut = listed.live.cut.clone();
        tokio::select! {
            biased;
            () = cut.cancelled() => {
                enforcer.told_cut(&listed, about).await;
                // What is cut ends with a reset, as when a cable is pulled: nobody takes it for a whole answer.
                let _ = self.client.set_zero_linger();
                let _ = dialled.stream.set_zero_linger();
            }
            done = self.pass(&dialled.stream, &listed, &plan, &first) => match done {
                Ok(()) => {}
                Err(Ended::Refused(refused, first)) => self.refuse(&first, &refused).await,
                Err(Ended::Late(late)) => {
                    drop(listed);
                    self.serve_late(*late, dialled).await;
                }
                Err(Ended::Io(error)) => {
                    tracing::debug!(sandbox = %enforcer.sandbox, %error, "a connection ended");
                    let _ = self.client.set_zero_linger();
                    let _ = dialled.stream.set_zero_linger();
                }
            },
        }
    }

    async fn pass(
        &mut self,
        server: &TcpStream,
        listed: &Listed,
        plan: &Plan,
        first: &First,
    ) -> Result<(), Ended> {
        let (live, activity) = (&listed.live, Activity::new());
        let limits = self.enforcer.shared.settings.timeouts;
        let mut buffer = std::mem::take(&mut self.buffer);
        let client = &self.client;
        let mut down = pin!(pass(server, client, &live.received, &activity));
        let mut ended = false;
        if *first == First::Quiet {
            // The server speaks first; what the client then says is still looked at.
            let bytes = self.enforcer.shared.settings.limits.head_bytes;
            let deadline = Instant::now() + FOREVER;
            let late = {
                let mut idle = pin!(activity.idle(limits.idle));
                let mut look = pin!(sniff(client, &mut buffer, Bounds { bytes, deadline, quiet: None }));
                loop {
                    tokio::select! {
                        late = &mut look => break late,
                        done = &mut down, if !ended => { done?; ended = true; }
                        () = &mut idle => return Err(Ended::Io(io::ErrorKind::TimedOut.into())),
                    }
                }
            };
            match late {
                // A client that only listens has ended its own side.
                First::Closed | First::Other => {}
                late => {
                    let heard = ended || live.received.load(Ordering::Relaxed) > 0;
                    if let Err(end) = self.late(plan, late, heard).await {
                        self.buffer = buffer;
                        return Err(end);
                    }
                }
            }
        }
        let up = async {
            write_all(server, &buffer).await?;
            let length = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
            live.sent.fetch_add(length, Ordering::Relaxed);
            drop(buffer);
            pass(client, server, &live.sent, &activity).await
        };
        let down = async { if ended { Ok(()) } else { down.await } };
        tokio::select! {
            done = async { tokio::try_join!(up, down) } => done.map(|_| ()).map_err(Ended::Io),
            () = activity.idle(limits.idle) => Err(Ended::Io(io::ErrorKind::TimedOut.into())),
        }
    }

    /// A client that spoke late must be what it was taken for: the same host, and nothing whose requests are seen,
    /// unless the server was silent too. Then it was only a connection that was opened ahead.
    async fn late(&self, plan: &Plan, late: First, heard: bool) -> Result<(), Ended> {
        let again = self.enforcer.plan(&self.to, self.port, &late).await;
        let same = |again: &Plan| again.route == plan.route || again.basis.name() == plan.basis.name();
        let refused = match again {
            Ok(again) if again.protocol == Protocol::Tls && same(&again) => return Ok(()),
            Ok(again) if !heard && again.protocol != Protocol::Tls => {
                return Err(Ended::Late(Box::new((late, again))));
            }
            Ok(again) if again.protocol == Protocol::Tls => {
                Refused::new(Reason::NameMismatch, "the connection inside is for another host")
            }
            Ok(_) => {
                Refused::new(Reason::BadRequest, "a request on a connection where the server spoke first")
            }
            Err(refused) => refused,
        };
        Err(Ended::Refused(refused, late))
    }

    /// Serves a client that spoke late, from the beginning of what it said.
    async fn serve_late(self, (first, plan): (First, Plan), dialled: Dialled) {
        let (basis, rule) = (plan.basis.clone(), plan.verdict.rule.clone());
        // A policy that changed since the plan is asked here.
        match self.enforcer.list(plan.protocol, basis, self.port, rule) {
            // The connection that is there goes to this host only if it is the same one.
            Ok(listed) => {
                let spare = (self.to.name() == plan.basis.name()).then_some(dialled);
                self.serve(listed, plan, spare).await;
            }
            Err(refused) => self.refuse(&first, &refused).await,
        }
    }

    /// Records a refusal and tells the client as well as its protocol can.
    pub(crate) async fn refuse(&self, first: &First, refused: &Refused) {
        let mut about = self.about();
        if let (None, First::Tls(hello)) = (&about.host, first) {
            about.host.clone_from(&hello.name);
        }
        let kind = protocol(first);
        self.enforcer.refuse(Kind::Connect, kind, about, refused).await;
        let answered = *first != First::Quiet || !self.buffer.is_empty();
        let answer = match (self.asked, first) {
            (_, First::Http(_)) | (Asked::Absolute, _) => refusal::http(refused),
            (_, First::Tls(_)) => refusal::TLS_ALERT.to_vec(),
            (Asked::Connect, First::Quiet) if !answered => refusal::http(refused),
            (Asked::Socks, First::Quiet) if !answered => refusal::socks(refused).bytes().to_vec(),
            _ => Vec::new(),
        };
        if !answer.is_empty() && self.say(&answer).await.is_ok() {
            refusal::part(&self.client).await;
        }
    }

    async fn say(&self, bytes: &[u8]) -> io::Result<()> {
        let time = self.enforcer.shared.settings.timeouts.sniff;
        let said = tokio::time::timeout(time, write_all(&self.client, bytes)).await;
        said.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Why bytes no longer pass.
enum Ended {
    Io(io::Error),
    /// What the client said late is to be served, as planned.
    Late(Box<(First, Plan)>),
    Refused(Refused, First),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Enforcer {
    /// Records that a connection was cut, unless its sandbox is ending.
    async fn told_cut(self: &Arc<Self>, listed: &Listed, mut about: About) {
        if self.stop.is_cancelled() {
            return;
        }
        about.address = about.address.or(listed.live.address());
        let refused = Refused::new(Reason::PolicyChanged, "the network policy was changed");
        self.refuse(Kind::Connect, listed.live.protocol, about, &refused).await;
    }
}
