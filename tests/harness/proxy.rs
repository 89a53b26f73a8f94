//! A TCP proxy between a process and a server, that can be told to misbehave while it runs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the proxy does with the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    /// Passes them on.
    #[default]
    None,
    /// Passes them on later, in order.
    Delay(Duration),
    /// Cuts every connection with a reset, and every new one.
    Reset,
    /// Lets nothing through to the server; answers still come.
    BlackholeRequests,
    /// Lets requests through and holds the answers back, until the fault ends.
    HoldAnswers,
    /// Lets nothing through either way.
    Blackhole,
    /// Passes them on, one byte at a time.
    Dribble,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    ToServer,
    ToClient,
}

impl Fault {
    fn holds(self, way: Way) -> bool {
        match self {
            Fault::Blackhole => true,
            Fault::BlackholeRequests => way == Way::ToServer,
            Fault::HoldAnswers => way == Way::ToClient,
            _ => false,
        }
    }
}

/// What clients have sent.
type Heard = Arc<Mutex<Vec<u8>>>;

/// So much of it is kept.
const HEARD_AT_MOST: usize = 4 << 20;

/// The proxy. Dropping it closes everything.
pub struct Proxy {
    address: SocketAddr,
    fault: Arc<watch::Sender<Fault>>,
    heard: Heard,
    _connections: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port and passes on to `server` (`127.0.0.1:5672`).
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port")?;
        let address = listener.local_addr()?;
        let fault = Arc::new(watch::Sender::new(Fault::None));
        let heard = Heard::default();
        let mut connections = JoinSet::new();
        let to = (server.to_owned(), heard.clone());
        connections.spawn(accept(listener, to, Arc::clone(&fault)));
        Ok(Proxy {
            address,
            fault,
            heard,
            _connections: connections,
        })
    }

    /// Listens for the server of `url`, and gives the URL that leads through the proxy.
    ///
    /// # Errors
    /// When `url` names no host and port.
    pub async fn before(url: &str) -> anyhow::Result<(Self, String)> {
        let server = authority(url).with_context(|| "a URL without host and port")?;
        let proxy = Self::start(server).await?;
        let through = url.replace(server, &proxy.address.to_string());
        Ok((proxy, through))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients have sent so far, as far as it is text; at most some MiB.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap_or_else(PoisonError::into_inner))
            .into_owned()
    }

    /// From now on misbehaves like this, on open connections too.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

/// `host:port` of a URL.
fn authority(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let place = authority.rsplit('@').next()?;
    place.contains(':').then_some(place)
}

async fn accept(listener: TcpListener, to: (String, Heard), fault: Arc<watch::Sender<Fault>>) {
    let mut connections = JoinSet::new();
    loop {
        // A client that is gone before it was accepted is no concern of ours.
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        connections.spawn(connection(client, to.clone(), fault.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(
    client: TcpStream,
    (server, heard): (String, Heard),
    mut fault: watch::Receiver<Fault>,
) {
    // Lingering for zero seconds makes the close a reset.
    let _ = client.set_zero_linger();
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let _ = server.set_zero_linger();
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let forward = pass(
        client_read,
        server_write,
        Way::ToServer,
        fault.clone(),
        Some(heard),
    );
    let back = pass(
        server_read,
        client_write,
        Way::ToClient,
        fault.clone(),
        None,
    );
    let reset = fault.wait_for(|fault| *fault == Fault::Reset);
    tokio::select! {
        // A side that has ended its half waits for the other half.
        _ = async { tokio::join!(forward, back) } => {}
        _ = reset => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    mut fault: watch::Receiver<Fault>,
    heard: Option<Heard>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        if let Some(heard) = &heard {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            if heard.len() < HEARD_AT_MOST {
                heard.extend_from_slice(&buffer[..length]);
            }
        }
        let Ok(now) = fault.wait_for(|fault| !fault.holds(way)).await.map(|f| *f) else {
            break;
        };
        if write(&mut to, &buffer[..length], now).await.is_err() {
            break;
        }
    }
    // The other side may have closed already.
    let _ = to.shutdown().await;
}

async fn write(to: &mut OwnedWriteHalf, bytes: &[u8], fault: Fault) -> std::io::Result<()> {
    match fault {
        Fault::Delay(time) => {
            tokio::time::sleep(time).await;
            to.write_all(bytes).await
        }
        Fault::Dribble => {
            for byte in bytes.chunks(1) {
                to.write_all(byte).await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        _ => to.write_all(bytes).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use tokio::time::timeout;

    /// Says back what it hears.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn said_back(stream: &mut TcpStream) -> std::io::Result<[u8; 2]> {
        stream.write_all(b"hi").await?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn bytes_pass_until_they_are_held() {
        let proxy = Proxy::start(&echo().await).await.expect("a proxy");
        let mut stream = TcpStream::connect(proxy.address()).await.expect("open");
        assert_eq!(said_back(&mut stream).await.expect("an answer"), *b"hi");
        proxy.set(Fault::HoldAnswers);
        let held = timeout(Duration::from_millis(200), said_back(&mut stream)).await;
        assert!(held.is_err(), "the answer must be held");
        proxy.set(Fault::None);
        let mut answer = [0; 2];
        let late = timeout(Duration::from_secs(5), stream.read_exact(&mut answer)).await;
        assert!(late.is_ok_and(|read| read.is_ok()), "and comes when let go");
    }

    #[tokio::test]
    async fn a_reset_reaches_open_connections() {
        let proxy = Proxy::start(&echo().await).await.expect("a proxy");
        let mut stream = TcpStream::connect(proxy.address()).await.expect("open");
        said_back(&mut stream).await.expect("an answer");
        proxy.set(Fault::Reset);
        let mut answer = [0; 2];
        let error = stream.read_exact(&mut answer).await.expect_err("cut");
        // What the system tells depends on whether the reset or the end is read first.
        let cut = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
        assert!(cut.contains(&error.kind()), "{error}");
    }

    #[test]
    fn the_authority_of_a_url_is_found() {
        assert_eq!(authority("amqp://u:p@h:1/%2f"), Some("h:1"));
        assert_eq!(authority("http://127.0.0.1:9200"), Some("127.0.0.1:9200"));
        assert_eq!(authority("redis://h/0"), None);
    }
}
