//! What a run takes of its providers' allowance: the time of each lane, the share of each quota.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use paceline_protocol::limit::quota_window;
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{CalendarWindow, Endpoint, Limit, LimitRule, Provider};

use super::course::{Drawn, Work, course};
use super::estimate::{LaneEstimate, QuotaShare};
use super::past::Expected;
use super::scopes::{Spread, spread};

/// What is known when a run is estimated.
pub(super) struct Known<'a, E: ?Sized> {
    pub(super) plan: &'a Plan,
    /// Counts the pools.
    pub(super) env: &'a E,
    /// What a past run tells.
    pub(super) expected: Option<&'a Expected>,
    /// When the run would start.
    pub(super) starts: Timestamp,
}

impl<E: Environment + ?Sized> Known<'_, E> {
    /// All calls, as a past run tells, never fewer than each cell needs.
    pub(super) fn calls(&self) -> u64 {
        let names = self.plan.providers.keys();
        names.map(|name| self.calls_at(name)).sum()
    }

    fn calls_at(&self, provider: &str) -> u64 {
        let of_it = self.plan.segments.iter().filter(|s| s.provider == provider);
        let cells: u64 = of_it.map(|s| s.cells).sum();
        let declared = self.plan.providers.get(provider);
        let least = cells * declared.map_or(1, |p| calls_of_cell(self.plan, p));
        let per_cell = self.expected.map_or(0.0, |e| e.calls_per_cell);
        least.max((cells as f64 * per_cell).round() as u64)
    }

    /// Each lane; a provider has one.
    pub(super) fn lanes(&self) -> Vec<LaneEstimate> {
        let lanes = self.plan.lanes();
        lanes
            .into_iter()
            .filter_map(|lane| self.lane(lane))
            .collect()
    }

    fn lane(&self, lane: &str) -> Option<LaneEstimate> {
        let segment = self.plan.segments.iter().find(|s| s.lane == lane)?;
        let provider = self.plan.providers.get(&segment.provider)?;
        let work = self.work(provider);
        let calls = work.calls;
        let course = course(&work, self.starts);
        let binds = course.map(|c| &work.limits[c.binds].limit.name);
        Some(LaneEstimate {
            lane: lane.to_owned(),
            calls,
            seconds: course.map(|c| c.seconds),
            binds: binds.map(|name| format!("{}/{name}", provider.name)),
        })
    }

    fn work(&self, provider: &Provider) -> Work {
        let calls = self.calls_at(&provider.name);
        let limits = provider.limits.iter().filter_map(|limit| {
            let load = self.spread(provider, limit)?.load * self.with_others(limit, calls);
            Some(Drawn {
                limit: limit.clone(),
                load,
            })
        });
        Work {
            calls,
            call_s: self.expected.and_then(|e| e.call_s),
            limits: limits.collect(),
        }
    }

    /// How the lane's calls spread over a limit, of those that draw from it at all.
    fn spread(&self, provider: &Provider, limit: &Limit) -> Option<Spread> {
        let drawing = self.drawing(limit);
        let name = format!("{}/{}", provider.name, limit.name);
        let told = self.expected.and_then(|e| e.points_per_call.get(&name));
        let spread = spread(self.plan, provider, limit, told.copied(), self.env)?;
        let load = spread.load * drawing;
        (load > 0.0).then_some(Spread { load, ..spread })
    }

    /// The share of the calls that draw from `limit`: those of its endpoints.
    fn drawing(&self, limit: &Limit) -> f64 {
        let endpoint = self.plan.job.endpoint.as_deref().unwrap_or_default();
        let told = self.expected.filter(|e| !e.by_endpoint.is_empty());
        let Some(told) = told else {
            return if limit.holds_for(endpoint) { 1.0 } else { 0.0 };
        };
        let all: f64 = told.by_endpoint.values().sum();
        let held = told
            .by_endpoint
            .iter()
            .filter(|(name, _)| limit.holds_for(name));
        held.map(|(_, calls)| calls).sum::<f64>() / all
    }

    /// How many times as much a shared limit gives all of its providers as the one with `calls`.
    fn with_others(&self, limit: &Limit, calls: u64) -> f64 {
        if limit.shared.is_none() || calls == 0 {
            return 1.0;
        }
        let shares = |p: &&Provider| p.limits.iter().any(|l| l.shared == limit.shared);
        let sharing = self.plan.providers.values().filter(shares);
        let all: u64 = sharing.map(|p| self.calls_at(&p.name)).sum();
        all as f64 / calls as f64
    }

    /// The share of each quota that the run draws from.
    pub(super) fn quotas(&self) -> Vec<QuotaShare> {
        let providers = self.plan.providers.values();
        let all = providers.flat_map(|p| p.limits.iter().map(move |l| (p, l)));
        all.filter_map(|(provider, limit)| self.quota(provider, limit))
            .collect()
    }

    fn quota(&self, provider: &Provider, limit: &Limit) -> Option<QuotaShare> {
        let LimitRule::Quota {
            calls: allowed,
            window,
            resets_at,
            zone,
        } = &limit.rule
        else {
            return None;
        };
        let spread = self.spread(provider, limit)?;
        let calls = self.calls_at(&provider.name);
        let load = spread.load * self.with_others(limit, calls);
        let from_us = self.starts.as_microsecond();
        let closes = quota_window(*window, *resets_at, zone, from_us).ok();
        let resets = closes.and_then(|(_, at)| Timestamp::from_microsecond(at).ok());
        let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
        let of_key = limit
            .per
            .as_deref()
            .is_some_and(|per| per.contains("credential"));
        let pool = crate::pool::names(provider, self.env).map(|keys| keys.len() as u64);
        Some(QuotaShare {
            provider: provider.name.clone(),
            limit: limit.name.clone(),
            allowed: *allowed,
            scopes: spread.scopes,
            pool: pool.filter(|_| of_key),
            share: calls as f64 * load / *allowed as f64,
            resets: resets.map(|at| at.to_zoned(zone)),
            is_pace: *window == CalendarWindow::Minute,
        })
    }
}

/// The endpoint that the job calls at `provider`.
pub(super) fn endpoint_of<'p>(plan: &Plan, provider: &'p Provider) -> Option<&'p Endpoint> {
    provider.endpoints.get(plan.job.endpoint.as_deref()?)
}

/// Calls that a cell needs at least.
fn calls_of_cell(plan: &Plan, provider: &Provider) -> u64 {
    endpoint_of(plan, provider).map_or(1, |e| (e.each.len() as u64).max(1))
}
