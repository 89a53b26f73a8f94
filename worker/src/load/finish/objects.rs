//! The objects that a job names beside its parts: one for each combination of values (`key`), and its first
//! ranking as rows (`merged`). Made from the parts when the gate was passed, over what was there.

use std::io;

use paceline_protocol::block::CellEnd;
use paceline_protocol::part::{Column, ColumnKind, PartFormat, RecordWriter, lines};
use paceline_protocol::record::Scalar;
use paceline_protocol::spec::{Compression, OutputFormat, S3Output};
use paceline_protocol::stores::objects::Objects;
use paceline_protocol::template::whole_name;

use super::super::LoadError;
use super::super::runs::Stage;
use super::gate::Verdict;
use super::lease::Lease;
use super::scores::take_turns;
use super::{Finish, tally};
use crate::crash;
use crate::output::object_keys::{NoKey, ObjectKeys};
use crate::output::part::name_of;
use crate::output::rankings::CellsOfRecords;
use crate::output::sorted::{KeyParts, SortKey, Sorter};
use crate::output::spooled::Spooled;

/// The column of a merged object's scores.
const SCORE: &str = "score";
/// The column of its members when their template is more than one name.
const MEMBER: &str = "member";

/// Keys that cannot be used.
#[derive(Default)]
struct Refused {
    keys: u64,
    first: Option<NoKey>,
}

impl Refused {
    fn add(&mut self, no_key: NoKey) {
        self.keys += 1;
        self.first.get_or_insert(no_key);
    }
}

/// Where the objects go, and how.
struct Target {
    lease: Lease,
    objects: Objects,
    keys: ObjectKeys,
    format: PartFormat,
}

impl Finish<'_> {
    /// Writes them. A key that cannot be used is noted, the objects of all others are written.
    pub(super) async fn write_objects(&self, verdict: &mut Verdict) -> Result<(), LoadError> {
        let output = &self.run.plan.job.outputs.s3;
        crash::point("finish-before-objects");
        let mut refused = Refused::default();
        if let Some(template) = &output.key {
            let columns = chosen(output, self.run.format.columns().to_vec());
            match self.target(template, columns).await? {
                Ok(target) => self.write_by_key(&target, &mut refused).await?,
                Err(no_key) => refused.add(no_key),
            }
        }
        if let Some(template) = &output.merged
            && let Some(ranking) = self.run.plan.job.outputs.rankings.first()
        {
            let columns = chosen(output, merged_columns(&ranking.member));
            match self.target(template, columns).await? {
                Ok(target) => self.write_merged(&target, &mut refused).await?,
                Err(no_key) => refused.add(no_key),
            }
        }
        if let Some(first) = &refused.first {
            tracing::error!(run.id = %self.run.run, error = %first, cells = refused.keys, "objects were not written: their keys cannot be used");
            verdict.notes.push(format!(
                "objects of {} cells were not written, the first because of {first}",
                refused.keys
            ));
        }
        Ok(())
    }

    async fn target(
        &self,
        template: &str,
        columns: Vec<Column>,
    ) -> Result<Result<Target, NoKey>, LoadError> {
        let output = &self.run.plan.job.outputs.s3;
        let stores = &self.loader.stores;
        let own = stores.objects.bucket();
        let bucket = output.bucket.as_deref().unwrap_or(own);
        let runs = (bucket == own).then_some(stores.fleet.prefix.as_str());
        let keys = ObjectKeys::compile(template, &self.run.plan, self.newest_answer().await?, runs);
        // A name that does not say so holds plain lines, though parts are compressed unless the job says otherwise.
        let compress = match (output.format, output.compress) {
            (OutputFormat::Ndjson, Compression::Zstd) if !template.ends_with(".zst") => {
                Compression::None
            }
            (_, compress) => compress,
        };
        Ok(keys.map(|keys| Target {
            lease: self.lease.clone(),
            objects: stores.objects.with_bucket(bucket),
            keys,
            format: PartFormat::new(output.format, compress, columns),
        }))
    }

    /// The fleet's clock at the run's last answer: `now` of its objects, the same however often they are
    /// written.
    async fn newest_answer(&self) -> Result<i64, LoadError> {
        let output = &self.run.plan.job.outputs.s3;
        let mut templates = output.key.iter().chain(&output.merged);
        if !templates.any(|template| template.contains("now")) {
            return Ok(self.run.plan.planned_at.as_microsecond());
        }
        let mut newest = 0;
        for (shard, (parts, _)) in &self.shards {
            let names = parts.iter().map(name_of).collect();
            for part in self
                .loader
                .stores
                .parts(self.run, *shard, names, Stage::Given)
                .await?
            {
                newest = newest.max(part.version);
            }
        }
        Ok(newest)
    }

    // ------------------------------------------------------------------------------------ by key

    /// One object for each key that cells have. A cell without records has its object too, since what was
    /// there is true no longer; a failed one leaves it.
    async fn write_by_key(&self, target: &Target, refused: &mut Refused) -> Result<(), LoadError> {
        let mut sorter = Sorter::default();
        self.sort_cells(target, &mut sorter, refused)?;
        self.sort_records(target, &mut sorter).await?;
        let mut open: Option<(String, RecordWriter<Spooled>)> = None;
        for (number, entry) in (0..).zip(sorter.finish()?) {
            let (key, line) = entry?;
            let key = KeyParts(&key).text();
            if open.as_ref().is_none_or(|(of, _)| *of != key) {
                if let Some((done, writer)) = open.take() {
                    target.put(&done, writer).await?;
                }
                open = Some((key, target.format.writer(Spooled::default())?));
            }
            if let Some((_, writer)) = &mut open
                && !line.is_empty()
            {
                writer.push(&String::from_utf8_lossy(&line))?;
            }
            take_turns(number).await;
        }
        match open {
            Some((done, writer)) => target.put(&done, writer).await,
            None => Ok(()),
        }
    }

    /// The keys of all cells that have ended well, without a record.
    fn sort_cells(
        &self,
        target: &Target,
        sorter: &mut Sorter,
        refused: &mut Refused,
    ) -> io::Result<()> {
        let plan = &self.run.plan;
        for (shard, (parts, _)) in &self.shards {
            for (first_cell, ends) in tally::blocks(plan, *shard, parts) {
                for (cell, end) in (first_cell..).zip(&ends.0) {
                    if matches!(end, CellEnd::Succeeded | CellEnd::Empty) {
                        match target.keys.of_cell(plan, cell) {
                            Ok(key) => sorter.push(place(&key, 0, 0), Vec::new())?,
                            Err(no_key) => refused.add(no_key),
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn sort_records(&self, target: &Target, sorter: &mut Sorter) -> Result<(), LoadError> {
        let plan = &self.run.plan;
        for (shard, (parts, _)) in &self.shards {
            let with_records = parts.iter().filter(|part| part.records > 0);
            let names = with_records.map(name_of).collect();
            for part in self
                .loader
                .stores
                .parts(self.run, *shard, names, Stage::Given)
                .await?
            {
                let text = self.run.text(&part)?;
                let block = self.run.place(*shard, &part)?;
                let mut cells = CellsOfRecords::new(plan, &block, &part.summary.ends);
                let mut last: Option<(u64, Option<String>)> = None;
                for (number, line) in (1..).zip(lines(&text)) {
                    let cell = cells.of(line);
                    if last.as_ref().is_none_or(|(of, _)| *of != cell) {
                        last = Some((cell, target.keys.of_cell(plan, cell).ok()));
                    }
                    if let Some((_, Some(key))) = &last {
                        sorter.push(place(key, cell, number), line.as_bytes().to_vec())?;
                    }
                }
            }
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------ merged

    /// The first ranking: the highest score first, ties by member.
    async fn write_merged(&self, target: &Target, refused: &mut Refused) -> Result<(), LoadError> {
        let key = match target.keys.of_run() {
            Ok(key) => key,
            Err(no_key) => {
                refused.add(no_key);
                return Ok(());
            }
        };
        let mut sorter = Sorter::default();
        for (number, scored) in (0..).zip(self.scores(0).await?) {
            let (member, score) = scored?;
            let place = SortKey::default().descending(score).text(&member.member);
            let mut value = score.to_bits().to_be_bytes().to_vec();
            value.extend_from_slice(member.member.as_bytes());
            sorter.push(place.text(&member.set).bytes(), value)?;
            take_turns(number).await;
        }
        let mut writer = target.format.writer(Spooled::default())?;
        for (number, entry) in (0..).zip(sorter.finish()?) {
            writer.push_values(row(target.format.columns(), &entry?.1)?)?;
            take_turns(number).await;
        }
        target.put(&key, writer).await
    }
}

impl Target {
    async fn put(&self, key: &str, writer: RecordWriter<Spooled>) -> Result<(), LoadError> {
        let written = writer.finish()?;
        self.lease.holds()?;
        match written {
            Spooled::Memory(body) => self.objects.put(key, body.into(), &[]).await?,
            Spooled::File(file) => self.objects.put_file(key, file.path()).await?,
        }
        Ok(())
    }
}

/// Objects apart, records by cell and their place in it.
fn place(key: &str, cell: u64, number: u64) -> Vec<u8> {
    let place = SortKey::default().text(key);
    place.number(cell).number(number).bytes()
}

/// The columns that the job chose, in its order; all when it chose none.
fn chosen(output: &S3Output, all: Vec<Column>) -> Vec<Column> {
    if output.columns.is_empty() {
        return all;
    }
    let find = |name: &String| {
        let found = all.iter().find(|column| *column.name == **name);
        found
            .cloned()
            .unwrap_or_else(|| Column::new(name.as_str(), ColumnKind::Found))
    };
    output.columns.iter().map(find).collect()
}

/// The member under its template's name, and its score.
fn merged_columns(member: &str) -> Vec<Column> {
    vec![
        Column::new(whole_name(member).unwrap_or(MEMBER), ColumnKind::Text),
        Column::new(SCORE, ColumnKind::Float),
    ]
}

/// A member's row; a column that is neither its name nor its score is null.
fn row(columns: &[Column], value: &[u8]) -> io::Result<Vec<Scalar>> {
    let (bits, member) = value
        .split_at_checked(8)
        .ok_or(io::ErrorKind::InvalidData)?;
    let bits: [u8; 8] = bits.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    let score = f64::from_bits(u64::from_be_bytes(bits));
    let value = |column: &Column| match (&*column.name, column.kind) {
        (SCORE, _) => Scalar::Number(format!("{score:?}")),
        (_, ColumnKind::Text) => Scalar::Text(String::from_utf8_lossy(member).into_owned()),
        _ => Scalar::Null,
    };
    Ok(columns.iter().map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_object_has_the_members_name() {
        let names = |member: &str| {
            let columns = merged_columns(member);
            columns
                .iter()
                .map(|c| c.name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names("{{ candidate }}"), ["candidate", "score"]);
        assert_eq!(names("{{ depart }}/{{ nights }}"), ["member", "score"]);
    }

    #[test]
    fn columns_come_in_the_jobs_order() {
        let output = S3Output {
            columns: vec!["score".into(), "candidate".into()],
            ..S3Output::default()
        };
        let columns = chosen(&output, merged_columns("{{ candidate }}"));
        let mut value = 0.25_f64.to_bits().to_be_bytes().to_vec();
        value.extend_from_slice(b"7");
        let row = row(&columns, &value).expect("a row");
        assert_eq!(
            row,
            [Scalar::Number("0.25".into()), Scalar::Text("7".into())]
        );
    }
}
