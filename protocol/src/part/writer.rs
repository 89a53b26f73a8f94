//! Records written one after the other into anything that takes bytes.

use std::io::Write;

use super::columns::Column;
use super::compression::Compressor;
use super::parquet::ParquetWriter;
use super::{BodyError, csv, read_line};
use crate::record::{Columns, Record, Scalar};
use crate::spec::{Compression, OutputFormat};

/// Writes records in a format, in bounded memory.
pub struct RecordWriter<W: Write + Send> {
    columns: Vec<Column>,
    names: Columns,
    into: Into<W>,
    line: Vec<u8>,
}

enum Into<W: Write + Send> {
    Ndjson(Compressor<W>),
    Csv(Compressor<W>),
    Parquet(Box<ParquetWriter<W>>),
}

impl<W: Write + Send> RecordWriter<W> {
    pub(super) fn new(
        format: OutputFormat,
        compress: Compression,
        columns: Vec<Column>,
        into: W,
    ) -> Result<Self, BodyError> {
        let into = match format {
            OutputFormat::Ndjson => Into::Ndjson(Compressor::new(compress, into)?),
            OutputFormat::Csv => {
                let mut header = Vec::new();
                csv::write_header(&columns, &mut header);
                let mut into = Compressor::new(compress, into)?;
                into.write_all(&header)?;
                Into::Csv(into)
            }
            OutputFormat::Parquet => {
                Into::Parquet(Box::new(ParquetWriter::new(columns.clone(), into)?))
            }
        };
        Ok(RecordWriter {
            names: columns.iter().map(|column| column.name.clone()).collect(),
            columns,
            into,
            line: Vec::new(),
        })
    }

    /// Writes the record of a line; names that are no column are left out, columns that it lacks are null.
    ///
    /// # Errors
    /// [`BodyError`]
    pub fn push(&mut self, line: &str) -> Result<(), BodyError> {
        let values = read_line(line, &self.columns)?;
        self.push_values(values)
    }

    /// Writes a record by its values, as many as there are columns.
    ///
    /// # Errors
    /// [`BodyError`]
    pub fn push_values(&mut self, values: Vec<Scalar>) -> Result<(), BodyError> {
        self.line.clear();
        match &mut self.into {
            Into::Ndjson(into) => {
                let columns = self.names.clone();
                Record { columns, values }.write_ndjson(&mut self.line);
                into.write_all(&self.line)?;
            }
            Into::Csv(into) => {
                csv::write_row(&self.columns, &values, &mut self.line);
                into.write_all(&self.line)?;
            }
            Into::Parquet(into) => into.push(values)?,
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`BodyError`]
    pub fn finish(self) -> Result<W, BodyError> {
        match self.into {
            Into::Ndjson(into) | Into::Csv(into) => Ok(into.finish()?),
            Into::Parquet(into) => into.finish(),
        }
    }
}
