//! The jail backend: local process jails from namespaces, cgroups, seccomp and landlock.
