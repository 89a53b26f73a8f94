//! From a part to what comes of it: counts, sorted sets, documents. Both roles do it from the part as it
//! lies in S3, so that doing it again, by whomever, gives the same.

pub mod documents;
pub mod doubles;
pub mod failures;
pub mod finished;
pub mod normalise;
pub mod object_keys;
pub mod part;
pub mod rankings;
pub mod record_templates;
pub mod settle;
pub mod sorted;
pub mod spooled;
