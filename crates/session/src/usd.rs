//! Money.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// An amount in millionths of a dollar. In JSON it is a number of dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = f64, example = 0.35, minimum = 0)]
pub struct Usd(u64);

impl Usd {
    /// Millionths of a dollar.
    #[must_use]
    pub fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Dollars, rounded to a millionth; `None` for what is no amount: negative, not a number, over 10 billion.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked before, and a millionth is what is kept"
    )]
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        (0.0..=1e10).contains(&dollars).then(|| Self((dollars * 1e6).round() as u64))
    }

    /// In millionths of a dollar.
    #[must_use]
    pub fn micros(self) -> u64 {
        self.0
    }

    /// In dollars.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact below 9 billion dollars")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Both together, at most what can be counted.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = formatter.precision().unwrap_or(4);
        write!(formatter, "${:.decimals$}", self.dollars())
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.dollars())
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dollars = f64::deserialize(deserializer)?;
        Self::from_dollars(dollars)
            .ok_or_else(|| serde::de::Error::custom("an amount is 0 to 10000000000 dollars"))
    }
}
