//! Free ports on the loopback interface.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

/// Below the ports that the kernel gives to outgoing connections (from 32768 on): one of those could
/// be taken by anybody between a server's stop and its restart on the same port.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// What this process has handed out: a port stays its server's while that is stopped.
static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port that nothing listens on, never handed out twice by this process.
///
/// # Errors
/// When there is none, which says that something else is wrong.
pub fn free() -> anyhow::Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = taken.get_or_insert_default();
    for _ in 0..2_000 {
        let port = RANGE.start + u16::from_le_bytes(crate::place::chance()?) % RANGE.len() as u16;
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    anyhow::bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}
