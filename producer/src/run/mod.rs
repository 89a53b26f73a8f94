//! One run: finding it, reading what S3 says of it, what its parts cover, and publishing its shards.

mod base;
mod by;
mod find;
mod open;
mod order;
mod own_loader;
mod parts;
mod publish;
mod read;
mod ready;
mod start_note;
mod tally;
mod unfinished;

pub use base::base_of;
pub use by::counts_by;
pub use find::{find, jobs};
pub use open::{forget_entry, forget_if_ended, new_entry, put_entry, register, stop};
pub use order::publishing_order;
pub use own_loader::OwnLoader;
pub use parts::{Coverage, PartsFound, coverage, newest_round};
pub use publish::{Round, publish_receipts, publish_shards, zero_shards};
pub(crate) use read::json;
pub use read::{
    RunFiles, StateWord, all_runs, open_entries, open_entry, open_runs, open_runs_since,
};
pub use ready::{BETWEEN_ROUNDS, Readiness, Wait};
pub use start_note::{LEFT_AFTER, is_left, noted};
pub use tally::cancelled;
pub use unfinished::{Left, left_to_do};
