//! Words that say where something is.

use serde::{Serialize, Serializer};
use std::fmt;

macro_rules! words {
    ($($(#[$docs:meta])* $name:ident { $($(#[$word_docs:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$docs])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$word_docs])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its word, as REST and journals have it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// What has this word.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.name())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    )+};
}

words! {
    /// How a session uses sandboxes.
    SessionPattern {
        /// A fresh sandbox for one task.
        Ephemeral = "ephemeral",
        /// One sandbox that stays, with one agent that is kept running.
        LongRunning = "long-running",
        /// The sandbox goes away when idle, and the next message brings it back.
        Hybrid = "hybrid",
        /// Several agents in one sandbox.
        SingleContainer = "single-container",
    }

    /// What a session is to its users.
    SessionStatus {
        /// No message came yet.
        Initializing = "initializing",
        /// A turn runs, or messages wait for theirs.
        Active = "active",
        /// It waits for a message.
        Idle = "idle",
        /// It is being ended.
        Stopping = "stopping",
        /// It did what it was for.
        Completed = "completed",
        /// It cannot go on by itself. A message tries again.
        Error = "error",
        /// Somebody or a limit ended it.
        Terminated = "terminated",
    }

    /// What is with the sandbox of a session.
    EnvironmentStatus {
        /// There is none.
        Inactive = "inactive",
        /// It is being made.
        Starting = "starting",
        /// The agent takes messages.
        Ready = "ready",
        /// It could not be made, or broke too often.
        Error = "error",
        /// It was taken away.
        Terminated = "terminated",
    }

    /// Why a session ended, or is held back.
    EndReason {
        /// It did what it was for.
        Completed = "completed",
        /// Somebody asked.
        UserRequested = "user_requested",
        /// Nothing happened for too long.
        IdleTimeout = "idle_timeout",
        /// It had lived long enough.
        MaxLifetime = "max_lifetime",
        /// Its money is spent.
        BudgetExceeded = "budget_exceeded",
        /// It had its turns.
        MaxTurns = "max_turns",
        /// It wrote as much as it may.
        StorageExceeded = "storage_exceeded",
        /// Somebody pulled the plug.
        EmergencyStop = "emergency_stop",
        /// Something failed.
        Error = "error",
    }

    /// What happens when a limit of a session is reached.
    LimitAction {
        /// The session ends.
        Terminate = "terminate",
        /// The session goes on when the limit is raised.
        Pause = "pause",
    }

    /// Where a turn is.
    TurnPhase {
        /// The sandbox or the agent is not ready yet.
        Starting = "starting",
        /// The agent works.
        Running = "running",
        /// The agent was asked to stop.
        Interrupting = "interrupting",
        /// The agent has until its grace is over.
        Stopping = "stopping",
        /// Everything in the sandbox is being killed.
        Killing = "killing",
        /// It is over; what it cost is being found out.
        Settling = "settling",
    }

    /// Where a message is.
    MessageState {
        /// It waits for its turn.
        Queued = "queued",
        /// Its turn runs.
        Running = "running",
        /// Its turn has ended.
        Done = "done",
        /// It will have no turn.
        Cancelled = "cancelled",
    }

    /// Where a question is.
    QuestionState {
        /// It waits.
        Pending = "pending",
        /// It has its answer.
        Answered = "answered",
        /// It needs none any more.
        Withdrawn = "withdrawn",
    }

    /// What is decided.
    Verdict {
        /// Do it.
        Allow = "allow",
        /// Do it, and do not ask for the like again in this session.
        AllowForSession = "allow-for-session",
        /// Do not do it.
        Deny = "deny",
    }
}
