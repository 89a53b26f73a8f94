//! Serving HTTP: metrics, probes, the page and the API alike. `axum::serve` without a time limit for a request's head would
//! keep the connection of whoever sends half a line for ever.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tower_service::Service as _;

/// How long a client may take for a request's head, and an idle connection is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// When no connection can be taken (too many open files), it is tried again after so long.
const AGAIN: Duration = Duration::from_millis(200);

/// Serves `app` until `stop`; then what is under way may take `last`. Handlers find the client's address as
/// [`ConnectInfo`].
pub async fn serve(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()>,
    last: Duration,
) {
    serve_patiently(listener, app, HEAD_WITHIN, stop, last).await;
}

async fn serve_patiently(
    listener: TcpListener,
    app: Router,
    head_within: Duration,
    stop: impl Future<Output = ()>,
    last: Duration,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_within);
    let open = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, client)) => {
                // A small answer is not held back for the next one.
                let _ = stream.set_nodelay(true);
                let app = app.clone();
                let service = service_fn(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(ConnectInfo(client));
                    app.clone().call(request)
                });
                let serving = http.serve_connection(TokioIo::new(stream), service);
                let serving = open.watch(serving);
                tokio::spawn(async move {
                    if let Err(error) = serving.await {
                        tracing::debug!(%error, %client, "a connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no connection can be taken");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = open.shutdown() => {}
        () = tokio::time::sleep(last) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn serving(head_within: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let app = Router::new().route(
            "/",
            get(|ConnectInfo(client): ConnectInfo<SocketAddr>| async move { client.to_string() }),
        );
        let (stop, last) = (std::future::pending(), Duration::ZERO);
        tokio::spawn(serve_patiently(listener, app, head_within, stop, last));
        address
    }

    async fn sends(address: SocketAddr, text: &str) -> (SocketAddr, TcpStream) {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("written");
        (stream.local_addr().expect("bound"), stream)
    }

    #[tokio::test]
    async fn handlers_know_who_asks() {
        let whole = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let (client, mut stream) = sends(serving(HEAD_WITHIN).await, whole).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(&client.to_string()), "{answer}");
    }

    #[tokio::test]
    async fn half_a_head_is_not_waited_for_without_end() {
        let address = serving(Duration::from_millis(100)).await;
        let (_, mut stream) = sends(address, "GET / HTTP/1.1\r\nhost:").await;
        let mut answer = Vec::new();
        // The connection ends, and not by us.
        stream.read_to_end(&mut answer).await.expect("ended");
    }
}
