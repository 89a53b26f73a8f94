//! Registers metrics under the fleet's prefix and remembers what they are: `deploy/METRICS.md` is made from it.

use prometheus::core::{Collector, Desc};
use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The metrics of one registry.
#[derive(Default)]
pub(crate) struct Registrar {
    /// Where they are gathered.
    pub(crate) registry: Registry,
    /// Type and description of each, in the order of registration.
    pub(crate) described: Vec<(&'static str, Desc)>,
}

impl Registrar {
    /// One with `build_info`, as every process has it.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let mut registrar = Registrar::default();
        let opts = opts("build_info", "Always 1; the version is a label.")
            .const_label("version", env!("PACELINE_VERSION"));
        let info = IntGauge::with_opts(opts)?;
        info.set(1);
        registrar.add("gauge", &info)?;
        Ok(registrar)
    }

    fn add<C: Collector + Clone + 'static>(
        &mut self,
        kind: &'static str,
        made: &C,
    ) -> prometheus::Result<()> {
        let own = made.desc().into_iter().map(|desc| (kind, desc.clone()));
        self.described.extend(own);
        self.registry.register(Box::new(made.clone()))
    }

    /// A whole number.
    pub(crate) fn whole(&mut self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let made = IntGauge::with_opts(opts(name, help))?;
        self.add("gauge", &made)?;
        Ok(made)
    }

    /// Whole numbers by labels.
    pub(crate) fn wholes(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntGaugeVec> {
        let made = IntGaugeVec::new(opts(name, help), labels)?;
        self.add("gauge", &made)?;
        Ok(made)
    }

    /// Numbers by labels.
    pub(crate) fn numbers(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<GaugeVec> {
        let made = GaugeVec::new(opts(name, help), labels)?;
        self.add("gauge", &made)?;
        Ok(made)
    }

    /// Counters by labels.
    pub(crate) fn counters(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let made = IntCounterVec::new(opts(name, help), labels)?;
        self.add("counter", &made)?;
        Ok(made)
    }

    /// The table of the documents.
    #[cfg(test)]
    pub(crate) fn table(&self) -> String {
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
pub(crate) fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
