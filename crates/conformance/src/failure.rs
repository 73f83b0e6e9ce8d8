//! How a case says that the backend broke the contract.

use std::fmt;
use std::panic::Location;

/// What a case returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// A broken rule, with the place in the suite that found it.
#[derive(Debug, Clone)]
pub struct Failure {
    message: String,
    place: String,
}

impl Failure {
    /// A failure found by the caller of this function.
    #[track_caller]
    pub fn new(message: impl Into<String>) -> Self {
        let place = Location::caller();
        Self { message: message.into(), place: format!("{}:{}", place.file(), place.line()) }
    }

    /// Says in what circumstances it failed.
    #[must_use]
    pub fn while_(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.place)
    }
}

// `Failure` is deliberately no `std::error::Error`, so that every error can become one by `?`.
impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// Fails the case unless the condition holds; the rest is a format string that says what was seen.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::failure::Failure::new(format!($($message)+)));
        }
    };
}

/// Fails the case unless both are equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr $(, $($message:tt)+)?) => {
        match (&$left, &$right) {
            (left, right) => if left != right {
                let context = String::new() $(+ &format!($($message)+) + ": ")?;
                return Err($crate::failure::Failure::new(format!(
                    "{context}{} is {left:?}, expected {right:?}", stringify!($left)
                )));
            }
        }
    };
}

/// Fails the case unless the result is an error of that kind.
macro_rules! ensure_err {
    ($result:expr, $($pattern:tt)+) => {
        match $result {
            Err($($pattern)+) => {}
            Err(error) => {
                return Err($crate::failure::Failure::new(format!(
                    "{} gave {error:?}, expected {}", stringify!($result), stringify!($($pattern)+)
                )));
            }
            Ok(_) => {
                return Err($crate::failure::Failure::new(format!(
                    "{} succeeded, expected {}", stringify!($result), stringify!($($pattern)+)
                )));
            }
        }
    };
}

pub(crate) use {ensure, ensure_eq, ensure_err};
