//! What the daemon tells, in the words of the domain. Everything serializes to JSON in the spelling of the API:
//! `snake_case`, times as RFC 3339, sizes in bytes, durations in seconds with that in the name.

mod file;
mod network;
mod node;
mod pool;
mod process;
mod sandbox;
mod session;
mod template;
mod usage;

pub use file::{FileInfo, WriteFile};
pub use network::{Audit, BrokenAudit, Network, NetworkAction, NetworkDecision, NetworkEvent};
pub use node::{BackendHealth, BackendInfo, Capacity, DoctorCheck, DoctorStatus, IsolationFact, Node};
pub use pool::{
    Failure, PlanRow, Pool, PoolCounters, PoolEvent, PoolHealth, PoolPlan, PoolSchedule, PoolSpec,
    PoolStatus, Weekday,
};
pub use process::{ExitStatus, HeldRange, Process};
pub use sandbox::{
    CreatedSandbox, ForkOutcome, Sandbox, SandboxChange, SandboxEvent, SandboxPage, SandboxStats, Stage,
    StartKind, Transition, Weakness,
};
pub use session::{
    ActiveTurn, EndReason, EnvironmentStatus, EventPage, ExportPart, LimitAction, MessageContent,
    MessageOutcome, MessageState, PatternStatistics, QuestionState, SentMessage, Session, SessionDelivery,
    SessionEnvironment, SessionEvent, SessionLimits, SessionMessage, SessionPage, SessionPattern,
    SessionQuestion, SessionStatistics, SessionStatus, TurnPhase, TurnUsage, Verdict,
};
pub use template::{Template, TemplateOrigin};
pub use usage::{
    Budget, BudgetPeriod, BudgetUse, MOST_USAGE_ROWS, ModelUsage, Secret, Usage, UsageGroup, UsageRow,
};
