//! What a job needs from other files: its lists, its providers and their endpoints, and the names that
//! all templates use.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::diagnostic::{Diagnostic, any_error, choose};
use super::folder::SpecFolder;
use super::jinja;
use super::lists::{ListError, Table};
use super::model::{AddedColumn, Dimension, DimensionValues, DocumentsOf, Job, ObjectOf, Provider};
use super::names::{self, Known};
use super::scope::{FAILURE_KEYS, NOTICE_NAMES, Names, RESERVED, Spot, TemplateUse, fixed_names};
use super::source::{Source, Sourced};
use crate::template::{environment, value_of, whole_name};

/// More providers of one job than anybody has.
const MOST_PROVIDERS: usize = 1000;

/// Everything that is wrong with `job` beside its own file's faults.
pub(super) fn check_job(folder: &SpecFolder, source: &Source, job: &Job) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    lists(source, job, &mut found);
    dimensions(folder, source, job, &mut found);
    cells(source, job, &mut found);
    other_jobs(folder, source, job, &mut found);
    circles(folder, source, job, &mut found);
    added_field(folder, source, job, &mut found);
    trigger(folder, source, job, &mut found);
    providers(folder, source, job, &mut found);
    record_names(folder, source, job, &mut found);
    job_templates(folder, source, job, &mut found);
    object_key(source, job, &mut found);
    merged_object(source, job, &mut found);
    found
}

/// What is said of a matrix whose cells have no number.
pub const TOO_MANY_CELLS: &str = "the matrix has more cells than can be counted (2^64)";

/// The dimensions that stand in the file make no more cells than can be counted.
fn cells(source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    let sizes = job.split.values().map(|dimension| {
        if dimension.filter.is_some() || !dimension.distinct.is_empty() {
            return 1;
        }
        match &dimension.values {
            DimensionValues::List(values) => values.len() as u64,
            DimensionValues::Range { first, last } => last.abs_diff(*first).saturating_add(1),
            DimensionValues::Dates { days, every, .. } => {
                u64::from(days.div_ceil(every.unwrap_or(1).max(1)))
            }
            // What lies elsewhere is looked at when the run is planned.
            _ => 1,
        }
    });
    let mut counted = Some(1u64);
    for size in sizes {
        counted = match size {
            0 => return,
            size => counted.and_then(|n| n.checked_mul(size)),
        };
    }
    if counted.is_none() {
        let fault = source.fault("split", TOO_MANY_CELLS);
        found.push(fault.hint("make a dimension smaller"));
    }
}

// ------------------------------------------------------------------------------------------- lists

fn lists(source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    for (name, dimension) in &job.split {
        let path = format!("split.{name}");
        match &dimension.values {
            DimensionValues::File { file, column } => {
                column_list(source, &path, file, column, dimension, found)
            }
            DimensionValues::Rows { file } => row_list(source, &path, file, dimension, found),
            _ => {}
        }
        for (added, column) in &dimension.add {
            if let AddedColumn::Nearest { file, by, take } = column {
                let path = format!("{path}.add.{added}.nearest");
                nearest_list(source, &path, file, by, take, found);
            }
        }
    }
}

fn table(source: &Source, path: &str, file: &str, found: &mut Vec<Diagnostic>) -> Option<Table> {
    if file.contains("${") {
        return None;
    }
    match Table::read(source.folder(), file) {
        Ok(table) => Some(table),
        Err(error) => {
            let hint = match error {
                ListError::NotFound { .. } => format!(
                    "lists are found relative to the job's file, in {}",
                    source.folder().display()
                ),
                ListError::Unreadable { .. } => {
                    "a list is a CSV file in UTF-8; save it so where it is in another charset".to_owned()
                }
                ListError::NotCsv { .. } => {
                    "a first line with the columns' names, then rows of as many values, commas between".to_owned()
                }
            };
            found.push(source.fault(path, error.to_string()).hint(hint));
            None
        }
    }
}

fn column_list(
    source: &Source,
    path: &str,
    file: &str,
    column: &str,
    dimension: &Dimension,
    found: &mut Vec<Diagnostic>,
) {
    let Some(table) = table(source, &format!("{path}.file"), file, found) else {
        return;
    };
    let at = format!("{path}.column");
    let Some(place) = column_of(source, &at, &table, file, column, found) else {
        return;
    };
    empty_list(source, path, file, &table, found);
    if dimension.distinct.is_empty()
        && let Some((line, first, value)) = table.double(|row| row[place].clone())
    {
        let hint = format!(
            "keep one of them, or take each value once: {{rows: {{file: {file}}}, distinct: [{column}]}}"
        );
        found.push(
            source
                .fault(
                    &at,
                    format!("{file} has `{value}` in line {first} and again in line {line}"),
                )
                .hint(hint),
        );
    }
}

fn column_of(
    source: &Source,
    at: &str,
    table: &Table,
    file: &str,
    column: &str,
    found: &mut Vec<Diagnostic>,
) -> Option<usize> {
    let place = table.column(column);
    if place.is_none() {
        let known: Vec<&str> = table.columns.iter().map(String::as_str).collect();
        found.push(
            source
                .fault(at, format!("{file} has no column `{column}`"))
                .hint(choose(column, &known, "its columns")),
        );
    }
    place
}

fn empty_list(source: &Source, path: &str, file: &str, table: &Table, found: &mut Vec<Diagnostic>) {
    if table.rows.is_empty() {
        let empty = source.fault(
            path,
            format!("{file} has no rows, so the run will have no cells"),
        );
        found.push(
            empty
                .hint("a run without cells is complete and publishes nothing")
                .warning(),
        );
    }
}

fn row_list(
    source: &Source,
    path: &str,
    file: &str,
    dimension: &Dimension,
    found: &mut Vec<Diagnostic>,
) {
    let at = format!("{path}.rows.file");
    let Some(table) = table(source, &at, file, found) else {
        return;
    };
    empty_list(source, path, file, &table, found);
    if dimension.distinct.is_empty()
        && let Some((line, first, _)) = table.double(|row| row.join("\u{1f}"))
    {
        let double = source.fault(
            &at,
            format!("{file} has the same row in line {first} and again in line {line}"),
        );
        found.push(double.hint("keep one of them: each row makes cells of its own"));
    }
}

fn nearest_list(
    source: &Source,
    path: &str,
    file: &str,
    by: &[String],
    take: &str,
    found: &mut Vec<Diagnostic>,
) {
    let Some(table) = table(source, &format!("{path}.file"), file, found) else {
        return;
    };
    column_of(source, &format!("{path}.take"), &table, file, take, found);
    for (i, column) in by.iter().enumerate() {
        column_of(
            source,
            &format!("{path}.by[{i}]"),
            &table,
            file,
            column,
            found,
        );
    }
}

// -------------------------------------------------------------------------------------- dimensions

fn dimensions(folder: &SpecFolder, source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    let fields = names::field_names(folder, source, job);
    let mut seen: Vec<String> = Vec::new();
    for (name, dimension) in &job.split {
        let path = format!("split.{name}");
        distinct_columns(folder, source, name, dimension, found);
        for given in names::dimension_names(folder, source, name, dimension).names {
            if let Some((message, hint)) = name_clash(&given, &seen, &fields) {
                found.push(source.key_fault(&path, message).hint(hint));
            }
            seen.push(given);
        }
    }
}

/// Why a dimension may not give the name `given`.
fn name_clash(given: &str, seen: &[String], fields: &Known) -> Option<(String, &'static str)> {
    const OTHER: &str = "give the dimension another name";
    if FAILURE_KEYS.contains(&given) {
        return Some((format!("`{given}` is a key of every failure's line"), OTHER));
    }
    if RESERVED.contains(&given) {
        return Some((
            format!("`{given}` means something else in templates"),
            OTHER,
        ));
    }
    if seen.iter().any(|s| s == given) {
        return Some((
            format!("two dimensions give the name `{given}`"),
            "each name comes from one dimension",
        ));
    }
    if fields.names.iter().any(|f| f == given) {
        return Some((
            format!("`{given}` is a field of the endpoint too"),
            "a record has each name once; rename one of them",
        ));
    }
    None
}

fn distinct_columns(
    folder: &SpecFolder,
    source: &Source,
    name: &str,
    dimension: &Dimension,
    found: &mut Vec<Diagnostic>,
) {
    let mut known = names::row_names(folder, source, name, dimension);
    known.names.extend(dimension.add.keys().cloned());
    for (i, column) in dimension.distinct.iter().enumerate() {
        not_known(
            source,
            &format!("split.{name}.distinct[{i}]"),
            column,
            &known,
            "columns",
            found,
        );
    }
}

fn not_known(
    source: &Source,
    path: &str,
    name: &str,
    known: &Known,
    what: &str,
    found: &mut Vec<Diagnostic>,
) {
    if known.open || known.names.iter().any(|n| n == name) {
        return;
    }
    let names: Vec<&str> = known.names.iter().map(String::as_str).collect();
    found.push(
        source
            .fault(path, format!("`{name}` is none of the {what}"))
            .hint(choose(name, &names, what)),
    );
}

/// `key:` gives one object for each combination, so it names every dimension with more than one value.
fn object_key(source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    let Some(key) = &job.outputs.s3.key else {
        return;
    };
    let used = jinja::template(key).unwrap_or_default();
    for (name, dimension) in &job.split {
        let single = matches!(&dimension.values, DimensionValues::List(values) if values.len() <= 1)
            || matches!(dimension.values, DimensionValues::Dates { days: 1, .. })
            || matches!(dimension.values, DimensionValues::Range { first, last } if first == last);
        let rows = !matches!(
            dimension.values,
            DimensionValues::List(_)
                | DimensionValues::File { .. }
                | DimensionValues::Dates { .. }
                | DimensionValues::Range { .. }
        );
        if !single && !rows && !used.contains(name) {
            let message = format!(
                "`key` does not name `{name}`, so objects of different values would replace each other"
            );
            found.push(source.fault("outputs.s3.key", message).hint(format!(
                "add {{{{ {name} }}}} to it, or write one object with `merged`"
            )));
        }
    }
}

/// The columns of the merged object: the first ranking's members and their scores.
fn merged_columns(job: &Job) -> Option<[&str; 2]> {
    let ranking = job.outputs.rankings.first()?;
    Some([whole_name(&ranking.member).unwrap_or("member"), "score"])
}

/// `merged:` is the first ranking as rows: its members and their scores, nothing else.
fn merged_object(source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    let s3 = &job.outputs.s3;
    if s3.merged.is_none() {
        return;
    }
    if job.outputs.rankings.is_empty() {
        let message = "`merged` is the job's first ranking as rows, and the job has none";
        found.push(
            source
                .fault("outputs.s3.merged", message.to_owned())
                .hint("add one to `outputs.rankings`, or write objects of records with `key`"),
        );
        return;
    };
    let Some([member, _]) = merged_columns(job) else {
        return;
    };
    for (i, column) in s3.columns.iter().enumerate() {
        if s3.key.is_none() && column != member && column != "score" {
            let message = format!(
                "`{column}` is no column of the merged object, which has `{member}` and `score`"
            );
            found.push(
                source
                    .fault(&format!("outputs.s3.columns[{i}]"), message)
                    .hint(format!("take `{member}` or `score`")),
            );
        }
    }
}

// -------------------------------------------------------------------------------------- other jobs

fn other_jobs(folder: &SpecFolder, source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    let after = job
        .after
        .as_ref()
        .map(|a| ("after".to_owned(), a.job.as_str()));
    let of = job
        .source
        .as_ref()
        .map(|s| ("source.records_of.job".to_owned(), s.job.as_str()));
    let split = job.split.iter().filter_map(|(name, d)| match &d.values {
        DimensionValues::RecordsOf(records) => {
            Some((format!("split.{name}.records_of.job"), records.job.as_str()))
        }
        _ => None,
    });
    for (path, other) in after.into_iter().chain(of).chain(split) {
        if other == job.name {
            found.push(
                source
                    .fault(&path, "a job cannot follow or read itself")
                    .hint("name another job"),
            );
        } else if folder.job_file(other).is_none() {
            let message = format!(
                "no job `{other}` in {}",
                folder.dir().join("jobs").display()
            );
            found.push(source.fault(&path, message).hint(choose(
                other,
                &folder.job_names(),
                "jobs",
            )));
        }
    }
}

/// Jobs that wait for each other never start; jobs that start each other never end.
fn circles(folder: &SpecFolder, source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    let after = |job: &Job| job.after.iter().map(|a| a.job.clone()).collect();
    let read = |job: &Job| {
        let own = job.source.iter().map(|s| s.job.clone());
        let split = job.split.values().filter_map(|d| match &d.values {
            DimensionValues::RecordsOf(records) => Some(records.job.clone()),
            _ => None,
        });
        own.chain(split).collect()
    };
    if let Some(way) = circle(folder, job, after) {
        found.push(
            source
                .fault(
                    "after",
                    format!("each of these would start the next one for ever: {way}"),
                )
                .hint("take `after` out of one of them"),
        );
    }
    if let Some(way) = circle(folder, job, read) {
        let place = match job.source {
            Some(_) => "source.records_of.job".to_owned(),
            None => job
                .split
                .iter()
                .find(|(_, d)| matches!(d.values, DimensionValues::RecordsOf(_)))
                .map_or_else(|| "job".to_owned(), |(name, _)| format!("split.{name}")),
        };
        found.push(
            source
                .fault(
                    &place,
                    format!("each of these reads the records of the next one: {way}"),
                )
                .hint("one of them must have records without the others"),
        );
    }
}

/// The shortest way along `next` from `job` back to itself, over at least one other job.
fn circle(folder: &SpecFolder, job: &Job, next: impl Fn(&Job) -> Vec<String>) -> Option<String> {
    let mut ways: Vec<Vec<String>> = vec![vec![job.name.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let last = way.last().map(String::as_str).unwrap_or_default();
            let of = match last == job.name {
                true => Some(job),
                false => folder.job_file(last).and_then(|file| file.model.as_ref()),
            };
            for name in of.map(&next).unwrap_or_default() {
                if name == job.name && way.len() > 1 {
                    return Some([way, vec![name]].concat().join(" -> "));
                }
                if name != job.name && seen.insert(name.clone()) {
                    longer.push([way.clone(), vec![name]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

/// `changes` adds a field, whose name no other may have.
fn added_field(folder: &SpecFolder, source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    const ADDED: &str = "update_type";
    let fields = names::field_names(folder, source, job);
    let dimensions = names::cell_names(folder, source, job);
    let own = fields.names.iter().chain(&dimensions.names);
    if job.changes.is_some() && own.into_iter().any(|name| name == ADDED) {
        found.push(
            source
                .key_fault(
                    "changes",
                    format!("it adds `{ADDED}`, and the records have a field of that name"),
                )
                .hint("rename that field in the provider's file, or the dimension"),
        );
    }
}

/// A trigger looks at the objects that a run would read; without any it never fires.
fn trigger(folder: &SpecFolder, source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    if job.trigger.is_none() {
        return;
    }
    let mut dimensions = job.split.values();
    let lists = dimensions.any(|d| matches!(d.values, DimensionValues::Object(_)));
    let providers = folder.providers_of(source, job);
    let mut models = providers.found.iter().filter_map(|p| p.model.as_ref());
    let reads = models.any(|p| p.source.as_ref().is_some_and(|s| s.get("s3").is_some()));
    if !lists && !reads && providers.missing.is_empty() {
        found.push(
            source
                .key_fault("trigger", "the job reads no objects, so new ones never start it")
                .hint("a trigger belongs to a provider with `source: {s3: ...}` or a dimension with `object:`"),
        );
    }
}

// --------------------------------------------------------------------------------------- providers

/// The names of the providers that cells of `job` may name; `None` when only a run can tell.
pub(super) fn provider_names(source: &Source, job: &Job) -> Option<BTreeSet<String>> {
    let Some(template) = &job.provider else {
        return Some(BTreeSet::new());
    };
    let used = jinja::template(template).ok()?;
    let mut contexts: Vec<Vec<(String, Value)>> = vec![vec![]];
    for (name, dimension) in &job.split {
        let rows = rows_of(source, name, dimension, &used)?;
        if rows.iter().all(Vec::is_empty) {
            continue;
        }
        contexts = contexts
            .iter()
            .flat_map(|c| rows.iter().map(move |row| [c.as_slice(), row].concat()))
            .collect();
        if contexts.len() > MOST_PROVIDERS {
            return None;
        }
    }
    let env = environment();
    contexts
        .into_iter()
        .map(|context| {
            let pairs = context.iter().map(|(k, v)| (k.clone(), value_of(v)));
            let values = minijinja::Value::from_pairs(pairs);
            env.render_str(template, values).ok()
        })
        .collect()
}

/// The distinct values that a dimension has for the names in `used`; one empty row when it has none of them.
fn rows_of(
    source: &Source,
    name: &str,
    dimension: &Dimension,
    used: &[String],
) -> Option<Vec<Vec<(String, Value)>>> {
    let is_used = |n: &str| used.iter().any(|u| u == n);
    if dimension.add.keys().any(|n| is_used(n)) {
        return None;
    }
    let own = |values: Vec<Value>| {
        Some(
            values
                .into_iter()
                .map(|v| vec![(name.to_owned(), v)])
                .collect(),
        )
    };
    match &dimension.values {
        DimensionValues::Rows { file } => {
            let table = Table::read(source.folder(), file).ok()?;
            Some(distinct_rows(&table, is_used))
        }
        DimensionValues::RecordsOf(records)
            if records.columns.is_empty() || records.columns.iter().any(|c| is_used(c)) =>
        {
            (!used.is_empty())
                .then_some(())
                .map_or(Some(vec![vec![]]), |()| None)
        }
        DimensionValues::Documents(DocumentsOf { columns, .. })
        | DimensionValues::Object(ObjectOf { columns, .. })
            if columns.iter().any(|c| is_used(c)) =>
        {
            None
        }
        DimensionValues::RecordsOf(_)
        | DimensionValues::Documents(_)
        | DimensionValues::Object(_) => Some(vec![vec![]]),
        _ if !is_used(name) => Some(vec![vec![]]),
        DimensionValues::List(values) => own(values.clone()),
        DimensionValues::File { file, column } => {
            let table = Table::read(source.folder(), file).ok()?;
            let place = table.column(column)?;
            own(table
                .rows
                .iter()
                .map(|(_, row)| Value::String(row[place].clone()))
                .collect())
        }
        DimensionValues::Range { first, last } if last.abs_diff(*first) < MOST_PROVIDERS as u64 => {
            own((*first..=*last).map(Value::from).collect())
        }
        DimensionValues::Range { .. } | DimensionValues::Dates { .. } => None,
    }
}

fn distinct_rows(table: &Table, is_used: impl Fn(&str) -> bool) -> Vec<Vec<(String, Value)>> {
    let mut rows: Vec<Vec<(String, Value)>> = Vec::new();
    for (_, row) in &table.rows {
        let pairs = table
            .columns
            .iter()
            .zip(row)
            .filter(|(column, _)| is_used(column));
        let pairs: Vec<(String, Value)> = pairs
            .map(|(c, v)| (c.clone(), Value::String(v.clone())))
            .collect();
        if !rows.contains(&pairs) {
            rows.push(pairs);
        }
    }
    rows
}

fn providers(folder: &SpecFolder, source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    if job.provider.is_none() {
        return;
    }
    let providers = folder.providers_of(source, job);
    found.extend(
        providers
            .missing
            .iter()
            .map(|name| folder.no_provider(source, name)),
    );
    let endpoint = job.endpoint.as_deref().unwrap_or_default();
    let has_it = |file: &&Sourced<Provider>| {
        let provider = file.model.as_ref();
        provider.is_some_and(|provider| provider.endpoints.contains_key(endpoint))
    };
    if providers.missing.is_empty() && providers.found.iter().all(has_it) {
        unused_dimensions(folder, source, job, &providers.found, found);
    }
    for file in providers.found {
        let Some(provider) = &file.model else {
            continue;
        };
        let lacks = |endpoint: &str| !provider.endpoints.contains_key(endpoint);
        if any_error(&file.found) && job.endpoint.as_deref().is_some_and(lacks) {
            // It may well be there, in a part that could not be read.
            found.push(wrong_file(source, &provider.name, &file.source.file));
        } else if endpoint_exists(source, job, provider, found) {
            provider_templates(folder, source, job, file, provider, found);
        }
    }
}

/// A dimension of several values that no call takes anything of: each call would be made, and paid, once for each of them.
fn unused_dimensions(
    folder: &SpecFolder,
    source: &Source,
    job: &Job,
    files: &[&Sourced<Provider>],
    found: &mut Vec<Diagnostic>,
) {
    let endpoint = job.endpoint.as_deref().unwrap_or_default();
    let of_calls = files.iter().flat_map(|file| &file.source.uses);
    let of_calls = of_calls.filter(|used| concerns(&used.spot, endpoint));
    let of_lanes = source.uses.iter().filter(|used| used.spot == Spot::Lane);
    let used: HashSet<&str> = of_calls
        .chain(of_lanes)
        .flat_map(|used| &used.names)
        .map(String::as_str)
        .collect();
    for (name, dimension) in &job.split {
        let known = names::dimension_names(folder, source, name, dimension);
        let takes = known.names.iter().any(|name| used.contains(name.as_str()));
        if known.open || takes || has_one_value(&dimension.values) {
            continue;
        }
        let message =
            format!("no call uses `{name}`: the same call is made once for each of its values");
        found.push(
            source
                .fault(&format!("split.{name}"), message)
                .hint("use it in the endpoint's request, or take it out of `split`")
                .warning(),
        );
    }
}

fn has_one_value(values: &DimensionValues) -> bool {
    match values {
        DimensionValues::List(list) => list.len() <= 1,
        DimensionValues::Dates { days, .. } => *days <= 1,
        DimensionValues::Range { first, last } => first >= last,
        _ => false,
    }
}

/// What the job needs from a provider's file is not to be had while that file is wrong.
pub(super) fn wrong_file(source: &Source, provider: &str, file: &str) -> Diagnostic {
    source
        .fault(
            "provider",
            format!("the file of provider `{provider}` is wrong: {file}"),
        )
        .hint("mend that file first: what this job needs from it cannot be looked at yet")
}

fn endpoint_exists(
    source: &Source,
    job: &Job,
    provider: &Provider,
    found: &mut Vec<Diagnostic>,
) -> bool {
    let Some(endpoint) = &job.endpoint else {
        return false;
    };
    let exists = provider.endpoints.contains_key(endpoint);
    if !exists {
        let known: Vec<&str> = provider.endpoints.keys().map(String::as_str).collect();
        let message = format!("provider `{}` has no endpoint `{endpoint}`", provider.name);
        found.push(source.fault("endpoint", message).hint(choose(
            endpoint,
            &known,
            "its endpoints",
        )));
    }
    exists
}

/// The names that the provider's templates use and a cell of the job must give.
fn provider_templates(
    folder: &SpecFolder,
    source: &Source,
    job: &Job,
    file: &Sourced<Provider>,
    provider: &Provider,
    found: &mut Vec<Diagnostic>,
) {
    let cell = names::cell_names(folder, source, job);
    let endpoint = job.endpoint.as_deref().unwrap_or_default();
    for used in file
        .source
        .uses
        .iter()
        .filter(|u| concerns(&u.spot, endpoint))
    {
        let names = Names {
            own: cell.names.clone(),
            open: cell.open,
            params: job.params.keys().cloned().collect(),
            credential: credential_fields(provider),
            fixed: fixed_names(&used.spot, provider.credentials.is_some(), has_parent(job)),
        };
        let what = format!(" (job `{}` uses this)", job.name);
        unknown_names(&file.source, used, &names, &what, found);
    }
}

/// Whether there is a run that `parent` stands for.
fn has_parent(job: &Job) -> bool {
    let reads = |d: &Dimension| matches!(d.values, DimensionValues::RecordsOf(_));
    job.after.is_some() || job.source.is_some() || job.split.values().any(reads)
}

/// Fields of a pool in the environment; a file's are not known here.
fn credential_fields(provider: &Provider) -> Option<Vec<String>> {
    let credentials = provider.credentials.as_ref()?;
    matches!(credentials.from, super::CredentialSource::Env(_)).then(|| credentials.fields.clone())
}

/// Whether a template of a provider is rendered for calls of `endpoint`.
pub(super) fn concerns(spot: &Spot, endpoint: &str) -> bool {
    match spot {
        Spot::Endpoint { endpoint: own, .. } => own == endpoint,
        Spot::Limit { endpoints } => {
            endpoints.is_empty() || endpoints.iter().any(|e| e == endpoint)
        }
        _ => true,
    }
}

// --------------------------------------------------------------------------------- the job's names

fn record_names(folder: &SpecFolder, source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    let records = names::own_records(folder, source, job);
    let columns = job
        .outputs
        .s3
        .columns
        .iter()
        .enumerate()
        .map(|(i, c)| (format!("outputs.s3.columns[{i}]"), c.as_str()));
    let mapped = job
        .outputs
        .index
        .iter()
        .flat_map(|index| index.mapping.keys());
    let mapped = mapped.map(|field| (format!("outputs.index.mapping.{field}"), field.as_str()));
    let changes = job.changes.iter().flat_map(|c| {
        let ignore = c
            .ignore
            .iter()
            .enumerate()
            .map(|(i, f)| (format!("changes.ignore[{i}]"), f.as_str()));
        let moved = c
            .moved
            .iter()
            .enumerate()
            .map(|(i, f)| (format!("changes.moved[{i}]"), f.as_str()));
        ignore.chain(moved)
    });
    let heatmap = job.view.as_ref().and_then(|view| view.get("heatmap"));
    let viewed = ["of", "x", "y", "value"].into_iter().filter_map(|key| {
        let name = heatmap?.get(key)?.as_str()?;
        Some((format!("view.heatmap.{key}"), name))
    });
    for (path, field) in columns.chain(changes).chain(mapped).chain(viewed) {
        let s3 = &job.outputs.s3;
        let of_merged = s3.merged.is_some() && path.starts_with("outputs.s3");
        // Of a merged object alone they are no names of records; beside `key` they may be either.
        let either = merged_columns(job).is_some_and(|columns| columns.contains(&field));
        if !of_merged || s3.key.is_some() && !either {
            not_known(
                source,
                &path,
                field,
                &records,
                "fields of its records",
                found,
            );
        }
    }
    if let Some(name) = &job.progress_by {
        let cell = names::cell_names(folder, source, job);
        not_known(source, "progress_by", name, &cell, "dimensions", found);
    }
    for (name, dimension) in &job.split {
        if let DimensionValues::RecordsOf(records) = &dimension.values {
            let theirs = names::job_records(folder, &records.job, 8);
            for (i, column) in records.columns.iter().enumerate() {
                not_known(
                    source,
                    &format!("split.{name}.records_of.columns[{i}]"),
                    column,
                    &theirs,
                    "fields of its records",
                    found,
                );
            }
        }
    }
}

fn job_templates(folder: &SpecFolder, source: &Source, job: &Job, found: &mut Vec<Diagnostic>) {
    for used in source.uses.iter().filter(|u| u.spot != Spot::Free) {
        let known = job_names(folder, source, job, &used.spot);
        let names = Names {
            own: known.names,
            open: known.open,
            params: job.params.keys().cloned().collect(),
            credential: None,
            fixed: fixed_names(&used.spot, false, has_parent(job)),
        };
        unknown_names(source, used, &names, "", found);
    }
}

fn job_names(folder: &SpecFolder, source: &Source, job: &Job, spot: &Spot) -> Known {
    match spot {
        Spot::Row { dimension, added } => row(folder, source, job, dimension, added),
        Spot::RowFilter { dimension } => {
            let added: Vec<String> = job
                .split
                .get(dimension)
                .into_iter()
                .flat_map(|d| d.add.keys().cloned())
                .collect();
            row(folder, source, job, dimension, &added)
        }
        Spot::RecordsOf { job } => names::job_records(folder, job, 8),
        Spot::Source => names::source_names(folder, job),
        Spot::Record => names::own_records(folder, source, job),
        Spot::RunOnly | Spot::LookUp => Known::default(),
        Spot::Notice => Known {
            names: NOTICE_NAMES.map(str::to_owned).into(),
            open: false,
        },
        _ => names::cell_names(folder, source, job),
    }
}

fn row(
    folder: &SpecFolder,
    source: &Source,
    job: &Job,
    dimension: &str,
    added: &[String],
) -> Known {
    let Some(found) = job.split.get(dimension) else {
        return Known {
            names: vec![],
            open: true,
        };
    };
    let mut known = names::row_names(folder, source, dimension, found);
    known.names.extend(added.iter().cloned());
    known
}

fn unknown_names(
    source: &Source,
    used: &TemplateUse,
    names: &Names,
    whose: &str,
    found: &mut Vec<Diagnostic>,
) {
    for name in used.names.iter().filter(|n| !names.holds(n)) {
        let all = names.all();
        let known: Vec<&str> = all.iter().map(String::as_str).collect();
        let message = format!("nothing gives `{name}` here{whose}");
        found.push(
            Diagnostic::error(&source.file, used.at, message).hint(choose(
                name,
                &known,
                "names here",
            )),
        );
    }
}
