//! A relay before a server that can be pointed at another one: what a name or a virtual address does at a failover.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Passes connections on. It lives as long as the process.
#[derive(Clone, Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    open: Vec<TcpStream>,
}

impl Relay {
    /// Listens on a free port and passes on to `to`.
    ///
    /// # Errors
    /// When no port is free.
    pub fn before(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let relay = Relay {
            address: listener.local_addr()?,
            shared: Arc::new(Mutex::new(Shared {
                to,
                open: Vec::new(),
            })),
        };
        let own = relay.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is away refuses, and so do we.
                own.pass(client).ok();
            }
        });
        Ok(relay)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `to`; open connections are cut.
    pub fn switch(&self, to: SocketAddr) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.to = to;
        for open in shared.open.drain(..) {
            open.shutdown(Shutdown::Both).ok();
        }
    }

    fn pass(&self, client: TcpStream) -> io::Result<()> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let server = TcpStream::connect(shared.to)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        shared
            .open
            .extend([client.try_clone()?, server.try_clone()?]);
        drop(shared);
        let ways = [(client.try_clone()?, server.try_clone()?), (server, client)];
        for (mut from, mut to) in ways {
            std::thread::spawn(move || {
                io::copy(&mut from, &mut to).ok();
                to.shutdown(Shutdown::Both).ok();
            });
        }
        Ok(())
    }
}
