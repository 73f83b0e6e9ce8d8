//! The contract of ExecutionEnvironment as tests that every backend runs.
