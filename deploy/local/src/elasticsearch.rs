//! Elasticsearch: a single node without security, from the distribution that the installer unpacked.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use nix::unistd::{Uid, User};

use crate::server::{Launch, Server};
use crate::{place, ports, probe};

/// The version that the installer fetches.
const VERSION: &str = "8.19.8";

/// Starts it; the server and its URL.
pub fn start(folder: &Path) -> anyhow::Result<(Server, String)> {
    let folder = place::make_folder(&folder.join("elasticsearch"))?;
    let home = home()?;
    let java = java()?;
    let account = account()?;
    let (port, transport) = (ports::free()?, ports::free()?);
    configure(&home, &folder, port, transport)?;
    if let Some(account) = &account {
        give(&folder, account)?;
    }
    let place = folder.clone();
    let command = move || {
        let mut command = Command::new(home.join("bin/elasticsearch"));
        command
            .current_dir(&place)
            .env("ES_PATH_CONF", place.join("config"))
            .env("ES_TMPDIR", place.join("tmp"))
            .env("ES_JAVA_HOME", &java)
            .env("ES_JAVA_OPTS", "-Xms512m -Xmx512m")
            // The small launcher that starts the real one.
            .env("CLI_JAVA_OPTS", "-Xms32m -Xmx64m -XX:TieredStopAtLevel=1")
            .env("HOME", &place);
        if let Some(account) = &account {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        command
    };
    let server = Server::start(Launch {
        name: "Elasticsearch",
        address: format!("127.0.0.1:{port}"),
        folder,
        command: Box::new(command),
        ready: Box::new(move || probe::http(port, "/_cluster/health?wait_for_status=yellow")),
        patience: Duration::from_secs(120),
    })?;
    Ok((server, format!("http://127.0.0.1:{port}")))
}

/// The distribution: `PACELINE_ELASTICSEARCH_HOME`, else where the installer puts it.
fn home() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("PACELINE_ELASTICSEARCH_HOME").map_or_else(
        || place::cache().join(format!("elasticsearch-{VERSION}")),
        PathBuf::from,
    );
    anyhow::ensure!(
        home.join("bin/elasticsearch").is_file(),
        "Elasticsearch is not in {}; deploy/local/install.sh puts it there",
        home.display()
    );
    Ok(home)
}

/// The home of Java: `ES_JAVA_HOME`, else that of the `java` in the path.
fn java() -> anyhow::Result<PathBuf> {
    if let Some(home) = std::env::var_os("ES_JAVA_HOME") {
        return Ok(home.into());
    }
    let java = place::program(&["java"])?.canonicalize().context("java")?;
    let home = java.parent().and_then(Path::parent);
    Ok(home.context("java lies in no home")?.to_owned())
}

/// Elasticsearch refuses to run as root: then it gets the account that owns nothing.
fn account() -> anyhow::Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let nobody = User::from_name("nobody").context("looking up the account nobody")?;
    Ok(Some(nobody.context("there is no account nobody")?))
}

fn configure(home: &Path, folder: &Path, port: u16, transport: u16) -> anyhow::Result<()> {
    let config = place::make_folder(&folder.join("config"))?;
    for name in ["data", "logs", "tmp", "config/jvm.options.d"] {
        place::make_folder(&folder.join(name))?;
    }
    for name in ["jvm.options", "log4j2.properties"] {
        fs::copy(home.join("config").join(name), config.join(name))
            .with_context(|| format!("copying {name}"))?;
    }
    let settings = format!(
        "cluster.name: paceline\n\
         node.name: paceline\n\
         path.data: {0}/data\n\
         path.logs: {0}/logs\n\
         network.host: 127.0.0.1\n\
         http.port: {port}\n\
         transport.port: {transport}\n\
         discovery.type: single-node\n\
         xpack.security.enabled: false\n\
         cluster.routing.allocation.disk.threshold_enabled: false\n",
        folder.display()
    );
    place::write(&config, "elasticsearch.yml", &settings)?;
    Ok(())
}

/// Gives `path` and all below it to `account`.
fn give(path: &Path, account: &User) -> anyhow::Result<()> {
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    std::os::unix::fs::chown(path, Some(uid), Some(gid))
        .with_context(|| format!("giving {} to {}", path.display(), account.name))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), account)?;
        }
    }
    Ok(())
}
