//! The example jobs beside the fare calendar, each with its simulator and so many cells that a call's cost shows. Files are those
//! of the repository; what is changed are lists and limits, since time at a limit costs nothing.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::{Timestamp, ToSpan};
use paceline_protocol::stores::objects::Objects;
use tempfile::TempDir;

use super::markets::{Kind, Markets, example};
use crate::providers::search;
use crate::providers::seller_portal::{self, Account};
use crate::providers::world_events::{Event, World, WorldEvents};

/// Calls a second of limits that are not to bind.
const WIDE: u32 = 5_000;

/// One job with its files and providers.
pub struct Scene {
    /// The job's name.
    pub job: &'static str,
    /// Its spec folder.
    pub folder: TempDir,
    /// What the fleet's environment has beside the servers.
    pub environment: Vec<(String, String)>,
    /// Arguments of `worker collect`.
    pub arguments: &'static [&'static str],
    _providers: Vec<Box<dyn Any>>,
}

impl Scene {
    /// The scenes: the three markets of `orders` each by itself, then jobs by their names.
    pub const NAMES: [&'static str; 7] = [
        "eleven-street",
        "coupang",
        "naver-commerce",
        "events",
        "search",
        "votes",
        "reviews",
    ];

    /// Sets the scene `name`, with about `size` sellers, countries, keywords or regions; `servers` leads to S3.
    ///
    /// # Errors
    /// When there is none of that name, files cannot be read or written, or no port can be had.
    pub async fn set(
        name: &str,
        size: usize,
        servers: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.example() == name);
        match (kind, name) {
            (Some(kind), _) => orders(kind, size).await,
            (None, "events") => events(size),
            (None, "search") => engines(size),
            (None, "votes") => votes(size, servers).await,
            (None, "reviews") => reviews(size),
            (None, other) => bail!("no {other}; there are {}", Self::NAMES.join(", ")),
        }
    }

    fn of(job: &'static str, folder: TempDir) -> Self {
        Scene {
            job,
            folder,
            environment: Vec::new(),
            arguments: &[],
            _providers: Vec::new(),
        }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    fn beside(mut self, provider: impl Any) -> Self {
        self._providers.push(Box::new(provider));
        self
    }
}

/// Copies an example into `folder`, with replacements that all must find something.
fn copy(folder: &Path, path: &str, changes: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut text = example(path)?;
    for (from, to) in changes {
        if !text.contains(from) {
            bail!("{path} has no {from:?} any more");
        }
        text = text.replace(from, to);
    }
    let to = folder.join(path);
    let parent = to.parent().context("a file lies in a folder")?;
    std::fs::create_dir_all(parent)?;
    Ok(std::fs::write(to, text)?)
}

async fn orders(kind: Kind, size: usize) -> anyhow::Result<Scene> {
    let folder = tempfile::tempdir()?;
    let markets = Markets::of([kind], size, 7, None).await?;
    markets.write(folder.path())?;
    let environment = markets.environment(folder.path());
    Ok(Scene {
        environment,
        arguments: &["--egress", "static"],
        ..Scene::of("orders", folder)
    }
    .beside(markets))
}

fn events(size: usize) -> anyhow::Result<Scene> {
    let folder = tempfile::tempdir()?;
    let countries: Vec<String> = (0..size).map(|n| format!("C{n}")).collect();
    let list = format!("country: [{}]", countries.join(", "));
    copy(
        folder.path(),
        "jobs/events.yaml",
        &[("country: [KR, JP, US, FR, TH]", &list)],
    )?;
    let wide = format!("rate: {WIDE}/s");
    let limits = [
        ("rate: 300/min, burst: 5", wide.as_str()),
        ("10000/day", "100000000/day"),
    ];
    copy(folder.path(), "providers/world-events.yaml", &limits)?;
    let catalogue = WorldEvents::start(
        World {
            events: countries
                .iter()
                .flat_map(|country| in_country(country))
                .collect(),
            refused: Vec::new(),
            reach: 200,
        },
        &["a"],
    )?;
    catalogue.allow(f64::from(WIDE), f64::from(WIDE));
    let url = catalogue.server().url();
    Ok(Scene::of("events", folder)
        .with("WORLD_EVENTS_URL", url)
        .with("WORLD_EVENTS_TOKENS", "a")
        .beside(catalogue))
}

/// Three pages of festivals, a few of everything else.
fn in_country(country: &str) -> Vec<Event> {
    let start = Timestamp::now() + jiff::SignedDuration::from_hours(48);
    let of = |(category, count): (&'static str, i64)| {
        (0..count).map(move |n| Event {
            id: format!("{country}-{category}-{n:03}"),
            country: country.to_owned(),
            category: category.to_owned(),
            title: format!("서울 \"겨울\" 축제 {n}"),
            start: start + n.hours(),
            days: 1,
            rank: (n % 100) as u32,
            lat: 35.125 + n as f64 / 64.0,
            lon: 129.0,
            updated: start,
        })
    };
    [
        ("festivals", 130),
        ("concerts", 40),
        ("expos", 5),
        ("sports", 0),
    ]
    .into_iter()
    .flat_map(of)
    .collect()
}

fn engines(size: usize) -> anyhow::Result<Scene> {
    let folder = tempfile::tempdir()?;
    copy(folder.path(), "jobs/search.yaml", &[])?;
    let wide = format!("rate: {WIDE}/s");
    let changes = |quota| [("rate: 10/s", wide.as_str()), (quota, "100000000/day")];
    copy(
        folder.path(),
        "providers/naver-search.yaml",
        &changes("25000/day"),
    )?;
    copy(
        folder.path(),
        "providers/kakao-search.yaml",
        &changes("30000/day"),
    )?;
    let keywords: Vec<String> = (0..size).map(|n| format!("제주 여행 {n}")).collect();
    let list = format!("keyword\n{}\n", keywords.join("\n"));
    std::fs::write(folder.path().join("jobs/keywords.csv"), list)?;
    let posts: search::Posts = keywords.into_iter().map(|k| (k, 180)).collect();
    let naver = search::naver(posts.clone(), "id:secret")?;
    let kakao = search::kakao(posts, "key")?;
    Ok(Scene::of("search", folder)
        .with("NAVER_SEARCH_URL", naver.url())
        .with("NAVER_SEARCH_KEYS", "id:secret")
        .with("KAKAO_SEARCH_URL", kakao.url())
        .with("KAKAO_SEARCH_KEYS", "key")
        .beside(naver)
        .beside(kakao))
}

/// No calls: each region's object is read, 200 candidates each.
async fn votes(size: usize, servers: &BTreeMap<String, String>) -> anyhow::Result<Scene> {
    let folder = tempfile::tempdir()?;
    let regions: Vec<String> = (0..size).map(|n| format!("r{n:05}")).collect();
    let list = format!("region: [{}]", regions.join(", "));
    copy(
        folder.path(),
        "jobs/votes.yaml",
        &[("region: [jp, tw, kr, na]", &list)],
    )?;
    copy(folder.path(), "providers/regional-votes.yaml", &[])?;
    let bucket = servers
        .get("PACELINE_BUCKET")
        .context("PACELINE_BUCKET is not set")?;
    let objects = Objects::of(bucket, servers).await;
    let event = format!("bench-{}", std::process::id());
    let job = folder.path().join("jobs/votes.yaml");
    let text = std::fs::read_to_string(&job)?.replace("event: \"104\"", &format!("event: {event}"));
    std::fs::write(&job, text)?;
    let rows: String = (0..200)
        .map(|n| format!("k{n},{}\n", n * 7919 % 10_007))
        .collect();
    let body = format!("kseq,score\n{rows}").into_bytes();
    for region in &regions {
        let key = format!("data/{event}/{region}-202611270000.csv");
        objects.put(&key, body.clone().into(), &[]).await?;
    }
    Ok(Scene::of("votes", folder)
        .with("VOTES_BUCKET", bucket.as_str())
        .with("RUN_WEBHOOK_URL", "http://127.0.0.1:9/"))
}

fn reviews(size: usize) -> anyhow::Result<Scene> {
    const TOTP: &str = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";
    let folder = tempfile::tempdir()?;
    let sellers: Vec<String> = (0..size).map(|n| format!("seller-{n:05}")).collect();
    let list = format!("seller: [{}]", sellers.join(", "));
    copy(
        folder.path(),
        "jobs/reviews.yaml",
        &[("seller: [seller-001, seller-002]", &list)],
    )?;
    copy(folder.path(), "providers/seller-portal.yaml", &[])?;
    let account = |seller: &String| Account {
        seller: seller.clone(),
        password: "p".into(),
        totp_secret: TOTP.into(),
    };
    let accounts: BTreeMap<String, Account> =
        sellers.iter().map(|s| (s.clone(), account(s))).collect();
    let server = seller_portal::start(seller_portal::Config {
        accounts,
        page: 3,
        session_calls: None,
        seed: 41,
    })?;
    let lines = sellers
        .iter()
        .map(|s| format!("{s}: {{login: {s}, password: p, totp_secret: {TOTP}}}\n"));
    let file = folder.path().join("accounts.yaml");
    std::fs::write(&file, lines.collect::<String>())?;
    Ok(Scene {
        arguments: &["--egress", "static"],
        ..Scene::of("reviews", folder)
    }
    .with("SELLER_PORTAL_URL", server.url())
    .with("SELLER_PORTAL_ACCOUNTS", file.display().to_string())
    .beside(server))
}

#[cfg(test)]
mod tests {
    use paceline_protocol::spec::{Diagnostic, SpecFolder};

    use super::*;

    #[tokio::test]
    async fn the_files_of_every_scene_are_right() {
        // Votes need a store.
        for name in Scene::NAMES.into_iter().filter(|name| *name != "votes") {
            let scene = Scene::set(name, 3, &BTreeMap::new()).await.unwrap();
            let folder = SpecFolder::open(scene.folder.path()).unwrap();
            let mut found = folder.check(&[], None).unwrap();
            found.retain(Diagnostic::is_error);
            assert!(found.is_empty(), "{name}: {found:?}");
            assert!(folder.job(scene.job).is_ok());
        }
        assert!(Scene::set("fares", 1, &BTreeMap::new()).await.is_err());
    }
}
