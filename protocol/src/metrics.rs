//! Registers the metrics of a process under the fleet's prefix and remembers what they are: `deploy/METRICS.md` is made
//! from it.

use prometheus::core::{Collector, Desc};
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// The metrics of one registry.
pub struct Registrar {
    /// Where they are gathered.
    pub registry: Registry,
    /// Type and description of each, in the order of registration.
    described: Vec<(&'static str, Desc)>,
}

impl Registrar {
    /// One with `build_info`, as every process has it.
    ///
    /// # Errors
    /// Here and below: when two metrics have one name, which is a defect.
    pub fn new(version: &str) -> prometheus::Result<Self> {
        let mut registrar = Registrar {
            registry: Registry::default(),
            described: Vec::new(),
        };
        let opts =
            opts("build_info", "Always 1; the version is a label.").const_label("version", version);
        registrar.add("gauge", IntGauge::with_opts(opts)?)?.set(1);
        Ok(registrar)
    }

    fn add<C: Collector + Clone + 'static>(
        &mut self,
        kind: &'static str,
        made: C,
    ) -> prometheus::Result<C> {
        let own = made.desc().into_iter().map(|desc| (kind, desc.clone()));
        self.described.extend(own);
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// A counter.
    pub fn counter(&mut self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add("counter", IntCounter::with_opts(opts(name, help))?)
    }

    /// Counters by labels.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.add("counter", IntCounterVec::new(opts(name, help), labels)?)
    }

    /// A whole number.
    pub fn gauge(&mut self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add("gauge", IntGauge::with_opts(opts(name, help))?)
    }

    /// Whole numbers by labels.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntGaugeVec> {
        self.add("gauge", IntGaugeVec::new(opts(name, help), labels)?)
    }

    /// Numbers with fractions by labels.
    pub fn fractions(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<GaugeVec> {
        self.add("gauge", GaugeVec::new(opts(name, help), labels)?)
    }

    /// A histogram.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> prometheus::Result<Histogram> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.add("histogram", Histogram::with_opts(opts)?)
    }

    /// Histograms by labels.
    pub fn histograms(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.add("histogram", HistogramVec::new(opts, labels)?)
    }

    /// The table of the documents.
    pub fn table(&self) -> String {
        let mut table =
            "| metric | type | labels | what moves it |\n|---|---|---|---|\n".to_owned();
        for (kind, desc) in &self.described {
            let constant = desc.const_label_pairs.iter().map(|pair| pair.name());
            let labels: Vec<String> = desc
                .variable_labels
                .iter()
                .map(String::as_str)
                .chain(constant)
                .map(|label| format!("`{label}`"))
                .collect();
            let (name, help) = (&desc.fq_name, &desc.help);
            table += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(" "));
        }
        table
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("paceline")
}

/// A number as a gauge takes it.
pub fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
