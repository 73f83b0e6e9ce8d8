//! The model gateway: forwards to model APIs with the real key, meters, prices, and stops at the budget.
//!
//! The daemon gives each sandbox a [`Door`] or two, inside, and hands their listening ends to [`Gateway::attach`].
//! A request comes in with the sandbox's own token and goes on with the real key, to the first upstream that
//! answers. Its response is passed on as it comes, and read for its usage on the way.
//!
//! What holds:
//! * Nothing is forwarded before it was decided, under one lock, that the sandbox's budget and every label budget
//!   that covers it have something left. The request's row, which outlives this process, is on its way before, and
//!   written before a byte goes back.
//! * Usage counts as soon as it is seen. A request that ends holds the next one of the same budgets back until its
//!   figures are on the disk, but never its own bytes. So a budget is overrun by no more than what was in flight.
//! * What a request has the API fetch from elsewhere is refused, unless the operator allows it.
//! * Money is counted in whole millionths of a dollar.
//! * A request that went out costs something whatever becomes of it: where its usage was never told, its prompt is
//!   estimated.
//! * From when usage could not be recorded until it can be again, nothing is forwarded. What was on its way just then
//!   gets no answer, but counts, and is kept in memory until it is recorded.
#![forbid(unsafe_code)]

mod attachment;
mod body;
mod budget;
mod config;
mod counters;
mod declaration;
mod error;
mod fetches;
mod forward;
mod gateway;
mod headers;
mod intake;
mod ledger;
mod price;
mod reply;
mod report;
mod request;
mod scrub;
mod shared;
mod store;
mod stream;
mod ticket;
mod upstream;
mod usage;

pub use attachment::{Access, Attachment, Door};
pub use budget::{BudgetStatus, LabelBudget, Period, Spent};
pub use config::{ApiFetches, Config, KeyHeader, Limits, Timeouts, Upstream};
pub use counters::{BUCKETS_MICROS, Counters, Histogram, RequestKind};
pub use declaration::{Declaration, LimitsDeclaration, UpstreamDeclaration};
pub use error::{Error, Result};
pub use gateway::{Budgets, Gateway};
pub use price::{Price, Prices};
pub use report::{GroupBy, MAX_ROWS, Query, UsageRow};
pub use reqwest::Url;
pub use usage::Tokens;
