//! The markets of `orders`, many of each kind: simulators, their provider files made from the example ones, and how much
//! of their allowance was used, from their own logs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::providers::eleven_street::{self, ElevenStreet};
use crate::providers::{Server, coupang, naver_commerce};

/// A salt that is quick to hash with.
const SALT: &str = "$2a$04$abcdefghijklmnopqrstuv";
/// Draws the orders.
const SEED: u64 = 17;
/// The path of Coupang's bans: longer than a run, so that one shows.
const BAN: Duration = Duration::from_secs(3600);

/// Which example a market is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Signed requests, one for each status; nine a second for each seller.
    Coupang,
    /// Tokens, changes and details; two a second for each seller and endpoint.
    Naver,
    /// Korean XML; one a second for each seller.
    ElevenStreet,
}

enum Running {
    Small(Server),
    Eleven(ElevenStreet),
}

struct Market {
    name: String,
    kind: Kind,
    /// Calls a second of all its sellers together.
    rate: Option<u32>,
    running: Running,
}

/// One call, as a market saw it.
struct Call {
    at: Duration,
    refused: bool,
}

/// What a market saw of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct MarketUse {
    /// Its name.
    pub name: String,
    /// The provider file that it is made from.
    pub like: &'static str,
    /// Calls a second that it allows, where it has a limit over all its sellers.
    pub rate: Option<u32>,
    /// Its calls.
    pub calls: usize,
    /// Those answered with 429.
    pub refused: usize,
    /// From the first to the last.
    pub lasted: Duration,
    /// The share of `rate` that was used in that time.
    pub used: Option<f64>,
}

/// Several markets of the three kinds, and the sellers that sell at all of them.
pub struct Markets {
    markets: Vec<Market>,
    sellers: Vec<String>,
    days: u32,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::ElevenStreet, Kind::Coupang, Kind::Naver];

    pub(super) fn example(self) -> &'static str {
        match self {
            Kind::Coupang => "coupang",
            Kind::Naver => "naver-commerce",
            Kind::ElevenStreet => "eleven-street",
        }
    }

    /// As the example's file calls its URL and accounts.
    fn variable(self) -> String {
        self.example().replace('-', "_").to_uppercase()
    }
}

impl Markets {
    /// Starts `count` markets for `sellers` sellers, the kinds in turn. The first one allows `slowest` calls a second over all its
    /// sellers, beside what it allows each of them.
    ///
    /// # Errors
    /// When one cannot listen.
    pub async fn start(
        count: usize,
        sellers: usize,
        days: u32,
        slowest: u32,
    ) -> anyhow::Result<Self> {
        let kinds = (0..count).map(|n| Kind::ALL[n % Kind::ALL.len()]);
        Self::of(kinds, sellers, days, Some(slowest)).await
    }

    /// A market of each of `kinds`; `slowest` is the first one's limit over all its sellers.
    pub(super) async fn of(
        kinds: impl IntoIterator<Item = Kind>,
        sellers: usize,
        days: u32,
        slowest: Option<u32>,
    ) -> anyhow::Result<Self> {
        let sellers: Vec<String> = (1..=sellers).map(|n| format!("seller-{n:03}")).collect();
        let mut markets = Vec::new();
        for (number, kind) in (1..).zip(kinds) {
            let rate = slowest.filter(|_| number == 1);
            markets.push(Market {
                name: format!("market-{number:02}"),
                kind,
                rate,
                running: running(kind, &sellers, number as u64, rate).await?,
            });
        }
        Ok(Markets {
            markets,
            sellers,
            days,
        })
    }

    /// Accounts: each seller at each market.
    pub fn accounts(&self) -> usize {
        self.markets.len() * self.sellers.len()
    }

    /// Writes the job as it stands, with these markets and sellers, and a provider file for each market.
    ///
    /// # Errors
    /// When the examples cannot be read or a file not be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let (jobs, providers) = (folder.join("jobs"), folder.join("providers"));
        std::fs::create_dir_all(&jobs)?;
        std::fs::create_dir_all(&providers)?;
        let (days, before) = (self.days, self.days.saturating_sub(1));
        let job = example("jobs/orders.yaml")?
            .replace("today-6, days: 7", &format!("today-{before}, days: {days}"));
        std::fs::write(jobs.join("orders.yaml"), job)?;
        let mut rows = "market,seller\n".to_owned();
        for market in &self.markets {
            for seller in &self.sellers {
                rows += &format!("{},{seller}\n", market.name);
            }
            let file = format!("{}.yaml", market.name);
            std::fs::write(providers.join(file), market.provider()?)?;
        }
        std::fs::write(jobs.join("sellers.csv"), rows)?;
        for kind in Kind::ALL {
            let accounts = self.sellers.iter().map(|seller| account(kind, seller));
            std::fs::write(accounts_file(folder, kind), accounts.collect::<String>())?;
        }
        Ok(())
    }

    /// Where accounts are, for the fleet's environment; `folder` is the one that was written.
    pub fn environment(&self, folder: &Path) -> Vec<(String, String)> {
        let pair = |kind: Kind| {
            let file = accounts_file(folder, kind).display().to_string();
            (format!("{}_ACCOUNTS", kind.variable()), file)
        };
        Kind::ALL.map(pair).into()
    }

    /// What each of them saw.
    pub fn used(&self) -> Vec<MarketUse> {
        self.markets.iter().map(Market::used).collect()
    }
}

async fn running(
    kind: Kind,
    sellers: &[String],
    seed: u64,
    rate: Option<u32>,
) -> anyhow::Result<Running> {
    let seed = SEED + seed;
    Ok(match kind {
        Kind::Coupang => Running::Small(coupang::start(coupang::Config {
            vendors: sellers.iter().map(|s| (s.clone(), vendor(s))).collect(),
            page: 50,
            ban: BAN,
            seed,
        })?),
        Kind::Naver => Running::Small(naver_commerce::start(naver_commerce::Config {
            applications: sellers
                .iter()
                .map(|s| (format!("app-{s}"), (SALT.to_owned(), s.clone())))
                .collect(),
            seed,
            ..naver_commerce::Config::default()
        })?),
        Kind::ElevenStreet => Running::Eleven(
            ElevenStreet::start(eleven_street::Config {
                keys: sellers
                    .iter()
                    .map(|s| (format!("key-{s}"), s.clone()))
                    .collect(),
                rate,
                seed,
                ..eleven_street::Config::default()
            })
            .await?,
        ),
    })
}

fn vendor(seller: &str) -> coupang::Vendor {
    coupang::Vendor {
        id: format!("A-{seller}"),
        access_key: format!("key-{seller}"),
        secret: format!("secret-{seller}"),
    }
}

/// A seller's line in the file of accounts.
fn account(kind: Kind, seller: &str) -> String {
    match kind {
        Kind::Coupang => {
            let v = vendor(seller);
            let (id, key, secret) = (v.id, v.access_key, v.secret);
            format!("{seller}: {{vendor_id: {id}, access_key: {key}, secret_key: {secret}}}\n")
        }
        Kind::Naver => format!("{seller}: {{client_id: app-{seller}, client_secret: '{SALT}'}}\n"),
        Kind::ElevenStreet => format!("{seller}: {{key: key-{seller}}}\n"),
    }
}

fn accounts_file(folder: &Path, kind: Kind) -> PathBuf {
    folder.join(format!("{}.accounts.yaml", kind.example()))
}

/// An example file of the repository that this was built from.
pub(super) fn example(path: &str) -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/spec")
        .join(path);
    std::fs::read_to_string(&path).with_context(|| format!("{} is needed", path.display()))
}

impl Market {
    /// The example's file under this market's name.
    fn provider(&self) -> anyhow::Result<String> {
        let (like, variable) = (self.kind.example(), self.kind.variable());
        let mut text = example(&format!("providers/{like}.yaml"))?
            .replace(
                &format!("provider: {like}\n"),
                &format!("provider: {}\n", self.name),
            )
            .replace(&format!("${{{variable}_URL}}"), &self.url());
        if let Some(rate) = self.rate {
            let all = format!("limits:\n  - {{name: market, rate: {rate}/s}}\n");
            text = text.replace("limits:\n", &all);
        }
        Ok(text)
    }

    fn url(&self) -> String {
        match &self.running {
            Running::Small(server) => server.url(),
            Running::Eleven(market) => market.url(),
        }
    }

    fn calls(&self) -> Vec<Call> {
        match &self.running {
            Running::Small(server) => {
                let seen = server.seen();
                let first = seen.first().map(|seen| seen.at);
                let since = |at| first.map_or(Duration::ZERO, |first| at - first);
                seen.iter()
                    .map(|seen| Call {
                        at: since(seen.at),
                        refused: seen.status == 429,
                    })
                    .collect()
            }
            Running::Eleven(market) => market
                .log()
                .iter()
                .map(|call| Call {
                    at: Duration::from_micros(call.at_us),
                    refused: call.answer == "429",
                })
                .collect(),
        }
    }

    fn used(&self) -> MarketUse {
        let calls = self.calls();
        let first = calls.iter().map(|call| call.at).min().unwrap_or_default();
        let last = calls.iter().map(|call| call.at).max().unwrap_or_default();
        let lasted = last - first;
        // The first call opens the time, the others fill it.
        let share = |rate: u32| {
            let allowed = f64::from(rate) * lasted.as_secs_f64();
            (calls.len().saturating_sub(1)) as f64 / allowed
        };
        MarketUse {
            name: self.name.clone(),
            like: self.kind.example(),
            rate: self.rate,
            calls: calls.len(),
            refused: calls.iter().filter(|call| call.refused).count(),
            lasted,
            used: self.rate.filter(|_| !lasted.is_zero()).map(share),
        }
    }
}

#[cfg(test)]
mod tests {
    use paceline_protocol::spec::{Diagnostic, SpecFolder};

    use super::*;

    #[tokio::test]
    async fn the_files_of_seventeen_markets_are_right() {
        let folder = tempfile::tempdir().unwrap();
        let markets = Markets::start(17, 3, 7, 4).await.unwrap();
        markets.write(folder.path()).unwrap();
        let spec = SpecFolder::open(folder.path()).unwrap();
        let mut found = spec.check(&[], None).unwrap();
        found.retain(Diagnostic::is_error);
        assert!(found.is_empty(), "{found:?}");
        let orders = spec.job("orders").unwrap();
        assert_eq!(orders.providers.len(), 17);
        assert_eq!(orders.providers["market-01"].limits.len(), 2);
        assert_eq!(markets.accounts(), 51);
    }
}
