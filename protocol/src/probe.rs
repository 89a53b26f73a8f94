//! Asking a process of the fleet whether it is well, as a container without a shell and curl has to:
//! `worker health`, `producer health`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a process may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// More of an answer is not read.
const LONGEST: u64 = 4_096;

/// What a process said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it is well.
    pub well: bool,
    /// Its word.
    pub word: String,
}

/// Asks the process that listens on `address` for `/healthz` or, with `ready`, for `/readyz`.
///
/// # Errors
/// When it does not listen or does not answer in time.
pub fn ask(address: SocketAddr, ready: bool) -> io::Result<Health> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let path = if ready { "/readyz" } else { "/healthz" };
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    read(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

fn read(answer: &str) -> Option<Health> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some(Health {
        well: status == "200",
        word: body.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_is_well() {
        let health = |answer| read(answer).map(|health| (health.well, health.word));
        assert_eq!(
            health("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n"),
            Some((true, "ready".into()))
        );
        assert_eq!(
            health("HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n"),
            Some((false, "draining".into()))
        );
        assert_eq!(health("220 mail.example ESMTP\r\n"), None);
    }
}
