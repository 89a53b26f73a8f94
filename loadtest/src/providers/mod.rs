//! Small simulators of the providers in the example files: each answers as its documentation says, and
//! keeps its own log of every call, which is the truth of a test.

mod bucket;
pub mod canned;
pub mod coupang;
pub mod eleven_street;
mod form;
pub mod naver_commerce;
pub mod rotating_shop;
pub mod search;
pub mod seller_portal;
mod server;
pub mod world_events;

pub use server::{Seen, Server};
