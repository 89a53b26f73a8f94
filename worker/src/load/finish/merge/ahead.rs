//! S3 beside the merge's thread: parts are fetched while the one before is looked at, and written while the
//! next one is made.

use std::collections::VecDeque;

use bytes::Bytes;
use paceline_protocol::stores::objects::{Object, ObjectError};
use tokio_util::task::AbortOnDropHandle;

use super::super::super::LoadError;
use super::{Collected, Merge, Part};

/// Objects under way at once, in each direction: this many small ones.
const AT_ONCE: usize = 32;
/// Records of the parts that are fetched ahead, beyond the first.
const RECORDS_AHEAD: u64 = 40_000;
/// Bytes of the objects that are being written, beyond the first.
const BYTES_AHEAD: usize = 8 << 20;

type UnderWay<T> = AbortOnDropHandle<Result<T, ObjectError>>;

/// Parts with their numbers, fetched ahead of whoever asks for them.
pub(super) struct Ahead<'m> {
    merge: &'m Merge,
    parts: Box<dyn Iterator<Item = (u32, &'m Part)> + 'm>,
    under_way: VecDeque<(u32, &'m Part, UnderWay<Option<Object>>)>,
}

/// Objects that are being written.
pub(super) struct Puts<'m> {
    merge: &'m Merge,
    under_way: VecDeque<(usize, UnderWay<()>)>,
}

impl Merge {
    /// The parts in order; with `empty`, also those without records.
    pub(super) fn parts_ahead(&self, empty: bool) -> Ahead<'_> {
        let parts = (0u32..).zip(&self.parts);
        Ahead {
            merge: self,
            parts: Box::new(parts.filter(move |(_, part)| empty || part.summary.records > 0)),
            under_way: VecDeque::new(),
        }
    }

    pub(super) fn puts(&self) -> Puts<'_> {
        Puts {
            merge: self,
            under_way: VecDeque::new(),
        }
    }

    /// Waits for what runs beside the thread.
    fn ended<T>(&self, task: UnderWay<T>) -> Result<T, LoadError> {
        self.go_on()?;
        match self.runtime.block_on(task) {
            Ok(done) => Ok(done?),
            Err(ended) => Err(LoadError::Unsupported(format!("merging: {ended}"))),
        }
    }
}

impl<'m> Ahead<'m> {
    fn fetch_more(&mut self) {
        while self.under_way.len() < AT_ONCE && self.records() < RECORDS_AHEAD {
            let Some((number, part)) = self.parts.next() else {
                return;
            };
            let (objects, key) = (self.merge.objects.clone(), self.merge.key(part));
            let task = async move { objects.get(&key).await };
            let task = AbortOnDropHandle::new(self.merge.runtime.spawn(task));
            self.under_way.push_back((number, part, task));
        }
    }

    fn records(&self) -> u64 {
        self.under_way
            .iter()
            .map(|(_, p, _)| p.summary.records)
            .sum()
    }
}

impl<'m> Iterator for Ahead<'m> {
    type Item = Result<(u32, &'m Part, Collected), LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fetch_more();
        let (number, part, task) = self.under_way.pop_front()?;
        let got = self.merge.ended(task);
        let read = got.and_then(|object| self.merge.read(part, object));
        Some(read.map(|collected| (number, part, collected)))
    }
}

impl Puts<'_> {
    /// Writes an object; waits for the oldest one when too many are under way.
    pub(super) fn put(
        &mut self,
        key: String,
        body: Bytes,
        metadata: Vec<(&'static str, String)>,
    ) -> Result<(), LoadError> {
        while self.under_way.len() >= AT_ONCE || self.bytes() >= BYTES_AHEAD {
            self.wait_for_one()?;
        }
        let size = body.len();
        let objects = self.merge.objects.clone();
        let task = async move { objects.put(&key, body, &metadata).await };
        let task = AbortOnDropHandle::new(self.merge.runtime.spawn(task));
        self.under_way.push_back((size, task));
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.under_way.iter().map(|(size, _)| size).sum()
    }

    /// Waits for all.
    pub(super) fn finish(mut self) -> Result<(), LoadError> {
        while !self.under_way.is_empty() {
            self.wait_for_one()?;
        }
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<(), LoadError> {
        match self.under_way.pop_front() {
            Some((_, oldest)) => self.merge.ended(oldest),
            None => Ok(()),
        }
    }
}
