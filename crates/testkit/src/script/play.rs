//! Which step is next.

use super::{Script, Step};
use std::time::Duration;

/// What is to be played now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Play<'a> {
    pub(crate) step: &'a Step,
    /// Its place in the script, from 1.
    pub(crate) number: usize,
    /// How long to wait before it begins, from steps of `wait_ms` alone and its own.
    pub(crate) wait: Duration,
}

impl Script {
    /// Whether what is next depends on how often it was asked for.
    pub(crate) fn counts_attempts(&self) -> bool {
        self.steps.iter().any(|step| step.times.is_some())
    }

    /// The step after so many answers, at the given attempt (from 0) to get it. `None` past the end.
    pub(crate) fn next(&self, answers: usize, mut attempt: u32) -> Option<Play<'_>> {
        let mut to_pass = answers;
        let mut wait = 0;
        for (index, step) in self.steps.iter().enumerate() {
            let own = step.wait_ms.unwrap_or(0);
            if step.is_wait() {
                wait += own;
                continue;
            }
            if step.is_fault() {
                let times = step.times.unwrap_or(u32::MAX);
                if to_pass > 0 || attempt >= times {
                    // Attempts count from the last answer on.
                    attempt = if to_pass > 0 { attempt } else { attempt - times };
                    wait = 0;
                    continue;
                }
            } else if to_pass > 0 {
                to_pass -= 1;
                wait = 0;
                continue;
            }
            return Some(Play { step, number: index + 1, wait: Duration::from_millis(wait + own) });
        }
        None
    }
}

impl Step {
    /// What it does, in a few words for the log.
    pub(crate) fn in_words(&self) -> String {
        let fault = match (self.error, &self.sse_error, self.cut, self.hang) {
            (Some(status), ..) => Some(format!("error {status}")),
            (_, Some(kind), ..) => Some(format!("{kind} after {} events", self.after.unwrap_or(0))),
            (_, _, Some(after), _) => Some(format!("cut after {after} events")),
            (.., Some(after)) => Some(format!("hang after {after} events")),
            _ => None,
        };
        fault.unwrap_or_else(|| {
            let calls = self.tool.iter().chain(self.tools.iter().flatten().map(|call| &call.name));
            let calls: Vec<&str> = calls.map(String::as_str).collect();
            match (calls.is_empty(), self.generate) {
                (false, _) => format!("tool {}", calls.join(", ")),
                (true, Some(bytes)) => format!("{bytes} bytes"),
                (true, None) => "text".to_owned(),
            }
        })
    }
}
