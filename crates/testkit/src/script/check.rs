//! Which scripts can be played.

use super::{Script, Step};
use crate::{Error, Result};

const MAX_STEPS: usize = 1000;
const MAX_CHUNKS: u32 = 100_000;
const MAX_DELAY_MS: u64 = 60_000;
const MAX_WAIT_MS: u64 = 600_000;
const MAX_GENERATED: u64 = 1 << 30;
const MAX_TOKENS: u64 = 1 << 40;

impl Script {
    /// # Errors
    /// [`Error::Script`] names the first step that is wrong.
    pub(crate) fn check(&self) -> Result<()> {
        if self.steps.len() > MAX_STEPS {
            return Err(Error::Script(format!("it has more than {MAX_STEPS} steps")));
        }
        let mut endless = None;
        for (index, step) in self.steps.iter().enumerate() {
            let wrong = |problem: &str| Error::Script(format!("step {}: {problem}", index + 1));
            step.check().map_err(wrong)?;
            if let Some(fault) = endless {
                return Err(wrong(&format!("step {fault} is a fault without `times`, so this never comes")));
            }
            if step.is_fault() && step.times.is_none() {
                endless = Some(index + 1);
            }
        }
        Ok(())
    }
}

impl Step {
    /// What makes a step a fault: no answer is completed.
    pub(crate) fn is_fault(&self) -> bool {
        self.error.is_some() || self.sse_error.is_some() || self.cut.is_some() || self.hang.is_some()
    }

    /// Whether the step is nothing but a delay of the next.
    pub(crate) fn is_wait(&self) -> bool {
        self.wait_ms.is_some() && *self == Self { wait_ms: self.wait_ms, ..Self::default() }
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        let faults =
            [self.error.is_some(), self.sse_error.is_some(), self.cut.is_some(), self.hang.is_some()];
        let of_error = self.retry_after.is_some() || self.should_retry.is_some();
        let beyond = |value: Option<u64>, most: u64| value.is_some_and(|value| value > most);
        if faults.into_iter().filter(|fault| *fault).count() > 1 {
            return Err("only one of `error`, `sse_error`, `cut` and `hang`");
        }
        if *self == Self::default() {
            return Err("it says nothing");
        }
        if self.error.is_some_and(|status| !(400..=599).contains(&status)) {
            return Err("`error` is a status from 400 to 599");
        }
        if of_error && self.error.is_none() {
            return Err("`retry_after` and `should_retry` belong to `error`");
        }
        if self.after.is_some() && self.sse_error.is_none() {
            return Err("`after` belongs to `sse_error`");
        }
        if self.message.is_some() && self.error.is_none() && self.sse_error.is_none() {
            return Err("`message` belongs to `error` or `sse_error`");
        }
        if self.times.is_some() && !self.is_fault() {
            return Err("`times` belongs to a fault");
        }
        if self.times == Some(0) {
            return Err("`times` is at least 1");
        }
        if self.input.is_some() && self.tool.is_none() {
            return Err("`input` belongs to `tool`");
        }
        if self.chunks.is_some_and(|chunks| !(1..=MAX_CHUNKS).contains(&chunks)) {
            return Err("`chunks` is from 1 to 100000");
        }
        if beyond(self.delay_ms, MAX_DELAY_MS) {
            return Err("`delay_ms` is at most 60000");
        }
        if beyond(self.wait_ms, MAX_WAIT_MS) {
            return Err("`wait_ms` is at most 600000");
        }
        if beyond(self.generate, MAX_GENERATED) {
            return Err("`gen` is at most 1073741824");
        }
        self.check_usage(MAX_TOKENS)
    }

    fn check_usage(&self, most: u64) -> std::result::Result<(), &'static str> {
        let usage = self.usage.unwrap_or_default();
        let counts = [
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_creation_5m,
            usage.cache_creation_1h,
            usage.cache_read,
        ];
        if counts.into_iter().flatten().any(|count| count > most) {
            return Err("a token count is at most 1099511627776");
        }
        Ok(())
    }
}
