//! `producer doctor`: every server, setting and file, each fault with its remedy. All of them are
//! looked at, whatever the first ones say, and none is waited for.

mod workers;

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::keys::Keys;
use paceline_protocol::limit::Ask;
use paceline_protocol::settings::{Environment, FleetSettings, shown_url};
use paceline_protocol::stores::broker::Publisher;
use paceline_protocol::stores::index::Index;
use paceline_protocol::stores::limiter::FleetLimiter;
use paceline_protocol::stores::objects::Objects;
use paceline_protocol::stores::state::{State, StateError};
use paceline_protocol::topology::Topology;
use serde::Serialize;

use crate::check::check;
use crate::context::Context;
use crate::exit::Exit;
use crate::show;
use crate::stores::{broker_url, redis_url};

/// A broker that takes an event at all takes it within this.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// From this difference on a clock is worth a word.
const CLOCK_MAY_DIFFER: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Finding {
    mark: Mark,
    what: &'static str,
    found: String,
    remedy: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, found: impl ToString) -> Self {
        Finding {
            mark: Mark::Ok,
            what,
            found: found.to_string(),
            remedy: None,
        }
    }

    fn fail(what: &'static str, found: impl ToString, remedy: impl Into<String>) -> Self {
        Finding {
            mark: Mark::Fail,
            what,
            found: found.to_string(),
            remedy: Some(remedy.into()),
        }
    }

    fn warn(what: &'static str, found: impl ToString, remedy: impl Into<String>) -> Self {
        Finding {
            mark: Mark::Warn,
            ..Self::fail(what, found, remedy)
        }
    }
}

/// Looks at everything; ends with 1 when something fails.
///
/// # Errors
/// When the findings cannot be written as JSON.
pub async fn run(context: &Context) -> Result<Exit> {
    let mut findings = vec![Finding::ok("producer", env!("PACELINE_VERSION"))];
    match FleetSettings::read(&context.env) {
        Ok(fleet) => servers(context, &fleet, &mut findings).await,
        Err(error) => findings.push(Finding::fail(
            "settings",
            error,
            "set it; the other servers are looked at then",
        )),
    }
    findings.push(spec_folder(context));
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&findings)?);
    } else {
        print(&findings);
    }
    let failed = findings.iter().any(|finding| finding.mark == Mark::Fail);
    Ok(if failed { Exit::Error } else { Exit::Done })
}

async fn servers(context: &Context, fleet: &FleetSettings, findings: &mut Vec<Finding>) {
    let names = format!(
        "bucket {}, prefix {}, namespace {}",
        fleet.bucket, fleet.prefix, fleet.namespace
    );
    findings.push(Finding::ok("settings", names));
    s3(fleet, findings).await;
    // A loader without S3 takes no receipts, so that none would be seen.
    let has_s3 = findings.iter().all(|finding| finding.mark != Mark::Fail);
    let seen = redis(context, fleet, findings).await;
    let loaders = rabbitmq(context, fleet, findings).await;
    if let Some(seen) = seen {
        findings.extend(seen.findings(context));
        if has_s3 && loaders == Some(0) && seen.has_work() {
            findings.push(Finding::warn(
                "loaders",
                "runs are open, and no running worker loads their results",
                "start `worker load`",
            ));
        }
    }
    findings.extend(elasticsearch(context).await);
}

async fn s3(fleet: &FleetSettings, findings: &mut Vec<Finding>) {
    let objects = Objects::new(&fleet.bucket).await;
    if let Err(error) = objects.ping().await {
        findings.push(Finding::fail(
            "S3",
            error,
            "start it where it is a server of yours; set AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, create the bucket, and allow listing, reading, writing and deleting below the prefix",
        ));
        return;
    }
    findings.push(Finding::ok(
        "S3",
        format!(
            "{} answers, bucket {} is there",
            objects.endpoint(),
            fleet.bucket
        ),
    ));
    findings.push(match objects.probe_conditional_put(&fleet.prefix).await {
        Ok(()) => Finding::ok("S3 conditional put", "If-None-Match: * is kept"),
        Err(error) => Finding::fail(
            "S3 conditional put",
            error,
            "allow writing below the prefix, or use a store that keeps If-None-Match (AWS S3 does): exact resume stands on it",
        ),
    });
}

async fn redis(
    context: &Context,
    fleet: &FleetSettings,
    findings: &mut Vec<Finding>,
) -> Option<workers::Fleet> {
    let url = match redis_url(&context.env) {
        Ok(url) => url,
        Err(error) => {
            findings.push(Finding::fail(
                "Redis",
                error,
                "set it, as redis://host:6379/0",
            ));
            return None;
        }
    };
    let keys = Keys::new(fleet.namespace.clone());
    match State::connect(&url, keys.clone()).await {
        Ok(state) => {
            // A user who may not read it can do all that is needed.
            let version = state.version().await.unwrap_or_else(|_| "unknown".into());
            let url_shown = shown_url(&url);
            let found = format!("{url_shown} is version {version} and evicts nothing");
            findings.push(Finding::ok("Redis", found));
            findings.push(redis_clock(&url, keys).await);
            return workers::Fleet::look(&state, context).await.ok();
        }
        Err(error @ StateError::Evicts { .. }) => findings.push(Finding::fail(
            "Redis",
            error,
            "CONFIG SET maxmemory-policy noeviction, and write it to redis.conf",
        )),
        Err(error) => findings.push(Finding::fail(
            "Redis",
            error,
            "start it, or correct REDIS_URL (redis://user:password@host:6379/0)",
        )),
    }
    None
}

/// The fleet goes by Redis' clock; a producer beside it plans the wrong day around midnight.
async fn redis_clock(url: &str, keys: Keys) -> Finding {
    const WHAT: &str = "clock";
    let nothing = Ask {
        keeps: false,
        ..Ask::nothing("doctor", "doctor")
    };
    let remedy = "allow the limiter's scripts (EVALSHA, SCRIPT LOAD) to this user";
    let limiter = match FleetLimiter::connect(url, keys).await {
        Ok(limiter) => limiter,
        Err(error) => return Finding::fail("limits", error, remedy),
    };
    match limiter.ask(&nothing).await {
        Ok(answered) => {
            let apart = Timestamp::now()
                .as_microsecond()
                .abs_diff(answered.answer.now_us);
            let apart = Duration::from_micros(apart);
            let found = format!("{} apart from Redis'", show::span(apart));
            if apart < CLOCK_MAY_DIFFER {
                Finding::ok(WHAT, found)
            } else {
                Finding::warn(WHAT, found, "keep both machines' clocks right (NTP)")
            }
        }
        Err(error) => Finding::fail("limits", error, remedy),
    }
}

/// Says how many loaders run, as far as the broker knows.
async fn rabbitmq(
    context: &Context,
    fleet: &FleetSettings,
    findings: &mut Vec<Finding>,
) -> Option<u32> {
    const WHAT: &str = "RabbitMQ";
    let url = match broker_url(&context.env) {
        Ok(url) => url,
        Err(error) => {
            findings.push(Finding::fail(WHAT, error, "set it"));
            return None;
        }
    };
    match Publisher::connect(&url, Topology::new(fleet.namespace.clone())).await {
        Ok(publisher) => {
            let loaders = publisher.loaders().await.ok();
            let url_shown = shown_url(&url);
            findings.push(match takes_messages(&publisher).await {
                true => Finding::ok(
                    WHAT,
                    format!("{url_shown} answers; exchanges and queues are declared"),
                ),
                false => Finding::fail(
                    WHAT,
                    format!("{url_shown} answers, but takes no messages: receipts and new runs wait"),
                    "`rabbitmqctl status` names the alarm: give it memory or disk space, or raise the watermark",
                ),
            });
            publisher.close(Duration::from_secs(5)).await;
            loaders
        }
        Err(error) => {
            findings.push(Finding::fail(
                WHAT,
                error,
                "start it, correct AMQP_URL, or allow configure, write and read on the namespace's names",
            ));
            None
        }
    }
}

/// Whether an event is taken: with a memory or disk alarm RabbitMQ answers everything else.
async fn takes_messages(publisher: &Publisher) -> bool {
    let body = serde_json::json!({ "event": "doctor.looked" });
    let taken = publisher.event("doctor.looked", &body);
    matches!(tokio::time::timeout(TAKEN_WITHIN, taken).await, Ok(Ok(())))
}

/// Needed by the loaders alone: its absence here is no fault.
async fn elasticsearch(context: &Context) -> Option<Finding> {
    const WHAT: &str = "Elasticsearch";
    let remedy = "start it, or correct ELASTICSEARCH_URL and ELASTICSEARCH_API_KEY";
    let secrets = (
        context.env.secret("ELASTICSEARCH_URL"),
        context.env.secret("ELASTICSEARCH_API_KEY"),
    );
    let (url, key) = match secrets {
        (Ok(url), Ok(key)) => (url?, key),
        (Err(error), _) | (_, Err(error)) => return Some(Finding::fail(WHAT, error, remedy)),
    };
    let version = match Index::new(&url, key.as_deref()) {
        Ok(index) => index.version().await,
        Err(error) => Err(error),
    };
    Some(match version {
        Ok(version) => Finding::ok(WHAT, format!("{} is version {version}", shown_url(&url))),
        Err(error) => Finding::fail(WHAT, error, remedy),
    })
}

fn spec_folder(context: &Context) -> Finding {
    const WHAT: &str = "spec folder";
    let folder = context.spec.display();
    match check(&[], &context.spec, &context.env) {
        Err(error) => Finding::fail(WHAT, error, "name it with --spec DIR or PACELINE_SPEC"),
        Ok(report) => {
            let found = &report.diagnostics;
            let wrong = found.iter().filter(|d| d.is_error()).count();
            match (wrong, found.len()) {
                (0, 0) => Finding::ok(WHAT, format!("{folder} is right")),
                (0, n) => Finding::warn(
                    WHAT,
                    format!("{folder}: {n} to look at"),
                    "`producer check` names each",
                ),
                (n, _) => Finding::fail(
                    WHAT,
                    format!("{folder}: {n} wrong"),
                    "`producer check` names each",
                ),
            }
        }
    }
}

fn print(findings: &[Finding]) {
    for finding in findings {
        let mark = match finding.mark {
            Mark::Ok => "ok  ",
            Mark::Warn => "warn",
            Mark::Fail => "fail",
        };
        crate::terminal::data(format_args!("{mark}  {}: {}", finding.what, finding.found));
        if let Some(remedy) = &finding.remedy {
            crate::terminal::data(format_args!("      -> {remedy}"));
        }
    }
}
