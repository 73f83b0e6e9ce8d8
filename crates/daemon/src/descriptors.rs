//! How many files this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Takes as many descriptors as it may (`RLIMIT_NOFILE`): many systems begin with 1024, and each client, each sandbox
/// and each of its connections takes some. Processes of sandboxes have a limit of their own. → how many.
pub(crate) fn raise() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return FEW };
    if soft >= hard {
        return count(soft);
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => {
            tracing::debug!(before = soft, now = hard, "took as many descriptors as there may be");
            count(hard)
        }
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the limit on open files could not be raised");
            count(soft)
        }
    }
}

/// What every system gives.
const FEW: usize = 1024;

fn count(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(256), hard).unwrap();
        assert_eq!(raise(), count(hard));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
