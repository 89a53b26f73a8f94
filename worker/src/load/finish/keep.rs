//! Which old indices go.

use std::collections::BTreeSet;

use jiff::Timestamp;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::spec::IndexMode;
use serde_json::Value;

use super::super::LoadError;
use super::Finish;

/// An index that says it was made for a run of this job in this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnIndex {
    name: String,
    run: RunId,
    planned_at: Timestamp,
    /// Whether its run was good.
    is_good: bool,
}

impl Finish<'_> {
    /// Deletes the oldest finished indices of the job beyond `keep`.
    pub(super) async fn remove_old_indices(&self) -> Result<(), LoadError> {
        let Some(output) = self.run.output().filter(|o| o.mode == IndexMode::Snapshot) else {
            return Ok(());
        };
        let stores = &self.loader.stores;
        let (namespace, job) = (&stores.fleet.namespace, &self.run.run.job);
        let metas = stores.index.metas(&format!("{}-*", output.name)).await?;
        let own = metas
            .iter()
            .filter_map(|(name, meta)| own_index(name, meta, namespace, job));
        let mut finished = Vec::new();
        for mut index in own {
            let run = RunRef {
                job: job.clone(),
                run: index.run.clone(),
            };
            if run == self.run.run || stores.open_run(&run).await?.is_none() {
                let success = RunLayout::new(&stores.fleet.prefix, &run).success();
                index.is_good = stores.objects.head(&success).await?.is_some();
                finished.push(index);
            }
        }
        let live: BTreeSet<String> = stores
            .index
            .behind(&output.name)
            .await?
            .into_iter()
            .collect();
        for name in beyond_keep(finished, &live, output.keep) {
            stores.index.delete(&name).await?;
            tracing::info!(index.name = name, "removed an old index");
        }
        Ok(())
    }
}

/// The index by its own mapping; `None` when it names another namespace or job, or nothing at all.
fn own_index(name: &str, meta: &Value, namespace: &str, job: &str) -> Option<OwnIndex> {
    let meta = meta.get("paceline")?;
    let text = |key: &str| meta.get(key).and_then(Value::as_str);
    (text("namespace")? == namespace && text("job")? == job).then_some(())?;
    Some(OwnIndex {
        name: name.to_owned(),
        run: text("run")?.parse().ok()?,
        planned_at: text("planned_at")?.parse().ok()?,
        is_good: false,
    })
}

/// What goes so that `keep` finished indices stay: the live ones, and of the others first those of good runs, then the
/// newest.
fn beyond_keep(mut finished: Vec<OwnIndex>, live: &BTreeSet<String>, keep: u32) -> Vec<String> {
    finished
        .sort_by(|a, b| (b.is_good, b.planned_at, &b.run).cmp(&(a.is_good, a.planned_at, &a.run)));
    let is_live = |index: &OwnIndex| live.contains(&index.name);
    let alive = finished.iter().filter(|index| is_live(index)).count();
    let room = (keep as usize).saturating_sub(alive);
    let others = finished.iter().filter(|index| !is_live(index));
    others.skip(room).map(|index| index.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn index(day: i64) -> OwnIndex {
        OwnIndex {
            name: format!("fares-{day}"),
            run: day.to_string().parse().expect("a run id"),
            planned_at: Timestamp::from_second(day * 86_400).expect("in range"),
            is_good: true,
        }
    }

    #[test]
    fn the_live_index_always_stays_and_the_newest_beside_it() {
        let all = || (1..=5).map(index).collect::<Vec<_>>();
        let live = |name: &str| BTreeSet::from([name.to_owned()]);
        assert_eq!(
            beyond_keep(all(), &live("fares-5"), 3),
            ["fares-2", "fares-1"]
        );
        assert_eq!(
            beyond_keep(all(), &live("fares-1"), 2),
            ["fares-4", "fares-3", "fares-2"]
        );
        assert_eq!(
            beyond_keep(all(), &live("fares-5"), 0),
            ["fares-4", "fares-3", "fares-2", "fares-1"]
        );
        assert!(beyond_keep(all(), &live("fares-5"), 9).is_empty());
    }

    #[test]
    fn a_run_that_failed_takes_no_good_ones_place() {
        let mut all: Vec<OwnIndex> = (1..=4).map(index).collect();
        all[2].is_good = false;
        let live = BTreeSet::from(["fares-4".to_owned()]);
        assert_eq!(beyond_keep(all.clone(), &live, 2), ["fares-1", "fares-3"]);
        assert_eq!(beyond_keep(all, &live, 3), ["fares-3"]);
    }

    #[test]
    fn only_an_index_that_names_us_is_ours() {
        let meta = |namespace: &str, job: &str| {
            json!({ "paceline": {
            "namespace": namespace, "job": job, "run": "r1", "planned_at": "2026-11-21T00:00:00Z" }})
        };
        let ours = |meta: Value| own_index("fares-r1", &meta, "paceline", "fares").is_some();
        assert!(ours(meta("paceline", "fares")));
        assert!(!ours(meta("staging", "fares")));
        assert!(!ours(meta("paceline", "hotels")));
        assert!(!ours(json!({})));
        assert!(!ours(json!(null)));
    }
}
