//! What a record is compared by: a hash of its fields, and one of those whose change means that it moved.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use paceline_protocol::plan::Plan;
use paceline_protocol::spec::Changes;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// What is left of a record's fields to compare. The cell's dimensions are not among them: one record can
/// come from several cells, and which of them answers last is chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Of the fields that count.
    pub(super) whole: [u8; 16],
    /// Of the fields whose change means `moved`.
    pub(super) moved: [u8; 8],
}

/// `update_type` of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    Same = 0,
    Changed = 1,
    Moved = 2,
    New = 3,
}

impl Update {
    /// What became of a record since `before`. A move counts more than other changes.
    pub(super) fn since(before: Option<&Fingerprint>, now: &Fingerprint) -> Self {
        match before {
            None => Update::New,
            Some(before) if before.moved != now.moved => Update::Moved,
            Some(before) if before.whole != now.whole => Update::Changed,
            Some(_) => Update::Same,
        }
    }
}

/// Which fields of a job's records are compared.
pub(super) struct Compared {
    left_out: BTreeSet<String>,
    moved: BTreeSet<String>,
}

impl Compared {
    pub(super) fn of(plan: &Plan, changes: &Changes) -> Self {
        let dimensions = plan.matrix.names().map(|name| name.to_string());
        Compared {
            left_out: changes.ignore.iter().cloned().chain(dimensions).collect(),
            moved: changes.moved.iter().cloned().collect(),
        }
    }

    /// The fingerprint of a record's line. The order of the fields does not count, and neither does a
    /// field without a value: a provider file that learns an optional one changes no record by that.
    ///
    /// # Errors
    /// When the line is not a JSON object.
    pub(super) fn fingerprint(&self, line: &str) -> Result<Fingerprint, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(line);
        let mut fields = Fields.deserialize(&mut reader)?;
        reader.end()?;
        fields.retain(|(_, value)| value.get() != "null");
        fields.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let (mut whole, mut moved) = (Sha256::new(), Sha256::new());
        for (name, value) in fields {
            if !self.left_out.contains(name.as_ref()) {
                add(&mut whole, &name, value);
            }
            if self.moved.contains(name.as_ref()) {
                add(&mut moved, &name, value);
            }
        }
        Ok(Fingerprint {
            whole: beginning(whole),
            moved: beginning(moved),
        })
    }
}

/// A line feed stands in no value as JSON writes it.
fn add(hash: &mut Sha256, name: &str, value: &RawValue) {
    hash.update(name.as_bytes());
    hash.update(b"\n");
    hash.update(value.get().as_bytes());
    hash.update(b"\n");
}

fn beginning<const N: usize>(hash: Sha256) -> [u8; N] {
    let mut beginning = [0; N];
    beginning.copy_from_slice(&hash.finalize()[..N]);
    beginning
}

/// 128 bits of a text's hash: two texts share them with a chance below 1e-20 at a billion texts.
pub(super) fn hash_of(text: &str) -> [u8; 16] {
    beginning(Sha256::new_with_prefix(text))
}

/// Names and values of a flat object, borrowed.
struct Fields;

impl<'de> DeserializeSeed<'de> for Fields {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

/// A name, borrowed unless it holds an escape.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = entries.next_entry::<Name<'de>, &'de RawValue>()? {
            fields.push((name.0, value));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::settle::tests::plan;

    fn compared() -> Compared {
        let changes = Changes {
            id: "{{ id }}".into(),
            ignore: vec!["seen".into()],
            moved: vec!["lat".into()],
        };
        Compared::of(&plan(4), &changes)
    }

    fn since(before: &str, now: &str) -> Update {
        let of = |line: &str| compared().fingerprint(line).expect("a record");
        Update::since(Some(&of(before)), &of(now))
    }

    #[test]
    fn what_is_left_out_changes_nothing() {
        let base = r#"{"city":"NRT","night":1,"id":7,"seen":1,"lat":1.5,"t":"a"}"#;
        for same in [
            r#"{"city":"KIX","night":2,"id":7,"seen":9,"lat":1.5,"t":"a"}"#,
            r#"{"t":"a","lat":1.5,"id":7}"#,
            r#"{"t":"a","lat":1.5,"id":7,"new":null}"#,
        ] {
            assert_eq!(since(base, same), Update::Same, "{same}");
        }
        let changed = r#"{"city":"NRT","night":1,"id":7,"seen":1,"lat":1.5,"t":"b"}"#;
        assert_eq!(since(base, changed), Update::Changed);
        let moved = r#"{"city":"NRT","night":1,"id":7,"seen":1,"lat":1.6,"t":"b"}"#;
        assert_eq!(since(base, moved), Update::Moved);
        let gone = r#"{"city":"NRT","night":1,"id":7,"seen":1,"lat":null,"t":"a"}"#;
        assert_eq!(since(base, gone), Update::Moved);
    }

    #[test]
    fn a_new_record_has_nothing_before_it() {
        let now = compared().fingerprint("{}").expect("an object");
        assert_eq!(Update::since(None, &now), Update::New);
        assert!(compared().fingerprint("[]").is_err());
    }
}
