//! From cells that are ready to one request for grants: cells that draw from the same limits form a group.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use paceline_protocol::connector::cooldown::{self, DrawnLimit, Narrow};
use paceline_protocol::connector::{CallContext, NotRequestable, ScopeTemplate};
use paceline_protocol::limit::{
    Answer, Ask, Choice, ClaimRef, Group, Instance, NotALimit, Numbers, Refusal, Rule, instance,
};
use paceline_protocol::outcome::Verdict;
use paceline_protocol::spec::PoolUse;

use crate::collect::lane::held::ShardInHand;

/// A cell that is ready, taken out of its shard until the answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wish {
    /// The shard's key within the lane.
    pub held: u64,
    /// The cell.
    pub cell: u64,
}

/// One concurrency limit in one scope, of which a call holds a lease.
pub type LeaseKey = (String, String);

/// Calls in flight by the leases that they hold.
#[derive(Debug, Default)]
pub struct Leases {
    held: HashMap<LeaseKey, (Instance, u64)>,
}

impl Leases {
    /// A call took a lease of each.
    pub fn take(&mut self, leases: &[Instance]) {
        for lease in leases {
            let key = (lease.limit.clone(), lease.scope.clone());
            self.held.entry(key).or_insert_with(|| (lease.clone(), 0)).1 += 1;
        }
    }

    /// A call gave its leases back.
    pub fn give_back(&mut self, leases: &[Instance]) {
        for lease in leases {
            if let Some((_, count)) = self
                .held
                .get_mut(&(lease.limit.clone(), lease.scope.clone()))
            {
                *count -= 1;
            }
        }
    }

    fn count(&self, instance: &Instance) -> u64 {
        self.held
            .get(&(instance.limit.clone(), instance.scope.clone()))
            .map_or(0, |(_, count)| *count)
    }

    /// A request that renews all leases and claims and asks for nothing. Leases that are down to none are
    /// told once more and then forgotten.
    pub fn renewal(&mut self, provider: &str, holder: &str, claims: Vec<ClaimRef>) -> Ask {
        let mut limits = Vec::new();
        let mut held = Vec::new();
        for (instance, count) in self.held.values() {
            held.push((limits.len(), *count));
            limits.push(instance.clone());
        }
        self.held.retain(|_, (_, count)| *count > 0);
        Ask {
            limits,
            held,
            claims,
            ..Ask::nothing(provider, holder)
        }
    }
}

/// What was asked for, kept until the answer comes.
#[derive(Default)]
pub struct Asking {
    limits: Vec<Instance>,
    /// When the plan was made that each of them is from.
    planned_at: Vec<Timestamp>,
    /// How few calls each of them holds for.
    narrow: Vec<Narrow>,
    groups: Vec<AskedGroup>,
    /// Credentials of a pool that cannot serve now, since they have no token yet.
    pub without: BTreeSet<String>,
    /// Its calls come after those of more urgent runs elsewhere.
    pub yields: bool,
}

/// What the cells of a group have in common: they draw from the same limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kin {
    /// The run, as its grants are counted.
    run: String,
    /// The endpoint that all of its calls go to.
    endpoint: String,
    /// The credential that all of its cells are bound to.
    picked: Option<usize>,
    /// The rendered scopes that all of its cells share.
    scopes: Vec<String>,
}

impl Kin {
    /// That of a cell whose next call goes to `endpoint`; `picked` is the credential that alone may serve it.
    ///
    /// # Errors
    /// When a scope cannot be made for this cell: it has no call.
    pub fn of(
        shard: &ShardInHand,
        cell: u64,
        endpoint: String,
        picked: Option<usize>,
    ) -> Result<Self, WishError> {
        let scopes = cell_scopes(shard, cell, &endpoint, || {
            context_of(shard, cell, &endpoint)
        })?;
        Ok(Kin {
            run: shard.run.name.clone(),
            endpoint,
            picked,
            scopes,
        })
    }
}

fn context_of(shard: &ShardInHand, cell: u64, endpoint: &str) -> CallContext {
    let values = shard.run.plan.matrix.cell(cell);
    shard.at.connector.cell(values).of_endpoint(endpoint)
}

struct AskedGroup {
    group: Group,
    kin: Kin,
    /// The numbers of its run's plan, by place in the limits.
    planned: Vec<(usize, Numbers)>,
    wishes: VecDeque<Wish>,
    /// What a call with a credential draws from, by the credential's place in the pool.
    drawn: Vec<(Option<usize>, Arc<Drawn>)>,
}

/// What the calls of a new group draw from, by place in the limits.
#[derive(Default)]
struct Drawing {
    /// Points of a call.
    points: Vec<(usize, u64)>,
    /// The plan's numbers.
    planned: Vec<(usize, Numbers)>,
}

/// What a granted call draws from.
#[derive(Debug, PartialEq)]
pub struct Drawn {
    /// The concurrency limits of which it holds a lease.
    pub leases: Vec<Instance>,
    /// `limit=scope` of every limit that has a scope, for the ledger.
    pub scopes: Vec<String>,
    /// `limit=numbers` of every limit whose numbers are not those of the run's plan, for the ledger.
    pub allowed: Vec<String>,
    /// Every limit.
    pub limits: Vec<DrawnLimit>,
    /// The public name of the credential that serves it.
    pub credential: Option<String>,
    /// The names under which what the call draws from may be closed.
    pub names: Vec<String>,
}

impl Drawn {
    /// What it takes of each bucket of points, for the ledger.
    pub fn points(&self) -> Vec<String> {
        let costs = self
            .limits
            .iter()
            .map(|drawn| (&drawn.instance, drawn.points));
        let costs = costs.filter(|(limit, _)| matches!(limit.rule, Rule::Cost { .. }));
        costs
            .map(|(limit, points)| format!("{}={points}", limit.limit))
            .collect()
    }

    /// Of a call without limits.
    pub fn nothing() -> Self {
        Drawn {
            leases: Vec::new(),
            scopes: Vec::new(),
            allowed: Vec::new(),
            limits: Vec::new(),
            credential: None,
            names: Vec::new(),
        }
    }
}

impl Asking {
    /// Adds a cell of `kin`. `now_us` is the fleet's clock, which decides the calendar windows of quotas.
    ///
    /// # Errors
    /// When a limit cannot be made for this cell: it has no call.
    pub fn add(
        &mut self,
        wish: Wish,
        kin: Kin,
        shard: &ShardInHand,
        now_us: i64,
    ) -> Result<(), WishError> {
        if let Some(known) = self.groups.iter_mut().find(|g| g.kin == kin) {
            known.group.want += 1;
            known.wishes.push_back(wish);
            return Ok(());
        }
        let context = context_of(shard, wish.cell, &kin.endpoint);
        let (group, planned) = self.group(shard, &context, kin.picked, now_us)?;
        self.groups.push(AskedGroup {
            group,
            kin,
            planned,
            wishes: VecDeque::from([wish]),
            drawn: Vec::new(),
        });
        Ok(())
    }

    fn group(
        &mut self,
        shard: &ShardInHand,
        context: &CallContext,
        picked: Option<usize>,
        now_us: i64,
    ) -> Result<(Group, Vec<(usize, Numbers)>), WishError> {
        let mut drawing = Drawing::default();
        let limits = self.limits_of(shard, context, false, now_us, &mut drawing)?;
        let mut choices = Vec::new();
        let pool = shard.at.pool.credentials.iter().enumerate();
        let without = self.without.clone();
        let pool = pool.filter(|(_, with)| !without.contains(with.name()));
        for (credential, with) in pool.filter(|(place, _)| picked.is_none_or(|p| p == *place)) {
            let context = context.clone().with_credential(with);
            let own = self.limits_of(shard, &context, true, now_us, &mut drawing)?;
            choices.push(Choice {
                credential,
                name: with.name().to_owned(),
                limits: own,
            });
        }
        let spread = shard.at.pool.use_ == PoolUse::Spread;
        if spread && !choices.is_empty() {
            // Among equals the first is taken, so that is another one each time.
            let turn = rand::random::<u32>() as usize % choices.len();
            choices.rotate_left(turn);
        }
        let group = Group {
            yields: self.yields,
            spread,
            points: drawing.points,
            run: shard.run.name.clone(),
            want: 1,
            limits,
            choices,
        };
        Ok((group, drawing.planned))
    }

    /// The limits that depend on the credential, or those that do not.
    fn limits_of(
        &mut self,
        shard: &ShardInHand,
        context: &CallContext,
        by_credential: bool,
        now_us: i64,
        drawing: &mut Drawing,
    ) -> Result<Vec<usize>, WishError> {
        let connector = &shard.at.connector;
        let mut places = Vec::new();
        for (place, template) in connector.scopes_for(context.endpoint()) {
            if template.by_credential == by_credential {
                let scope = connector.scope(place, context)?;
                let instance = instance(&template.limit, &scope, now_us)?;
                let taken = connector.points(place, context)?;
                if let (Some(points), Rule::Cost { burst, .. }) = (taken, instance.rule)
                    && points > burst
                {
                    return Err(WishError::Dear {
                        limit: template.name.clone(),
                        points,
                        burst,
                    });
                }
                let numbers = Numbers::of(&instance.rule);
                let planned_at = shard.run.plan.planned_at;
                let limit = self.limit(instance, planned_at, Narrow::of(template));
                places.push(limit);
                drawing.planned.push((limit, numbers));
                drawing.points.extend(taken.map(|points| (limit, points)));
            }
        }
        Ok(places)
    }

    /// The place of `instance`. A limit is asked for once, however many plans have it: its state would be read and written
    /// as often, each time without the others' calls. Of plans with other numbers the newest one's hold.
    fn limit(&mut self, instance: Instance, planned_at: Timestamp, narrow: Narrow) -> usize {
        let same =
            |known: &Instance| known.limit == instance.limit && known.scope == instance.scope;
        let Some(place) = self.limits.iter().position(same) else {
            self.limits.push(instance);
            self.planned_at.push(planned_at);
            self.narrow.push(narrow);
            return self.limits.len() - 1;
        };
        if planned_at > self.planned_at[place] {
            self.limits[place] = instance;
            self.planned_at[place] = planned_at;
            self.narrow[place] = narrow;
        }
        place
    }

    /// Of the cells that draw from the same limits those of the shard that has been in hand for longest come first: however
    /// many shards there are, the blocks that a crash would lose stay few.
    pub fn oldest_first(&mut self) {
        for asked in &mut self.groups {
            let wishes = asked.wishes.make_contiguous();
            wishes.sort_by_key(|wish| wish.held);
        }
    }

    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The request.
    pub fn ask(&self, provider: &str, holder: &str, leases: &Leases, claims: Vec<ClaimRef>) -> Ask {
        let concurrent = |limit: &Instance| matches!(limit.rule, Rule::Concurrency { .. });
        let held = self
            .limits
            .iter()
            .enumerate()
            .filter(|(_, l)| concurrent(l))
            .map(|(i, l)| (i, leases.count(l)))
            .collect();
        Ask {
            limits: self.limits.clone(),
            held,
            groups: self.groups.iter().map(|g| g.group.clone()).collect(),
            claims,
            ..Ask::nothing(provider, holder)
        }
    }

    /// Takes over the numbers by which the answer was decided.
    pub fn numbers_in_force(&mut self, answer: &Answer) {
        for (place, numbers) in &answer.changed {
            if let Some(limit) = self.limits.get_mut(*place)
                && let Some(rule) = numbers.put_into(&limit.rule)
            {
                limit.rule = rule;
            }
        }
    }

    /// Every limit that was asked for.
    pub fn limits(&self) -> &[Instance] {
        &self.limits
    }

    /// The limit at `place`.
    pub fn limit_at(&self, place: usize) -> Option<&Instance> {
        self.limits.get(place)
    }

    /// How many calls were asked for.
    pub fn wanted(&self) -> usize {
        self.groups.iter().map(|g| g.group.want as usize).sum()
    }

    /// How many groups.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Whether the cells of `group` draw from other limits than those of other groups.
    pub fn is_scoped(&self, group: usize) -> bool {
        self.groups
            .get(group)
            .is_some_and(|g| !g.kin.scopes.is_empty())
    }

    /// The name of what a refusal of a key or of a limit is about.
    pub fn refused_name(&self, refusal: &Refusal) -> Option<String> {
        let group = self.groups.get(refusal.group)?;
        match refusal.limit {
            Some(limit) => self.limit_at(limit).map(Instance::id),
            None if refusal.key => group.group.choices.first().map(|c| c.name.clone()),
            None => None,
        }
    }

    /// The next cell of `group`, for a grant with `credential`; with what the call draws from.
    pub fn grant(&mut self, group: usize, credential: Option<usize>) -> Option<(Wish, Arc<Drawn>)> {
        let asked = self.groups.get_mut(group)?;
        let wish = asked.wishes.pop_front()?;
        if let Some((_, drawn)) = asked.drawn.iter().find(|(known, _)| *known == credential) {
            return Some((wish, drawn.clone()));
        }
        let drawn = Arc::new(asked.drawn_with(credential, &self.limits, &self.narrow));
        asked.drawn.push((credential, drawn.clone()));
        Some((wish, drawn))
    }

    /// The cells that got no grant, in their order, with their group's number and kin.
    pub fn ungranted(self) -> impl Iterator<Item = (usize, Kin, VecDeque<Wish>)> {
        let groups = self.groups.into_iter().enumerate();
        groups.map(|(number, group)| (number, group.kin, group.wishes))
    }
}

impl AskedGroup {
    fn drawn_with(
        &self,
        credential: Option<usize>,
        limits: &[Instance],
        narrow: &[Narrow],
    ) -> Drawn {
        let chosen = credential.and_then(|c| {
            self.group
                .choices
                .iter()
                .find(|choice| choice.credential == c)
        });
        let places = self
            .group
            .limits
            .iter()
            .chain(chosen.into_iter().flat_map(|choice| &choice.limits));
        let places: Vec<usize> = places.copied().collect();
        let drawn: Vec<&Instance> = places.iter().filter_map(|p| limits.get(*p)).collect();
        let all: Vec<DrawnLimit> = places
            .iter()
            .filter_map(|p| {
                Some(DrawnLimit {
                    instance: limits.get(*p)?.clone(),
                    points: self.group.points_of(*p),
                    narrow: *narrow.get(*p)?,
                })
            })
            .collect();
        let concurrent = |limit: &&&Instance| matches!(limit.rule, Rule::Concurrency { .. });
        // As operators set them, answers told them, or a newer plan has them.
        let in_force = self.planned.iter().filter_map(|(place, planned)| {
            let (limit, drawn) = (limits.get(*place)?, places.contains(place));
            let numbers = Numbers::of(&limit.rule);
            (drawn && numbers != *planned).then(|| format!("{}={numbers}", limit.limit))
        });
        let scoped = drawn.iter().filter(|limit| !limit.scope.is_empty());
        Drawn {
            leases: drawn
                .iter()
                .filter(concurrent)
                .map(|limit| (*limit).clone())
                .collect(),
            scopes: scoped
                .map(|limit| format!("{}={}", limit.limit, limit.scope))
                .collect(),
            allowed: in_force.collect(),
            credential: chosen.map(|choice| choice.name.clone()),
            names: cooldown::names(&all, chosen.map(|choice| choice.name.as_str())),
            limits: all,
        }
    }
}

/// The scopes that tell cells apart: none when every cell of the run draws from the same limits. A scope
/// of cell and credential together is known only with a credential: such a cell stands alone.
fn cell_scopes(
    shard: &ShardInHand,
    cell: u64,
    endpoint: &str,
    context: impl Fn() -> CallContext,
) -> Result<Vec<String>, NotRequestable> {
    let connector = &shard.at.connector;
    let mut by_cell = connector
        .scopes_for(endpoint)
        .filter(|(_, scope)| scope.by_cell || scope.points_by_cell)
        .peekable();
    if by_cell.peek().is_none() {
        return Ok(Vec::new());
    }
    let context = context();
    let scope = |(place, template): (usize, &ScopeTemplate)| {
        if template.by_credential {
            return Ok(cell.to_string());
        }
        let scope = connector.scope(place, &context)?;
        Ok(match connector.points(place, &context)? {
            Some(points) => format!("{scope}={points}"),
            None => scope,
        })
    };
    by_cell.map(scope).collect()
}

/// The place of the credential that `pick` names for a cell; `None` when any of the pool may serve it.
///
/// # Errors
/// When the pool has none of that name.
pub fn picked(shard: &ShardInHand, cell: u64) -> Result<Option<usize>, WishError> {
    let context = || {
        let values = shard.run.plan.matrix.cell(cell);
        shard.at.connector.cell(values)
    };
    if !shard.at.connector.picks() {
        return Ok(None);
    }
    let Some(name) = shard.at.connector.pick(&context()).transpose()? else {
        return Ok(None);
    };
    match shard.at.pool.places.get(&name) {
        Some(place) => Ok(Some(*place)),
        None => Err(WishError::NoCredential(name)),
    }
}

/// Why a cell cannot even be asked for.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    /// Its scope cannot be rendered.
    #[error(transparent)]
    Scope(#[from] NotRequestable),
    /// Nobody can serve it.
    #[error("the file of credentials has none called {0:?}")]
    NoCredential(String),
    /// Who alone can serve it is not accepted any more.
    #[error("the provider does not accept credential {credential} ({reason})")]
    Dead {
        /// Whose.
        credential: String,
        /// Why it is closed, in one word.
        reason: String,
    },
    /// Who alone can serve it got no token.
    #[error("no token or session for credential {credential}: {}", verdict.reason)]
    NoToken {
        /// Whose.
        credential: String,
        /// What the last try came to.
        verdict: Verdict,
    },
    /// It costs more than its bucket ever holds.
    #[error(
        "limit `{limit}`: the call costs {points} points, and its bucket holds {burst} at most"
    )]
    Dear {
        /// The limit.
        limit: String,
        /// What it costs.
        points: u64,
        /// The bucket.
        burst: u64,
    },
    /// Its limit cannot be counted.
    #[error(transparent)]
    Limit(#[from] NotALimit),
}
