//! The audit of ended runs, made once in the background when somebody looks, and remembered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::stores::objects::Listed;
use tokio::sync::Semaphore;

use crate::audit::{Report, audit};
use crate::run::RunFiles;
use crate::serve::Server;
use crate::show;

/// The largest ledger that is read for a page; beyond, `producer audit` reads it.
const LARGEST: u64 = 64 << 20;
/// Audits remembered.
const REMEMBERED: usize = 200;

/// How far an audit is.
#[derive(Clone)]
pub(super) enum Audit {
    /// It is being made.
    Pending,
    Done(Arc<Report>),
    /// There is none, and why.
    None(String),
}

/// What is known.
pub(super) struct Audits {
    known: Arc<Mutex<BTreeMap<(RunRef, jiff::Timestamp), Audit>>>,
    /// One at a time: an audit is work for a processor.
    room: Arc<Semaphore>,
}

impl Default for Audits {
    fn default() -> Self {
        Audits {
            known: Arc::default(),
            room: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Audits {
    /// The audit of a run that has ended; begins it when nobody has.
    pub(super) fn of(&self, server: &Arc<Server>, files: &RunFiles) -> Option<Audit> {
        let manifest = files.ended()?;
        // A retry that ends is audited again.
        let key = (files.plan.run_ref(), manifest.finished_at);
        let mut known = self.known.lock().ok()?;
        if let Some(audit) = known.get(&key) {
            return Some(audit.clone());
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key.clone(), Audit::Pending);
        let (server, plan) = (server.clone(), files.plan.clone());
        let (all, room) = (self.known.clone(), self.room.clone());
        tokio::spawn(async move {
            let Ok(_permit) = room.acquire().await else {
                return;
            };
            let made = make(&server, &plan).await;
            let made = made.unwrap_or_else(|error| Audit::None(format!("{error:#}")));
            if let Ok(mut all) = all.lock() {
                all.insert(key, made);
            }
        });
        Some(Audit::Pending)
    }
}

async fn make(server: &Server, plan: &paceline_protocol::plan::Plan) -> Result<Audit> {
    let layout = RunLayout::new(server.stores.prefix(), &plan.run_ref());
    let objects = server.stores.objects();
    let mut size = 0;
    let mut each = |listed: Listed| size += listed.size;
    objects.list_each(&layout.ledger(), &mut each).await?;
    if size > LARGEST {
        return Ok(Audit::None(format!(
            "the ledger has {} MiB: `producer audit {}` reads it",
            show::count(size >> 20),
            plan.run_ref()
        )));
    }
    Ok(Audit::Done(Arc::new(audit(objects, &layout, plan).await?)))
}
