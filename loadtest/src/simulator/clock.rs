//! The simulator's clock, and the time at which a call really arrived.
//!
//! The kernel stamps every segment when it comes in (`SO_TIMESTAMPNS`). That time, not the time at which
//! this process got round to reading, is the arrival: a busy machine cannot make two calls that came a
//! second apart look closer.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// When a call arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// Microseconds since the simulator's start, on a clock that never steps.
    pub us: u64,
    /// Microseconds since 1970.
    pub wall_us: i64,
}

/// Microseconds since a start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_wall_us: i64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            start_wall_us: since_1970(SystemTime::now()).as_micros() as i64,
        }
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// The arrival that lies `ago` back from now.
    fn arrival(&self, ago: Duration) -> Arrival {
        let us = self.now_us().saturating_sub(ago.as_micros() as u64);
        Arrival {
            us,
            wall_us: self.start_wall_us + us as i64,
        }
    }
}

/// Asks the kernel to stamp what comes in. Where it cannot, reading is the arrival.
pub fn ask_for_stamps(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::ReceiveTimestampns, &true)
    {
        tracing::debug!(%error, "no kernel time stamps, arrivals are taken when read");
    }
}

/// Reads into `buffer`, waiting for the first byte; 0 bytes are the end of the connection.
///
/// # Errors
/// Those of the socket.
pub async fn read(
    stream: &TcpStream,
    buffer: &mut [u8],
    clock: &Clock,
) -> io::Result<(usize, Arrival)> {
    stream
        .async_io(Interest::READABLE, || {
            let (bytes, ago) = receive(stream, buffer)?;
            Ok((bytes, clock.arrival(ago)))
        })
        .await
}

#[cfg(target_os = "linux")]
fn receive(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Duration)> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

    let mut parts = [io::IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let stamp = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
        _ => None,
    });
    let ago = stamp.map_or(Duration::ZERO, |stamp| {
        since_1970(SystemTime::now()).saturating_sub(Duration::from(stamp))
    });
    Ok((message.bytes, ago))
}

#[cfg(not(target_os = "linux"))]
fn receive(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Duration)> {
    stream.try_read(buffer).map(|bytes| (bytes, Duration::ZERO))
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
