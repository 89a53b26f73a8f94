//! Elasticsearch: a single node with security on (one administrator, no TLS), from the distribution that the installer unpacked.

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

/// Who may do everything.
const ADMINISTRATOR: &str = "administrator";

/// Answers when there is a node that works.
const HEALTH: &str = "/_cluster/health?wait_for_status=yellow";

/// Starts it; the server and its URL, with the administrator's password.
pub fn start(folder: &Path) -> anyhow::Result<(Server, String)> {
    let folder = place::make_folder(&folder.join("elasticsearch"))?;
    let home = home()?;
    let java = java()?;
    let account = account()?;
    let (port, transport) = (ports::free()?, ports::free()?);
    let password = place::secret()?;
    configure(&home, &folder, port, transport)?;
    administrator(&folder.join("config"), &password)?;
    if let Some(account) = &account {
        give(&folder, account)?;
    }
    let authority = format!("{ADMINISTRATOR}:{password}");
    let url = format!("http://{authority}@127.0.0.1:{port}");
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
        ready: Box::new(move || probe::http_as(port, HEALTH, Some(&authority))),
        patience: Duration::from_secs(240),
    })?;
    Ok((server, url))
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
         xpack.security.enabled: true\n\
         xpack.security.autoconfiguration.enabled: false\n\
         xpack.security.http.ssl.enabled: false\n\
         xpack.security.transport.ssl.enabled: false\n\
         cluster.routing.allocation.disk.threshold_enabled: false\n",
        folder.display()
    );
    place::write(&config, "elasticsearch.yml", &settings)?;
    Ok(())
}

/// Makes the administrator, in the files that hold accounts beside those that the API makes.
fn administrator(config: &Path, password: &str) -> anyhow::Result<()> {
    let hash = bcrypt::hash_with_result(password, COST)?.format_for_version(bcrypt::Version::TwoA);
    place::write(config, "users", &format!("{ADMINISTRATOR}:{hash}\n"))?;
    place::write(
        config,
        "users_roles",
        &format!("superuser:{ADMINISTRATOR}\n"),
    )?;
    Ok(())
}

/// Makes a user with `role` alone (as `PUT /_security/role` takes it), in the files: this distribution lacks what keeps
/// accounts in an index. It is known some seconds later.
///
/// # Errors
/// When the files cannot be written.
pub fn add_user(server: &Server, user: &str, password: &str, role: &str) -> anyhow::Result<()> {
    let config = server.folder().join("config");
    let hash = bcrypt::hash_with_result(password, COST)?.format_for_version(bcrypt::Version::TwoA);
    // JSON is YAML as well, on one line at least.
    let role = role.replace('\n', " ");
    let lines = [
        ("roles.yml", format!("{user}: {role}\n")),
        ("users", format!("{user}:{hash}\n")),
        ("users_roles", format!("{user}:{user}\n")),
    ];
    for (name, line) in lines {
        let before = fs::read_to_string(config.join(name)).unwrap_or_default();
        place::write(&config, name, &(before + &line))?;
    }
    Ok(())
}

/// Of the password's hash: it is random, so little will do.
const COST: u32 = 5;

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
