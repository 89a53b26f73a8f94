//! What the loader costs: documents a second of a real `worker load` that fills an index from parts, beside
//! raw `_bulk`s of the same documents prepared in memory, on the same servers in the same minutes.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use paceline_loadtest::bench::{
    CollectedRun, Programs, RunStores, children_cpu, two_at_once, warn_on_stderr,
};
use paceline_protocol::keys::Keys;
use paceline_protocol::stores::broker::Publisher;
use paceline_protocol::stores::index::{Index, Item};
use paceline_protocol::stores::objects::Objects;
use paceline_protocol::stores::state::State;
use paceline_protocol::topology::Topology;
use paceline_stack::{Stack, StackOptions};

/// Loads a run and sends the same documents raw, in turns, and prints both and their ratio.
///
/// Servers are private ones unless the environment names them; `worker` comes from PACELINE_BIN_DIR or the
/// folder of this program.
#[derive(Debug, Parser)]
struct Arguments {
    /// Documents of each run.
    #[arg(long, default_value_t = 500_000)]
    documents: u64,
    /// Documents of one cell; 20 cells are a part.
    #[arg(long, default_value_t = 4)]
    records: u64,
    /// How often each way is measured.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
}

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(900);

fn main() -> anyhow::Result<()> {
    warn_on_stderr();
    let arguments = Arguments::parse();
    let stack = Stack::start(&StackOptions::from_environment())?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut bench = Bench::start(&stack).await?;
        bench.measure(&arguments).await
    })
}

/// A loader process and the stores that it works on.
struct Bench {
    stores: RunStores,
    index: Index,
    name: String,
    loader: Child,
}

/// What a loaded run took.
struct Loaded {
    /// Until its last shard was loaded.
    loading: Duration,
    /// Until its manifest was there.
    finished: Duration,
}

impl Bench {
    async fn start(stack: &Stack) -> anyhow::Result<Self> {
        let env: BTreeMap<String, String> = stack.env().into_iter().collect();
        let value = |name: &str| env.get(name).with_context(|| format!("{name} is not set"));
        let name = format!("bench-load-{}", std::process::id());
        let stores = RunStores {
            objects: Objects::of(value("PACELINE_BUCKET")?, &env).await,
            state: State::connect(value("REDIS_URL")?, Keys::new(name.clone())).await?,
            publisher: Publisher::connect(value("AMQP_URL")?, Topology::new(name.clone())).await?,
            prefix: name.clone(),
        };
        let mut command = Programs::find()?.command("worker");
        command
            .arg("load")
            .envs(&env)
            .env("PACELINE_NAMESPACE", &name)
            .env("PACELINE_PREFIX", &name)
            .env("PACELINE_LOG", "warn")
            .stdin(Stdio::null());
        Ok(Bench {
            index: Index::new(value("ELASTICSEARCH_URL")?, None)?,
            stores,
            name,
            loader: command.spawn()?,
        })
    }

    async fn measure(&mut self, arguments: &Arguments) -> anyhow::Result<()> {
        // The first documents warm up both ways, and Elasticsearch.
        let few = arguments.documents.div_ceil(10);
        self.load("warm", few, arguments.records).await?;
        self.send_raw("warm-raw", few, arguments.records).await?;
        println!("round   loader docs/s   finished after   raw docs/s   ratio");
        for round in 1..=arguments.rounds {
            let (documents, records) = (arguments.documents, arguments.records);
            let loaded = self.load(&format!("r{round}"), documents, records).await?;
            let raw = self
                .send_raw(&format!("r{round}-raw"), documents, records)
                .await?;
            let rate = |took: Duration| documents as f64 / took.as_secs_f64();
            println!(
                "{round:>5} {:>15.0} {:>14.2} s {:>12.0} {:>5.1} %",
                rate(loaded.loading),
                loaded.finished.as_secs_f64(),
                rate(raw),
                100.0 * rate(loaded.loading) / rate(raw),
            );
        }
        let all = few + arguments.documents * u64::from(arguments.rounds);
        println!("the loader's CPU: {:.1} us/document", self.stop(all)?);
        Ok(())
    }

    async fn load(&mut self, run: &str, documents: u64, records: u64) -> anyhow::Result<Loaded> {
        let run = CollectedRun::new(run, documents, records, &self.name)?;
        run.write(&self.stores).await?;
        let begun = Instant::now();
        run.publish(&self.stores).await?;
        while self.stores.state.progress(&run.run()).await?.shards_loaded < run.shards() {
            self.wait(begun).await?;
        }
        let loading = begun.elapsed();
        while self.stores.objects.head(&run.manifest()).await?.is_none() {
            self.wait(begun).await?;
        }
        let finished = begun.elapsed();
        self.expect(&run.index(), run.documents()).await?;
        Ok(Loaded { loading, finished })
    }

    async fn send_raw(&self, run: &str, documents: u64, records: u64) -> anyhow::Result<Duration> {
        let run = CollectedRun::new(run, documents, records, &self.name)?;
        let (name, bulks) = (run.index(), run.bulks());
        let begun = Instant::now();
        // The loader's time has it too.
        self.index
            .create(&name, &CollectedRun::index_body())
            .await?;
        two_at_once(bulks, async |body| {
            let items = self.index.bulk(&name, body).await?;
            if items.iter().any(|item| *item != Item::Stored) {
                bail!("Elasticsearch did not take every document");
            }
            Ok(())
        })
        .await?;
        let took = begun.elapsed();
        self.expect(&name, run.documents()).await?;
        Ok(took)
    }

    /// Counts an index and deletes it, so that the next one has the same room.
    async fn expect(&self, name: &str, documents: u64) -> anyhow::Result<()> {
        self.index.refresh(name).await?;
        let count = self.index.count(name).await?;
        if count != documents {
            bail!("{name} holds {count} documents, not {documents}");
        }
        Ok(self.index.delete(name).await?)
    }

    async fn wait(&mut self, begun: Instant) -> anyhow::Result<()> {
        if let Some(status) = self.loader.try_wait()? {
            bail!("the loader ended by itself: {status}");
        }
        if begun.elapsed() > PATIENCE {
            bail!("the loader does not get done");
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// Ends the loader; microseconds of CPU for each of `documents`.
    fn stop(&mut self, documents: u64) -> anyhow::Result<f64> {
        let before = children_cpu()?;
        self.loader.kill()?;
        self.loader.wait()?;
        let cpu = children_cpu()?.saturating_sub(before);
        Ok(cpu.as_micros() as f64 / documents as f64)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Either may find the process gone, which is what is wanted.
        self.loader.kill().ok();
        self.loader.wait().ok();
    }
}
