//! How values are written into the two databases where these have no type in common.

use crate::error::{Error, Result};
use crate::usd::Usd;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef, Postgres};
use sqlx::sqlite::{Sqlite, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Database, Decode, Encode, Type};

/// PostgreSQL's numbers for its types, from its `pg_type.dat`.
const JSON: Oid = Oid(114);
const TIMESTAMPTZ: Oid = Oid(1184);
/// PostgreSQL counts microseconds from the beginning of 2000: this many after 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A moment, to the microsecond: `TIMESTAMPTZ`, or microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) Timestamp);

impl Type<Sqlite> for Time {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(kind: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(kind)
    }
}

impl Encode<'_, Sqlite> for Time {
    fn encode_by_ref(&self, buffer: &mut <Sqlite as Database>::ArgumentBuffer) -> Encoded {
        Encode::<Sqlite>::encode(self.0.as_microsecond(), buffer)
    }
}

impl Decode<'_, Sqlite> for Time {
    fn decode(value: SqliteValueRef<'_>) -> std::result::Result<Self, BoxDynError> {
        Ok(Self(Timestamp::from_microsecond(<i64 as Decode<'_, Sqlite>>::decode(value)?)?))
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }

    fn compatible(kind: &PgTypeInfo) -> bool {
        kind.oid() == Some(TIMESTAMPTZ)
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Encoded {
        Encode::<Postgres>::encode(self.0.as_microsecond().saturating_sub(POSTGRES_EPOCH), buffer)
    }
}

impl Decode<'_, Postgres> for Time {
    fn decode(value: PgValueRef<'_>) -> std::result::Result<Self, BoxDynError> {
        let micros = <i64 as Decode<'_, Postgres>>::decode(value)?;
        Ok(Self(Timestamp::from_microsecond(micros.saturating_add(POSTGRES_EPOCH))?))
    }
}

type Encoded = std::result::Result<IsNull, BoxDynError>;

/// JSON, kept as it was written: `JSON`, or text.
#[derive(Debug, Clone)]
pub(super) struct Json(pub(super) String);

impl Json {
    pub(super) fn of(value: &impl Serialize) -> Result<Self> {
        serde_json::to_string(value)
            .map(Self)
            .map_err(|error| Error::Store { action: "write JSON", problem: error.to_string() })
    }

    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.0)
            .map_err(|error| Error::Store { action: "read JSON", problem: error.to_string() })
    }
}

impl Type<Sqlite> for Json {
    fn type_info() -> SqliteTypeInfo {
        <str as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Json {
    fn encode_by_ref(&self, buffer: &mut <Sqlite as Database>::ArgumentBuffer) -> Encoded {
        Encode::<Sqlite>::encode(self.0.as_str(), buffer)
    }

    fn encode(self, buffer: &mut <Sqlite as Database>::ArgumentBuffer) -> Encoded {
        Encode::<Sqlite>::encode(self.0, buffer)
    }
}

impl Decode<'_, Sqlite> for Json {
    fn decode(value: SqliteValueRef<'_>) -> std::result::Result<Self, BoxDynError> {
        <String as Decode<'_, Sqlite>>::decode(value).map(Self)
    }
}

impl Type<Postgres> for Json {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(JSON)
    }

    fn compatible(kind: &PgTypeInfo) -> bool {
        kind.oid() == Some(JSON)
    }
}

impl Encode<'_, Postgres> for Json {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Encoded {
        Encode::<Postgres>::encode(self.0.as_str(), buffer)
    }
}

impl Decode<'_, Postgres> for Json {
    fn decode(value: PgValueRef<'_>) -> std::result::Result<Self, BoxDynError> {
        <String as Decode<'_, Postgres>>::decode(value).map(Self)
    }
}

/// Several words: `TEXT[]`, or a JSON array.
#[derive(Debug, Clone)]
pub(super) struct Words(pub(super) Vec<String>);

impl Type<Sqlite> for Words {
    fn type_info() -> SqliteTypeInfo {
        <str as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Words {
    fn encode_by_ref(&self, buffer: &mut <Sqlite as Database>::ArgumentBuffer) -> Encoded {
        Encode::<Sqlite>::encode(serde_json::to_string(&self.0)?, buffer)
    }
}

impl Decode<'_, Sqlite> for Words {
    fn decode(value: SqliteValueRef<'_>) -> std::result::Result<Self, BoxDynError> {
        let text = <String as Decode<'_, Sqlite>>::decode(value)?;
        Ok(Self(serde_json::from_str(&text)?))
    }
}

impl Type<Postgres> for Words {
    fn type_info() -> PgTypeInfo {
        <Vec<String> as Type<Postgres>>::type_info()
    }

    fn compatible(kind: &PgTypeInfo) -> bool {
        <Vec<String> as Type<Postgres>>::compatible(kind)
    }
}

impl Encode<'_, Postgres> for Words {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Encoded {
        Encode::<Postgres>::encode_by_ref(&self.0, buffer)
    }
}

impl Decode<'_, Postgres> for Words {
    fn decode(value: PgValueRef<'_>) -> std::result::Result<Self, BoxDynError> {
        <Vec<String> as Decode<'_, Postgres>>::decode(value).map(Self)
    }
}

/// Text as both databases take it: PostgreSQL has no U+0000 in text, so that becomes U+FFFD in both.
pub(super) fn plain(text: &str) -> String {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text.to_owned() }
}

/// [`plain`], of what may be absent.
pub(super) fn plain_option(text: Option<&str>) -> Option<String> {
    text.map(plain)
}

/// [`plain`], of each.
pub(super) fn plain_words(words: &[String]) -> Vec<String> {
    words.iter().map(|word| plain(word)).collect()
}

/// The word that JSON has for a value of an enumeration.
pub(super) fn word(value: &impl Serialize) -> Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        other => Err(Error::Store { action: "write a word", problem: format!("{other:?} is none") }),
    }
}

/// The value of an enumeration that JSON has this word for.
pub(super) fn from_word<T: DeserializeOwned>(word: String) -> Result<T> {
    let shown = word.chars().take(40).collect::<String>();
    serde_json::from_value(serde_json::Value::String(word))
        .map_err(|_| Error::Store { action: "read a word", problem: format!("{shown:?} is none of ours") })
}

/// A count as the databases have it. What is larger than they can is the largest.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count from a database, where none is negative.
pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// A count to calculate with.
#[expect(clippy::cast_precision_loss, reason = "exact to 53 bits")]
pub(super) fn as_number(count: u64) -> f64 {
    count as f64
}

/// An amount, from a database.
pub(super) fn dollars(dollars: f64) -> Usd {
    Usd::from_dollars(dollars.max(0.0)).unwrap_or(Usd::from_micros(u64::MAX))
}
