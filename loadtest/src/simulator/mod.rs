//! The provider simulator: serves the fare search, enforces its limits strictly on real arrival times, and
//! logs every call. It runs on a thread and a runtime of its own, so that other work cannot delay it.

mod clock;
mod config;
mod connection;
mod control;
mod desk;
mod faults;
mod gate;
mod http;
mod limits;
mod log;
mod reply;
mod window;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

pub use config::{Expected, SimulatorConfig};
pub use faults::{Fault, FaultRule, Faults, Latency};
pub use limits::{Limits, Quota, Rate, RetryAfter, SpellingError};
pub use log::{Call, Verdict, read as read_log};
pub use window::TrailingWindow;

use clock::Clock;
use connection::Shared;
use desk::Desk;
use tokio_util::sync::CancellationToken;

use crate::referee::Report;

/// Starts simulators.
#[derive(Debug)]
pub struct Simulator;

impl Simulator {
    /// Listens, and serves until the handle is stopped or dropped. Listening has begun when this returns.
    ///
    /// # Errors
    /// When the address cannot be listened on, the log's file cannot be created or the thread not started.
    pub fn start(config: SimulatorConfig) -> io::Result<SimulatorHandle> {
        let listener = listen(config.listen)?;
        let address = listener.local_addr()?;
        let clock = Clock::start();
        let prefer = config.prefer;
        let shared = Shared::new(Desk::new(config, clock)?, clock);
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let serving = serve(listener, shared.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("simulator".to_owned())
            .spawn(move || {
                if prefer {
                    prefer_this_thread();
                }
                runtime.block_on(serving)
            })?;
        Ok(SimulatorHandle {
            address,
            shared,
            stop,
            thread: Some(thread),
        })
    }
}

/// A running simulator. Dropping it stops it.
#[derive(Debug)]
pub struct SimulatorHandle {
    address: SocketAddr,
    shared: Shared,
    stop: CancellationToken,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl SimulatorHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every call so far, in order of processing. A call that is still open has no duration.
    pub fn log(&self) -> Vec<Call> {
        self.shared.desk().calls().to_vec()
    }

    /// The referee's count, against the limits of now.
    pub fn report(&self) -> Report {
        let (calls, limits) = {
            let desk = self.shared.desk();
            (desk.calls().to_vec(), desk.config().limits.clone())
        };
        Report::of(&calls, &limits)
    }

    /// How a search must end under the faults of now.
    pub fn truth(&self, origin: &str, destination: &str, depart: &str, back: &str) -> Expected {
        self.shared
            .desk()
            .config()
            .truth(origin, destination, depart, back)
    }

    /// The configuration, with the faults and limits of now.
    pub fn config(&self) -> SimulatorConfig {
        self.shared.desk().config().clone()
    }

    /// Other faults from now on.
    pub fn set_faults(&self, faults: Vec<FaultRule>) {
        self.shared.desk().set_faults(Faults(faults));
    }

    /// Other limits from now on; the calls so far count under them.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.desk().set_limits(limits);
    }

    /// Forgets log, attempts and what the limits have counted.
    pub fn reset(&self) {
        self.shared.desk().reset();
    }

    /// Stops listening and breaks all connections; the log stays readable.
    ///
    /// # Errors
    /// When serving had ended before, or the log's file cannot be completed.
    pub fn stop(&mut self) -> io::Result<()> {
        self.stop.cancel();
        match self.thread.take().map(JoinHandle::join) {
            None => {}
            Some(Ok(served)) => served?,
            Some(Err(_)) => return Err(io::Error::other("the simulator's thread panicked")),
        }
        self.shared.desk().flush()
    }
}

impl Drop for SimulatorHandle {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the simulator did not end in order");
        }
    }
}

/// A listener that a runtime can take over, bound before any thread starts.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(listener: TcpListener, shared: Shared, stop: CancellationToken) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut flush = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = flush.tick() => shared.desk().flush()?,
            accepted = listener.accept() => match accepted {
                // The runtime owns the connections; they end with it.
                Ok((stream, _)) => drop(tokio::spawn(serve_one(stream, shared.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
        }
    }
}

async fn serve_one(stream: tokio::net::TcpStream, shared: Shared) {
    if let Err(error) = connection::serve(stream, shared).await {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Raises this thread's priority where that is allowed.
fn prefer_this_thread() {
    #[cfg(target_os = "linux")]
    {
        let thread = nix::unistd::gettid().to_string();
        let renice = std::process::Command::new("renice")
            .args(["-n", "-10", "-p", &thread])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        if !renice.is_ok_and(|status| status.success()) {
            tracing::info!("the simulator runs at the usual priority");
        }
    }
}
