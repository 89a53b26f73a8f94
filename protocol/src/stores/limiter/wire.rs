//! How an ask travels to the script and its answer back. The script derives no number of its own: what
//! a limit's rule means is said here, out of [`crate::limit::Pace`].

use std::collections::HashMap;

use serde::Serialize;

use crate::limit::{
    Answer, Ask, CLAIM_US, Closed, FORGOTTEN_US, FURTHEST_US, Grant, Group, Heard,
    IN_FLIGHT_AGAIN_US, Instance, LATEST_US, LEAD_US, LEASE_US, LEASES_BLIND_US, LONGEST_LEFT_US,
    Learned, Lease, Leases, Left, NEARER_US, Nearer, Numbers, PROBE_AGAIN_US, PROBE_US, Paced,
    PacedBy, Quota, RAMP_OVER_US, RAMP_US, Refusal, Rule, SAME_RESET_US, SCARCE_US, Slower, State,
    UNMARKED_WINDOW_US, Why, mark_step, whole_of, window_guard_us,
};

use super::LimiterError;

#[derive(Serialize)]
struct WireAsk<'a> {
    holder: &'a str,
    seq: u64,
    limits: Vec<WireLimit<'a>>,
    groups: Vec<WireGroup<'a>>,
    claims: Vec<&'a str>,
    latest: i64,
    furthest: i64,
    nearer: i64,
    scarce: i64,
    lease: i64,
    blind: i64,
    in_flight_again: i64,
    lead: i64,
    claim_ms: i64,
    probe: i64,
    probe_again: i64,
    ramp: i64,
    ramp_over: i64,
    forgotten: i64,
    keeps: bool,
    whole: &'a str,
    hold: String,
    most_charge: i64,
    same_reset: i64,
    longest_left: i64,
}

#[derive(Serialize)]
struct WireLimit<'a> {
    id: String,
    name: &'a str,
    text: String,
    #[serde(flatten)]
    rule: WireRule,
    #[serde(skip_serializing_if = "Option::is_none")]
    heard: Option<WireHeard>,
}

#[derive(Serialize)]
struct WireHeard {
    #[serde(skip_serializing_if = "Option::is_none")]
    numbers: Option<String>,
    fresh: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<WireLeft>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    back: Option<WireBack>,
    more: u64,
    late: i64,
}

#[derive(Serialize)]
struct WireBack {
    points: u64,
    of: i64,
}

#[derive(Serialize)]
struct WireLeft {
    calls: u64,
    of: i64,
    till: i64,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum WireRule {
    Paced {
        interval: i64,
        burst: i64,
        slack: i64,
        horizon: i64,
        period: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        point: Option<i64>,
    },
    Leases {
        calls: u64,
        held: u64,
    },
    Quota {
        calls: u64,
        opened: i64,
        closes: i64,
        guard: i64,
        marked: bool,
        near: u64,
    },
}

#[derive(Serialize)]
struct WireGroup<'a> {
    want: u32,
    limits: &'a [usize],
    choices: Vec<WireChoice<'a>>,
    spread: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    points: &'a [(usize, u64)],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    yields: bool,
}

#[derive(Serialize)]
struct WireChoice<'a> {
    name: &'a str,
    limits: &'a [usize],
}

/// The script's first argument.
pub(super) fn encode(ask: &Ask, seq: u64) -> String {
    let limits = ask
        .limits
        .iter()
        .enumerate()
        .map(|(index, limit)| wire_limit(ask, index, limit));
    let wire = WireAsk {
        holder: &ask.holder,
        seq,
        limits: limits.collect(),
        groups: ask.groups.iter().map(wire_group).collect(),
        claims: ask.claims.iter().map(|c| c.publication.as_str()).collect(),
        latest: LATEST_US,
        furthest: FURTHEST_US,
        nearer: NEARER_US,
        scarce: SCARCE_US,
        lease: LEASE_US,
        blind: LEASES_BLIND_US,
        in_flight_again: IN_FLIGHT_AGAIN_US,
        lead: LEAD_US,
        claim_ms: CLAIM_US / 1000,
        probe: PROBE_US,
        probe_again: PROBE_AGAIN_US,
        ramp: RAMP_US,
        ramp_over: RAMP_OVER_US,
        forgotten: FORGOTTEN_US,
        keeps: ask.keeps,
        whole: whole_of(&ask.provider),
        hold: hold_name(&ask.provider),
        most_charge: crate::limit::MOST_CHARGE_US,
        same_reset: SAME_RESET_US,
        longest_left: LONGEST_LEFT_US,
    };
    serde_json::to_string(&wire).expect("numbers and texts always serialise")
}

fn wire_limit<'a>(ask: &Ask, index: usize, limit: &'a Instance) -> WireLimit<'a> {
    WireLimit {
        id: limit.id(),
        name: &limit.limit,
        text: Numbers::of(&limit.rule).to_string(),
        rule: wire_rule(ask, index, limit),
        heard: ask.heard_of(index).map(wire_heard),
    }
}

fn wire_heard(heard: &Heard) -> WireHeard {
    WireHeard {
        numbers: heard.numbers.as_ref().map(encode_numbers),
        fresh: heard.fresh,
        next: heard.next_us,
        left: heard.left.map(|left| WireLeft {
            calls: left.calls,
            of: left.of_us,
            till: left.till_us,
        }),
        used: heard.used,
        back: heard.back.map(|back| WireBack {
            points: back.points,
            of: back.of_us,
        }),
        more: heard.more,
        late: heard.late_us,
    }
}

/// Where the hold of a whole provider lies.
pub(super) fn hold_name(provider: &str) -> String {
    format!("#hold{}", whole_of(provider))
}

/// Numbers with what the script needs of them: `<interval> <burst> <slack> <horizon> <period>|<text>`, or
/// `<calls> <near> 0 0 0|<text>`.
pub(super) fn encode_numbers(numbers: &Numbers) -> String {
    let rule = match *numbers {
        Numbers::Calls(calls) => {
            return format!("{calls} {} 0 0 0|{numbers}", mark_step(calls) / 2);
        }
        Numbers::Rate {
            calls,
            period_us,
            burst,
        } => Rule::Rate {
            calls,
            period_us,
            burst,
        },
        Numbers::Spacing { least_us } => Rule::Spacing { least_us },
        Numbers::Points {
            points,
            period_us,
            burst,
        } => Rule::Cost {
            points,
            period_us,
            burst,
        },
    };
    let pace = rule.pace().expect("these are paced");
    let first = match pace.point_ns {
        0 => pace.interval_us,
        point_ns => point_ns,
    };
    format!(
        "{first} {} {} {} {}|{numbers}",
        pace.burst_us, pace.slack_us, pace.horizon_us, pace.period_us
    )
}

/// Reads what [`encode_numbers`] wrote.
pub(super) fn read_numbers(text: &str) -> Option<Numbers> {
    text.split_once('|')?.1.parse().ok()
}

fn wire_rule(ask: &Ask, index: usize, limit: &Instance) -> WireRule {
    match limit.rule {
        Rule::Concurrency { calls } => WireRule::Leases {
            calls,
            held: ask.held_of(index),
        },
        Rule::Quota {
            calls,
            opened_us,
            closes_us,
        } => WireRule::Quota {
            calls,
            opened: opened_us,
            closes: closes_us,
            guard: window_guard_us(opened_us, closes_us),
            marked: closes_us - opened_us > UNMARKED_WINDOW_US,
            near: mark_step(calls) / 2,
        },
        Rule::Rate { .. } | Rule::Spacing { .. } | Rule::Cost { .. } => {
            let pace = limit.rule.pace().expect("these are paced");
            WireRule::Paced {
                interval: pace.interval_us,
                burst: pace.burst_us,
                slack: pace.slack_us,
                horizon: pace.horizon_us,
                period: pace.period_us,
                point: (pace.point_ns > 0).then_some(pace.point_ns),
            }
        }
    }
}

fn wire_group(group: &Group) -> WireGroup<'_> {
    WireGroup {
        want: group.want,
        limits: &group.limits,
        spread: group.spread,
        points: &group.points,
        yields: group.yields,
        choices: group
            .choices
            .iter()
            .map(|c| WireChoice {
                name: &c.name,
                limits: &c.limits,
            })
            .collect(),
    }
}

/// What the script returns.
pub(super) type WireAnswer = (
    i64,
    Vec<i64>,
    Vec<i64>,
    Vec<usize>,
    Vec<usize>,
    Vec<usize>,
    Vec<String>,
    bool,
);

/// Reads the script's reply.
pub(super) fn decode(ask: &Ask, reply: WireAnswer) -> Result<Answer, LimiterError> {
    let (now_us, grants, refusals, lost_claims, marks_wanted, resets, changed, scarce) = reply;
    let grants = grants.chunks(5).map(|row| read_grant(ask, now_us, row));
    let refusals = refusals.chunks(4).map(|row| read_refusal(now_us, row));
    Ok(Answer {
        now_us,
        grants: grants
            .collect::<Option<_>>()
            .ok_or_else(|| strange("grants"))?,
        refusals: refusals
            .collect::<Option<_>>()
            .ok_or_else(|| strange("refusals"))?,
        lost_claims,
        marks_wanted,
        resets,
        changed: changed
            .iter()
            .map(|text| read_changed(text))
            .collect::<Option<_>>()
            .ok_or_else(|| strange("changed numbers"))?,
        scarce,
    })
}

fn read_changed(text: &str) -> Option<(usize, Numbers)> {
    let (limit, numbers) = text.split_once(' ')?;
    Some((limit.parse().ok()?, numbers.parse().ok()?))
}

fn strange(what: &str) -> LimiterError {
    LimiterError::Reply(format!("its {what} are not rows of known numbers"))
}

fn read_grant(ask: &Ask, now_us: i64, row: &[i64]) -> Option<Grant> {
    let [group, choice, start, slack_us, probe] = *row else {
        return None;
    };
    let group = usize::try_from(group).ok()?;
    let credential = match usize::try_from(choice) {
        Ok(place) => Some(ask.groups.get(group)?.choices.get(place)?.credential),
        Err(_) => None,
    };
    Some(Grant {
        group,
        credential,
        start_us: now_us + start,
        slack_us,
        probe: probe == 1,
    })
}

fn read_refusal(now_us: i64, row: &[i64]) -> Option<Refusal> {
    let [group, limit, why, opens] = *row else {
        return None;
    };
    let why = match why {
        0 => Why::Paced,
        1 => Why::InFlight,
        2 => Why::Quota,
        3 => Why::Closed,
        4 => Why::Mark,
        5 => Why::Window,
        6 => Why::Dead,
        7 => Why::Held,
        8 => Why::Unset,
        9 => Why::Newer,
        _ => return None,
    };
    let key = limit == -2;
    let (group, limit) = (usize::try_from(group).ok()?, usize::try_from(limit).ok());
    Some(Refusal {
        group,
        limit,
        key,
        why,
        opens_us: now_us + opens,
    })
}

/// A hash as Redis returns it.
pub(super) type Fields = HashMap<String, String>;

/// Puts what Redis remembers of a limit into `state`.
pub(super) fn remember(state: &mut State, limit: &Instance, fields: &Fields) {
    let id = limit.id();
    match limit.rule {
        Rule::Rate { .. } | Rule::Spacing { .. } | Rule::Cost { .. } => {
            state
                .paced
                .extend(read_paced(fields).map(|paced| (id, paced)));
        }
        Rule::Concurrency { .. } => state.leases.extend(read_leases(fields).map(|l| (id, l))),
        Rule::Quota { .. } => state
            .quotas
            .extend(read_quota(fields).map(|quota| (id, quota))),
    }
}

fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> Option<T> {
    fields.get(name)?.parse().ok()
}

fn read_paced(fields: &Fields) -> Option<Paced> {
    Some(Paced {
        next_us: number(fields, "next")?,
        server: fields.get("id")?.clone(),
        period: number(fields, "period")?,
        used: number(fields, "used")?,
        used_before: number(fields, "before")?,
        by: fields
            .get("by")
            .and_then(|text| read_by(text))
            .unwrap_or(PacedBy {
                interval_us: 0,
                burst_us: 0,
                period_us: 1,
            }),
        since_us: number(fields, "since").unwrap_or(0),
        learned: fields
            .get("heard")
            .map(|text| read_learned(text))
            .unwrap_or_default(),
        nearer: fields.get("nearer").and_then(|text| read_nearer(text)),
    })
}

/// `<horizon> <until>`
fn read_nearer(text: &str) -> Option<Nearer> {
    let (horizon, until) = text.split_once(' ')?;
    Some(Nearer {
        horizon_us: horizon.parse().ok()?,
        until_us: until.parse().ok()?,
    })
}

/// `<interval> <burst> <period>`
fn read_by(text: &str) -> Option<PacedBy> {
    let mut parts = text.split(' ').map(|part| part.parse().ok());
    Some(PacedBy {
        interval_us: parts.next()??,
        burst_us: parts.next()??,
        period_us: parts.next()??,
    })
}

/// `<left or -1> <till us> <numbers>`
fn read_learned(text: &str) -> Learned {
    let mut parts = text.splitn(3, ' ');
    let mut left = || {
        let calls = parts.next()?.parse::<i64>().ok()?;
        let till_us = parts.next()?.parse().ok()?;
        let calls = u64::try_from(calls).ok()?;
        Some(Left { calls, till_us })
    };
    let left = left();
    let numbers = text.splitn(3, ' ').nth(2).and_then(read_numbers);
    Learned { numbers, left }
}

fn read_leases(fields: &Fields) -> Option<Leases> {
    let holders = fields
        .iter()
        .filter_map(|(name, text)| Some((name.clone(), read_lease(text)?)));
    Some(Leases {
        // Leases are of every layout.
        server: format!("{}{}", fields.get("#id")?, super::stamp()),
        opens_us: number(fields, "#opens")?,
        holders: holders.collect(),
        learned: fields.get("#heard").and_then(|text| read_numbers(text)),
    })
}

fn read_lease(text: &str) -> Option<Lease> {
    let mut parts = text.split(' ');
    let calls = parts.next()?.parse().ok()?;
    let expires_us = parts.next()?.parse().ok()?;
    let seq = parts.next()?.parse().ok()?;
    Some(Lease {
        calls,
        expires_us,
        seq,
    })
}

fn read_quota(fields: &Fields) -> Option<Quota> {
    Some(Quota {
        server: fields.get("id")?.clone(),
        opened_us: number(fields, "opened")?,
        count: number(fields, "count")?,
        mark: number(fields, "mark")?,
        lost_us: number(fields, "lost"),
        learned: fields.get("heard").and_then(|text| read_numbers(text)),
    })
}

/// Reads what is closed, as `closure.lua` writes it.
pub(super) fn read_closed(text: &str) -> Option<Closed> {
    let mut parts = text.split(' ');
    let mut number = || parts.next()?.parse::<i64>().ok();
    let mut closed = Closed {
        until_us: number()?,
        strikes: u32::try_from(number()?).ok()?,
        probe_us: number()?,
        ramp_us: number()?,
        next_us: number()?,
        ..Closed::default()
    };
    closed.reason = parts.next()?.to_owned();
    let mut number = || parts.next()?.parse::<i64>().ok();
    if let Some(start_us) = number() {
        closed.slower = Slower {
            start_us,
            mean_us: number()?,
            least_us: number()?,
            refused_us: number()?,
        };
    }
    Some(closed)
}

/// Writes a closure that [`read_closed`] reads, without what its ramps taught: it is put back where all is lost.
pub(super) fn encode_closed(closed: &Closed) -> String {
    format!(
        "{} {} {} {} {} {}",
        closed.until_us.max(0),
        closed.strikes,
        closed.probe_us,
        closed.ramp_us,
        closed.next_us,
        closed.reason
    )
}
