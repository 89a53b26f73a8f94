//! The end of the demo: what was called, what came out, and where to look further.

use std::path::Path;

use anyhow::Context;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use paceline_stack::Stack;
use serde_json::{Value, json};

use crate::fleet::Finished;
use crate::progress::Seen;

/// Prints it.
pub async fn print(stack: &Stack, run: &Finished, seen: &Seen, audit: &str) -> anyhow::Result<()> {
    print_calls(seen);
    println!("\nAs the fleet's own ledger proves it (producer audit)");
    audit.lines().for_each(|line| println!("  {line}"));
    println!(
        "  The killed worker's last rows never reached the ledger: hence fewer calls\n\
         \x20 here than the provider saw, and the gap to the grants shows it."
    );
    let manifest = manifest(stack, run).await?;
    println!("\nResults of run {}", run.run);
    for name in ["succeeded", "empty", "failed", "records", "documents"] {
        println!(
            "  {name:<12}{:>8}",
            manifest[name].as_u64().unwrap_or_default()
        );
    }
    let parts = manifest["parts"].as_array().map_or(0, Vec::len);
    println!("  {:<12}{parts:>8}", "S3 parts");
    print_cheapest(stack).await?;
    print_calendar(stack).await
}

fn print_calls(seen: &Seen) {
    println!("\nAs the provider saw it");
    println!("  {:<28}{:>8}", "calls", seen.calls);
    if let Some(share) = share_used(&seen.per_second) {
        let share = share * 100.0;
        println!("  {:<28}{share:>7.1}%", "of the allowance used");
    }
    println!("  {:<28}{:>8}", "refused", seen.refused);
    println!("  {:<28}{:>8}", "repeated (kill -9)", seen.repeated);
}

/// Of the seconds between the first and the last one: calls let in against calls allowed.
fn share_used(per_second: &[u64]) -> Option<f64> {
    let whole = per_second.get(1..per_second.len().checked_sub(1)?)?;
    if whole.is_empty() {
        return None;
    }
    let allowed = super::ALLOWED * whole.len() as u64;
    Some(whole.iter().sum::<u64>() as f64 / allowed as f64)
}

fn value<'a>(stack: &'a Stack, name: &str) -> anyhow::Result<&'a str> {
    stack.value(name).with_context(|| format!("no {name}"))
}

/// `manifest.json` of the run, as the loader wrote it.
async fn manifest(stack: &Stack, run: &Finished) -> anyhow::Result<Value> {
    let key = format!("{}/fares/{}/manifest.json", run.prefix, run.run);
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(value(stack, "AWS_ENDPOINT_URL_S3")?)
        .region(Region::new(value(stack, "AWS_REGION")?.to_owned()))
        .credentials_provider(Credentials::new(
            value(stack, "AWS_ACCESS_KEY_ID")?,
            value(stack, "AWS_SECRET_ACCESS_KEY")?,
            None,
            None,
            "demo",
        ))
        .force_path_style(true)
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);
    let bucket = value(stack, "PACELINE_BUCKET")?;
    let answer = client.get_object().bucket(bucket).key(&key).send().await;
    let body = answer.with_context(|| key.clone())?.body.collect().await?;
    serde_json::from_slice(&body.into_bytes()).with_context(|| key)
}

async fn print_cheapest(stack: &Stack) -> anyhow::Result<()> {
    let client = redis::Client::open(value(stack, "REDIS_URL")?)?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    println!("\nThe three cheapest days of each destination, as departure/nights and price");
    println!("(Redis, ZRANGE fares:<airport> 0 2 WITHSCORES)");
    for destination in ["NRT", "BKK", "CDG"] {
        let cheapest: Vec<(String, f64)> = redis::cmd("ZRANGE")
            .arg(format!("fares:{destination}"))
            .arg(&[0, 2])
            .arg("WITHSCORES")
            .query_async(&mut redis)
            .await?;
        let shown = cheapest.iter();
        let shown = shown.map(|(trip, price)| format!("{trip:<13} {price:>9.2}"));
        println!("  {destination} {}", shown.collect::<Vec<_>>().join("  "));
    }
    Ok(())
}

/// The question that a calendar page asks: the lowest price of each departure day.
async fn print_calendar(stack: &Stack) -> anyhow::Result<()> {
    let question = json!({
        "size": 0,
        "query": {"bool": {"filter": [{"term": {"destination": "NRT"}}, {"term": {"nights": 3}}]}},
        "aggs": {"day": {
            "terms": {"field": "depart", "size": 7, "order": {"_key": "asc"}},
            "aggs": {"lowest": {"min": {"field": "price"}}},
        }},
    });
    let url = format!("{}/fares/_search", value(stack, "ELASTICSEARCH_URL")?);
    let answer = reqwest::Client::new()
        .post(url)
        .json(&question)
        .send()
        .await?;
    let answer: Value = answer.error_for_status()?.json().await?;
    let days = answer["aggregations"]["day"]["buckets"].as_array();
    println!("\nThe calendar's first week, 3 nights in Tokyo (Elasticsearch, alias fares)");
    for day in days.context("an answer without the asked buckets")? {
        let date = day["key_as_string"].as_str().unwrap_or_default();
        let date = date.split('T').next().unwrap_or_default();
        let lowest = day["lowest"]["value"].as_f64().unwrap_or_default();
        println!("  {date}  {lowest:>10.2}");
    }
    Ok(())
}

/// What `--stay` offers.
pub fn print_looking_around(environment: &Path, run: &Finished) {
    println!(
        "\nEverything stays up until Ctrl-C. In another terminal:\n\
         \x20 . {}\n\
         \x20 producer status {run}\n\
         \x20 producer audit {run}\n\
         \x20 producer enqueue fares --only destination=NRT --wait\n\
         \x20 redis-cli -u \"$REDIS_URL\" ZRANGE fares:NRT 0 9 WITHSCORES\n\
         \x20 curl \"$ELASTICSEARCH_URL/fares/_search?q=destination:CDG&sort=price&size=3&pretty\"\n\
         The logs lie beside that first file.",
        environment.display(),
        run = run.run,
    );
}

/// Where to go from here.
pub fn print_further() {
    println!(
        "\nHow to look further\n\
         \x20 make demo ARGS=--stay   the same, and everything stays up for a look around\n\
         \x20 make stack              the four servers alone, for a job of your own:\n\
         \x20                         \"Your first job\" in README.md, five minutes"
    );
}
