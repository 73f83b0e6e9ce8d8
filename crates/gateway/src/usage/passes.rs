//! Passes of models that an answer lists in `usage.iterations`.
//!
//! The figures beside that list are of the passes that wrote the answer (`message`). They leave out those that
//! summarised the conversation (`compaction`; Anthropic API, "Compaction") and those of a model that was asked for
//! advice (`advisor_message`; "Advisor tool"), which are charged all the same, the latter at the price of that model. A
//! pass of another model that answered in place of the one asked for (`fallback_message`) is among the figures.

use super::{Tokens, model_name};
use serde_json::Value;

/// So many are kept apart; what further ones used is added to the last.
const MOST_PASSES: usize = 64;
/// So many models are remembered that answered in place of another.
const MOST_FALLBACKS: usize = 16;

/// What the figures of an answer leave out, or do not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Passes {
    /// Passes that are not among the figures.
    pub besides: Vec<Pass>,
    /// Models that answered in place of the one asked for.
    pub fallbacks: Vec<String>,
}

/// One pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pass {
    /// The model, where it is not the answer's.
    pub model: Option<String>,
    pub tokens: Tokens,
}

impl Passes {
    /// Reads the list; nothing where it is none.
    pub(super) fn read(iterations: Option<&Value>) -> Self {
        let mut passes = Self::default();
        for listed in iterations.and_then(Value::as_array).into_iter().flatten() {
            let model = listed.get("model").and_then(Value::as_str).map(model_name);
            match listed.get("type").and_then(Value::as_str) {
                Some("message") => {}
                Some("fallback_message") => passes.fallback(model),
                // Those of the future too, so that no budget is overrun by them.
                _ => {
                    let (said, written) = Tokens::said(listed);
                    passes.add(Pass { model, tokens: said.with_written(written) });
                }
            }
        }
        passes
    }

    /// All tokens of all passes together.
    pub(super) fn tokens(&self) -> Tokens {
        self.besides.iter().fold(Tokens::default(), |sum, pass| sum.plus(&pass.tokens))
    }

    fn add(&mut self, pass: Pass) {
        if self.besides.len() < MOST_PASSES {
            if pass.tokens.total() > 0 {
                self.besides.push(pass);
            }
        } else if let Some(last) = self.besides.last_mut() {
            last.tokens = last.tokens.plus(&pass.tokens);
        }
    }

    fn fallback(&mut self, model: Option<String>) {
        if let Some(model) = model
            && self.fallbacks.len() < MOST_FALLBACKS
            && !self.fallbacks.contains(&model)
        {
            self.fallbacks.push(model);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_MODEL;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_figures_leave_out_is_read_and_nothing_else() {
        let read = Passes::read(Some(&json!([
            { "type": "message", "input_tokens": 1, "output_tokens": 2 },
            { "type": "compaction", "input_tokens": 180_000, "output_tokens": 3500, "cache_read_input_tokens": 4,
              "cache_creation_input_tokens": 5, "cache_creation": { "ephemeral_1h_input_tokens": 3 } },
            { "type": "advisor_message", "model": "claude-opus-5-5", "input_tokens": 6, "output_tokens": 7 },
            { "type": "advisor_message", "model": "unused", "input_tokens": 0 },
            { "type": "fallback_message", "model": "claude-sonnet-5-5", "input_tokens": 8, "output_tokens": 9 },
            { "type": "fallback_message", "model": "claude-sonnet-5-5" },
            { "type": "of_the_future", "output_tokens": 10 },
            7,
        ])));
        let compaction =
            Tokens { input: 180_000, output: 3500, cache_write_5m: 2, cache_write_1h: 3, cache_read: 4 };
        let pass = |model: Option<&str>, tokens| Pass { model: model.map(str::to_owned), tokens };
        assert_eq!(
            read.besides,
            [
                pass(None, compaction),
                pass(Some("claude-opus-5-5"), Tokens { input: 6, output: 7, ..Tokens::default() }),
                pass(None, Tokens { output: 10, ..Tokens::default() }),
            ]
        );
        assert_eq!(read.fallbacks, ["claude-sonnet-5-5"]);
        assert_eq!(read.tokens(), Tokens { input: 180_006, output: 3517, ..compaction });
        for nothing in [None, Some(&json!(null)), Some(&json!({ "type": "compaction", "input_tokens": 1 }))] {
            assert_eq!(Passes::read(nothing), Passes::default());
        }
    }

    #[test]
    fn long_lists_take_little_and_count_whole() {
        let model = "m".repeat(1000);
        let kinds = ["compaction", "fallback_message"];
        let list: Vec<Value> = (0..1000)
            .map(|n| json!({ "type": kinds[n % 2], "model": format!("{n}{model}"), "input_tokens": 1 }))
            .collect();
        let read = Passes::read(Some(&json!(list)));
        assert_eq!((read.besides.len(), read.fallbacks.len()), (MOST_PASSES, MOST_FALLBACKS));
        assert_eq!(read.tokens().total(), 500);
        assert!(read.fallbacks.iter().all(|model| model.len() == MAX_MODEL));
    }
}
