//! Words of ours and their numbers on the wire.

use crate::grpc::status::invalid;
use hostel_proto::v1;
use hostel_session as ours;
use tonic::Status;

/// One of several words.
pub(crate) trait Word: Sized + Copy {
    /// Its number.
    fn to_wire(self) -> i32;

    /// The word of a number; `None` for the one that means not said.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a number that has none.
    #[allow(clippy::result_large_err, reason = "tonic's status is what services answer with")]
    fn from_wire(field: &str, number: i32) -> Result<Option<Self>, Status>;
}

macro_rules! words {
    ($($ours:ident = $wire:ident { $($word:ident)+ })+) => {$(
        impl Word for ours::$ours {
            fn to_wire(self) -> i32 {
                match self { $(Self::$word => v1::$wire::$word.into(),)+ }
            }

            fn from_wire(field: &str, number: i32) -> Result<Option<Self>, Status> {
                match v1::$wire::try_from(number) {
                    Ok(v1::$wire::Unspecified) => Ok(None),
                    $(Ok(v1::$wire::$word) => Ok(Some(Self::$word)),)+
                    Err(_) => Err(invalid(field, format!("{number} is not known"))),
                }
            }
        }
    )+};
}

words! {
    Pattern = SessionPattern { Ephemeral LongRunning Hybrid SingleContainer }
    SessionStatus = SessionStatus { Initializing Active Idle Stopping Completed Error Terminated }
    EnvironmentStatus = SessionEnvironmentStatus { Inactive Starting Ready Error Terminated }
    EndReason = SessionEndReason {
        Completed UserRequested IdleTimeout MaxLifetime BudgetExceeded MaxTurns StorageExceeded EmergencyStop
        Error
    }
    OnLimit = SessionLimitAction { Terminate Pause }
    TurnPhase = TurnPhase { Starting Running Interrupting Stopping Killing Settling }
    MessageState = MessageState { Queued Running Done Cancelled }
    QuestionState = QuestionState { Pending Answered Withdrawn }
    Verdict = Verdict { Allow AllowForSession Deny }
}
