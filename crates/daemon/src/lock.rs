//! Short locks that are never held across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A holder that panicked left whole values behind, since every change is one assignment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
