//! Large pages: bodies of a format, what reads them, and a provider that holds its answers back until all are asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use bytes::Bytes;
use paceline_protocol::connector::{Answer, Connector};
use paceline_protocol::plan::{
    Matrix, PLAN_VERSION, Plan, PlannedDimension, PlannedValues, Segment,
};
use paceline_protocol::spec::SpecFolder;
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::providers::Server;

/// Microseconds of some day.
const NOW_US: i64 = 1_795_000_000_000_000;

/// A format of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFormat {
    /// A list of objects.
    Json,
    /// Elements below one root.
    Xml,
    /// A header and rows.
    Csv,
}

impl PageFormat {
    /// All of them.
    pub const ALL: [PageFormat; 3] = [PageFormat::Json, PageFormat::Xml, PageFormat::Csv];

    /// As files call it.
    pub fn name(self) -> &'static str {
        match self {
            PageFormat::Json => "json",
            PageFormat::Xml => "xml",
            PageFormat::Csv => "csv",
        }
    }

    /// A page of at least `bytes` bytes of orders.
    pub fn page(self, bytes: usize) -> String {
        let (head, tail) = match self {
            PageFormat::Json => ("{\"orders\":[", "]}"),
            PageFormat::Xml => ("<?xml version=\"1.0\"?>\n<orders>\n", "</orders>\n"),
            PageFormat::Csv => ("id,at,amount,status,name\n", ""),
        };
        let mut page = head.to_owned();
        let mut number = 0u64;
        while page.len() < bytes {
            self.row(number, &mut page);
            number += 1;
        }
        page + tail
    }

    fn row(self, n: u64, page: &mut String) {
        let (id, won) = (9_000_000_000_000 + n, n * 7919 % 1_000_000);
        let written = match self {
            PageFormat::Json => {
                let comma = if n == 0 { "" } else { "," };
                write!(
                    page,
                    "{comma}{{\"id\":{id},\"at\":\"2026-11-21T09:{:02}:00\",\"amount\":{won}.50,\"status\":\"PAYED\",\"name\":\"겨울 양말 {n}\"}}",
                    n % 60
                )
            }
            PageFormat::Xml => writeln!(
                page,
                "  <order><id>{id}</id><at>2026-11-21T09:{:02}:00</at><amount>{won}.50</amount><status>PAYED</status><name>겨울 &amp; 양말 {n}</name></order>",
                n % 60
            ),
            PageFormat::Csv => writeln!(
                page,
                "{id},2026-11-21T09:{:02}:00,{won}.50,PAYED,\"겨울, 양말 {n}\"",
                n % 60
            ),
        };
        written.expect("writing into a string cannot fail");
    }

    /// Reads a page with nothing but the parser; how many pieces it saw.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn parse_barely(self, page: &[u8]) -> anyhow::Result<usize> {
        match self {
            PageFormat::Json => {
                let value: Value = serde_json::from_slice(page)?;
                Ok(value["orders"].as_array().map_or(0, Vec::len))
            }
            PageFormat::Xml => {
                let mut reader = quick_xml::Reader::from_str(std::str::from_utf8(page)?);
                let mut seen = 0;
                while !matches!(reader.read_event()?, quick_xml::events::Event::Eof) {
                    seen += 1;
                }
                Ok(seen)
            }
            PageFormat::Csv => {
                let mut reader = csv::Reader::from_reader(page);
                let (mut row, mut seen) = (csv::StringRecord::new(), 0);
                while reader.read_record(&mut row)? {
                    seen += 1;
                }
                Ok(seen)
            }
        }
    }

    /// The provider's file, with `url` as its address.
    pub fn provider(self, url: &str) -> String {
        let records = match self {
            PageFormat::Json => "$.orders[*]",
            PageFormat::Xml => "$.orders.order[*]",
            PageFormat::Csv => "$[*]",
        };
        let name = self.name();
        format!(
            r#"provider: pages
version: 1
base_url: {url}
format: {{type: {name}}}
limits: [{{name: second, rate: 2000/s}}]
endpoints:
  orders:
    get: "/{{{{ n }}}}"
    records: {records}
    fields:
      id: {{path: $.id, as: string}}
      at: {{path: $.at, as: datetime, zone: Asia/Seoul}}
      amount: {{path: $.amount, as: decimal}}
      status: $.status
      name: {{path: $.name, as: text}}
"#
        )
    }

    /// Writes the spec folder of a job of `cells` pages, all in one shard.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(self, folder: &Path, url: &str, cells: usize) -> std::io::Result<()> {
        for part in ["jobs", "providers"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        std::fs::write(folder.join("jobs/pages.yaml"), job(cells))?;
        std::fs::write(folder.join("providers/pages.yaml"), self.provider(url))
    }

    /// The connector that reads such pages.
    ///
    /// # Errors
    /// When the files here are wrong.
    pub fn connector(self) -> anyhow::Result<Connector> {
        let (job, provider) = (job(1), self.provider("http://127.0.0.1:9"));
        let files = [
            ("jobs/pages.yaml", job.as_str()),
            ("providers/pages.yaml", provider.as_str()),
        ];
        let folder = SpecFolder::of_texts(Path::new("bench"), files);
        let loaded = folder
            .job("pages")
            .map_err(|error| anyhow!("the bench's own job: {error:?}"))?;
        let plan = Plan {
            version: PLAN_VERSION,
            run: "pages".parse()?,
            planned_at: jiff::Timestamp::from_microsecond(NOW_US)?,
            date: jiff::civil::date(2026, 11, 21),
            only: BTreeMap::new(),
            allow_shrink: false,
            force: false,
            base: None,
            job: loaded.job,
            providers: loaded.providers,
            matrix: Matrix {
                dimensions: vec![PlannedDimension {
                    names: vec!["n".into()],
                    values: PlannedValues::Range { first: 1, count: 1 },
                }],
            },
            segments: vec![Segment {
                lane: "pages".into(),
                provider: "pages".into(),
                first_cell: 0,
                cells: 1,
            }],
            inputs: Default::default(),
        };
        Ok(Connector::compile(&plan, "pages")?)
    }
}

fn job(cells: usize) -> String {
    format!(
        "job: pages\nprovider: pages\nendpoint: orders\nsplit: {{n: {{range: [1, {cells}]}}}}\n\
         shard: {{cells: {cells}, checkpoint: {cells}}}\noutputs: {{s3: {{format: ndjson, compress: zstd}}}}\n"
    )
}

/// Reads a page as the worker does; with `extract` also its records. How many there are.
///
/// # Errors
/// When it cannot be read.
pub fn read_page(connector: &Connector, page: &[u8], extract: bool) -> anyhow::Result<usize> {
    let header = |_: &str| None;
    let judged = connector.judge(&Answer {
        status: 200,
        header: &header,
        body: page,
        now_us: NOW_US,
    });
    let Some(body) = judged.body else {
        bail!("the page was not read: {}", judged.verdict.reason);
    };
    if !extract {
        return Ok(0);
    }
    let cell = connector.cell(vec![json!(1)]);
    let records = connector.records(&cell, &body).context("a field")?;
    let mut lines = Vec::with_capacity(page.len());
    for record in &records {
        record.write_ndjson(&mut lines);
    }
    Ok(records.len())
}

#[derive(Clone)]
struct Held {
    page: Bytes,
    all: Arc<Barrier>,
}

/// A provider whose answers are `page`, sent when `together` of them are asked for.
///
/// # Errors
/// When no port can be had.
pub fn holding_provider(page: Bytes, together: usize) -> anyhow::Result<Server> {
    let held = Held {
        page,
        all: Arc::new(Barrier::new(together)),
    };
    Server::start(|_| Router::new().route("/{n}", get(answer)).with_state(held))
}

async fn answer(State(held): State<Held>) -> Bytes {
    held.all.wait().await;
    held.page.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_read_whole() {
        for format in PageFormat::ALL {
            let page = format.page(10_000);
            let connector = format.connector().unwrap();
            let records = read_page(&connector, page.as_bytes(), true).unwrap();
            let name = format.name();
            assert!(records > 50, "{name}: {records}");
            assert!(format.parse_barely(page.as_bytes()).unwrap() >= records);
            assert!(read_page(&connector, &page.as_bytes()[..page.len() - 20], true).is_err());
        }
    }
}
