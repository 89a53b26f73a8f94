use proptest::prelude::*;

use super::*;

fn columns() -> Vec<Column> {
    use ColumnKind::*;
    [
        ("city", Text),
        ("nights", Integer),
        ("price", Decimal(None)),
        ("tax", Decimal(Some(2))),
        ("rating", Float),
        ("open", Boolean),
        ("day", Date),
        ("at", Datetime),
        ("found", Found),
    ]
    .map(|(name, kind)| Column::new(name, kind))
    .to_vec()
}

fn formats() -> Vec<PartFormat> {
    let format = |format, compress| PartFormat::new(format, compress, columns());
    vec![
        format(OutputFormat::Ndjson, Compression::None),
        format(OutputFormat::Ndjson, Compression::Gzip),
        format(OutputFormat::Ndjson, Compression::Zstd),
        format(OutputFormat::Csv, Compression::None),
        format(OutputFormat::Csv, Compression::Gzip),
        format(OutputFormat::Csv, Compression::Zstd),
        format(OutputFormat::Parquet, Compression::None),
    ]
}

#[track_caller]
fn assert_kept(lines: &str) {
    for format in formats() {
        let body = format.write(lines).expect("writes");
        let back = format.read(&body).expect("reads");
        assert_eq!(back, lines, "{}", format.suffix());
    }
}

#[test]
fn digits_nulls_and_types_come_back() {
    assert_kept(concat!(
        r#"{"city":"NRT","nights":3,"price":80000.50,"tax":1.50,"rating":4.0,"open":true,"day":"2026-11-21","at":"2026-11-21T03:04:05Z","found":"12"}"#,
        "\n",
        r#"{"city":"","nights":null,"price":null,"tax":null,"rating":null,"open":null,"day":null,"at":null,"found":12}"#,
        "\n",
        r#"{"city":"a \"b\",\r\nc","nights":-9223372036854775808,"price":123456789012345678901234.000,"tax":-0.05,"rating":1e300,"open":false,"day":"1899-12-31","at":"1969-12-31T23:59:59.999999Z","found":null}"#,
        "\n",
        r#"{"city":"null","nights":0,"price":1e3,"tax":0.00,"rating":-0.0,"open":true,"day":"2026-02-28","at":"2026-11-21T03:04:05.1Z","found":true}"#,
        "\n",
        r#"{"city":"true","nights":0,"price":0,"tax":0.00,"rating":0.1,"open":true,"day":"2026-02-28","at":"2026-11-21T03:04:05Z","found":"true"}"#,
        "\n",
        r#"{"city":"12","nights":0,"price":0,"tax":0.00,"rating":0.1,"open":true,"day":"2026-02-28","at":"2026-11-21T03:04:05Z","found":""}"#,
        "\n",
        r#"{"city":" x ","nights":0,"price":0,"tax":0.00,"rating":0.1,"open":true,"day":"2026-02-28","at":"2026-11-21T03:04:05Z","found":80000.50}"#,
        "\n",
    ));
}

#[test]
fn a_part_without_records_has_its_header_or_schema() {
    assert_kept("");
    let csv = PartFormat::new(OutputFormat::Csv, Compression::None, columns());
    assert_eq!(
        csv.write("").expect("writes").as_ref(),
        b"city,nights,price,tax,rating,open,day,at,found\n"
    );
}

#[test]
fn csv_is_what_others_read() {
    let csv = PartFormat::new(
        OutputFormat::Csv,
        Compression::None,
        vec![
            Column::new("a", ColumnKind::Text),
            Column::new("b,c", ColumnKind::Found),
        ],
    );
    let lines = "{\"a\":\"x,y\",\"b,c\":80000.50}\n{\"a\":\"12\",\"b,c\":null}\n";
    let body = csv.write(lines).expect("writes");
    assert_eq!(body.as_ref(), b"a,\"b,c\"\n\"x,y\",80000.50\n12,\n");
}

#[test]
fn damaged_bodies_are_refused() {
    for format in formats() {
        for body in ["\"", "a,b\n\"", "PAR1", "{\"a\":1}"] {
            if format.suffix() != "ndjson" {
                assert!(format.read(&Bytes::from(body)).is_err(), "{body}");
            }
        }
    }
}

#[test]
fn what_parquet_cannot_hold_is_unfit_by_its_name() {
    let parquet = PartFormat::new(OutputFormat::Parquet, Compression::None, columns());
    let fit = |name: &str, value: crate::record::Scalar| {
        let mut record = Record {
            columns: std::sync::Arc::from([std::sync::Arc::from(name)]),
            values: vec![value],
        };
        parquet.fit(&mut record).map(|()| record.values.remove(0))
    };
    use crate::record::Scalar::{Number, Text};
    assert_eq!(fit("tax", Number("5".into())), Ok(Number("5.00".into())));
    assert_eq!(
        fit("tax", Number("5.001".into())).unwrap_err().column,
        "tax"
    );
    assert!(fit("nights", Number("9223372036854775808".into())).is_err());
    assert_eq!(
        fit("at", Text("2026-11-21T03:04:05.123456789Z".into())),
        Ok(Text("2026-11-21T03:04:05.123456Z".into()))
    );
}

proptest! {
    #[test]
    fn any_text_comes_back(texts in proptest::collection::vec(".*", 0..20), numbers in proptest::collection::vec(any::<i64>(), 20)) {
        let mut lines = String::new();
        for (text, number) in texts.iter().zip(numbers) {
            let line = serde_json::json!({ "city": text, "nights": number });
            let city = &line["city"];
            lines.push_str(&format!("{{\"city\":{city},\"nights\":{number},\"found\":{city}}}\n"));
        }
        let columns = vec![
            Column::new("city", ColumnKind::Text),
            Column::new("nights", ColumnKind::Integer),
            Column::new("found", ColumnKind::Found),
        ];
        for format in [OutputFormat::Ndjson, OutputFormat::Csv, OutputFormat::Parquet] {
            let format = PartFormat::new(format, Compression::None, columns.clone());
            let body = format.write(&lines).expect("writes");
            prop_assert_eq!(format.read(&body).expect("reads"), lines.clone());
        }
    }
}
