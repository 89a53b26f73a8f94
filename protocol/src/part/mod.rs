//! The body of a part in every format that a job may ask for. Inside of the fleet records are always the
//! same: lines of flat JSON objects. [`PartFormat`] writes them as the job says and reads exactly the same
//! lines back: digits, nulls and types are kept, whatever the format.

mod columns;
mod compression;
mod csv;
mod decimal;
mod line;
mod parquet;
mod writer;

use bytes::Bytes;

pub use columns::{Column, ColumnKind, UPDATE_TYPE, Unfit, columns_of};
pub use line::read_line;
pub use writer::RecordWriter;

use crate::layout::part_suffix;
use crate::plan::Plan;
use crate::record::{Columns, Record};
use crate::spec::{Compression, OutputFormat, S3Output};

/// Why a body cannot be read, or records cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is damaged, or the place that it is written to is full.
    #[error("its body cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// It is not text.
    #[error("its body is not UTF-8")]
    NotText,
    /// A line is not a flat JSON object.
    #[error("a line is not a flat JSON object: {0}")]
    Line(#[from] serde_json::Error),
    /// It is not the CSV that this run writes.
    #[error("its CSV: {0}")]
    Csv(String),
    /// It is not the Parquet that this run writes.
    #[error("its Parquet: {0}")]
    Parquet(String),
    /// A value does not fit the format.
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// The plain bytes of a body that is not a part.
///
/// # Errors
/// When it is damaged.
pub fn plain(compress: Compression, body: &[u8]) -> Result<Vec<u8>, BodyError> {
    Ok(compression::read(compress, body)?)
}

/// As [`plain`]; `None` when there are more than `most` bytes. No more of them is held in memory.
///
/// # Errors
/// When it is damaged.
pub fn plain_within(
    compress: Compression,
    body: &[u8],
    most: u64,
) -> Result<Option<Vec<u8>>, BodyError> {
    Ok(compression::read_within(compress, body, most)?)
}

/// How a run's parts are written: fixed by its plan, the same for every part.
#[derive(Clone, Debug, PartialEq)]
pub struct PartFormat {
    format: OutputFormat,
    compress: Compression,
    columns: Vec<Column>,
    /// Whether records end up in Parquet.
    fits: bool,
}

impl PartFormat {
    /// The format of a plan's parts.
    pub fn of(plan: &Plan) -> Self {
        let output = &plan.job.outputs.s3;
        Self::new(output.format, output.compress, columns_of(plan))
    }

    /// The format of the parts that collecting writes. With `changes` these are not the run's `data/`: they
    /// keep every value as it was found, less what `data/` could not hold, and know of no `update_type` yet.
    pub fn collected(plan: &Plan) -> Self {
        let given = Self::of(plan);
        if plan.job.changes.is_none() {
            return given;
        }
        let mut columns = given.columns;
        columns.retain(|column| &*column.name != UPDATE_TYPE);
        let S3Output {
            format, compress, ..
        } = S3Output::default();
        PartFormat {
            fits: given.fits,
            ..Self::new(format, compress, columns)
        }
    }

    /// A format with columns of one's own.
    pub fn new(format: OutputFormat, compress: Compression, columns: Vec<Column>) -> Self {
        PartFormat {
            format,
            compress,
            columns,
            fits: format == OutputFormat::Parquet,
        }
    }

    /// What the records are made of, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The end of a part's file name, without the leading dot.
    pub fn suffix(&self) -> &'static str {
        part_suffix(self.format, self.compress)
    }

    /// Makes a record fit the columns: in Parquet a decimal takes the digits of its scale and an instant
    /// those of a microsecond, so that what is read back is what was extracted. Other formats take anything.
    ///
    /// # Errors
    /// When a value cannot be written without losing some of it.
    pub fn fit(&self, record: &mut Record) -> Result<(), Unfit> {
        if !self.fits {
            return Ok(());
        }
        for (name, value) in record.columns.iter().zip(&mut record.values) {
            if let Some(column) = self.columns.iter().find(|c| c.name == *name) {
                column.fit(value)?;
            }
        }
        Ok(())
    }

    /// The same for records that are lines already.
    ///
    /// # Errors
    /// As [`PartFormat::fit`].
    pub fn fit_lines(&self, text: String) -> Result<String, Unfit> {
        if !self.fits {
            return Ok(text);
        }
        let columns: Columns = self.columns.iter().map(|c| c.name.clone()).collect();
        let mut fitted = Vec::with_capacity(text.len());
        for line in self::lines(&text) {
            let values = read_line(line, &self.columns).expect("the fleet's own lines are objects");
            let mut record = Record {
                columns: columns.clone(),
                values,
            };
            self.fit(&mut record)?;
            record.write_ndjson(&mut fitted);
        }
        Ok(String::from_utf8(fitted).expect("JSON is UTF-8"))
    }

    /// A part's body out of its records' lines.
    ///
    /// # Errors
    /// [`BodyError`]; never for records that went through [`PartFormat::fit`].
    pub fn write(&self, lines: &str) -> Result<Bytes, BodyError> {
        if self.format == OutputFormat::Ndjson {
            return Ok(compression::write(self.compress, lines.as_bytes())?.into());
        }
        let mut writer = self.writer(Vec::with_capacity(lines.len() / 2))?;
        for line in self::lines(lines) {
            writer.push(line)?;
        }
        Ok(writer.finish()?.into())
    }

    /// Writes one record after the other into `into`, in bounded memory.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn writer<W: std::io::Write + Send>(&self, into: W) -> Result<RecordWriter<W>, BodyError> {
        RecordWriter::new(self.format, self.compress, self.columns.clone(), into)
    }

    /// The records of a body, one line each, as they were written.
    ///
    /// # Errors
    /// [`BodyError`]
    pub fn read(&self, body: &Bytes) -> Result<String, BodyError> {
        match self.format {
            OutputFormat::Ndjson => text(compression::read(self.compress, body)?),
            OutputFormat::Csv => csv::read(
                &text(compression::read(self.compress, body)?)?,
                &self.columns,
            ),
            OutputFormat::Parquet => parquet::read(body.clone(), &self.columns),
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<String, BodyError> {
    String::from_utf8(bytes).map_err(|_| BodyError::NotText)
}

/// The records' lines of a body.
pub fn lines(body: &str) -> impl Iterator<Item = &str> {
    body.split('\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests;
