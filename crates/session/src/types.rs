//! Which types of events a client wants.

use crate::event::EventKind;
use crate::host::Delivery;

/// The types that are wanted; all where none is named.
#[derive(Debug, Clone, Default)]
pub struct EventTypes(Vec<EventKind>);

impl EventTypes {
    /// Reads their words.
    ///
    /// # Errors
    /// A sentence, where one is none.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let wrong = |word: &str| {
            let all: Vec<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("{word:.40?} is none of {}", all.join(", "))
        };
        let kind = |word: &str| EventKind::from_word(word.trim()).ok_or_else(|| wrong(word));
        words.into_iter().filter(|word| !word.is_empty()).map(kind).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one is wanted.
    #[must_use]
    pub fn want(&self, kind: EventKind) -> bool {
        self.0.is_empty() || self.0.contains(&kind)
    }

    /// Whether something that a subscription delivers is. Only deltas are ever compacted.
    #[must_use]
    pub fn want_delivery(&self, delivery: &Delivery) -> bool {
        match delivery {
            Delivery::Event(event) => self.want(event.kind),
            Delivery::Compacted { .. } => self.want(EventKind::BlockDelta),
        }
    }
}
