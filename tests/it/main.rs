//! End-to-end and fault tests on real servers.

mod answers;
mod chain;
mod changes;
mod closed_pipes;
mod cooldown;
mod crash;
mod directions;
mod drain;
mod eleven_street;
mod events;
mod failures;
mod fares;
mod faults;
mod new;
mod outputs;
mod posts;
mod readme;
mod resume;
mod scene;
mod search;
mod serve;
mod serve_chains;
mod signing_in;
mod sources;
mod stack;
mod stores;
