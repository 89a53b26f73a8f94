"""Reads the Parquet files of a folder with pyarrow and DuckDB; both must see one schema and the same rows."""

import pathlib
import sys

import duckdb
import pyarrow.parquet as pq

files = sorted(pathlib.Path(sys.argv[1]).glob("*.parquet"))
schemas = {str(pq.read_schema(file).remove_metadata()) for file in files}
assert len(schemas) == 1, schemas
schema = pq.read_schema(files[0])
assert str(schema.field("nights").type) == "int64", schema
assert str(schema.field("departs_at").type) == "timestamp[us, tz=UTC]", schema
names = ["destination", "depart", "nights", "carrier", "price"]


def shown(row):
    return "|".join(str(value) for value in row)


arrow = [shown(row[n] for n in names) for file in files for row in pq.read_table(file).to_pylist()]
query = f"select {', '.join(names)} from read_parquet({[str(f) for f in files]})"
duck = [shown(row) for row in duckdb.sql(query).fetchall()]
assert sorted(arrow) == sorted(duck)
print("\n".join(arrow))
