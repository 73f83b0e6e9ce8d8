//! Lists that come in pages.

use crate::error::{Error, Result};

/// Turns to the next page, of which the answer with this one told the token; false where this was the last.
///
/// # Errors
/// `Protocol` for a page that is followed by itself: a list that never ends.
pub(crate) fn turn(token: &mut String, next: String) -> Result<bool> {
    if !next.is_empty() && next == *token {
        return Err(Error::Protocol("a page of a list that is followed by itself".to_owned()));
    }
    *token = next;
    Ok(!token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_turned_to_the_last_and_never_in_place() {
        let mut token = String::new();
        assert!(turn(&mut token, "a".to_owned()).unwrap());
        assert!(turn(&mut token, "b".to_owned()).unwrap());
        assert!(matches!(turn(&mut token, "b".to_owned()), Err(Error::Protocol(_))));
        assert!(!turn(&mut token, String::new()).unwrap());
        assert!(!turn(&mut String::new(), String::new()).unwrap(), "the only page");
    }
}
