//! `${NAME}` in what a call is made of. The plan keeps the names, so that no secret lies in it; whoever
//! makes the calls puts the values in, each as a literal of its template: what it holds is never read as one.

use serde_json::Value;

use crate::plan::Plan;
use crate::settings::Environment;
use crate::spec::{Job, MissingNames, Provider, expand_env};

/// `plan` as this process calls its endpoint at `provider`; `None` when nothing in it names the environment.
///
/// # Errors
/// The names that the environment lacks.
pub fn in_environment(
    plan: &Plan,
    provider: &str,
    env: &(impl Environment + ?Sized),
) -> Result<Option<Plan>, MissingNames> {
    let endpoint = plan.job.endpoint.as_deref().unwrap_or_default();
    let named = plan.providers.get(provider);
    let Some(mut written) = named.and_then(|p| serde_json::to_value(p).ok()) else {
        return Ok(None);
    };
    let mut changed = false;
    // What other endpoints name is not needed here.
    for part in ["/auth", &format!("/endpoints/{endpoint}")] {
        if let Some(part) = written.pointer_mut(part) {
            expand(part, env, &mut changed)?;
        }
    }
    let expanded: Option<Provider> = serde_json::from_value(written).ok().filter(|_| changed);
    Ok(expanded.map(|expanded| {
        let mut own = plan.clone();
        own.providers.insert(provider.to_owned(), expanded);
        own
    }))
}

/// `plan` with the values that its outputs, `dedupe`, `changes` and the `fields` and `where` of a job without calls name; `None` when
/// they name nothing.
///
/// # Errors
/// The names that the environment lacks.
pub fn outputs_in_environment(
    plan: &Plan,
    env: &(impl Environment + ?Sized),
) -> Result<Option<Plan>, MissingNames> {
    let Ok(mut written) = serde_json::to_value(&plan.job) else {
        return Ok(None);
    };
    let mut changed = false;
    for part in [
        "/dedupe",
        "/changes",
        "/fields",
        "/outputs/rankings",
        "/outputs/index/id",
        "/outputs/s3/merged",
    ] {
        if let Some(part) = written.pointer_mut(part) {
            expand(part, env, &mut changed)?;
        }
    }
    if let Some(Value::String(filter)) = written.pointer_mut("/source/filter")
        && filter.contains("${")
    {
        *filter = planned_expression(filter, env)?;
        changed = true;
    }
    // A name, and no template.
    if let Some(Value::String(name)) = written.pointer_mut("/outputs/index/name")
        && name.contains("${")
    {
        *name = expand_env(name, env)?;
        changed = true;
    }
    let expanded: Option<Job> = serde_json::from_value(written).ok().filter(|_| changed);
    Ok(expanded.map(|job| Plan {
        job,
        ..plan.clone()
    }))
}

fn expand(
    value: &mut Value,
    env: &(impl Environment + ?Sized),
    changed: &mut bool,
) -> Result<(), MissingNames> {
    match value {
        Value::String(text) if text.contains("${") => {
            let with_values = as_template(text, env)?;
            *changed |= with_values != *text;
            *text = with_values;
            Ok(())
        }
        Value::Array(items) => items
            .iter_mut()
            .try_for_each(|item| expand(item, env, changed)),
        Value::Object(fields) => fields
            .values_mut()
            .try_for_each(|item| expand(item, env, changed)),
        _ => Ok(()),
    }
}

/// Where a piece of a template is.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Text,
    Braces,
    Quotes(u8),
}

/// A template that is fixed when a run is planned, with each name's value as a literal of it; a value without
/// anything of a template's own stays as it is, so that plans read as their files do.
///
/// # Errors
/// The names that the environment lacks.
pub fn planned_template(
    text: &str,
    env: &(impl Environment + ?Sized),
) -> Result<String, MissingNames> {
    let plain = |place, value: &str| place == Inside::Text && is_plain(value);
    put_in(text, env, Inside::Text, plain)
}

/// The same for an expression (`where`): text is its literal there, in quotes or without, and a number stays one, so that it
/// compares with a record's.
///
/// # Errors
/// The names that the environment lacks.
pub fn planned_expression(
    text: &str,
    env: &(impl Environment + ?Sized),
) -> Result<String, MissingNames> {
    let number = |place, value: &str| place == Inside::Braces && is_number(value);
    put_in(text, env, Inside::Braces, number)
}

/// Whether a template shows `value` as it is, whatever stands beside it.
fn is_plain(value: &str) -> bool {
    !value.contains(['{', '}', '%', '#', '\n', '\r'])
}

/// A number as JSON spells it: a code as `007` is text.
fn is_number(value: &str) -> bool {
    serde_json::from_str::<serde_json::Number>(value).is_ok()
}

/// `text` with each name's value as a literal of the template.
fn as_template(text: &str, env: &(impl Environment + ?Sized)) -> Result<String, MissingNames> {
    put_in(text, env, Inside::Text, |_, _| false)
}

/// `text` with each name's value in its place: between braces and in quotes as a literal, elsewhere as it is
/// where `bare` allows.
fn put_in(
    text: &str,
    env: &(impl Environment + ?Sized),
    mut place: Inside,
    bare: impl Fn(Inside, &str) -> bool,
) -> Result<String, MissingNames> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        place = follow(before, place);
        let Some(end) = from.find('}') else {
            rest = from;
            break;
        };
        let (name, after) = from.split_at(end + 1);
        let found = expand_env(name, env)?;
        let value = found.replace('\\', r"\\");
        match place {
            place if bare(place, &found) => out.push_str(&found),
            Inside::Text => out.push_str(&format!("{{{{ \"{}\" }}}}", value.replace('"', "\\\""))),
            Inside::Braces => out.push_str(&format!("\"{}\"", value.replace('"', "\\\""))),
            Inside::Quotes(quote) => {
                let quote = char::from(quote);
                out.push_str(&value.replace(quote, &format!("\\{quote}")));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Where one is behind `text`.
fn follow(text: &str, mut place: Inside) -> Inside {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let two = (bytes[at], bytes.get(at + 1).copied().unwrap_or_default());
        place = match (place, two) {
            (Inside::Text, (b'{', b'{' | b'%')) => {
                at += 1;
                Inside::Braces
            }
            (Inside::Braces, (b'}' | b'%', b'}')) => {
                at += 1;
                Inside::Text
            }
            (Inside::Braces, (quote @ (b'\'' | b'"'), _)) => Inside::Quotes(quote),
            (Inside::Quotes(_), (b'\\', _)) => {
                at += 1;
                place
            }
            (Inside::Quotes(quote), (closes, _)) if closes == quote => Inside::Braces,
            _ => place,
        };
        at += 1;
    }
    place
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use minijinja::context;

    use super::*;
    use crate::template::{Templates, environment};

    fn env(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("X".to_owned(), value.to_owned())])
    }

    fn rendered(source: &str, value: &str) -> String {
        let source = as_template(source, &env(value)).expect("is there");
        let mut templates = Templates::new(environment());
        let template = templates.compile(&source).expect("compiles");
        templates
            .render(&template, &context! { x => "cell" })
            .expect("renders")
    }

    #[test]
    fn the_environments_values_stand_where_a_call_names_them() {
        assert_eq!(rendered("${X}", "v"), "v");
        assert_eq!(rendered("a-${X}-{{ x }}", "v"), "a-v-cell");
        assert_eq!(rendered("{{ '${X}' | upper }}", "v"), "V");
        assert_eq!(rendered("{{ \"a${X}b\" ~ x }}", "v"), "avbcell");
        assert_eq!(rendered("{{ ${X} ~ x }}", "v"), "vcell");
        assert_eq!(rendered("{% if x == 'cell' %}${X}{% endif %}", "v"), "v");
    }

    #[test]
    fn a_value_is_never_read_as_a_template() {
        for value in ["{{ x }}", "'\"\\", "}}", "{% raw %}", "a\nb", "${X}", "\\"] {
            assert_eq!(rendered("${X}", value), value);
            assert_eq!(rendered("{{ '${X}' }}", value), value);
            assert_eq!(rendered("{{ \"${X}\" }}", value), value);
        }
    }

    #[test]
    fn planned_templates_stay_as_written_where_they_can() {
        let planned = |text, value| planned_template(text, &env(value)).expect("is there");
        assert_eq!(planned("d/${X}/{{ x }}", "b"), "d/b/{{ x }}");
        for value in ["{{ x }}", "{# x", "a\n", "%}"] {
            let template = planned("d/${X}/{{ x }}", value);
            let shown = environment().render_str(&template, context! { x => "cell" });
            assert_eq!(shown.expect("renders"), format!("d/{value}/cell"));
        }
        for value in ["KR", "a'b", "'\\"] {
            let expression = planned_expression("x == '${X}'", &env(value)).expect("is there");
            let holds = environment()
                .compile_expression(&expression)
                .and_then(|e| e.eval(context! { x => value }));
            assert!(holds.expect("an expression").is_true(), "{expression}");
        }
    }

    #[test]
    fn a_number_of_the_environment_compares_as_one() {
        let planned = |value| planned_expression("x >= ${X}", &env(value)).expect("is there");
        assert_eq!(planned("4"), "x >= 4");
        assert_eq!(planned("-4.50"), "x >= -4.50");
        for text in ["007", "4 or true", "1e", "x", "\""] {
            assert!(planned(text).starts_with("x >= \""), "{text}");
        }
    }

    #[test]
    fn a_name_that_the_environment_lacks_is_named() {
        let missing = as_template("${Y}-{{ x }}", &env("v"));
        assert_eq!(missing, Err(MissingNames(vec!["Y".to_owned()])));
    }
}
