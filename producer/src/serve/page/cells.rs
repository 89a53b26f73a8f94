//! What one cell of a heat map came to in some runs: its records, read out of the one part that holds them.

use std::collections::BTreeMap;

use anyhow::Result;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::{PartName, RunLayout};
use paceline_protocol::part::{PartFormat, lines};
use paceline_protocol::plan::{Matrix, Plan};
use serde_json::{Map, Value};

use crate::run::RunFiles;
use crate::serve::Server;

/// The records of the cell with these values of its dimensions; none where the run has no such cell.
pub(super) async fn records(
    server: &Server,
    run: &RunRef,
    values: &BTreeMap<&str, &str>,
) -> Result<Option<Vec<Map<String, Value>>>> {
    let Some(files) = RunFiles::read(&server.stores.archive, run).await? else {
        return Ok(None);
    };
    let plan = &files.plan;
    let Some((shard, block)) = index(&plan.matrix, values).and_then(|cell| place(plan, cell))
    else {
        return Ok(None);
    };
    let objects = server.stores.objects();
    let layout = RunLayout::new(server.stores.prefix(), run);
    let listed = objects.list(&layout.shard_data(shard)).await?;
    let names = listed
        .iter()
        .filter_map(|object| PartName::from_key(&object.key));
    let mut parts: Vec<PartName> = names
        .map(|(_, part)| part)
        .filter(|part| part.block == block)
        .collect();
    // The newest round that has the cell says what it came to.
    parts.sort_by_key(|part| std::cmp::Reverse(part.round));
    let format = PartFormat::of(plan);
    for part in parts {
        let Some(object) = objects
            .get(&layout.part(shard, part, format.suffix()))
            .await?
        else {
            continue;
        };
        let body = format.read(&object.body)?;
        let rows =
            lines(&body).filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok());
        let found: Vec<_> = rows.filter(|row| is_of(row, values)).collect();
        if !found.is_empty() {
            return Ok(Some(found));
        }
    }
    Ok(Some(Vec::new()))
}

fn is_of(row: &Map<String, Value>, values: &BTreeMap<&str, &str>) -> bool {
    values
        .iter()
        .all(|(name, value)| row.get(*name).is_some_and(|found| text(found) == *value))
}

/// A value as a template writes it.
pub(super) fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The cell's index by its values; `None` when they do not name exactly one.
fn index(matrix: &Matrix, values: &BTreeMap<&str, &str>) -> Option<u64> {
    let mut index = 0;
    for dimension in &matrix.dimensions {
        let alone = Matrix {
            dimensions: vec![dimension.clone()],
        };
        let fits = |place: &u64| {
            let cell = alone.cell(*place);
            let names = dimension.names.iter().zip(&cell);
            let mut known = names
                .filter_map(|(name, value)| Some((values.get(&**name)?, value)))
                .peekable();
            known.peek().is_some() && known.all(|(wanted, value)| text(value) == **wanted)
        };
        let radix = dimension.values.len();
        let place = match radix {
            1 => 0,
            _ => (0..radix).find(fits)?,
        };
        index = index * radix + place;
    }
    Some(index)
}

/// The shard and the block that a cell lies in.
fn place(plan: &Plan, cell: u64) -> Option<(u64, u32)> {
    let (size, checkpoint) = (
        u64::from(plan.job.shard.cells),
        u64::from(plan.job.shard.checkpoint),
    );
    let mut before = 0;
    for segment in &plan.segments {
        if let Some(within) = cell
            .checked_sub(segment.first_cell)
            .filter(|within| *within < segment.cells)
        {
            let block = within % size / checkpoint;
            return Some((before + within / size, u32::try_from(block).ok()?));
        }
        before += segment.cells.div_ceil(size);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::plan::{PlannedDimension, PlannedValues};

    #[test]
    fn a_cell_is_found_by_its_values() {
        let dimension = |name: &str, values| PlannedDimension {
            names: vec![name.into()],
            values,
        };
        let matrix = Matrix {
            dimensions: vec![
                dimension(
                    "destination",
                    PlannedValues::Rows(vec![vec!["NRT".into()], vec!["BKK".into()]]),
                ),
                dimension(
                    "depart",
                    PlannedValues::Dates {
                        first: jiff::civil::date(2026, 12, 1),
                        count: 3,
                    },
                ),
                dimension(
                    "nights",
                    PlannedValues::Range {
                        first: 1,
                        count: 14,
                    },
                ),
            ],
        };
        let values = BTreeMap::from([
            ("destination", "BKK"),
            ("depart", "2026-12-02"),
            ("nights", "5"),
        ]);
        let found = index(&matrix, &values).expect("a cell");
        let cell: Vec<String> = matrix.cell(found).iter().map(text).collect();
        assert_eq!(cell, ["BKK", "2026-12-02", "5"]);
        let some = BTreeMap::from([("destination", "BKK")]);
        assert_eq!(index(&matrix, &some), None);
    }
}
