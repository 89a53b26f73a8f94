//! What a job and a provider declare, with defaults filled in. This is also what a plan carries to
//! the workers, so it serialises; the files themselves are read by the spec reader, which knows places.
//!
//! Templates (Jinja) and paths (JSONPath, RFC 9535) are kept as their source text; the reader has
//! compiled them once, so compiling them again cannot fail for reasons of syntax.

use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A Jinja template, as written.
pub type Template = String;
/// A Jinja expression over a record's fields, as written.
pub type Expression = String;
/// A JSONPath (RFC 9535), as written.
pub type Path = String;

/// Durations as whole microseconds.
mod micros {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(span: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_micros)
    }
}

/// A length of time; whole microseconds on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "micros")] pub Duration);

impl Span {
    /// `n` whole seconds.
    pub const fn secs(n: u64) -> Self {
        Span(Duration::from_secs(n))
    }

    /// `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Span(Duration::from_millis(n))
    }
}

// ---------------------------------------------------------------------------------------------- job

/// A declared collection: `jobs/*.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// `job:` the name.
    pub name: String,
    /// `provider:` a name, or a template over the dimensions. Absent for a job without calls.
    pub provider: Option<Template>,
    /// `endpoint:` of the provider.
    pub endpoint: Option<String>,
    /// `after:` the job whose completed run starts this one.
    pub after: Option<After>,
    /// `trigger:` new objects in S3.
    pub trigger: Option<NewObjects>,
    /// `params:` fixed values, `params.<name>` in templates; `--param` overrides them.
    pub params: IndexMap<String, Value>,
    /// `split:` the dimensions, first one outermost.
    pub split: IndexMap<String, Dimension>,
    /// `source:` of a job without calls.
    pub source: Option<RecordsOf>,
    /// `shard:`
    pub shard: ShardSize,
    /// `schedule:`
    pub schedule: Option<Schedule>,
    /// `gate:`
    pub gate: Gate,
    /// `dedupe:`
    pub dedupe: Option<Dedupe>,
    /// `progress_by:` a dimension whose values are counted apart.
    pub progress_by: Option<String>,
    /// `changes:` compares each record with the last good run's.
    pub changes: Option<Changes>,
    /// `fields:` of a job without calls: name -> template over the source record.
    pub fields: IndexMap<String, Template>,
    /// `outputs:`
    pub outputs: Outputs,
    /// `priority:` 1 to 9; a run's share of a lane beside others (5).
    pub priority: u8,
    /// `view:` how the page shows it; kept as written.
    pub view: Option<Value>,
    /// `notify:` webhooks.
    pub notify: Vec<Notify>,
    /// `retention:` how long `producer clean` leaves its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
}

/// `after:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct After {
    /// The parent job.
    pub job: String,
    /// Also when the parent's run failed.
    pub on_failure: bool,
}

/// `trigger: {new_objects: {every: 30s}}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewObjects {
    /// How often the objects are listed.
    pub every: Span,
}

/// One dimension of the matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dimension {
    /// Where its values come from.
    pub values: DimensionValues,
    /// `add:` columns, in order.
    pub add: IndexMap<String, AddedColumn>,
    /// `where:` which rows stay.
    pub filter: Option<Expression>,
    /// `distinct:` the columns that stay as names, one row for each combination.
    pub distinct: Vec<String>,
}

/// Where a dimension's values come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DimensionValues {
    /// A list as YAML reads it.
    List(Vec<Value>),
    /// `{file, column}`: one column of a CSV file.
    File {
        /// Relative to the job's file.
        file: String,
        /// The column's header.
        column: String,
    },
    /// `{rows: {file}}`: every column of a CSV file becomes a name.
    Rows {
        /// Relative to the job's file.
        file: String,
    },
    /// `{dates: {from, days}}`: calendar days.
    Dates {
        /// `today`, `today+1`, `today-6` or an ISO date.
        from: String,
        /// How many.
        days: u32,
        /// Each so many days one; absent: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        every: Option<u32>,
    },
    /// `{range: [first, last]}`: integers, both ends included.
    Range {
        /// First value.
        first: i64,
        /// Last value.
        last: i64,
    },
    /// `{records_of: ...}`: records of another job's run.
    RecordsOf(RecordsOf),
    /// `{documents: ...}`: what a query finds in Elasticsearch.
    Documents(DocumentsOf),
    /// `{object: ...}`: a list in S3.
    Object(ObjectOf),
}

/// `documents:` of an index, found by a query when the run is planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentsOf {
    /// `index:` or alias.
    pub index: String,
    /// `query:` in Elasticsearch's own words, its texts templates; absent: all.
    pub query: Value,
    /// `columns:` fields that become names.
    pub columns: Vec<String>,
}

/// `object:` the newest list in S3 whose key fits, read when the run is planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectOf {
    /// `bucket:` (the runs' bucket).
    pub bucket: Option<String>,
    /// `key:`, where `*` is any text of one folder.
    pub key: Template,
    /// `columns:` that become names.
    pub columns: Vec<String>,
}

/// `records_of:` records of another job's run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordsOf {
    /// The other job.
    pub job: String,
    /// Which records.
    pub filter: Option<Expression>,
    /// Which of their columns become names; empty: all.
    pub columns: Vec<String>,
}

/// A column added to a dimension's rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddedColumn {
    /// A template over the row.
    Template(Template),
    /// The nearest row of a file by great-circle distance.
    Nearest {
        /// A CSV file, relative to the job's file.
        file: String,
        /// Latitude and longitude columns, of the row and of the file.
        by: Vec<String>,
        /// The file's column that is taken.
        take: String,
    },
}

/// `shard:` how the matrix is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSize {
    /// Cells of a shard (100).
    pub cells: u32,
    /// Cells of a block, which is one part (20).
    pub checkpoint: u32,
}

impl Default for ShardSize {
    fn default() -> Self {
        ShardSize {
            cells: 100,
            checkpoint: 20,
        }
    }
}

/// `schedule:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields.
    pub cron: String,
    /// IANA name (UTC).
    pub timezone: String,
    /// When the last run is still going (skip).
    pub overlap: Overlap,
    /// At most this much later, by chance.
    pub jitter: Option<Span>,
    /// Start what was missed.
    pub catch_up: bool,
    /// A run ends at the latest so long after its start (24h).
    pub deadline: Span,
}

/// `overlap:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Not started.
    Skip,
    /// Started when the other one ended.
    Queue,
    /// The other one is cancelled.
    Cancel,
}

/// `gate:` from which share on a run counts as good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Least `(succeeded + empty) / cells` (1.0).
    pub cells: f64,
    /// Least records as a share of the last good run's (0.5).
    pub records: f64,
}

impl Default for Gate {
    fn default() -> Self {
        Gate {
            cells: 1.0,
            records: 0.5,
        }
    }
}

/// `dedupe:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dedupe {
    /// Records with the same text are doubles.
    pub by: Template,
    /// Which one stays.
    pub keep: KeepDouble,
}

/// `dedupe: {keep}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepDouble {
    /// The first by cell and place.
    First,
    /// The last.
    Last,
}

/// `changes:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// What identifies a record over runs.
    pub id: Template,
    /// Fields that do not count.
    pub ignore: Vec<String>,
    /// Fields whose change means `moved` (2).
    pub moved: Vec<String>,
}

/// `outputs:`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// `s3:`
    pub s3: S3Output,
    /// `rankings:` sorted sets.
    pub rankings: Vec<Ranking>,
    /// `index:`
    pub index: Option<IndexOutput>,
}

/// `outputs.s3:` how parts are written, and objects made from them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct S3Output {
    /// `format:` (ndjson)
    pub format: OutputFormat,
    /// `compress:` (zstd for ndjson, else none)
    pub compress: Compression,
    /// `columns:` of the `key` and `merged` objects.
    pub columns: Vec<String>,
    /// `key:` one object for each combination of values.
    pub key: Option<Template>,
    /// `merged:` one object.
    pub merged: Option<Template>,
    /// `bucket:` of both (the runs' bucket).
    pub bucket: Option<String>,
}

/// `format:` of parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    /// One JSON object a line.
    #[default]
    Ndjson,
    /// With a header in every part.
    Csv,
    /// Columnar.
    Parquet,
}

/// `compress:` of parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// As they are.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    #[default]
    Zstd,
}

/// One family of sorted sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// The set's name, spelled exactly so in Redis.
    pub key: Template,
    /// The member.
    pub member: Template,
    /// The score; a number.
    pub score: Template,
    /// Which score stays when a member comes more than once (last).
    pub keep: KeepScore,
    /// Time to live of the published set.
    pub expire: Option<Span>,
    /// `normalise:` scores within a group before they are summed.
    pub normalise: Option<Normalise>,
}

/// `keep:` of a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepScore {
    /// The lowest.
    Min,
    /// The highest.
    Max,
    /// Of the highest cell.
    Last,
    /// All together; a block counts once.
    Sum,
}

/// `normalise:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalise {
    /// How.
    pub by: NormaliseBy,
    /// Group of records that are normalised together.
    pub within: Template,
    /// Weight of a group, by its text.
    pub weights: IndexMap<String, f64>,
}

/// `normalise: {by}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormaliseBy {
    /// Score over the group's sum.
    Share,
    /// Lowest 0, highest 1.
    Minmax,
    /// Standard score.
    Zscore,
    /// By place.
    Rank,
}

/// `outputs.index:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexOutput {
    /// Alias (snapshot) or index (upsert).
    pub name: String,
    /// `mode:`
    pub mode: IndexMode,
    /// Document id.
    pub id: Template,
    /// Finished indices that stay, the live one among them (2).
    pub keep: u32,
    /// Field -> Elasticsearch type (or a whole property object).
    pub mapping: IndexMap<String, Value>,
}

/// `mode:` of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexMode {
    /// A new index for each run, behind an alias.
    Snapshot,
    /// One index, newest answer wins.
    Upsert,
}

/// One webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notify {
    /// Its URL, `${NAME}` unexpanded.
    pub webhook: String,
    /// Which ends of a run.
    pub on: Vec<String>,
    /// `cloudevents`, `slack` or `template`.
    pub format: String,
    /// The body for `template`.
    pub template: Option<Template>,
}

// ----------------------------------------------------------------------------------------- provider

/// An API with its limits: `providers/*.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// `provider:` the name.
    pub name: String,
    /// `version:` of the file.
    pub version: u32,
    /// `verified_on:` an ISO date.
    pub verified_on: Option<String>,
    /// `base_url:`; expanded when a run is planned.
    pub base_url: Option<String>,
    /// `egress:` label of the workers that may take its lane.
    pub egress: Option<String>,
    /// `source:` when it is not an HTTP API; kept as written.
    pub source: Option<Value>,
    /// `credentials:`
    pub credentials: Option<Credentials>,
    /// `auth:` applied in order.
    pub auth: Vec<Auth>,
    /// `timeout:`
    pub timeout: Timeout,
    /// `format:` of answers.
    pub format: Format,
    /// `limits:`
    pub limits: Vec<Limit>,
    /// `outcomes:` first match wins, then the built-in list.
    pub outcomes: Vec<OutcomeRule>,
    /// `retry:`
    pub retry: Retry,
    /// `ready:` asked before a run starts.
    pub ready: Option<Ready>,
    /// `endpoints:`
    pub endpoints: IndexMap<String, Endpoint>,
}

/// `credentials:` one key or a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Credentials {
    /// Where they are.
    pub from: CredentialSource,
    /// `fields:` of a `from_env` entry, separated by `:` (`key`).
    pub fields: Vec<String>,
    /// `use:` how the pool is used up.
    pub use_: PoolUse,
    /// `pick:` the entry of `from_file` for a cell.
    pub pick: Option<Template>,
}

/// Where credentials are read, by the workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialSource {
    /// `from_env:` the name of a variable (or `<name>_FILE`) with a comma-separated list.
    Env(String),
    /// `from_file:` a path, `${NAME}` unexpanded: YAML or JSON, name -> fields.
    File(String),
}

/// `use:` of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolUse {
    /// One key until it is used up, then the next.
    #[default]
    Exhaust,
    /// The key with most left.
    Spread,
}

/// One entry of `auth:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// `{header, value}`
    Header {
        /// Lower-case name.
        header: String,
        /// Its value.
        value: Template,
    },
    /// `{query, value}`
    Query {
        /// The parameter.
        query: String,
        /// Its value.
        value: Template,
    },
    /// `{sign, key, message, header, value}`: a signature over the final request.
    Sign {
        /// `hmac_sha256_hex` or `hmac_sha256_base64`.
        algorithm: String,
        /// The secret.
        key: Template,
        /// What is signed.
        message: Template,
        /// The header that carries it.
        header: String,
        /// The header's value, `signature` among its names.
        value: Template,
    },
    /// `{oauth2, token, basic, form, refresh_before, header, value}`
    Oauth2 {
        /// `client_credentials` or `refresh_token`.
        grant: String,
        /// Path of the token request.
        token: Template,
        /// User and password of the token request's HTTP basic.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        basic: Option<(Template, Template)>,
        /// Its form.
        form: IndexMap<String, Template>,
        /// Renewed so long before its end.
        refresh_before: Span,
        /// The header of calls that carries the token.
        #[serde(
            default = "Auth::authorization",
            skip_serializing_if = "Auth::is_authorization"
        )]
        header: String,
        /// That header's value, with `token` as its one name.
        #[serde(default = "Auth::bearer", skip_serializing_if = "Auth::is_bearer")]
        value: Template,
    },
    /// `{session: cookies, login, form, refresh_before, lasts}`
    Session {
        /// Path of the log-in.
        login: Template,
        /// Its form.
        form: IndexMap<String, Template>,
        /// Renewed so long before its end.
        refresh_before: Span,
        /// How long it lasts.
        lasts: Span,
    },
    /// `{jwt: hs256, key, header, claims}`
    Jwt {
        /// The secret.
        key: Template,
        /// Extra fields of the token's header.
        head: IndexMap<String, Template>,
        /// Its claims.
        claims: IndexMap<String, Value>,
        /// The header that carries it.
        header: String,
        /// The header's value, `token` among its names.
        value: Template,
    },
}

impl Auth {
    /// The header of a token unless the file names another.
    pub fn authorization() -> String {
        "authorization".to_owned()
    }

    /// Its value.
    pub fn bearer() -> Template {
        "Bearer {{ token }}".to_owned()
    }

    fn is_authorization(header: &String) -> bool {
        *header == Self::authorization()
    }

    fn is_bearer(value: &Template) -> bool {
        *value == Self::bearer()
    }
}

/// `timeout:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeout {
    /// TCP and TLS (5s).
    pub connect: Span,
    /// The whole call (60s).
    pub total: Span,
}

impl Default for Timeout {
    fn default() -> Self {
        Timeout {
            connect: Span::secs(5),
            total: Span::secs(60),
        }
    }
}

/// `format:` of answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Format {
    /// `type:`
    pub kind: FormatKind,
    /// `charset:` where the answer does not say.
    pub charset: Option<String>,
    /// `force_array:` XML elements that are lists even when there is one.
    pub force_array: Vec<String>,
    /// `max_body:` bytes after decompression.
    pub max_body: Option<u64>,
}

/// `format: {type}`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatKind {
    /// RFC 8259.
    #[default]
    Json,
    /// One JSON value a line.
    Ndjson,
    /// Mapped to a tree.
    Xml,
    /// With a header row.
    Csv,
    /// The same with tabs.
    Tsv,
    /// Read by CSS selectors.
    Html,
}

/// One entry of `limits:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// `name:` unique within the provider.
    pub name: String,
    /// Which kind, with its numbers.
    pub rule: LimitRule,
    /// `per:` a scope for each value of this template.
    pub per: Option<Template>,
    /// `endpoints:` it holds for; empty: all.
    pub endpoints: Vec<String>,
    /// `shared:` the name under which several providers draw from one.
    pub shared: Option<String>,
    /// `learn:` what answers correct.
    pub learn: Option<Learn>,
}

impl Limit {
    /// Whether calls of `endpoint` draw from it: a limit with `endpoints:` holds for those alone.
    pub fn holds_for(&self, endpoint: &str) -> bool {
        self.endpoints.is_empty() || self.endpoints.iter().any(|e| e == endpoint)
    }
}

/// The kinds of limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitRule {
    /// `rate: 50/s`, with `burst` a token bucket.
    Rate {
        /// Calls in a period.
        calls: u64,
        /// The period.
        period: Span,
        /// Absent: no trailing window of the period ever holds more than `calls`.
        burst: Option<u64>,
    },
    /// `spacing: 100ms` between two calls.
    Spacing {
        /// At least.
        least: Span,
    },
    /// `concurrency: 64` calls in flight.
    Concurrency {
        /// At most.
        calls: u64,
    },
    /// `quota: 25000/day`, a calendar window.
    Quota {
        /// Calls in a window.
        calls: u64,
        /// The window.
        window: CalendarWindow,
        /// `resets:` time of day, seconds after midnight.
        resets_at: u32,
        /// `resets:` IANA zone (UTC).
        zone: String,
    },
    /// `cost:` points of a bucket.
    Cost {
        /// Points of one call.
        points: Template,
        /// Points restored in a period.
        rate: u64,
        /// The period.
        period: Span,
        /// The bucket.
        burst: u64,
        /// Path of what the call really cost.
        actual: Option<Path>,
    },
}

/// `quota: n/<window>`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalendarWindow {
    /// From full minute to full minute.
    Minute,
    /// From full hour to full hour.
    Hour,
    /// From reset to reset.
    Day,
    /// From the first of the month at the reset.
    Month,
}

/// `learn:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learn {
    /// `learn: standard`: the IETF and the usual `X-RateLimit-*` fields.
    pub standard: bool,
    /// Quantity (`rate burst remaining reset`) -> where it is read.
    pub from: IndexMap<String, Place>,
    /// `at_most:` caps what is learned.
    pub at_most: Option<u64>,
}

/// A place in an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A header, by lower-case name.
    Header(String),
    /// A path in the body.
    Path(Path),
}

/// One entry of `outcomes:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutcomeRule {
    /// `when:` all of them hold.
    pub when: When,
    /// `then:`
    pub then: crate::outcome::Outcome,
    /// `wait:`
    pub wait: Option<Wait>,
}

/// `when:`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct When {
    /// `status:` one or several; `5xx` is 500 to 599.
    pub status: Vec<StatusRange>,
    /// `header: {name, is | matches}`
    pub header: Option<HeaderTest>,
    /// `body: {path | css, is | matches}`
    pub body: Option<BodyTest>,
}

/// Statuses from first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRange {
    /// First status.
    pub first: u16,
    /// Last status.
    pub last: u16,
}

/// A test of a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeaderTest {
    /// Lower-case name.
    pub name: String,
    /// The test; absent: it is there.
    pub test: Option<ValueTest>,
}

/// A test of a body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BodyTest {
    /// Where.
    pub at: BodyPlace,
    /// The test; absent: something is there.
    pub test: Option<ValueTest>,
}

/// A place in a body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyPlace {
    /// JSONPath.
    Path(Path),
    /// CSS selector.
    Css(String),
}

/// `is:` or `matches:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueTest {
    /// Equal; a number equals the text that shows it.
    Is(Value),
    /// A regular expression that matches somewhere.
    Matches(String),
}

/// `wait:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// A fixed time.
    Fixed(Span),
    /// A place that says it: seconds (whole or not), an HTTP date, an ISO instant or an epoch.
    From {
        /// Where.
        place: Place,
        /// When it says nothing usable.
        fallback: Option<Span>,
        /// At most.
        at_most: Option<Span>,
    },
}

/// `retry:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Calls of one cell's page at most (5). A 429 is not counted.
    pub attempts: u32,
    /// First wait (500ms).
    pub from: Span,
    /// Longest wait (30s).
    pub to: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: 5,
            from: Span::millis(500),
            to: Span::secs(30),
        }
    }
}

/// `ready:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// `get:` path.
    pub get: Template,
    /// `auth:` signed as the calls are.
    pub auth: bool,
    /// `for:` how long it is asked again (10m).
    pub patience: Span,
}

/// The name of the second step (`detail:`) of an endpoint, as limits and ledgers know it.
pub fn details_of(endpoint: &str) -> String {
    format!("{endpoint}.detail")
}

/// One entry of `endpoints:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The request; absent where the provider is not an HTTP API.
    pub request: Option<Request>,
    /// `each:` asked once for every item, `item` in templates.
    pub each: Vec<Value>,
    /// `page:`
    pub page: Option<Page>,
    /// `split_on:`
    pub split_on: Option<SplitOn>,
    /// `records:` where they are.
    pub records: Option<BodyPlace>,
    /// `detail:`
    pub detail: Option<Detail>,
    /// `fields:` of a record, in order.
    pub fields: IndexMap<String, Field>,
}

/// A request of an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// `get:` or `post:`
    pub method: Method,
    /// Path below the base URL.
    pub path: Template,
    /// `query:` in order. A value may be a list.
    pub query: IndexMap<String, Value>,
    /// `headers:`
    pub headers: IndexMap<String, Template>,
    /// `json:`, `form:` or `xml:`
    pub body: Option<RequestBody>,
}

impl Request {
    /// The request of an endpoint that has none.
    pub(crate) fn nothing() -> Self {
        Request {
            method: Method::Get,
            path: "/".into(),
            query: IndexMap::new(),
            headers: IndexMap::new(),
            body: None,
        }
    }
}

/// The methods of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestBody {
    /// Templates inside keep their type when they are a whole value.
    Json(Value),
    /// `application/x-www-form-urlencoded`
    Form(IndexMap<String, Value>),
    /// Text.
    Xml(Template),
}

/// A parameter of a JSON body: its own name, or `variables.after` for one below another.
pub fn json_parameter<'j>(json: &'j Value, name: &str) -> Option<&'j Value> {
    json.get(name).or_else(|| {
        let (outer, inner) = name.split_once('.')?;
        json_parameter(json.get(outer)?, inner)
    })
}

/// `page:`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// `style:` page, offset, cursor, next_url or link.
    pub style: PageStyle,
    /// `query:` the parameter.
    pub query: Option<String>,
    /// `next:` one place, or parameter -> place.
    pub next: IndexMap<String, Place>,
    /// `first:` value (1).
    pub first: u64,
    /// `step:` of an offset.
    pub step: Option<u64>,
    /// `last:` the engine's documented end.
    pub last: Option<u64>,
    /// `total:` path.
    pub total: Option<Path>,
    /// `stop:` `empty`, `short` or a test.
    pub stop: Option<Stop>,
    /// `max_pages:` (1000)
    pub max_pages: u32,
    /// `resume: false`: the cursor does not outlive its session.
    pub resume: bool,
}

/// `stop:` which page is the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// One without records.
    Empty,
    /// One with fewer records than a full one.
    Short,
    /// One that says so.
    Test {
        /// Where.
        path: Path,
        /// The test; absent: something is there.
        test: Option<ValueTest>,
    },
}

/// `split_on:` asks again in halves what overflows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitOn {
    /// `overflow:` where an answer says that there is more than it can page.
    pub overflow: Path,
    /// `bisect.from:` the query parameter of the first day.
    pub from: String,
    /// `bisect.to:` the query parameter of the last day.
    pub to: String,
    /// `bisect.over:` how many days the whole stretch reaches beyond its first.
    pub days: u32,
}

/// `detail:` a second step for the records of a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// The request, `ids` in its templates.
    pub request: Request,
    /// `batch:` ids of one request; absent: all of a page.
    pub batch: Option<u32>,
    /// `ids:` the id below a page's record.
    pub ids: Path,
    /// `records:` where an answer's details are.
    pub records: BodyPlace,
    /// `join.left:` below a page's record.
    pub left: Path,
    /// `join.right:` below a detail.
    pub right: Path,
    /// `missing: report` counts ids without an answer instead of failing the cell.
    pub report_missing: bool,
}

/// `style:` of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageStyle {
    /// A page number.
    Page,
    /// An offset.
    Offset,
    /// A cursor.
    Cursor,
    /// The next URL in the body.
    NextUrl,
    /// The `Link` header.
    Link,
}

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Where its value comes from.
    pub from: FieldSource,
    /// `as:`
    pub kind: Option<FieldKind>,
    /// `optional: true`: missing, null or unfit is null.
    pub optional: bool,
    /// `zone:` of a local time.
    pub zone: Option<String>,
    /// `format:` of a date or datetime (strptime).
    pub format: Option<String>,
    /// `scale:` of a decimal in Parquet.
    pub scale: Option<u8>,
}

/// Where a field's value comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldSource {
    /// A path below the record.
    Path(Path),
    /// A CSS selector below the record's element.
    Css {
        /// The selector.
        css: String,
        /// An attribute instead of the text.
        attribute: Option<String>,
    },
    /// `value:` a constant or template.
    Value(Value),
}

/// `as:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// Text; a number as its digits.
    String,
    /// Text without markup and entities.
    Text,
    /// A whole number.
    Integer,
    /// Keeps its digits, never passes through a float.
    Decimal,
    /// IEEE 754 double.
    Float,
    /// true or false.
    Boolean,
    /// A calendar day.
    Date,
    /// An instant (RFC 3339, UTC).
    Datetime,
}
