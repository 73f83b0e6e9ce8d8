//! Whether the kernel ended somebody in a jail for memory lately: it counts them, and does not say when.

use std::time::Duration;

/// Time between two looks at the count.
pub(crate) const LOOK: Duration = Duration::from_secs(10);

/// The count at the last two looks. What is more than at the older one came since, so that a look between an end and
/// its being noticed hides nothing.
#[derive(Debug)]
pub(crate) struct Shortage {
    older: u64,
    newer: u64,
}

impl Shortage {
    /// From such a count on, which is over and done with.
    pub(crate) fn since(count: u64) -> Self {
        Self { older: count, newer: count }
    }

    /// Notes the count of a look. One that could not be read is 0, and says nothing.
    pub(crate) fn look(&mut self, count: u64) {
        self.older = self.newer;
        self.newer = count.max(self.newer);
    }

    /// Whether a count is more than it was for long.
    pub(crate) fn is_new(&self, count: u64) -> bool {
        count > self.older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_lately_is_new_and_what_was_before_is_not() {
        let mut shortage = Shortage::since(3);
        assert!(!shortage.is_new(3) && shortage.is_new(4));
        shortage.look(4);
        // It may be that of this moment.
        assert!(shortage.is_new(4));
        shortage.look(4);
        assert!(!shortage.is_new(4) && shortage.is_new(5));
        shortage.look(0);
        shortage.look(0);
        assert!(!shortage.is_new(4) && shortage.is_new(5));
    }
}
