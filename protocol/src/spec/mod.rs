//! Job and provider files: what they may say ([`model`]) and how they are read, with everything that
//! is wrong reported at once with its place.

mod model;

pub use model::*;
