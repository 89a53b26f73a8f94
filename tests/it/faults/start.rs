//! Servers that are down when a process starts: named, waited for, and used once they come.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use harness::{Fault, Fleet, Proxy};
use paceline_stack::Process;

use crate::scene::{Calendar, Scene};

/// Workers say what they wait for at once, not after the patience of a first request.
const SOON: Duration = Duration::from_secs(60);
const SECRET: &str = "hunter2-secret";

/// How a server can be down.
#[derive(Clone, Copy, Debug)]
enum Down {
    /// Nobody listens.
    Gone,
    /// Connections are taken, and nothing is ever said.
    Silent,
}

/// One server that is down, and how a message shows it.
struct Case {
    name: &'static str,
    variable: &'static str,
    down: Down,
    url: String,
    shown: String,
    /// Keeps a silent one listening.
    _listener: Option<TcpListener>,
}

impl Case {
    fn new(name: &'static str, variable: &'static str, scheme: &str, down: Down) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let place = listener.local_addr().expect("bound");
        let user = match scheme {
            "http" => String::new(),
            _ => format!("me:{SECRET}@"),
        };
        Case {
            name,
            variable,
            down,
            url: format!("{scheme}://{user}{place}"),
            shown: format!("{name} at {scheme}://{place}"),
            _listener: matches!(down, Down::Silent).then_some(listener),
        }
    }

    /// `producer enqueue` ends with 1, and says what it waited for and for how long.
    fn check(&self) {
        let mut fleet = Fleet::new("down").expect("a fleet");
        fleet.set("FARE_SEARCH_KEYS", "a");
        fleet.set("FARE_SEARCH_URL", "http://127.0.0.1:9");
        fleet.set(self.variable, &self.url);
        let ended = fleet.producer(&["enqueue", "fares"], Duration::from_secs(60));
        let said = ended.expect("it ends by itself").expect_code(1).stderr;
        let (name, down) = (self.name, self.down);
        let waits = format!("waiting up to 30 s for {}", self.shown);
        assert!(
            said.contains(&waits),
            "{name} {down:?}: no {waits:?} in:\n{said}"
        );
        assert!(said.contains("waited 30 s for"), "{name} {down:?}:\n{said}");
        assert!(!said.contains(SECRET), "{name} shows its password:\n{said}");
    }
}

/// All at once, since each of them waits for half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn the_producer_names_the_server_that_is_down_and_gives_up_after_30_s() {
    let mut checks = Vec::new();
    for down in [Down::Gone, Down::Silent] {
        for case in [
            Case::new("Redis", "REDIS_URL", "redis", down),
            Case::new("RabbitMQ", "AMQP_URL", "amqp", down),
            Case::new("S3", "AWS_ENDPOINT_URL_S3", "http", down),
        ] {
            checks.push(tokio::task::spawn_blocking(move || case.check()));
        }
    }
    for check in checks {
        check.await.expect("named");
    }
}

/// A worker that runs, and the servers that it needs, none of which answers yet.
struct Late {
    proxies: Vec<(&'static str, Proxy)>,
}

impl Late {
    async fn before_all_of(fleet: &mut Fleet) -> Self {
        let servers = [
            // In the order in which the loader connects.
            ("Elasticsearch", "ELASTICSEARCH_URL"),
            ("S3", "AWS_ENDPOINT_URL_S3"),
            ("Redis", "REDIS_URL"),
            ("RabbitMQ", "AMQP_URL"),
        ];
        let mut proxies = Vec::new();
        for (name, variable) in servers {
            let (proxy, url) = Proxy::before(fleet.value(variable)).await.expect("a proxy");
            proxy.set(Fault::Reset);
            fleet.set(variable, url);
            proxies.push((name, proxy));
        }
        Late { proxies }
    }
}

fn names(process: &Process, name: &str, place: &str) -> bool {
    let said = process.said();
    let mut lines = said.lines();
    lines.any(|line| line.contains(&format!("waiting for {name} at")) && line.contains(place))
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_name_each_server_that_is_down_and_work_once_it_comes() {
    const CALENDAR: Calendar = Calendar {
        airports: &["NRT"],
        days: 10,
        rate: 400,
    };
    let mut fleet = Fleet::new("late").expect("a fleet");
    let password = fleet.value("AMQP_URL").to_owned();
    let password = password.split(['@', ':']).nth(2).map(str::to_owned);
    let late = Late::before_all_of(&mut fleet).await;
    let mut scene = Scene::new(fleet, &CALENDAR);
    scene.collect();
    scene.load();
    let started = Instant::now();
    for (name, proxy) in &late.proxies {
        let place = proxy.address().to_string();
        scene
            .until(&format!("word of {name}"), |scene| {
                let collector =
                    *name == "Elasticsearch" || names(&scene.collectors[0], name, &place);
                collector && names(scene.loader(), name, &place)
            })
            .await;
        proxy.set(Fault::None);
    }
    let took = started.elapsed();
    assert!(took < SOON, "each was named only after {took:?} in all");
    scene.enqueue();
    scene.ends_with(0).await;
    scene.check(&CALENDAR).await;
    let password = password.expect("a private RabbitMQ has a password");
    assert!(!scene.loader().said().contains(&password));
    assert!(!scene.collectors[0].said().contains(&password));
}
