//! What decides about warm pools and about room on a node. Pure: no clock, no task, no I/O.
//!
//! [`Pool`] is the state machine of one pool. Its owner tells it what happened, with the time, and carries out the
//! [`Action`]s that [`Pool::poll`] returns. [`sizing`] is its controller, [`History`] the demand it recorded,
//! [`plan`](plan()) what other sizes would have done with that demand. [`Admission`] shares out the node.
#![forbid(unsafe_code)]

pub mod admission;
pub mod counters;
pub mod history;
pub mod name;
pub mod plan;
mod random;
pub mod schedule;
pub mod sizing;
pub mod spec;
pub mod state;
pub mod time;

pub use admission::{Admission, Admitted, Budget, Decision, Needs, Overcommit, Priority, Resources, Ticket};
pub use counters::Counters;
pub use history::History;
pub use name::PoolName;
pub use plan::{PlanOptions, PlanRow, PlanSize, plan};
pub use schedule::{Schedule, Weekday};
pub use spec::{Fit, PoolSpec};
pub use state::{Action, Health, LastFailure, Member, Pool, Pressure, RemoveReason, Status};
pub use time::Time;
