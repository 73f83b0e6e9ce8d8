//! The model gateway: forwards to model APIs with the real key, meters, prices, and stops at the budget.
#![forbid(unsafe_code)]
