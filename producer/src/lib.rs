//! Plans, enqueues, watches, retries and audits runs.

pub mod check;
pub mod plan;
