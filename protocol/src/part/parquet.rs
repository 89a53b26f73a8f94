//! Parquet with one schema for a run. Every column is optional; text, dates and instants have their logical
//! types, a decimal with a scale is DECIMAL(38, scale), one without is text. A column of values as they were
//! found is text too, and the file's own metadata say of which kind each of them was.

use std::io::Write;
use std::sync::Arc;

use ::parquet::basic::{
    Compression, ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel,
};
use ::parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray,
    FixedLenByteArrayType, Int32Type, Int64Type,
};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::record::Field;
use ::parquet::schema::types::{Type, TypePtr};
use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;

use super::BodyError;
use super::columns::{Column, ColumnKind, float, instant};
use super::decimal;
use crate::record::{Columns, Record, Scalar};

/// Rows of a group: they are held in memory until it is written.
const GROUP: usize = 50_000;
/// Digits of a decimal, and the bytes that hold them.
const PRECISION: i32 = 38;
const DECIMAL_BYTES: i32 = 16;

impl From<ParquetError> for BodyError {
    fn from(error: ParquetError) -> Self {
        BodyError::Parquet(error.to_string())
    }
}

/// Writes rows in groups.
pub(super) struct ParquetWriter<W: Write + Send> {
    columns: Vec<Column>,
    /// By column.
    values: Vec<Vec<Scalar>>,
    rows: usize,
    /// Of each column of found values, the kinds of all values so far.
    kinds: Vec<Option<Kinds>>,
    file: SerializedFileWriter<W>,
}

impl<W: Write + Send> ParquetWriter<W> {
    pub(super) fn new(columns: Vec<Column>, into: W) -> Result<Self, BodyError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_created_by("paceline".to_owned())
            .build();
        let file = SerializedFileWriter::new(into, schema(&columns)?, Arc::new(properties))?;
        let found = |column: &Column| column.kind == ColumnKind::Found;
        Ok(ParquetWriter {
            values: columns.iter().map(|_| Vec::new()).collect(),
            kinds: columns
                .iter()
                .map(|column| found(column).then(Kinds::default))
                .collect(),
            rows: 0,
            columns,
            file,
        })
    }

    pub(super) fn push(&mut self, values: Vec<Scalar>) -> Result<(), BodyError> {
        for (place, value) in values.into_iter().enumerate() {
            if let Some(kinds) = &mut self.kinds[place] {
                kinds.add(&value);
            }
            self.values[place].push(value);
        }
        self.rows += 1;
        if self.rows >= GROUP {
            self.write_group()?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> Result<(), BodyError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for (column, values) in self.columns.iter().zip(&mut self.values) {
            write_column(&mut group, column, values)?;
            values.clear();
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<W, BodyError> {
        self.write_group()?;
        for (column, kinds) in self.columns.iter().zip(&self.kinds) {
            if let Some(kinds) = kinds {
                let entry = KeyValue::new(kinds_of(&column.name), kinds.to_string());
                self.file.append_key_value_metadata(entry);
            }
        }
        Ok(self.file.into_inner()?)
    }
}

fn kinds_of(column: &str) -> String {
    format!("paceline.kinds.{column}")
}

fn schema(columns: &[Column]) -> Result<TypePtr, BodyError> {
    let fields = columns.iter().map(|column| Ok(Arc::new(field(column)?)));
    let fields = fields.collect::<Result<Vec<TypePtr>, BodyError>>()?;
    let schema = Type::group_type_builder("record")
        .with_fields(fields)
        .build()?;
    Ok(Arc::new(schema))
}

fn field(column: &Column) -> Result<Type, BodyError> {
    let optional = |physical| {
        Type::primitive_type_builder(&column.name, physical).with_repetition(Repetition::OPTIONAL)
    };
    let text = || optional(Physical::BYTE_ARRAY).with_logical_type(Some(LogicalType::String));
    let built = match column.kind {
        ColumnKind::Found | ColumnKind::Text | ColumnKind::Decimal(None) => text(),
        ColumnKind::Integer => optional(Physical::INT64),
        ColumnKind::Float => optional(Physical::DOUBLE),
        ColumnKind::Boolean => optional(Physical::BOOLEAN),
        ColumnKind::Date => optional(Physical::INT32).with_logical_type(Some(LogicalType::Date)),
        ColumnKind::Datetime => optional(Physical::INT64)
            .with_logical_type(Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
        ColumnKind::Decimal(Some(scale)) => optional(Physical::FIXED_LEN_BYTE_ARRAY)
            .with_length(DECIMAL_BYTES)
            .with_converted_type(ConvertedType::DECIMAL)
            .with_logical_type(Some(LogicalType::decimal(scale.into(), PRECISION)))
            .with_precision(PRECISION)
            .with_scale(scale.into()),
    };
    Ok(built.build()?)
}

fn write_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column: &Column,
    values: &[Scalar],
) -> Result<(), BodyError> {
    match column.kind {
        ColumnKind::Found | ColumnKind::Text | ColumnKind::Decimal(None) => {
            write_as::<ByteArrayType, W>(group, column, values, |value| {
                Some(match value {
                    Scalar::Text(text) | Scalar::Number(text) => ByteArray::from(text.as_str()),
                    Scalar::Boolean(truth) => {
                        ByteArray::from(if *truth { "true" } else { "false" })
                    }
                    Scalar::Null => return None,
                })
            })
        }
        ColumnKind::Integer => {
            write_as::<Int64Type, W>(group, column, values, |value| digits(value)?.parse().ok())
        }
        ColumnKind::Float => write_as::<DoubleType, W>(group, column, values, |value| {
            digits(value)?.parse().ok().filter(|n: &f64| n.is_finite())
        }),
        ColumnKind::Boolean => {
            write_as::<BoolType, W>(group, column, values, |value| match value {
                Scalar::Boolean(truth) => Some(*truth),
                _ => None,
            })
        }
        ColumnKind::Date => write_as::<Int32Type, W>(group, column, values, |value| {
            let Scalar::Text(text) = value else {
                return None;
            };
            days(text.parse().ok()?)
        }),
        ColumnKind::Datetime => write_as::<Int64Type, W>(group, column, values, |value| {
            let Scalar::Text(text) = value else {
                return None;
            };
            let instant: Timestamp = text.parse().ok()?;
            Some(instant.as_microsecond())
        }),
        ColumnKind::Decimal(Some(scale)) => {
            write_as::<FixedLenByteArrayType, W>(group, column, values, |value| {
                let unscaled = decimal::unscaled(digits(value)?, scale)?;
                Some(FixedLenByteArray::from(unscaled.to_be_bytes().to_vec()))
            })
        }
    }
}

fn digits(value: &Scalar) -> Option<&str> {
    match value {
        Scalar::Number(digits) => Some(digits),
        _ => None,
    }
}

/// Writes a column's values, nulls among them; a value that cannot be written is an error, never a null.
fn write_as<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column: &Column,
    values: &[Scalar],
    convert: impl Fn(&Scalar) -> Option<T::T>,
) -> Result<(), BodyError> {
    let mut there = Vec::with_capacity(values.len());
    let mut levels = Vec::with_capacity(values.len());
    for value in values {
        if *value == Scalar::Null {
            levels.push(0i16);
        } else {
            levels.push(1);
            there.push(convert(value).ok_or_else(|| column.unfit(value))?);
        }
    }
    let mut writer = group
        .next_column()?
        .ok_or_else(|| BodyError::Parquet("a column too many".to_owned()))?;
    writer
        .typed::<T>()
        .write_batch(&there, Some(&levels), None)?;
    Ok(writer.close()?)
}

fn epoch() -> Date {
    jiff::civil::date(1970, 1, 1)
}

fn days(date: Date) -> Option<i32> {
    Some(epoch().until(date).ok()?.get_days())
}

/// The records of a Parquet that this run has written, as lines.
pub(super) fn read(body: Bytes, columns: &[Column]) -> Result<String, BodyError> {
    let reader = SerializedFileReader::new(body)?;
    let file = reader.metadata().file_metadata();
    let names = file.schema().get_fields().iter().map(|field| field.name());
    if !names.eq(columns.iter().map(|column| &*column.name)) {
        return Err(BodyError::Parquet(
            "its schema is not that of the run's plan".to_owned(),
        ));
    }
    let empty = Vec::new();
    let entries = file.key_value_metadata().unwrap_or(&empty);
    let kinds = |column: &Column| {
        let name = kinds_of(&column.name);
        let entry = entries.iter().find(|entry| entry.key == name);
        entry
            .and_then(|entry| entry.value.clone())
            .unwrap_or_default()
    };
    let kinds: Vec<String> = columns.iter().map(kinds).collect();
    let mut kinds: Vec<KindsRead<'_>> = kinds.iter().map(|text| KindsRead::new(text)).collect();
    let names: Columns = columns.iter().map(|column| column.name.clone()).collect();
    let mut lines = Vec::new();
    for row in reader.get_row_iter(None)? {
        let row = row?;
        let fields = row.get_column_iter().zip(columns).zip(&mut kinds);
        let values = fields.map(|(((_, field), column), kinds)| {
            let kind = kinds.next();
            value(field, column.kind, kind)
                .ok_or_else(|| BodyError::Parquet(format!("a value of `{}`", column.name)))
        });
        let record = Record {
            columns: names.clone(),
            values: values.collect::<Result<_, _>>()?,
        };
        record.write_ndjson(&mut lines);
    }
    super::text(lines)
}

fn value(field: &Field, column: ColumnKind, kind: Option<char>) -> Option<Scalar> {
    Some(match field {
        Field::Null => Scalar::Null,
        Field::Bool(truth) => Scalar::Boolean(*truth),
        Field::Long(number) => Scalar::Number(number.to_string()),
        Field::Double(number) => Scalar::Number(float(*number)),
        Field::Date(days) => {
            let day = epoch().checked_add(jiff::Span::new().try_days(*days).ok()?);
            Scalar::Text(day.ok()?.to_string())
        }
        Field::TimestampMicros(micros) => instant(*micros)?,
        Field::Decimal(decimal) => {
            let bytes: [u8; 16] = decimal.data().try_into().ok()?;
            let scale = u8::try_from(decimal.scale()).ok()?;
            Scalar::Number(decimal::digits(i128::from_be_bytes(bytes), scale))
        }
        Field::Str(text) => match (column, kind) {
            (ColumnKind::Decimal(None), _) | (ColumnKind::Found, Some('n')) => {
                Scalar::Number(text.clone())
            }
            (ColumnKind::Found, Some('b')) => Scalar::Boolean(text == "true"),
            _ => Scalar::Text(text.clone()),
        },
        _ => return None,
    })
}

/// The kinds of a column's values in order, as `3s1n`: three texts, then a number; `b` truths, `z` nulls.
#[derive(Default)]
struct Kinds {
    done: String,
    last: Option<(char, u64)>,
}

impl Kinds {
    fn add(&mut self, value: &Scalar) {
        let kind = match value {
            Scalar::Null => 'z',
            Scalar::Boolean(_) => 'b',
            Scalar::Number(_) => 'n',
            Scalar::Text(_) => 's',
        };
        self.last = match self.last {
            Some((last, times)) if last == kind => Some((last, times + 1)),
            Some((last, times)) => {
                self.done.push_str(&format!("{times}{last}"));
                Some((kind, 1))
            }
            None => Some((kind, 1)),
        };
    }
}

impl std::fmt::Display for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.done)?;
        match self.last {
            Some((kind, times)) => write!(f, "{times}{kind}"),
            None => Ok(()),
        }
    }
}

struct KindsRead<'a> {
    rest: &'a str,
    left: u64,
    kind: char,
}

impl<'a> KindsRead<'a> {
    fn new(rest: &'a str) -> Self {
        KindsRead {
            rest,
            left: 0,
            kind: 's',
        }
    }

    fn next(&mut self) -> Option<char> {
        while self.left == 0 {
            let end = self.rest.find(|c: char| !c.is_ascii_digit())?;
            self.left = self.rest[..end].parse().ok()?;
            self.kind = self.rest[end..].chars().next()?;
            self.rest = &self.rest[end + self.kind.len_utf8()..];
        }
        self.left -= 1;
        Some(self.kind)
    }
}
