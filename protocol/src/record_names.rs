//! Templates and conditions over the records of another job's run: a record's fields are names, beside those
//! of the run that reads them.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Environment, Error};
use serde_json::Map;

use crate::template::{environment, value_of};

/// A record as it was read.
pub type ReadRecord = Map<String, serde_json::Value>;

/// The names that do not come from a record.
pub type FixedNames = Arc<HashMap<String, Value>>;

/// A record with the names around it, as templates see it.
#[derive(Debug)]
pub struct RecordNames {
    /// The record.
    pub record: ReadRecord,
    fixed: FixedNames,
}

impl RecordNames {
    /// `record` among `fixed` names.
    pub fn new(record: ReadRecord, fixed: &FixedNames) -> Arc<Self> {
        Arc::new(RecordNames {
            record,
            fixed: fixed.clone(),
        })
    }

    /// As a template's context.
    pub fn context(self: &Arc<Self>) -> Value {
        Value::from_dyn_object(self.clone())
    }

    /// The record again.
    pub fn into_record(self: Arc<Self>) -> ReadRecord {
        Arc::try_unwrap(self).map_or_else(|shared| shared.record.clone(), |own| own.record)
    }

    /// As a message shows it.
    pub fn shown(&self) -> String {
        let text = serde_json::Value::Object(self.record.clone()).to_string();
        text.chars().take(200).collect()
    }
}

impl Object for RecordNames {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let own = self.record.get(key).map(value_of);
        own.or_else(|| self.fixed.get(key).cloned())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// A condition (`where:`), compiled once; without one every record stays.
#[derive(Debug)]
pub struct Condition {
    jinja: Option<Environment<'static>>,
}

impl Condition {
    const NAME: &'static str = "where";

    /// Compiles an expression.
    ///
    /// # Errors
    /// When its syntax is wrong.
    pub fn compile(expression: Option<&str>) -> Result<Self, Error> {
        let Some(expression) = expression else {
            return Ok(Condition { jinja: None });
        };
        let mut jinja = environment();
        let test = format!("{{% if {expression} %}}1{{% endif %}}");
        jinja.add_template_owned(Self::NAME, test)?;
        Ok(Condition { jinja: Some(jinja) })
    }

    /// Whether it holds for a record.
    ///
    /// # Errors
    /// When a name is not defined, or values cannot be compared.
    pub fn holds(&self, names: &Arc<RecordNames>) -> Result<bool, Error> {
        let Some(jinja) = &self.jinja else {
            return Ok(true);
        };
        let answer = jinja.get_template(Self::NAME)?.render(names.context())?;
        Ok(answer == "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn holds(expression: &str, record: serde_json::Value) -> Result<bool, Error> {
        let fixed = HashMap::from([("today".to_owned(), Value::from("2026-11-27"))]);
        let record = record.as_object().expect("a record").clone();
        let names = RecordNames::new(record, &Arc::new(fixed));
        Condition::compile(Some(expression))?.holds(&names)
    }

    #[test]
    fn a_condition_sees_the_record_and_the_run() {
        for (expression, record, wanted) in [
            ("update_type >= 1", json!({"update_type": 2}), true),
            ("update_type >= 1", json!({"update_type": 0}), false),
            (
                "posted_on >= today | plus_days(-30)",
                json!({"posted_on": "2026-10-28"}),
                true,
            ),
            (
                "posted_on >= today | plus_days(-30)",
                json!({"posted_on": "2026-10-27"}),
                false,
            ),
            ("price > 10", json!({"price": 10.5}), true),
            (
                "title and not gone",
                json!({"title": "x", "gone": false}),
                true,
            ),
            ("lat is not none", json!({"lat": null}), false),
        ] {
            assert_eq!(
                holds(expression, record).expect(expression),
                wanted,
                "{expression}"
            );
        }
        assert!(holds("nothing > 1", json!({"a": 1})).is_err());
        assert!(holds("a >", json!({"a": 1})).is_err());
    }
}
