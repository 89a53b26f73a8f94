//! S3 inside this process: `s3s-fs` on a folder, behind a front that keeps its conditional puts honest
//! and breaks on request.
//!
//! `s3s-fs` looks at `If-None-Match` when a put begins and renames the file when it ends, so of two puts
//! at the same instant both would succeed; and it writes an object's metadata after its body. The front
//! therefore serves one request for each key at a time.

use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::Context;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::Body;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::runtime::Runtime;

use crate::policy::{Policy, Users};
use crate::s3_folder::Folder;
use crate::{place, ports};

/// Keys share this many locks.
const LOCKS: usize = 256;

/// What the server does wrong, on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum S3Fault {
    /// Nothing.
    #[default]
    None,
    /// Answers this share of the requests (0 to 1) with 503 `SlowDown`, and does nothing.
    Unavailable {
        /// 0 to 1.
        share: f64,
    },
    /// Does what is asked, but for this share of the requests (0 to 1) closes the connection instead of
    /// answering.
    LoseAnswer {
        /// 0 to 1.
        share: f64,
    },
    /// Takes requests and never answers.
    Hang,
}

/// The private S3 server.
pub struct S3 {
    root: PathBuf,
    address: SocketAddr,
    access_key: String,
    secret_key: String,
    users: Users,
    front: Arc<Front>,
    runtime: Mutex<Option<Runtime>>,
}

impl S3 {
    /// Starts it on a free port, with a bucket called `bucket`.
    pub(crate) fn start(folder: &Path, bucket: &str) -> anyhow::Result<Self> {
        let root = place::make_folder(&folder.join("s3"))?;
        let access_key = format!("AK{}", &place::secret()?[..18].to_uppercase());
        let secret_key = place::secret()?;
        let files = FileSystem::new(&root)
            .map_err(|error| anyhow::anyhow!("S3 in {}: {error:?}", root.display()))?;
        let mut service = S3ServiceBuilder::new(Folder::new(&root, files));
        let users = Users::default();
        users.add(&access_key, &secret_key, None);
        service.set_auth(users.clone());
        service.set_access(users.clone());
        let s3 = S3 {
            root,
            address: ([127, 0, 0, 1], ports::free()?).into(),
            access_key,
            secret_key,
            users,
            front: Arc::new(Front::new(service.build())),
            runtime: Mutex::new(None),
        };
        s3.create_bucket(bucket)?;
        s3.restart()?;
        Ok(s3)
    }

    /// `AWS_ENDPOINT_URL_S3`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `AWS_ACCESS_KEY_ID`.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// `AWS_SECRET_ACCESS_KEY`.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// From now on the key may do what `policy` (a document as AWS reads them) allows, and nothing else.
    ///
    /// # Errors
    /// When the policy says something that is not judged here.
    pub fn add_user(
        &self,
        access_key: &str,
        secret_key: &str,
        policy: &serde_json::Value,
    ) -> anyhow::Result<()> {
        let policy = Policy::read(policy)?;
        self.users.add(access_key, secret_key, Some(policy));
        Ok(())
    }

    /// Makes a bucket; one that is there is fine.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn create_bucket(&self, name: &str) -> anyhow::Result<()> {
        place::make_folder(&self.root.join(name)).map(drop)
    }

    /// From now on, does this wrong.
    pub fn set_fault(&self, fault: S3Fault) {
        let mut current = self.front.fault.write();
        *current.as_deref_mut().unwrap_or(&mut S3Fault::None) = fault;
    }

    /// How many requests have come so far.
    pub fn requests(&self) -> u64 {
        self.front.requests.load(Ordering::Relaxed)
    }

    /// Closes the port and all connections. The objects stay.
    pub fn stop(&self) {
        if let Some(runtime) = self.runtime().take() {
            runtime.shutdown_background();
        }
    }

    /// Opens the same port again.
    ///
    /// # Errors
    /// When the port is taken or no thread can be started.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.stop();
        let listener = TcpListener::bind(self.address)
            .with_context(|| format!("S3 cannot listen on {}", self.address))?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("stack-s3")
            .enable_all()
            .build()
            .context("the threads of S3")?;
        runtime.spawn(accept(listener, Arc::clone(&self.front)));
        *self.runtime() = Some(runtime);
        Ok(())
    }

    fn runtime(&self) -> MutexGuard<'_, Option<Runtime>> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // A runtime must not be dropped inside another one; this way it may.
        self.stop();
    }
}

async fn accept(listener: TcpListener, front: Arc<Front>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "S3 cannot accept connections"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers must not wait for more to send.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, Arc::clone(&front)));
            }
            Err(error) => tracing::warn!(%error, "S3 could not accept a connection"),
        }
    }
}

async fn serve(stream: tokio::net::TcpStream, front: Arc<Front>) {
    let answer = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { front.answer(request).await }
    });
    let connection = Builder::new(TokioExecutor::new());
    // A client that goes away in the middle is no concern of ours.
    let _ = connection
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

/// Why a connection ends without an answer.
#[derive(Debug)]
struct Unanswered;

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed without an answer, on purpose")
    }
}

impl std::error::Error for Unanswered {}

/// What stands before the service.
struct Front {
    service: S3Service,
    locks: Vec<tokio::sync::Mutex<()>>,
    fault: RwLock<S3Fault>,
    requests: AtomicU64,
}

impl Front {
    fn new(service: S3Service) -> Self {
        Front {
            service,
            locks: std::iter::repeat_with(Default::default)
                .take(LOCKS)
                .collect(),
            fault: RwLock::default(),
            requests: AtomicU64::new(0),
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Unanswered> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let fault = self.fault.read().map_or(S3Fault::None, |fault| *fault);
        match fault {
            S3Fault::Hang => match std::future::pending::<Infallible>().await {},
            S3Fault::Unavailable { share } if falls(number, share) => Ok(slow_down()),
            S3Fault::LoseAnswer { share } if falls(number, share) => {
                self.serve(request).await?;
                Err(Unanswered)
            }
            _ => self.serve(request).await,
        }
    }

    /// Serves in a task of its own: a put whose client dies in the middle is done whole, as a store does it,
    /// and not left between an object and its metadata.
    async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Unanswered> {
        let served = tokio::spawn(async move { self.serve_whole(request).await });
        served.await.map_err(|_| Unanswered)?
    }

    async fn serve_whole(&self, request: Request<Incoming>) -> Result<Response<Body>, Unanswered> {
        let lock = self.lock(request.uri().path());
        let _held = match lock {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        let answer = hyper::service::Service::call(&self.service, request).await;
        answer.map_err(|error| {
            tracing::warn!(?error, "S3 failed");
            Unanswered
        })
    }

    /// The lock of the object at `path` (`/bucket/key`); none for a bucket.
    fn lock(&self, path: &str) -> Option<&tokio::sync::Mutex<()>> {
        let (_, key) = path.trim_start_matches('/').split_once('/')?;
        if key.is_empty() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let place = hasher.finish() % LOCKS as u64;
        self.locks.get(place as usize)
    }
}

/// Whether request `number` is among the `share` that fails: the same numbers in every run.
fn falls(number: u64, share: f64) -> bool {
    // The multiplier of splitmix64 spreads neighbouring numbers over the whole range.
    let spread = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
    (spread as f64) < share * (1u64 << 53) as f64
}

fn slow_down() -> Response<Body> {
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_asked_share_fails() {
        let failed = |share| (0..10_000).filter(|n| falls(*n, share)).count();
        assert_eq!(failed(0.0), 0);
        assert_eq!(failed(1.0), 10_000);
        assert!((2_900..3_100).contains(&failed(0.3)), "{}", failed(0.3));
    }
}
