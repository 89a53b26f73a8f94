//! Which limits one call draws from.

use anyhow::Result;
use paceline_protocol::connector::cooldown::{DrawnLimit, Narrow};
use paceline_protocol::connector::{CallContext, Connector};
use paceline_protocol::limit::{Rule, instance};

/// The limits that depend on the credential, or those that do not. Those whose scope cannot be named are left out
/// where that is asked for.
///
/// # Errors
/// When a scope or number cannot be rendered, or the call costs more than its bucket holds.
pub(super) fn drawn(
    connector: &Connector,
    context: &CallContext,
    by_credential: bool,
    lenient: bool,
    now_us: i64,
) -> Result<Vec<DrawnLimit>> {
    let mut all = Vec::new();
    for (place, template) in connector.scopes_for(context.endpoint()) {
        if template.by_credential != by_credential {
            continue;
        }
        let named = connector.scope(place, context);
        let points = connector.points(place, context);
        let (scope, points) = match (named, points) {
            (Ok(scope), Ok(points)) => (scope, points),
            (Err(_), _) | (_, Err(_)) if lenient => continue,
            (scope, points) => (scope?, points?),
        };
        let instance = instance(&template.limit, &scope, now_us)?;
        if let (Some(points), Rule::Cost { burst, .. }) = (points, instance.rule) {
            anyhow::ensure!(
                points <= burst,
                "limit `{}`: the call costs {points} points, and its bucket holds {burst} at most",
                template.name
            );
        }
        all.push(DrawnLimit {
            instance,
            points: points.unwrap_or(1),
            narrow: Narrow::of(template),
        });
    }
    Ok(all)
}
