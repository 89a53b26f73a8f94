//! Redis: append-only file, never evicts.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::server::{Launch, Server};
use crate::{place, ports, probe};

/// Starts it; the server and its URL.
pub fn start(folder: &Path) -> anyhow::Result<(Server, String)> {
    let folder = place::make_folder(&folder.join("redis"))?;
    let program = place::program(&["redis-server", "/usr/bin/redis-server"])?;
    let port = ports::free()?;
    let data = folder.clone();
    let command = move || {
        let mut command = Command::new(&program);
        command
            .current_dir(&data)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--dir", &data.to_string_lossy()])
            .args(["--save", "", "--appendonly", "yes"])
            .args(["--maxmemory-policy", "noeviction"])
            // One for each test of a process: published sets bear the job's names alone.
            .args(["--databases", "1000"])
            // For tests that make it sleep.
            .args(["--enable-debug-command", "local"]);
        command
    };
    let server = Server::start(Launch {
        name: "Redis",
        address: format!("127.0.0.1:{port}"),
        folder,
        command: Box::new(command),
        ready: Box::new(move || probe::redis(port)),
        patience: Duration::from_secs(60),
    })?;
    Ok((server, format!("redis://127.0.0.1:{port}/")))
}
