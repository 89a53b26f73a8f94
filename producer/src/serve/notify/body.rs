//! What a webhook is told: a CloudEvent, a line for Slack, or the job's own template.

use paceline_protocol::manifest::{Manifest, Standing};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{NOTICE_NAMES, expand_env};
use paceline_protocol::template;
use serde_json::{Value, json};

use super::delivery::{Delivery, Hook};
use crate::run::RunFiles;
use crate::show;

/// Content type and body.
pub(super) fn of(
    hook: &Hook,
    delivery: &Delivery,
    files: &RunFiles,
    env: &impl Environment,
) -> Result<(&'static str, String), String> {
    let data = data(delivery, files);
    match hook.format.as_str() {
        "slack" => {
            let text = line(delivery, files.manifest.as_ref());
            Ok(("application/json", json!({ "text": text }).to_string()))
        }
        "template" => {
            let source = hook.template.as_deref().unwrap_or_default();
            // Before it is filled in: what a provider said may look like a name of the environment.
            let source = expand_env(source, env).map_err(|missing| missing.to_string())?;
            let body = template::environment()
                .render_str(&source, template::value_of(&data))
                .map_err(|error| error.to_string())?;
            let is_json = serde_json::from_str::<Value>(&body).is_ok();
            Ok((
                if is_json {
                    "application/json"
                } else {
                    "text/plain; charset=utf-8"
                },
                body,
            ))
        }
        _ => Ok((
            "application/cloudevents+json",
            cloud_event(delivery, &data).to_string(),
        )),
    }
}

/// What happened to the run ([`NOTICE_NAMES`]), and what templates are used to: `run.id`, `run.date`, `params`, `today`.
fn data(delivery: &Delivery, files: &RunFiles) -> Value {
    let plan = &files.plan;
    let mut data = delivery.data.clone();
    data["run"] = json!({ "id": plan.run, "date": plan.date, "started_at": plan.planned_at });
    data["today"] = json!(plan.date);
    data["params"] = json!(plan.job.params);
    for (name, value) in came_to(files) {
        // What the event says stands; the manifest knows the rest.
        if data.get(name).is_none() || matches!(name, "standings" | "reasons" | "finished_at") {
            data[name] = value;
        }
    }
    data
}

/// The values of [`NOTICE_NAMES`] by plan and manifest.
fn came_to(files: &RunFiles) -> impl Iterator<Item = (&'static str, Value)> {
    let (plan, manifest) = (&files.plan, files.manifest.as_ref());
    NOTICE_NAMES.into_iter().map(move |name| {
        let value = match (name, manifest) {
            ("cells", None) => json!(plan.cells()),
            (_, None) => Value::Null,
            ("job", Some(m)) => json!(m.job),
            ("state", Some(m)) => json!(m.state),
            ("cells", Some(m)) => json!(m.cells),
            ("succeeded", Some(m)) => json!(m.succeeded),
            ("empty", Some(m)) => json!(m.empty),
            ("failed", Some(m)) => json!(m.failed),
            ("records", Some(m)) => json!(m.records),
            ("documents", Some(m)) => json!(m.documents),
            ("notes", Some(m)) => json!(m.notes),
            ("reasons", Some(m)) => json!(m.reasons),
            ("standings", Some(m)) => json!(m.standings),
            ("finished_at", Some(m)) => json!(m.finished_at),
            _ => Value::Null,
        };
        (name, value)
    })
}

/// CloudEvents 1.0, structured JSON.
fn cloud_event(delivery: &Delivery, data: &Value) -> Value {
    let mut data = data.clone();
    data["run"] = json!(delivery.run.run);
    if let Some(fields) = data.as_object_mut() {
        let of_templates = ["today", "params"];
        fields.retain(|name, value| !of_templates.contains(&name.as_str()) && !value.is_null());
    }
    json!({
        "specversion": "1.0",
        "id": delivery.id,
        "source": format!("/paceline/jobs/{}", delivery.run.job),
        "type": format!("io.paceline.{}", delivery.topic),
        "subject": delivery.run.to_string(),
        "time": delivery.at,
        "datacontenttype": "application/json",
        "data": data,
    })
}

/// `fares/2026-11-21 completed: 1,386 of 1,400 cells (99.00 %), 14 failed (status 500: 14); 4,012 records`
fn line(delivery: &Delivery, manifest: Option<&Manifest>) -> String {
    let word = delivery
        .topic
        .strip_prefix("run.")
        .unwrap_or(&delivery.topic);
    let mut line = format!("{} {word}", delivery.run);
    let Some(manifest) = manifest.filter(|_| word != "started") else {
        return escaped(&line);
    };
    let good = manifest.succeeded + manifest.empty;
    let share = show::share(good as f64 / manifest.cells.max(1) as f64);
    line += &format!(
        ": {} of {} cells ({share})",
        show::count(good),
        show::count(manifest.cells)
    );
    if manifest.failed > 0 {
        let reasons = manifest
            .reasons
            .iter()
            .map(|(reason, n)| format!("{reason}: {}", show::count(*n)));
        let reasons: Vec<String> = reasons.take(3).collect();
        line += &format!(
            ", {} failed ({})",
            show::count(manifest.failed),
            reasons.join(", ")
        );
    }
    line += &format!("; {} records", show::count(manifest.records));
    for note in manifest.notes.iter().take(3) {
        line += &format!("\n{note}");
    }
    for set in manifest.standings.chunk_by(|a, b| a.set == b.set) {
        let members: Vec<String> = set.iter().map(standing).collect();
        line += &format!("\n{}: {}", set[0].set, members.join(", "));
    }
    escaped(&line)
}

/// `1. a 1.85 (was 2.)`
fn standing(of: &Standing) -> String {
    let change = match of.was {
        None => " (new)".to_owned(),
        Some(was) if was != of.place => format!(" (was {was}.)"),
        Some(_) => String::new(),
    };
    // Six digits are enough to read; the set holds them all.
    let score = (of.score * 1e6).round() / 1e6;
    format!("{}. {} {score}{change}", of.place, of.member)
}

/// Slack's three signs; else a provider's text could mention people or make links.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_is_told_with_its_change() {
        let of = |place, was| Standing {
            set: "rank:104:global".into(),
            member: "a".into(),
            score: 1.850_000_000_1,
            place,
            was,
        };
        assert_eq!(standing(&of(1, Some(2))), "1. a 1.85 (was 2.)");
        assert_eq!(standing(&of(1, Some(1))), "1. a 1.85");
        assert_eq!(standing(&of(3, None)), "3. a 1.85 (new)");
    }

    #[test]
    fn slack_reads_no_markup_from_a_text() {
        assert_eq!(escaped("<!channel> a&b"), "&lt;!channel&gt; a&amp;b");
    }
}
