//! What `producer new` asks a person at a terminal. Enter takes what stands in brackets.

use std::io::IsTerminal;

use anyhow::{Context as _, Result};
use dialoguer::{Input, Select};
use paceline_protocol::ids::is_name;
use paceline_protocol::spec::check_rate;

use crate::scaffold::{Call, Draft, from_url};

/// Whether somebody is there to answer.
pub(super) fn can_be_asked() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// A name of a file of the spec folder.
pub(super) fn name(what: &str) -> Result<String> {
    let right = |name: &String| match is_name(name) {
        true => Ok(()),
        false => Err("a to z, 0 to 9 and hyphens, a letter first"),
    };
    answered(Input::new().with_prompt(what).validate_with(right))
}

/// One of several.
pub(super) fn choice(what: &str, mut among: Vec<String>) -> Result<String> {
    let select = Select::new().with_prompt(format!("Choose {what}"));
    let place = select.items(&among).default(0).interact();
    Ok(among.swap_remove(place.context("reading the choice")?))
}

/// What a draft should know of a provider.
pub(super) fn about_a_provider(draft: Draft) -> Result<Draft> {
    let url = "A URL that it answers, with its query (Enter: an example)";
    let right = |url: &String| match url.is_empty() {
        true => Ok(()),
        false => from_url(url).map(drop),
    };
    let ask = Input::new().with_prompt(url).allow_empty(true);
    let url: String = answered(ask.validate_with(right))?;
    let call = match url.as_str() {
        "" => None,
        url => Some(from_url(url)?),
    };
    let call = call.map(signed_in).transpose()?;
    let rate = "Calls that its manual allows";
    let right = |rate: &String| check_rate(rate);
    let ask = Input::new().with_prompt(rate).default("1/s".to_owned());
    let rate = answered(ask.validate_with(right))?;
    let records = "Where the records lie in an answer (JSONPath)";
    let ask = Input::new().with_prompt(records);
    let records = answered(ask.default("$.items[*]".to_owned()))?;
    Ok(Draft {
        call,
        rate: Some(rate),
        records: Some(records),
        ..draft
    })
}

/// With the header that carries its key, unless its query has one already.
fn signed_in(mut call: Call) -> Result<Call> {
    if !call.auth_query.is_empty() {
        return Ok(call);
    }
    let what = "Header that carries a key, like authorization or x-api-key (Enter: none)";
    let right = |header: &String| match header
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-')
    {
        true => Ok(()),
        false => Err("the name of a header alone: letters, digits and hyphens"),
    };
    let ask = Input::new().with_prompt(what).allow_empty(true);
    let header: String = answered(ask.validate_with(right))?;
    if header.is_empty() {
        return Ok(call);
    }
    let value = match header.eq_ignore_ascii_case("authorization") {
        true => "Bearer {{ credential.key }}",
        false => "{{ credential.key }}",
    };
    call.auth_headers.push((header, value.to_owned()));
    Ok(call)
}

fn answered(question: Input<'_, String>) -> Result<String> {
    let answer = question.interact_text().context("reading the answer")?;
    Ok(answer.trim().to_owned())
}
