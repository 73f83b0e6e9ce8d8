//! Words of sessions and their numbers on the wire.

use crate::convert::unknown;
use crate::error::Result;
use crate::model;
use hostel_proto::v1;

/// One of several words.
pub(crate) trait Word: Sized + Copy {
    /// Its number.
    fn to_wire(self) -> i32;

    /// The word of a number; `None` for the one that means none.
    ///
    /// # Errors
    /// For a number that this version does not know.
    fn from_wire(number: i32) -> Result<Option<Self>>;
}

macro_rules! words {
    ($($ours:ident = $wire:ident { $($word:ident)+ })+) => {$(
        impl Word for model::$ours {
            fn to_wire(self) -> i32 {
                match self { $(Self::$word => v1::$wire::$word.into(),)+ }
            }

            fn from_wire(number: i32) -> Result<Option<Self>> {
                match v1::$wire::try_from(number) {
                    Ok(v1::$wire::Unspecified) => Ok(None),
                    $(Ok(v1::$wire::$word) => Ok(Some(Self::$word)),)+
                    Err(_) => Err(unknown(stringify!($wire), number)),
                }
            }
        }
    )+};
}

words! {
    SessionPattern = SessionPattern { Ephemeral LongRunning Hybrid SingleContainer }
    SessionStatus = SessionStatus { Initializing Active Idle Stopping Completed Error Terminated }
    EnvironmentStatus = SessionEnvironmentStatus { Inactive Starting Ready Error Terminated }
    EndReason = SessionEndReason {
        Completed UserRequested IdleTimeout MaxLifetime BudgetExceeded MaxTurns StorageExceeded EmergencyStop
        Error
    }
    LimitAction = SessionLimitAction { Terminate Pause }
    TurnPhase = TurnPhase { Starting Running Interrupting Stopping Killing Settling }
    MessageState = MessageState { Queued Running Done Cancelled }
    QuestionState = QuestionState { Pending Answered Withdrawn }
    Verdict = Verdict { Allow AllowForSession Deny }
}
