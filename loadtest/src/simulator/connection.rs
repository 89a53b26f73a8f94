//! One caller's connection: requests in, replies out, one after the other.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::clock::{self, Arrival, Clock};
use super::control;
use super::desk::{Decision, Desk};
use super::http::{Answered, Request};
use super::log::Entry;
use super::reply::Reply;

/// What all connections of a simulator share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The provider's mind.
    desk: Arc<Mutex<Desk>>,
    /// Its clock.
    pub clock: Clock,
}

impl Shared {
    /// For a new simulator.
    pub fn new(desk: Desk, clock: Clock) -> Self {
        Self {
            desk: Arc::new(Mutex::new(desk)),
            clock,
        }
    }

    /// The desk, for a moment. Nothing may wait while it is held.
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves a connection until either side ends it.
///
/// # Errors
/// Those of the socket; they concern this caller alone.
pub async fn serve(mut stream: TcpStream, shared: Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    clock::ask_for_stamps(&stream);
    let mut inbox = Inbox::default();
    while let Some((request, at)) = inbox.next(&stream, &shared.clock).await? {
        let stays = match request.path().starts_with("/_sim/") {
            true => {
                let answered = control::answer(&request, &shared);
                write(&mut stream, &answered).await?;
                true
            }
            false => answer(&mut stream, &request, at, &shared).await?,
        };
        if !(stays && request.keep_alive) {
            break;
        }
    }
    Ok(())
}

/// Answers a call; says whether the connection goes on.
async fn answer(
    stream: &mut TcpStream,
    request: &Request,
    at: Arrival,
    shared: &Shared,
) -> io::Result<bool> {
    let Decision {
        reply,
        delay,
        entry,
        let_in,
    } = shared.desk().decide(request, at);
    let mut open = OpenCall {
        shared,
        entry,
        let_in,
        status: 0,
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let stays = send(stream, &reply).await?;
    if let Reply::Whole(answered) | Reply::Half(answered) | Reply::Padded(answered, _) = &reply {
        open.status = answered.status;
    }
    Ok(stays)
}

/// Sends a reply; says whether the connection goes on.
async fn send(stream: &mut TcpStream, reply: &Reply) -> io::Result<bool> {
    match reply {
        Reply::Whole(answered) => write(stream, answered).await.map(|()| true),
        Reply::Half(answered) => {
            let mut bytes = answered.head(false);
            bytes.extend_from_slice(&answered.body[..answered.body.len() / 2]);
            stream.write_all(&bytes).await.map(|()| false)
        }
        Reply::Padded(answered, megabytes) => padded(stream, answered, *megabytes).await,
        Reply::Silence => until_the_caller_goes(stream).await.map(|()| false),
        Reply::Nothing => Ok(false),
    }
}

async fn write(stream: &mut TcpStream, answered: &Answered) -> io::Result<()> {
    let mut bytes = answered.head(false);
    bytes.extend_from_slice(&answered.body);
    stream.write_all(&bytes).await
}

async fn padded(stream: &mut TcpStream, answered: &Answered, megabytes: u64) -> io::Result<bool> {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS_IN_MEGABYTE: u64 = 16;
    stream.write_all(&answered.head(true)).await?;
    let white = chunk(&[b' '; CHUNK]);
    for _ in 0..megabytes * CHUNKS_IN_MEGABYTE {
        stream.write_all(&white).await?;
    }
    stream.write_all(&chunk(&answered.body)).await?;
    stream.write_all(b"0\r\n\r\n").await?;
    Ok(true)
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

async fn until_the_caller_goes(stream: &TcpStream) -> io::Result<()> {
    let mut scrap = [0; 1024];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut scrap) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A call that is being answered. However it ends, it leaves the calls in flight and its end is logged.
struct OpenCall<'a> {
    shared: &'a Shared,
    entry: Entry,
    let_in: bool,
    status: u16,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        self.shared
            .desk()
            .finish(self.entry, self.let_in, self.status);
    }
}

/// Bytes that came in, with the arrival of the request that they begin.
#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    first: Option<Arrival>,
}

impl Inbox {
    /// The next request; none when the caller is gone.
    async fn next(
        &mut self,
        stream: &TcpStream,
        clock: &Clock,
    ) -> io::Result<Option<(Request, Arrival)>> {
        let mut last = self.first;
        loop {
            if let (Some(at), Some((request, used))) = (self.first, self.parse()?) {
                self.bytes.drain(..used);
                // What is left came with the latest read.
                self.first = last.filter(|_| !self.bytes.is_empty());
                return Ok(Some((request, at)));
            }
            let mut buffer = [0; 4096];
            let (read, at) = clock::read(stream, &mut buffer, clock).await?;
            if read == 0 {
                return Ok(None);
            }
            self.bytes.extend_from_slice(&buffer[..read]);
            self.first.get_or_insert(at);
            last = Some(at);
        }
    }

    fn parse(&self) -> io::Result<Option<(Request, usize)>> {
        Request::parse(&self.bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}
