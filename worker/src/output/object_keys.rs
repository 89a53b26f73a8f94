//! The keys of the objects that a job names (`key`, `merged`). A value out of a cell or param is encoded where
//! it would change which folder is meant; what the template itself says stays.

use std::collections::BTreeMap;

use minijinja::{Environment, Value};
use paceline_protocol::plan::Plan;
use paceline_protocol::template::{environment, value_of};

/// The longest key that S3 takes, in bytes.
const LONGEST: usize = 1024;
/// The template's name.
const KEY: &str = "key";

/// Why there is no key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the object key {key:?}: {why}")]
pub struct NoKey {
    /// The template, or what came of it.
    pub key: String,
    /// What is wrong.
    pub why: String,
}

/// A template of keys, compiled once for a run.
#[derive(Debug)]
pub struct ObjectKeys {
    source: String,
    jinja: Environment<'static>,
    fixed: BTreeMap<String, Value>,
    /// Where the runs lie, when that is in the same bucket: nothing else may be put there.
    runs: Option<String>,
}

impl ObjectKeys {
    /// Keys by `template`. `now` is the fleet's clock at the run's last answer, in microseconds; `runs` the
    /// prefix of the runs when they lie in the same bucket.
    ///
    /// # Errors
    /// When it is no template.
    pub fn compile(
        template: &str,
        plan: &Plan,
        now: i64,
        runs: Option<&str>,
    ) -> Result<Self, NoKey> {
        let mut jinja = environment();
        jinja
            .add_template_owned(KEY, template.to_owned())
            .map_err(|error| no_key(template, error.to_string()))?;
        let params = plan.job.params.iter();
        let params = Value::from_pairs(params.map(|(k, v)| (k.clone(), encoded(v))));
        let run = Value::from_pairs([
            ("id", plan.run.to_string()),
            ("date", plan.date.to_string()),
            ("started_at", plan.planned_at.to_string()),
        ]);
        let mut fixed = BTreeMap::from([
            ("params".to_owned(), params),
            ("run".to_owned(), run),
            ("today".to_owned(), Value::from(plan.date.to_string())),
        ]);
        if let Some(parent) = &plan.inputs.parent {
            fixed.insert("parent".to_owned(), Value::from_pairs(parent.names()));
        }
        if let Ok(now) = jiff::Timestamp::from_microsecond(now) {
            fixed.insert("now".to_owned(), now.to_string().into());
            fixed.insert("now_ms".to_owned(), now.as_millisecond().into());
        }
        Ok(ObjectKeys {
            source: template.to_owned(),
            jinja,
            fixed,
            runs: runs.map(|prefix| format!("{}/", prefix.trim_matches('/'))),
        })
    }

    /// The key of a run's object.
    ///
    /// # Errors
    /// [`NoKey`]
    pub fn of_run(&self) -> Result<String, NoKey> {
        self.render(self.fixed.clone())
    }

    /// The key of a cell's object.
    ///
    /// # Errors
    /// [`NoKey`]
    pub fn of_cell(&self, plan: &Plan, cell: u64) -> Result<String, NoKey> {
        let mut names = self.fixed.clone();
        for (name, value) in plan.matrix.names().zip(plan.matrix.cell(cell)) {
            names.insert(name.to_string(), encoded(&value));
        }
        self.render(names)
    }

    fn render(&self, names: BTreeMap<String, Value>) -> Result<String, NoKey> {
        let template = self.jinja.get_template(KEY);
        let rendered = template.and_then(|template| template.render(Value::from_pairs(names)));
        let key = rendered.map_err(|error| no_key(&self.source, error.to_string()))?;
        let wrong = if key.is_empty() || key.len() > LONGEST {
            Some(format!("a key has 1 to {LONGEST} bytes"))
        } else if key.split('/').any(|segment| matches!(segment, "." | "..")) {
            Some("`.` and `..` are no names".to_owned())
        } else if self.runs.as_ref().is_some_and(|runs| key.starts_with(runs)) {
            Some("it lies among the runs' own objects".to_owned())
        } else {
            None
        };
        match wrong {
            Some(why) => Err(no_key(&key, why)),
            None => Ok(key),
        }
    }
}

fn no_key(key: &str, why: String) -> NoKey {
    let key = key.chars().take(200).collect();
    NoKey { key, why }
}

/// A value that cannot change which folder is meant.
fn encoded(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::String(text) => Value::from(encoded_text(text)),
        other => value_of(other),
    }
}

fn encoded_text(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() || matches!(letter, '/' | '\\' | '%') {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        } else {
            encoded.push(letter);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::settle::tests::plan;

    fn key(template: &str, city: &str) -> Result<String, NoKey> {
        let mut plan = plan(2);
        plan.job.params.insert("event".into(), "a/b".into());
        plan.matrix.dimensions[0].values =
            paceline_protocol::plan::PlannedValues::Rows(vec![vec![city.into()]]);
        ObjectKeys::compile(template, &plan, 1_795_000_000_000_000, Some("paceline"))?
            .of_cell(&plan, 1)
    }

    #[test]
    fn values_land_encoded_and_the_template_stays() {
        let template = "data/{{ params.event }}/{{ city }}-{{ run.started_at | date('%Y/%m/%d') }}-{{ night }}.csv";
        assert_eq!(
            key(template, "../서울 1").as_deref(),
            Ok("data/a%2Fb/..%2F서울 1-2026/11/20-1.csv")
        );
        assert_eq!(key("{{ now_ms }}", "x").as_deref(), Ok("1795000000000"));
    }

    #[test]
    fn keys_that_lead_elsewhere_are_refused() {
        for (template, city) in [
            ("data/{{ city }}/x", ".."),
            ("{{ city }}", ""),
            ("{{ city }}", &*"x".repeat(1025)),
            ("paceline/{{ city }}", "x"),
            ("{{ nothing }}", "x"),
        ] {
            assert!(key(template, city).is_err(), "{template} {city}");
        }
    }
}
