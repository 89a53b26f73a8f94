//! Which names a template sees, by where it stands.

/// Where a template stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot {
    /// A job's `provider:` and `shard`-wide things: the cell's dimensions alone.
    Lane,
    /// `add:` of a dimension: its rows, with the columns added before.
    Row {
        /// The dimension.
        dimension: String,
        /// Columns added before this one.
        added: Vec<String>,
    },
    /// `where:` of a dimension: its rows with all added columns.
    RowFilter {
        /// The dimension.
        dimension: String,
    },
    /// `source:` and `fields:` of a job without calls: the other job's records.
    Source,
    /// `where:` of a dimension's `records_of:`: the records of the job that is read.
    RecordsOf {
        /// Which one.
        job: String,
    },
    /// Outputs, `dedupe`, `changes`: the job's own records.
    Record,
    /// `key:` the cell.
    ObjectKey,
    /// `query:` and `key:` of a dimension that is looked up: the run that is planned.
    LookUp,
    /// `merged:` the run.
    RunOnly,
    /// Whatever there is: no name is refused.
    Free,
    /// A webhook's body: what happened to the run ([`NOTICE_NAMES`]).
    Notice,
    /// A header, query key or token request of a provider.
    Auth,
    /// The message that is signed: also `request`.
    Signing,
    /// The header of a signature: also `signature`.
    Signature,
    /// The header of a token that the fleet makes: also `token`.
    Token,
    /// The header of a token that a provider gave: `token` alone.
    GrantedToken,
    /// `per:` and `cost:` of a limit; also `endpoint`.
    Limit {
        /// The endpoints it holds for; empty: all.
        endpoints: Vec<String>,
    },
    /// `pick:` of credentials: the cell.
    Pick,
    /// `ready:` the run.
    Ready,
    /// `source:` of a provider: the cell.
    ProviderSource,
    /// A request or field of an endpoint.
    Endpoint {
        /// Its name.
        endpoint: String,
        /// `item` is there.
        each: bool,
        /// `ids` is there.
        detail: bool,
    },
}

/// A template of a file, with the names that it uses.
#[derive(Clone, Debug)]
pub struct TemplateUse {
    /// Where it stands.
    pub at: super::Position,
    /// The names that it uses, with their dots (`params.origin`).
    pub names: Vec<String>,
    /// What it may see.
    pub spot: Spot,
}

/// What a webhook's body knows of its run beside `run`, `today` and `params`. Of a run that has not ended, what it came to is
/// null.
pub const NOTICE_NAMES: [&str; 13] = [
    "job",
    "state",
    "round",
    "cells",
    "succeeded",
    "empty",
    "failed",
    "records",
    "documents",
    "notes",
    "reasons",
    "standings",
    "finished_at",
];

/// Names that nobody may give to a dimension or field: templates know them already.
pub const RESERVED: [&str; 12] = [
    "params",
    "credential",
    "run",
    "parent",
    "today",
    "now",
    "now_ms",
    "request",
    "signature",
    "token",
    "item",
    "ids",
];

/// Keys of a failure's line beside the dimensions.
pub const FAILURE_KEYS: [&str; 6] = ["cell", "reason", "outcome", "status", "field", "attempts"];

/// Whether a dimension cannot be called `name`: templates or failures know something else by it.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || FAILURE_KEYS.contains(&name) || name == "endpoint"
}

/// Parts of `run` and `parent`.
pub const RUN_PARTS: [&str; 3] = ["id", "date", "started_at"];

/// Parts of `request`, of what is signed.
pub const REQUEST_PARTS: [&str; 6] = ["method", "path", "query", "url", "body", "body_sha256"];

/// Fixed names without parts.
const TEXTS: [&str; 5] = ["today", "now", "now_ms", "signature", "endpoint"];

/// The names that a template may use.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Names of the cell, row or record.
    pub own: Vec<String>,
    /// `params.<name>`
    pub params: Vec<String>,
    /// Fields of `credential`, when they are known.
    pub credential: Option<Vec<String>>,
    /// Names of the spot, such as `now` or `item`.
    pub fixed: Vec<&'static str>,
    /// Not all names can be known; then none is refused.
    pub open: bool,
}

impl Names {
    /// Whether `name` (dotted) is one of them.
    pub fn holds(&self, name: &str) -> bool {
        let (root, part) = name
            .split_once('.')
            .map_or((name, None), |(r, p)| (r, Some(p)));
        match root {
            "params" if self.has_fixed("params") => {
                part.is_none_or(|p| self.params.iter().any(|k| k == first(p)))
            }
            "run" | "parent" if self.has_fixed(root) => part.is_none_or(|p| RUN_PARTS.contains(&p)),
            "request" if self.has_fixed(root) => part.is_none_or(|p| REQUEST_PARTS.contains(&p)),
            _ if TEXTS.contains(&root) && self.has_fixed(root) => part.is_none(),
            "credential" if self.has_fixed("credential") => {
                let fields = self.credential.as_ref();
                part.is_none_or(|p| fields.is_none_or(|known| known.iter().any(|k| k == first(p))))
            }
            _ => {
                self.open || self.has_fixed(root) || self.own.iter().any(|n| n == root || n == name)
            }
        }
    }

    fn has_fixed(&self, name: &str) -> bool {
        self.fixed.contains(&name)
    }

    /// All of them, as a message lists them.
    pub fn all(&self) -> Vec<String> {
        let mut all = self.own.clone();
        for name in &self.fixed {
            match *name {
                "params" => all.extend(self.params.iter().map(|p| format!("params.{p}"))),
                "request" => all.extend(REQUEST_PARTS.iter().map(|p| format!("request.{p}"))),
                "run" | "parent" => all.extend(RUN_PARTS.iter().map(|p| format!("{name}.{p}"))),
                "credential" => all.extend(self.credential_names()),
                _ => all.push((*name).to_owned()),
            }
        }
        all
    }

    fn credential_names(&self) -> Vec<String> {
        match &self.credential {
            Some(fields) => fields.iter().map(|f| format!("credential.{f}")).collect(),
            None => vec!["credential".to_owned()],
        }
    }
}

fn first(part: &str) -> &str {
    part.split('.').next().unwrap_or(part)
}

/// The names of `spot` that are no dimension, field or column; `has_parent`: the job follows or reads another one.
pub fn fixed_names(spot: &Spot, has_credentials: bool, has_parent: bool) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = match spot {
        Spot::Lane | Spot::GrantedToken => vec![],
        Spot::Row { .. }
        | Spot::RowFilter { .. }
        | Spot::RecordsOf { .. }
        | Spot::Source
        | Spot::LookUp => {
            vec!["params", "run", "today", "parent"]
        }
        Spot::Record | Spot::ObjectKey | Spot::RunOnly => {
            vec!["params", "run", "today", "now", "now_ms", "parent"]
        }
        Spot::Ready | Spot::Pick | Spot::ProviderSource | Spot::Notice => {
            vec!["params", "run", "today"]
        }
        _ => vec!["params", "run", "today", "now", "now_ms", "parent"],
    };
    names.retain(|name| has_parent || *name != "parent");
    match spot {
        Spot::Signing => names.push("request"),
        Spot::Signature => names.extend(["request", "signature"]),
        Spot::Token | Spot::GrantedToken => names.push("token"),
        Spot::Limit { .. } => names.push("endpoint"),
        Spot::Endpoint { each, detail, .. } => {
            names.extend(each.then_some("item"));
            names.extend(detail.then_some("ids"));
        }
        _ => {}
    }
    if has_credentials && sees_credential(spot) {
        names.push("credential");
    }
    names
}

fn sees_credential(spot: &Spot) -> bool {
    matches!(
        spot,
        Spot::Auth
            | Spot::Signing
            | Spot::Signature
            | Spot::Token
            | Spot::Limit { .. }
            | Spot::Endpoint { .. }
    )
}
