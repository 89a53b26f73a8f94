//! Asks a server whether it is ready, with a few bytes over a plain socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine;

/// One question may take so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends `question` to the local `port` and returns the first `length` bytes of the answer.
fn ask(port: u16, question: &[u8], length: usize) -> std::io::Result<Vec<u8>> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(question)?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Redis has read its append-only file and answers.
pub fn redis(port: u16) -> bool {
    ask(port, b"PING\r\n", 5).is_ok_and(|answer| answer == b"+PONG")
}

/// RabbitMQ offers a connection: the answer to the protocol header is a method frame on channel 0.
pub fn amqp(port: u16) -> bool {
    ask(port, b"AMQP\x00\x00\x09\x01", 3).is_ok_and(|answer| answer == [1, 0, 0])
}

/// `path` answers 200.
pub fn http(port: u16, path: &str) -> bool {
    http_as(port, path, None)
}

/// `path` answers 200 to `user:password`.
pub fn http_as(port: u16, path: &str, user: Option<&str>) -> bool {
    let user = user.map(|user| {
        let user = base64::engine::general_purpose::STANDARD.encode(user);
        format!("Authorization: Basic {user}\r\n")
    });
    let user = user.unwrap_or_default();
    let question = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n{user}\r\n");
    ask(port, question.as_bytes(), 12)
        .is_ok_and(|answer| answer.starts_with(b"HTTP/1.") && answer.ends_with(b" 200"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut question = [0; 4];
            stream.read_exact(&mut question).expect("a question");
            stream.write_all(answer).expect("an answer");
        });
        port
    }

    #[test]
    fn a_server_that_is_loading_is_not_ready() {
        assert!(redis(answering(b"+PONG\r\n")));
        assert!(!redis(answering(b"-LOADING Redis is loading\r\n")));
        assert!(http(answering(b"HTTP/1.1 200 OK\r\n"), "/"));
        assert!(!http(
            answering(b"HTTP/1.1 503 Service Unavailable\r\n"),
            "/"
        ));
    }
}
