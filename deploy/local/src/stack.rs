//! The four together: which are private, where they live, and the environment that leads to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, anyhow};

use crate::rabbitmq::RabbitMq;
use crate::{S3, Server, elasticsearch, guardian, place, redis};

/// The bucket that every private S3 server has.
const BUCKET: &str = "paceline";

/// One of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerKind {
    /// RabbitMQ
    RabbitMq,
    /// Redis
    Redis,
    /// S3
    S3,
    /// Elasticsearch
    Elasticsearch,
}

impl std::str::FromStr for ServerKind {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.name() == name)
            .ok_or("use rabbitmq, redis, s3 or elasticsearch")
    }
}

impl ServerKind {
    /// All four.
    pub const ALL: [ServerKind; 4] = [Self::RabbitMq, Self::Redis, Self::S3, Self::Elasticsearch];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::RabbitMq => "rabbitmq",
            Self::Redis => "redis",
            Self::S3 => "s3",
            Self::Elasticsearch => "elasticsearch",
        }
    }

    /// The name of the environment in which its URL is given.
    pub fn variable(self) -> &'static str {
        match self {
            Self::RabbitMq => "AMQP_URL",
            Self::Redis => "REDIS_URL",
            Self::S3 => "AWS_ENDPOINT_URL_S3",
            Self::Elasticsearch => "ELASTICSEARCH_URL",
        }
    }
}

/// What to start, and where.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Which servers are wanted.
    pub servers: BTreeSet<ServerKind>,
    /// Where their folders go and stay. Without it they go into a temporary folder and disappear.
    pub dir: Option<PathBuf>,
    /// Variables of servers that are there already and used as they are.
    pub own: BTreeMap<String, String>,
}

impl StackOptions {
    /// All four, private, whatever the environment says: for tests that break servers.
    pub fn private() -> Self {
        StackOptions {
            servers: ServerKind::ALL.into(),
            dir: None,
            own: BTreeMap::new(),
        }
    }

    /// Only these, private.
    pub fn only(servers: impl IntoIterator<Item = ServerKind>) -> Self {
        StackOptions {
            servers: servers.into_iter().collect(),
            ..Self::private()
        }
    }

    /// All four; private where the environment names none.
    pub fn from_environment() -> Self {
        let names = ServerKind::ALL
            .map(ServerKind::variable)
            .into_iter()
            .chain(S3_VARIABLES);
        let own = names
            .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        StackOptions {
            own,
            ..Self::private()
        }
    }

    fn is_private(&self, kind: ServerKind) -> bool {
        self.servers.contains(&kind) && !self.own.contains_key(kind.variable())
    }
}

/// What goes with the URL of S3.
const S3_VARIABLES: [&str; 4] = [
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "PACELINE_BUCKET",
];

/// The servers. Dropping it ends the private ones; so does the end of this process, however it comes.
pub struct Stack {
    env: BTreeMap<String, String>,
    rabbitmq: Option<RabbitMq>,
    redis: Option<Server>,
    s3: Option<S3>,
    elasticsearch: Option<Server>,
    folder: PathBuf,
    throwaway: bool,
}

impl Stack {
    /// Starts what is wanted, all at once, and returns when everything answers.
    ///
    /// # Errors
    /// When a program is not installed or a server does not come up. What had started is ended again.
    pub fn start(options: &StackOptions) -> anyhow::Result<Self> {
        let throwaway = options.dir.is_none();
        let folder = match &options.dir {
            Some(dir) => place::make_folder(dir)?,
            None => throwaway_folder()?,
        };
        let mut stack = Stack {
            env: BTreeMap::new(),
            rabbitmq: None,
            redis: None,
            s3: None,
            elasticsearch: None,
            folder,
            throwaway,
        };
        stack.take_over(options)?;
        stack.launch(options)?;
        Ok(stack)
    }

    /// What leads to the servers: `AMQP_URL`, `REDIS_URL`, `AWS_ENDPOINT_URL_S3`, `AWS_REGION`,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `ELASTICSEARCH_URL`, `PACELINE_BUCKET`.
    pub fn env(&self) -> Vec<(String, String)> {
        self.env
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// One value of [`Stack::env`].
    pub fn value(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str)
    }

    /// The folder of all servers' folders.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The private RabbitMQ, to be stopped and broken.
    pub fn rabbitmq(&self) -> Option<&Server> {
        self.rabbitmq.as_ref().map(|rabbitmq| &rabbitmq.server)
    }

    /// The URL of the private RabbitMQ's management plugin, with user and password.
    pub fn rabbitmq_management(&self) -> Option<&str> {
        self.rabbitmq.as_ref().map(|r| r.management.as_str())
    }

    /// Runs `rabbitmqctl` on the private RabbitMQ and returns what it prints.
    ///
    /// # Errors
    /// When there is no private RabbitMQ, or the command fails.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let rabbitmq = self.rabbitmq.as_ref();
        rabbitmq.context("no private RabbitMQ")?.ctl(arguments)
    }

    /// The private Redis, to be stopped and broken.
    pub fn redis(&self) -> Option<&Server> {
        self.redis.as_ref()
    }

    /// The private S3, to be stopped and broken.
    pub fn s3(&self) -> Option<&S3> {
        self.s3.as_ref()
    }

    /// Makes a user of the private Elasticsearch with `role` alone, a document as its API takes it.
    ///
    /// # Errors
    /// When there is none, or its files cannot be written.
    pub fn add_elasticsearch_user(
        &self,
        user: &str,
        password: &str,
        role: &str,
    ) -> anyhow::Result<()> {
        let server = self.elasticsearch().context("no private Elasticsearch")?;
        elasticsearch::add_user(server, user, password, role)
    }

    /// The private Elasticsearch, to be stopped and broken.
    pub fn elasticsearch(&self) -> Option<&Server> {
        self.elasticsearch.as_ref()
    }

    /// Uses the servers that are there already.
    fn take_over(&mut self, options: &StackOptions) -> anyhow::Result<()> {
        for kind in &options.servers {
            let Some(url) = options.own.get(kind.variable()) else {
                continue;
            };
            self.env.insert(kind.variable().to_owned(), url.clone());
            if *kind == ServerKind::S3 {
                let theirs = options.own.iter();
                let theirs = theirs.filter(|(name, _)| S3_VARIABLES.contains(&name.as_str()));
                self.env
                    .extend(theirs.map(|(name, value)| (name.clone(), value.clone())));
                self.value("PACELINE_BUCKET").context(
                    "AWS_ENDPOINT_URL_S3 is set: PACELINE_BUCKET must name a bucket there",
                )?;
            }
        }
        Ok(())
    }

    /// Starts the private ones side by side.
    fn launch(&mut self, options: &StackOptions) -> anyhow::Result<()> {
        let folder = self.folder.clone();
        let folder = folder.as_path();
        let wanted = |kind| options.is_private(kind);
        let (rabbitmq, redis, s3, elasticsearch) = thread::scope(|scope| {
            let rabbitmq =
                wanted(ServerKind::RabbitMq).then(|| scope.spawn(|| RabbitMq::start(folder)));
            let elasticsearch = wanted(ServerKind::Elasticsearch)
                .then(|| scope.spawn(|| elasticsearch::start(folder)));
            let redis = wanted(ServerKind::Redis).then(|| redis::start(folder));
            let s3 = wanted(ServerKind::S3).then(|| S3::start(folder, BUCKET));
            (rabbitmq.map(join), redis, s3, elasticsearch.map(join))
        });
        // First keep all that has started, so that an error of one ends the others too.
        let results = [
            rabbitmq.map(|r| r.map(|r| self.keep_rabbitmq(r))),
            redis.map(|r| r.map(|(server, url)| self.keep_redis(server, url))),
            s3.map(|r| r.map(|s3| self.keep_s3(s3))),
            elasticsearch.map(|r| r.map(|(server, url)| self.keep_elasticsearch(server, url))),
        ];
        results.into_iter().flatten().collect()
    }

    fn keep_rabbitmq(&mut self, rabbitmq: RabbitMq) {
        self.set("AMQP_URL", &rabbitmq.url);
        self.rabbitmq = Some(rabbitmq);
    }

    fn keep_redis(&mut self, server: Server, url: String) {
        self.set("REDIS_URL", &url);
        self.redis = Some(server);
    }

    fn keep_s3(&mut self, s3: S3) {
        self.set("AWS_ENDPOINT_URL_S3", &s3.url());
        self.set("AWS_REGION", "us-east-1");
        self.set("AWS_ACCESS_KEY_ID", s3.access_key());
        self.set("AWS_SECRET_ACCESS_KEY", s3.secret_key());
        self.set("PACELINE_BUCKET", BUCKET);
        self.s3 = Some(s3);
    }

    fn keep_elasticsearch(&mut self, server: Server, url: String) {
        self.set("ELASTICSEARCH_URL", &url);
        self.elasticsearch = Some(server);
    }

    fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        let three = [self.rabbitmq(), self.redis(), self.elasticsearch()];
        three.into_iter().flatten()
    }
}

impl Drop for Stack {
    /// Servers whose data stays get the time to close it; those whose data goes with them are killed.
    fn drop(&mut self) {
        let orderly = !self.throwaway;
        thread::scope(|scope| {
            for server in self.servers() {
                scope.spawn(move || {
                    let end = if orderly {
                        server.stop()
                    } else {
                        server.kill()
                    };
                    if let Err(error) = end {
                        tracing::warn!(%error, "a server was not ended");
                    }
                });
            }
        });
        if self.throwaway && std::fs::remove_dir_all(&self.folder).is_ok() {
            guardian::keep(&self.folder);
        }
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(anyhow!("starting a server panicked")))
}

/// A temporary folder that goes when we go.
fn throwaway_folder() -> anyhow::Result<PathBuf> {
    let name = format!("paceline-{}", &place::secret()?[..12]);
    let folder = place::make_folder(&std::env::temp_dir().join(name))?;
    guardian::sweep(&folder).context("the guardian of temporary folders")?;
    Ok(folder)
}
