//! What responses cost: tokens by a table of model prefixes, and what is charged besides, in whole millionths of a
//! dollar.

use crate::error::{Error, Result};
use crate::usage::{Pass, Tokens, Used};
use serde::Deserialize;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The table that ships with the gateway.
const SHIPPED: &str = include_str!("prices.toml");
/// Models warned about before the gateway stops counting them: names come from outside.
const MOST_WARNINGS: usize = 1000;
/// Tokens that a price is for.
const PER: u128 = 1_000_000;
/// Searches that their price is for.
const SEARCHES: u128 = 1000;
/// What a factor of one is.
const ONE: u128 = 1_000_000;

/// Prices of one model, in micro-USD per million tokens of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Input tokens that no cache was involved with.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input written to the cache for five minutes.
    pub cache_write_5m: u64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: u64,
    /// Input read from the cache.
    pub cache_read: u64,
}

impl Price {
    /// What these tokens cost, in micro-USD, rounded up once.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> u64 {
        rounded(self.exact(tokens))
    }

    /// The same, in millionths of a micro-USD.
    fn exact(&self, tokens: &Tokens) -> u128 {
        let part = |count: u64, price: u64| u128::from(count) * u128::from(price);
        [
            part(tokens.input, self.input),
            part(tokens.output, self.output),
            part(tokens.cache_write_5m, self.cache_write_5m),
            part(tokens.cache_write_1h, self.cache_write_1h),
            part(tokens.cache_read, self.cache_read),
        ]
        .into_iter()
        .fold(0_u128, u128::saturating_add)
    }
}

/// Whole micro-USD.
fn rounded(exact: u128) -> u64 {
    u64::try_from(exact.div_ceil(PER)).unwrap_or(u64::MAX)
}

/// What is charged besides tokens, and what makes them dearer.
#[derive(Debug, Clone, Copy)]
struct Extra {
    /// Micro-USD for [`SEARCHES`] searches of the web.
    web_search: u64,
    /// Factors, in parts of [`ONE`].
    fast: u64,
    priority: u64,
    us_inference: u64,
}

#[derive(Debug, Clone)]
struct Row {
    prefix: String,
    prompt_over: u64,
    price: Price,
}

/// Which model costs what.
#[derive(Debug)]
pub struct Prices {
    rows: Vec<Row>,
    fallback: Price,
    extra: Extra,
    warned: Mutex<HashSet<String>>,
}

/// The table as it is written: US dollars per million tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    fallback: Dollars,
    #[serde(default)]
    extra: ExtraTable,
    #[serde(default)]
    model: Vec<ModelRow>,
}

/// See [`Extra`]; `web_search` is US dollars per thousand, the others are factors. What is absent is as it ships.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExtraTable {
    web_search: f64,
    fast: f64,
    priority: f64,
    us_inference: f64,
}

impl Default for ExtraTable {
    fn default() -> Self {
        Self { web_search: 10.0, fast: 6.0, priority: 1.0, us_inference: 1.1 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dollars {
    input: f64,
    output: f64,
    cache_write_5m: f64,
    cache_write_1h: f64,
    cache_read: f64,
}

/// `deny_unknown_fields` does not go with `flatten`, so the fields stand here again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelRow {
    prefix: String,
    #[serde(default)]
    prompt_over: u64,
    input: f64,
    output: f64,
    cache_write_5m: f64,
    cache_write_1h: f64,
    cache_read: f64,
}

impl Prices {
    /// The table that ships with the gateway.
    ///
    /// # Errors
    /// Never in a released build: a test reads the table.
    pub fn shipped() -> Result<Self> {
        Self::parse(SHIPPED)
    }

    /// Reads a table in TOML; `prices.toml` in this crate shows the form.
    ///
    /// # Errors
    /// [`Error::Configuration`] for what is no such table, and for prices and factors that are negative or above a
    /// million.
    pub fn parse(text: &str) -> Result<Self> {
        let table: Table =
            toml::from_str(text).map_err(|error| Error::configuration("prices", error.to_string()))?;
        let fallback = table.fallback.price("fallback")?;
        let extra = table.extra.resolve()?;
        let rows = table.model.into_iter().map(ModelRow::row).collect::<Result<Vec<_>>>()?;
        Ok(Self { rows, fallback, extra, warned: Mutex::default() })
    }

    /// The price of a model for a prompt of so many tokens, caches included: the row with the longest prefix, and
    /// of those the one with the highest `prompt_over` that the prompt is above.
    #[must_use]
    pub fn of(&self, model: &str, prompt: u64) -> Price {
        let best = self
            .rows
            .iter()
            .filter(|row| model.starts_with(&row.prefix))
            .filter(|row| row.prompt_over == 0 || prompt > row.prompt_over)
            .max_by_key(|row| (row.prefix.len(), row.prompt_over));
        best.map_or_else(|| self.unknown(model), |row| row.price)
    }

    /// What a response cost, in micro-USD.
    pub(crate) fn cost(&self, model: &str, used: &Used) -> u64 {
        let Used { tokens, passes, web_searches, fast, priority, in_us } = used;
        let exact = |model: &str, tokens: &Tokens| match tokens.total() {
            0 => 0,
            _ => self.of(model, tokens.prompt()).exact(tokens),
        };
        // Which of the tokens are another model's that took its place is not told: the dearest price counts.
        let fallbacks = passes.fallbacks.iter().map(|fallback| exact(fallback, tokens));
        let answer = fallbacks.fold(exact(model, tokens), u128::max);
        let besides = |pass: &Pass| exact(pass.model.as_deref().unwrap_or(model), &pass.tokens);
        let mut exact = passes.besides.iter().map(besides).fold(answer, u128::saturating_add);
        let extra = &self.extra;
        for (applies, factor) in [(fast, extra.fast), (priority, extra.priority), (in_us, extra.us_inference)]
        {
            if *applies {
                exact = exact.saturating_mul(u128::from(factor)).div_ceil(ONE);
            }
        }
        let searches = u128::from(*web_searches) * u128::from(extra.web_search) * (PER / SEARCHES);
        rounded(exact.saturating_add(searches))
    }

    fn unknown(&self, model: &str) -> Price {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < MOST_WARNINGS && warned.insert(model.to_owned()) {
            tracing::warn!(model, "no price is configured for this model; the fallback price is used");
        }
        self.fallback
    }
}

/// A price or a factor in whole millionths.
fn millionths(of: &str, name: &str, number: f64) -> Result<u64> {
    if !(0.0..=1_000_000.0).contains(&number) {
        return Err(Error::configuration(
            format!("prices.{of}.{name}"),
            format!("{number} is neither a price nor a factor: use 0 to 1000000"),
        ));
    }
    // In range, so the conversion loses nothing but what is below a millionth.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
    let millionths = (number * 1_000_000.0).round() as u64;
    Ok(millionths)
}

impl ExtraTable {
    fn resolve(&self) -> Result<Extra> {
        let millionths = |name: &str, number: f64| millionths("extra", name, number);
        Ok(Extra {
            web_search: millionths("web_search", self.web_search)?,
            fast: millionths("fast", self.fast)?,
            priority: millionths("priority", self.priority)?,
            us_inference: millionths("us_inference", self.us_inference)?,
        })
    }
}

impl Dollars {
    fn price(&self, of: &str) -> Result<Price> {
        let micros = |name: &str, dollars: f64| millionths(of, name, dollars);
        Ok(Price {
            input: micros("input", self.input)?,
            output: micros("output", self.output)?,
            cache_write_5m: micros("cache_write_5m", self.cache_write_5m)?,
            cache_write_1h: micros("cache_write_1h", self.cache_write_1h)?,
            cache_read: micros("cache_read", self.cache_read)?,
        })
    }
}

impl ModelRow {
    fn row(self) -> Result<Row> {
        let dollars = Dollars {
            input: self.input,
            output: self.output,
            cache_write_5m: self.cache_write_5m,
            cache_write_1h: self.cache_write_1h,
            cache_read: self.cache_read,
        };
        let price = dollars.price(&self.prefix)?;
        Ok(Row { prefix: self.prefix, prompt_over: self.prompt_over, price })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Passes;

    #[test]
    fn the_shipped_table_prices_what_is_public() {
        let prices = Prices::shipped().unwrap();
        let input = |model, prompt| prices.of(model, prompt).input;
        assert_eq!(input("claude-opus-5-5", 1), 4_000_000);
        assert_eq!(input("claude-opus-4-6-20260101", 1), 5_000_000);
        assert_eq!(input("claude-opus-4-20250514", 1), 15_000_000);
        assert_eq!(input("claude-haiku-5-5", 100_000), 100_000);
        assert_eq!(input("claude-haiku-5-5", 100_001), 500_000);
        for _ in 0..2 {
            assert_eq!(prices.of("somebody-else", 1), prices.fallback);
        }
        assert_eq!(
            *prices.warned.lock().unwrap(),
            HashSet::from(["somebody-else".to_owned()]),
            "and no other"
        );
    }

    #[test]
    fn costs_are_rounded_up_once() {
        let price = Prices::shipped().unwrap().of("claude-haiku-4-5", 1);
        let tokens = Tokens { input: 1, cache_read: 1, ..Tokens::default() };
        assert_eq!(price.cost(&tokens), 2, "1 + 0.1 micro-USD");
        let tokens = Tokens { input: 10, output: 20, cache_write_5m: 4, cache_write_1h: 5, cache_read: 10 };
        assert_eq!(price.cost(&tokens), 10 + 100 + 5 + 10 + 1);
        let most = Tokens { input: u64::MAX, output: u64::MAX, ..Tokens::default() };
        assert_eq!(price.cost(&most), u64::MAX);
    }

    #[test]
    fn what_is_charged_besides_tokens_is_priced() {
        let tokens = Tokens { input: 1001, ..Tokens::default() };
        let usual = Used { tokens, ..Used::default() };
        let all = Used { web_searches: 3, fast: true, priority: true, in_us: true, ..usual.clone() };
        let costs = |prices: &Prices| {
            [
                usual.clone(),
                Used { web_searches: 3, ..usual.clone() },
                Used { fast: true, ..usual.clone() },
                Used { priority: true, ..usual.clone() },
                Used { in_us: true, ..usual.clone() },
                all.clone(),
                Used { tokens: Tokens::default(), ..all.clone() },
                Used::default(),
            ]
            .map(|used| prices.cost("claude-haiku-4-5", &used))
        };
        let shipped = Prices::shipped().unwrap();
        assert_eq!(costs(&shipped), [1001, 31_001, 6006, 1001, 1102, 36_607, 30_000, 0]);
        let fallback =
            "[fallback]\ninput=1.0\noutput=1.0\ncache_write_5m=1.0\ncache_write_1h=1.0\ncache_read=1.0\n";
        let unsaid = Prices::parse(fallback).unwrap();
        assert_eq!(costs(&unsaid), costs(&shipped), "a table that does not name them has what ships");
        let own = format!("{fallback}[extra]\nweb_search=1.0\nfast=2.0\npriority=1.5\nus_inference=1.0");
        let own = Prices::parse(&own).unwrap();
        assert_eq!(costs(&own), [1001, 4001, 2002, 1502, 1001, 6003, 3000, 0]);
        let tokens = Tokens { input: u64::MAX, output: u64::MAX, ..Tokens::default() };
        let most = Used { tokens, web_searches: u64::MAX, ..all };
        assert_eq!(shipped.cost("claude-haiku-4-5", &most), u64::MAX);
    }

    #[test]
    fn each_pass_costs_what_its_model_does() {
        let tokens = Tokens { input: 1000, ..Tokens::default() };
        let pass = |model: Option<&str>| Pass { model: model.map(str::to_owned), tokens };
        let prices = Prices::shipped().unwrap();
        let cost = |besides: Vec<Pass>, fallbacks: &[&str]| {
            let fallbacks = fallbacks.iter().map(|model| (*model).to_owned()).collect();
            let used = Used { tokens, passes: Passes { besides, fallbacks }, ..Used::default() };
            prices.cost("claude-haiku-4-5", &used)
        };
        assert_eq!(cost(vec![], &[]), 1000);
        assert_eq!(cost(vec![pass(None)], &[]), 2000, "compaction is the answer's model's");
        assert_eq!(cost(vec![pass(Some("claude-opus-5-5")), pass(None)], &[]), 1000 + 4000 + 1000);
        assert_eq!(cost(vec![], &["claude-opus-5-5"]), 4000, "the dearer of both");
        assert_eq!(cost(vec![], &["claude-haiku-5-5"]), 1000);
    }

    #[test]
    fn wrong_tables_are_refused() {
        for wrong in [
            "",
            "[fallback]\ninput = 1",
            "[fallback]\ninput=-1\noutput=1\ncache_write_5m=1\ncache_write_1h=1\ncache_read=1",
            "[fallback]\ninput=1\noutput=1\ncache_write_5m=1\ncache_write_1h=1\ncache_read=1\n[extra]\nfast=-1",
            "[fallback]\ninput=1\noutput=1\ncache_write_5m=1\ncache_write_1h=1\ncache_read=1\n[extra]\nslow=1",
        ] {
            assert!(Prices::parse(wrong).is_err(), "{wrong}");
        }
    }
}
