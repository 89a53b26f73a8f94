//! Ended runs that were looked at lately, with what their pages need: a manifest may name half a million parts,
//! and is read once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::PartName;
use paceline_protocol::manifest::Manifest;

use super::board::Seen;
use crate::run::RunFiles;
use crate::serve::Server;

/// How many are remembered.
const REMEMBERED: usize = 8;

/// A run that is not open.
pub(super) struct Closed {
    /// Its files; the manifest without its parts.
    pub(super) files: RunFiles,
    /// Cells of its parts by shard.
    pub(super) covered: BTreeMap<u64, u64>,
}

/// Those that were looked at last.
#[derive(Default)]
pub(super) struct Lately(Mutex<VecDeque<Arc<Closed>>>);

impl Lately {
    /// Reads a run, or takes it from memory while the board knows the same end of it.
    pub(super) async fn of(
        &self,
        server: &Server,
        seen: &Seen,
        run: &RunRef,
    ) -> Result<Option<Arc<Closed>>> {
        let end = seen.ended.get(run).and_then(|ended| ended.finished_at);
        if let Some(known) = end.and_then(|end| self.known(run, end)) {
            return Ok(Some(known));
        }
        let Some(mut files) = RunFiles::read(&server.stores.archive, run).await? else {
            return Ok(None);
        };
        let covered = files
            .manifest
            .as_ref()
            .map(covered_cells)
            .unwrap_or_default();
        if let Some(manifest) = &mut files.manifest {
            manifest.parts = Vec::new();
        }
        let closed = Arc::new(Closed { files, covered });
        if closed.files.ended().is_some()
            && let Ok(mut all) = self.0.lock()
        {
            all.retain(|other| other.files.plan.run_ref() != *run);
            all.push_front(closed.clone());
            all.truncate(REMEMBERED);
        }
        Ok(Some(closed))
    }

    fn known(&self, run: &RunRef, end: Timestamp) -> Option<Arc<Closed>> {
        let all = self.0.lock().ok()?;
        let same = |closed: &&Arc<Closed>| {
            let manifest = closed.files.ended();
            closed.files.plan.run_ref() == *run && manifest.is_some_and(|m| m.finished_at == end)
        };
        all.iter().find(same).cloned()
    }
}

/// Of a block that has parts of several rounds the first one counts.
fn covered_cells(manifest: &Manifest) -> BTreeMap<u64, u64> {
    let mut covered: BTreeMap<u64, u64> = BTreeMap::new();
    let mut seen: BTreeSet<(u64, u32)> = BTreeSet::new();
    for part in &manifest.parts {
        if let Some((shard, name)) = PartName::from_key(&part.key)
            && seen.insert((shard, name.block))
        {
            *covered.entry(shard).or_default() += part.cells;
        }
    }
    covered
}
