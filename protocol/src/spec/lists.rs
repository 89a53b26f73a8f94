//! CSV lists beside a job: `{file, column}`, `{rows: {file}}` and `nearest`.

use std::path::Path;

/// A list as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The header.
    pub columns: Vec<String>,
    /// The rows, each as long as the header, with the line that it begins in.
    pub rows: Vec<(u64, Vec<String>)>,
}

/// Why a list cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It is not there.
    #[error("{file} cannot be read: there is no such file")]
    NotFound {
        /// The file.
        file: String,
    },
    /// It may not be read, or is no text.
    #[error("{file} cannot be read: {why}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// It is not CSV with a header.
    #[error("{file} is not CSV with a header: {why}")]
    NotCsv {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
}

impl Table {
    /// Reads `file`, relative to `folder`: UTF-8 with a header, a byte order mark allowed, values trimmed.
    ///
    /// # Errors
    /// When it cannot be read, rows differ in length, or two columns share a name.
    pub fn read(folder: &Path, file: &str) -> Result<Self, ListError> {
        let unreadable = |why: String| ListError::Unreadable {
            file: file.to_owned(),
            why,
        };
        let text = std::fs::read_to_string(folder.join(file)).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => ListError::NotFound {
                file: file.to_owned(),
            },
            _ => unreadable(reason(&e)),
        })?;
        Self::parse(text.trim_start_matches('\u{feff}')).map_err(|why| ListError::NotCsv {
            file: file.to_owned(),
            why,
        })
    }

    /// Reads text with a header, without a byte order mark.
    ///
    /// # Errors
    /// When rows differ in length, or two columns share a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(line) = open_quote(text) {
            return Err(format!(
                "the quote that opens in line {line} is never closed"
            ));
        }
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let header = reader.headers().map_err(|e| e.to_string())?;
        let columns: Vec<String> = header.iter().map(str::to_owned).collect();
        if columns.iter().all(String::is_empty) {
            return Err("it is empty".to_owned());
        }
        if let Some(twice) = columns
            .iter()
            .enumerate()
            .find(|(i, c)| columns[..*i].contains(c))
        {
            return Err(format!("two columns are named `{}`", twice.1));
        }
        let mut rows = Vec::new();
        let mut lines = Lines {
            text,
            at: 0,
            line: 1,
        };
        for record in reader.records() {
            let record = record.map_err(|e| e.to_string())?;
            let line = record.position().map_or(0, |at| lines.of(at.byte()));
            rows.push((line, record.iter().map(str::to_owned).collect()));
        }
        Ok(Table { columns, rows })
    }

    /// Which column is called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }

    /// The first row whose key was seen before: its line, the earlier line and the key.
    pub fn double(&self, key: impl Fn(&[String]) -> String) -> Option<(u64, u64, String)> {
        let mut seen = std::collections::HashMap::new();
        self.rows.iter().find_map(|(line, row)| {
            let text = key(row);
            let earlier = seen.insert(text.clone(), *line)?;
            Some((*line, earlier, text))
        })
    }
}

/// Counts lines. The reader's own count takes a row that follows `\r\n` for one of the line before.
struct Lines<'t> {
    text: &'t str,
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the row that begins at `byte` or after the breaks there; rows come in order.
    fn of(&mut self, byte: u64) -> u64 {
        let bytes = self.text.as_bytes();
        let mut end = usize::try_from(byte).unwrap_or(usize::MAX).min(bytes.len());
        while bytes.get(end).is_some_and(|b| matches!(b, b'\r' | b'\n')) {
            end += 1;
        }
        let passed = bytes.get(self.at..end).unwrap_or_default();
        self.line += passed.iter().filter(|b| **b == b'\n').count() as u64;
        self.at = self.at.max(end);
        self.line
    }
}

/// The line of a quote that is still open at the end, which a lenient reader takes for one long value.
fn open_quote(text: &str) -> Option<u64> {
    enum At {
        Start,
        Bare,
        Quoted(u64),
        Closed(u64),
    }
    let (mut at, mut line) = (At::Start, 1);
    for c in text.chars() {
        at = match (at, c) {
            (At::Quoted(since), '"') => At::Closed(since),
            (At::Quoted(since), _) => At::Quoted(since),
            // Two quotes in a quoted value are one that is part of it.
            (At::Closed(since), '"') => At::Quoted(since),
            (At::Start, '"') => At::Quoted(line),
            (_, ',' | '\n' | '\r') => At::Start,
            _ => At::Bare,
        };
        line += u64::from(c == '\n');
    }
    match at {
        At::Quoted(since) => Some(since),
        _ => None,
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::InvalidData => "it is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_that_stays_open_is_no_list() {
        for text in ["k\n\"a\nb\n", "k\na\n\"b \"\"c\"\" d\n"] {
            let why = Table::parse(text).expect_err("refused");
            assert!(why.contains("never closed"), "{text:?}: {why}");
        }
        for text in [
            "k\n\"a \"\"b\"\"\"\n",
            "k,l\n\"\",\"x\ny\"\n",
            "k\n5\"\" disk\n",
            "k\n\"a\"\"\"\n",
        ] {
            assert!(Table::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_list_is_read_with_its_lines() {
        let table = Table::parse("iata,name\nNRT, Tokyo \n\"A\nB\",x\nNRT,y\n").expect("CSV");
        assert_eq!(table.column("name"), Some(1));
        assert_eq!(table.rows[0], (2, vec!["NRT".into(), "Tokyo".into()]));
        assert_eq!(
            table.double(|row| row[0].clone()),
            Some((5, 2, "NRT".into()))
        );
        let of_windows = Table::parse("k\r\na\r\n\r\nb\r\na\r\n").expect("CSV");
        let lines: Vec<u64> = of_windows.rows.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 4, 5]);
    }

    #[test]
    fn wrong_lists_are_refused() {
        for bad in ["", "a,a\n1,2", "a,b\n1\n"] {
            assert!(Table::parse(bad).is_err(), "{bad:?}");
        }
    }
}
