//! RabbitMQ: a node of our own with its own port mapper (epmd), reachable on the loopback interface only.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::server::{Launch, Server};
use crate::{place, ports, probe};

/// Starts the port mapper in the node's own process group: the one that Erlang starts by itself would
/// leave the group and stay behind.
const START: &str = r#"epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & exec "$1""#;

/// A private node.
pub struct RabbitMq {
    /// Its process.
    pub server: Server,
    /// `AMQP_URL`, with its password.
    pub url: String,
    /// Where the management plugin listens.
    pub management: String,
    node: Node,
}

impl RabbitMq {
    /// Starts it.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let folder = place::make_folder(&folder.join("rabbitmq"))?;
        let node = Node::lay_out(&folder)?;
        let launched = node.clone();
        let amqp = node.amqp;
        let management = node.management;
        let server = Server::start(Launch {
            name: "RabbitMQ",
            address: format!("127.0.0.1:{amqp}"),
            folder,
            command: Box::new(move || launched.start_command()),
            ready: Box::new(move || probe::amqp(amqp) && probe::http(management, "/")),
            patience: Duration::from_secs(180),
        })?;
        Ok(RabbitMq {
            server,
            url: format!("amqp://paceline:{}@127.0.0.1:{amqp}/%2f", node.password),
            management: format!("http://paceline:{}@127.0.0.1:{management}", node.password),
            node,
        })
    }

    /// Runs `rabbitmqctl` on this node and returns what it prints.
    pub fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.node.command("/usr/lib/rabbitmq/bin/rabbitmqctl");
        let output = command
            .args(["--quiet", "--node", Node::NAME])
            .args(arguments)
            .output()
            .context("rabbitmqctl does not start")?;
        ensure!(
            output.status.success(),
            "rabbitmqctl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Folder, ports and password of the node.
#[derive(Clone)]
struct Node {
    folder: PathBuf,
    amqp: u16,
    management: u16,
    prometheus: u16,
    distribution: u16,
    mapper: u16,
    password: String,
}

impl Node {
    const NAME: &str = "paceline@localhost";

    fn lay_out(folder: &Path) -> anyhow::Result<Self> {
        let node = Node {
            folder: folder.to_owned(),
            amqp: ports::free()?,
            management: ports::free()?,
            prometheus: ports::free()?,
            distribution: ports::free()?,
            mapper: ports::free()?,
            password: kept_password(folder)?,
        };
        place::write(folder, "rabbitmq.conf", &node.configuration())?;
        place::write(
            folder,
            "enabled_plugins",
            "[rabbitmq_management,rabbitmq_prometheus].\n",
        )?;
        // Keeps the machine's own /etc/rabbitmq/rabbitmq-env.conf out.
        place::write(folder, "rabbitmq-env.conf", "")?;
        Ok(node)
    }

    fn configuration(&self) -> String {
        format!(
            "listeners.tcp.local = 127.0.0.1:{}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {}\n\
             prometheus.tcp.ip = 127.0.0.1\n\
             prometheus.tcp.port = {}\n\
             default_user = paceline\n\
             default_pass = {}\n\
             disk_free_limit.absolute = 50MB\n\
             log.console = true\n\
             log.console.level = info\n\
             log.file = false\n",
            self.amqp, self.management, self.prometheus, self.password
        )
    }

    fn start_command(&self) -> Command {
        let mut command = self.command("sh");
        command.args(["-c", START, "sh", "/usr/lib/rabbitmq/bin/rabbitmq-server"]);
        command
    }

    /// `program` in the node's environment. The wrapper in `/usr/sbin` would change the account.
    fn command(&self, program: &str) -> Command {
        let below = |name: &str| self.folder.join(name);
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .env("HOME", &self.folder)
            .env("RABBITMQ_NODENAME", Self::NAME)
            .env("RABBITMQ_CONF_ENV_FILE", below("rabbitmq-env.conf"))
            .env("RABBITMQ_CONFIG_FILE", below("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", below("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", below("mnesia"))
            .env("RABBITMQ_LOG_BASE", below("log"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", below("config"))
            .env("RABBITMQ_PID_FILE", below("pid"))
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("ERL_EPMD_PORT", self.mapper.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            );
        command
    }
}

/// The password of a folder that is used again is the one that its data knows.
fn kept_password(folder: &Path) -> anyhow::Result<String> {
    if let Ok(kept) = std::fs::read_to_string(folder.join("password")) {
        return Ok(kept);
    }
    let password = place::secret()?;
    place::write(folder, "password", &password)?;
    Ok(password)
}
