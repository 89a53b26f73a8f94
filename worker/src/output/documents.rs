//! The `_bulk` lines of a part: an action and the record's line as it is.

use std::collections::HashMap;
use std::ops::Range;

use paceline_protocol::part;
use paceline_protocol::plan::Plan;
use sha2::{Digest, Sha256};

use super::record_templates::{Constants, RecordTemplates, TemplateError};

/// The longest id that Elasticsearch takes, in bytes.
const LONGEST_ID: usize = 512;

/// The document ids of a job, compiled once for a run.
#[derive(Debug)]
pub struct DocumentIds {
    templates: RecordTemplates,
}

/// Documents as lines of a `_bulk`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// Action and document lines.
    pub body: Vec<u8>,
    /// Where in the body each document's two lines end.
    pub ends: Vec<usize>,
}

/// A document that is not in the index, and never will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its id; empty when it has none.
    pub id: String,
    /// Why.
    pub reason: String,
    /// The record's line.
    pub line: String,
}

impl DocumentIds {
    /// The ids of a plan's job; `None` when it has no index.
    ///
    /// # Errors
    /// [`TemplateError::Broken`]
    pub fn compile(plan: &Plan) -> Result<Option<Self>, TemplateError> {
        let Some(index) = &plan.job.outputs.index else {
            return Ok(None);
        };
        let templates = RecordTemplates::compile(&[&index.id], Constants::of(plan))?;
        Ok(Some(DocumentIds { templates }))
    }

    /// The id of a record's document: the template's text, or its SHA-256 in hex when it is longer than
    /// an id may be.
    ///
    /// # Errors
    /// When the record gives no id; it has no document.
    pub fn id(&self, line: &str, version: i64) -> Result<String, TemplateError> {
        let record = self.templates.read(line, version)?;
        let mut id = String::new();
        self.templates.render(0, &record, &mut id)?;
        match id.len() {
            0 => Err(TemplateError::Record(
                "the document's id is empty".to_owned(),
            )),
            1..=LONGEST_ID => Ok(id),
            _ => Ok(hex::encode(Sha256::digest(id))),
        }
    }

    /// The documents of a part. Of two records with one id the later one counts: with an external version,
    /// which both share, Elasticsearch itself would keep the first.
    pub fn documents(&self, body: &str, version: i64) -> (Documents, Vec<Rejected>) {
        let mut named = Vec::new();
        let mut rejected = Vec::new();
        for line in part::lines(body) {
            match self.id(line, version) {
                Ok(id) => named.push((id, line)),
                Err(error) => rejected.push(Rejected {
                    id: String::new(),
                    reason: error.to_string(),
                    line: line.to_owned(),
                }),
            }
        }
        let last: HashMap<&str, usize> = named
            .iter()
            .enumerate()
            .map(|(place, (id, _))| (id.as_str(), place))
            .collect();
        let mut documents = Documents::with_room_for(body.len(), named.len());
        for (place, (id, line)) in named.iter().enumerate() {
            if last[id.as_str()] == place {
                documents.push(id, version, line);
            }
        }
        (documents, rejected)
    }
}

impl Documents {
    fn with_room_for(bytes: usize, documents: usize) -> Self {
        /// About what an action line takes beside the id.
        const ACTION: usize = 100;
        Documents {
            body: Vec::with_capacity(bytes + documents * ACTION),
            ends: Vec::with_capacity(documents),
        }
    }

    /// Adds a document. The version is external: what is already there in this or a newer one stays.
    pub fn push(&mut self, id: &str, version: i64, line: &str) {
        use std::io::Write;
        self.body.extend_from_slice(br#"{"index":{"_id":"#);
        serde_json::to_writer(&mut self.body, id).expect("writing text into memory cannot fail");
        writeln!(
            self.body,
            r#","version":{version},"version_type":"external"}}}}"#
        )
        .expect("writing into memory cannot fail");
        self.body.extend_from_slice(line.as_bytes());
        self.body.push(b'\n');
        self.ends.push(self.body.len());
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The two lines of a document.
    pub fn lines(&self, place: usize) -> &[u8] {
        &self.body[self.range(place)]
    }

    fn range(&self, place: usize) -> Range<usize> {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[place]
    }

    /// Appends documents of another.
    pub fn append(&mut self, lines: &[u8]) {
        self.body.extend_from_slice(lines);
        self.ends.push(self.body.len());
    }

    /// The same documents in pieces of at most `documents` and about `bytes`.
    pub fn pieces(self, documents: usize, bytes: usize) -> Vec<Documents> {
        if self.len() <= documents && self.body.len() <= bytes {
            return if self.is_empty() { vec![] } else { vec![self] };
        }
        let mut pieces = vec![Documents::default()];
        for place in 0..self.len() {
            let full = |piece: &Documents| piece.len() >= documents || piece.body.len() >= bytes;
            if pieces.last().is_none_or(full) {
                pieces.push(Documents::default());
            }
            if let Some(piece) = pieces.last_mut() {
                piece.append(self.lines(place));
            }
        }
        pieces
    }
}

impl Rejected {
    /// A document that Elasticsearch refused, by its two lines of a `_bulk`.
    pub fn by_elasticsearch(lines: &[u8], reason: String) -> Self {
        let text = String::from_utf8_lossy(lines);
        let (action, line) = text.split_once('\n').unwrap_or((&text, ""));
        let action: serde_json::Value = serde_json::from_str(action).unwrap_or_default();
        let id = action["index"]["_id"].as_str().unwrap_or_default();
        Rejected {
            id: id.to_owned(),
            reason,
            line: line.trim_end_matches('\n').to_owned(),
        }
    }

    /// Appends it as a row of `failures/documents-<shard>.ndjson`.
    pub fn write(&self, into: &mut Vec<u8>) {
        let row =
            serde_json::json!({ "id": self.id, "reason": self.reason, "document": self.line });
        into.extend_from_slice(row.to_string().as_bytes());
        into.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::settle::tests::{plan, snapshot};

    fn ids(template: &str) -> DocumentIds {
        let mut plan = plan(4);
        plan.job.outputs.index = Some(snapshot(template));
        DocumentIds::compile(&plan)
            .expect("compiles")
            .expect("has an index")
    }

    #[test]
    fn a_document_is_the_record_as_it_is() {
        let body = "{\"city\":\"N\\\"T\",\"price\":80000.50}\n";
        let (documents, rejected) = ids("{{ city }}-{{ price }}").documents(body, 17);
        assert_eq!(rejected, []);
        assert_eq!(
            String::from_utf8(documents.body).expect("text"),
            "{\"index\":{\"_id\":\"N\\\"T-80000.5\",\"version\":17,\"version_type\":\"external\"}}\n".to_owned() + body
        );
    }

    #[test]
    fn of_two_records_with_one_id_the_later_counts() {
        let body = "{\"k\":1,\"p\":1}\n{\"k\":2,\"p\":2}\n{\"k\":1,\"p\":3}\n";
        let (documents, _) = ids("{{ k }}").documents(body, 1);
        assert_eq!(documents.len(), 2);
        let text = String::from_utf8(documents.body).expect("text");
        assert!(
            !text.contains("\"p\":1}") && text.contains("\"p\":3}"),
            "{text}"
        );
    }

    #[test]
    fn a_long_id_is_hashed_and_an_empty_one_rejected() {
        let long = ids("{{ k }}");
        let line = |n: usize| serde_json::json!({ "k": "x".repeat(n) }).to_string();
        assert_eq!(long.id(&line(512), 1).expect("an id").len(), 512);
        assert_eq!(long.id(&line(513), 1).expect("an id").len(), 64);
        let (documents, rejected) = long.documents(&line(0), 1);
        assert!(documents.is_empty());
        assert_eq!(rejected.len(), 1);
    }

    #[test]
    fn pieces_hold_every_document_once() {
        let body: String = (0..1000).map(|k| format!("{{\"k\":{k}}}\n")).collect();
        let (documents, _) = ids("{{ k }}").documents(&body, 1);
        let whole = documents.clone();
        let pieces = documents.pieces(300, 10_000);
        assert!(pieces.iter().all(|p| !p.is_empty() && p.len() <= 300));
        let joined: Vec<u8> = pieces.iter().flat_map(|p| p.body.clone()).collect();
        assert_eq!(joined, whole.body);
    }

    #[test]
    fn a_refused_document_is_listed_with_its_id() {
        let mut documents = Documents::default();
        documents.push("a", 1, "{\"k\":1}");
        let rejected = Rejected::by_elasticsearch(documents.lines(0), "mapper_parsing".into());
        assert_eq!(
            (rejected.id.as_str(), rejected.line.as_str()),
            ("a", "{\"k\":1}")
        );
    }
}
