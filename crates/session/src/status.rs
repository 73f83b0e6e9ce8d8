//! Where a session is: three axes that do not lie for each other.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$docs:meta])* $name:ident { $($(#[$variant_docs:meta])* $variant:ident = $word:tt,)+ }) => {
        $(#[$docs])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum $name {
            $($(#[$variant_docs])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word that JSON and the database have for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::error::Error;

            fn from_str(word: &str) -> crate::error::Result<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word).ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|one| one.as_str()).collect();
                    crate::error::Error::invalid(
                        stringify!($name),
                        format!("{word:.40?} is none of {}", all.join(", ")),
                    )
                })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// How a session uses sandboxes.
    Pattern {
        /// A fresh sandbox for one task; completes by itself and is cleaned up a minute after.
        Ephemeral = "ephemeral",
        /// One sandbox that stays, with one agent that is kept running.
        LongRunning = "long-running",
        /// The sandbox goes away when idle; the next message brings it back.
        Hybrid = "hybrid",
        /// Several agents in one sandbox.
        SingleContainer = "single-container",
    }
}

words! {
    /// What the session is to its users.
    SessionStatus {
        /// Created; no message came yet.
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
}

impl SessionStatus {
    /// Whether it takes no messages any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Terminated)
    }
}

words! {
    /// What is with the sandbox and the agent in it.
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
}

words! {
    /// Why a session or its turn ended.
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
        /// Something failed; the message says what.
        Error = "error",
    }
}
