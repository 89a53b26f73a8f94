//! The bodies of the fare search, good and spoilt.

use std::fmt::Write;
use std::time::Duration;

use super::faults::Fault;
use super::http::{Answered, retry_after};
use crate::fares::{Answer, Offer, Search};

/// What the connection does with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Sends this.
    Whole(Answered),
    /// Sends this with half of its body, then ends the connection.
    Half(Answered),
    /// Sends so many megabytes of white space before the body, without announcing a length.
    Padded(Answered, u64),
    /// Waits until the caller goes.
    Silence,
    /// Ends the connection at once.
    Nothing,
}

/// The reply to a search that was let in, and how much longer than usual it takes.
pub fn of(
    search: &Search,
    answer: &Answer,
    fault: Option<&Fault>,
    wall_us: i64,
) -> (Reply, Duration) {
    let Some(fault) = fault else {
        return (Reply::Whole(good(search, answer)), Duration::ZERO);
    };
    let extra = match fault {
        Fault::Slow(ms) => Duration::from_millis(*ms),
        _ => Duration::ZERO,
    };
    (spoilt(search, answer, fault, wall_us), extra)
}

fn good(search: &Search, answer: &Answer) -> Answered {
    match answer {
        Answer::Offers(offers) => Answered::json(200, found(search, offers)),
        Answer::EmptyList => Answered::json(200, found(search, &[])),
        Answer::NotFound => Answered::error(404, "NOT_FOUND", "no fares for this search"),
    }
}

fn spoilt(search: &Search, answer: &Answer, fault: &Fault, wall_us: i64) -> Reply {
    let whole = match fault {
        Fault::Hang => return Reply::Silence,
        Fault::Reset => return Reply::Nothing,
        Fault::Truncated => return Reply::Half(good(search, answer)),
        Fault::Huge(megabytes) => return Reply::Padded(good(search, answer), *megabytes),
        Fault::Slow(_) => good(search, answer),
        Fault::Status(status) => of_status(*status),
        Fault::Throttle {
            wait_ms,
            retry_after: form,
        } => {
            let wait = Duration::from_millis(*wait_ms);
            rate_limited(retry_after(*form, wait, wall_us))
        }
        Fault::NotJson => Answered {
            content_type: "text/html",
            ..Answered::json(200, "<html><body>We will be back soon.</body></html>")
        },
        Fault::WrongShape => Answered::json(200, r#"{"data":{"fares":"see https://"},"meta":[]}"#),
        Fault::Redirect(to) => Answered::json(302, "").with("location", to),
        Fault::PriceMissing => without_price(search, answer),
        Fault::BadTime => with_bad_time(search, answer),
    };
    Reply::Whole(whole)
}

/// A 429 for a rate, with the wait as the header says it.
pub fn rate_limited(retry_after: Option<String>) -> Answered {
    let answered = Answered::error(429, "RATE_LIMIT", "too many calls");
    match retry_after {
        Some(value) => answered.with("retry-after", value),
        None => answered,
    }
}

fn of_status(status: u16) -> Answered {
    match status {
        400..=499 => Answered::error(status, "BAD_REQUEST", "this search cannot be answered"),
        _ => Answered::error(status, "INTERNAL", "something went wrong"),
    }
}

fn without_price(search: &Search, answer: &Answer) -> Answered {
    change_first(search, answer, |offer| offer.price.clear())
}

fn with_bad_time(search: &Search, answer: &Answer) -> Answered {
    change_first(search, answer, |offer| offer.departs_at = "soon".to_owned())
}

fn change_first(search: &Search, answer: &Answer, change: impl Fn(&mut Offer)) -> Answered {
    let mut answer = answer.clone();
    if let Answer::Offers(offers) = &mut answer
        && let Some(first) = offers.first_mut()
    {
        change(first);
    }
    good(search, &answer)
}

/// The body of a search with these offers. Written by hand: prices keep their digits. An offer with an
/// empty price has none.
fn found(search: &Search, offers: &[Offer]) -> String {
    let mut body = String::with_capacity(128 + 160 * offers.len());
    body.push_str(r#"{"data":["#);
    for (place, offer) in offers.iter().enumerate() {
        if place > 0 {
            body.push(',');
        }
        write_offer(&mut body, offer);
    }
    let (count, km) = (offers.len(), search.distance_km().round());
    let meta = write!(body, r#"],"meta":{{"count":{count},"distance_km":{km}}}}}"#);
    meta.expect("writing into a string cannot fail");
    body
}

fn write_offer(body: &mut String, offer: &Offer) {
    let Offer {
        carrier,
        price,
        currency,
        departs_at,
    } = offer;
    let total = match price.is_empty() {
        true => String::new(),
        false => format!(r#""total":{price},"#),
    };
    let written = write!(
        body,
        r#"{{"carrier":"{carrier}","price":{{{total}"currency":"{currency}"}},"outbound":{{"departs_at":"{departs_at}"}}}}"#
    );
    written.expect("writing into a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search() -> Search {
        Search::new("ICN", "NRT", "2026-11-22", "2026-11-25", false).unwrap()
    }

    fn offers() -> Answer {
        Answer::Offers(vec![Offer {
            carrier: "KE",
            price: "123400.50".to_owned(),
            currency: "KRW",
            departs_at: "2026-11-22T09:35:00+09:00".to_owned(),
        }])
    }

    fn body(reply: (Reply, Duration)) -> String {
        match reply.0 {
            Reply::Whole(answered) => String::from_utf8(answered.body).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_body_is_the_documented_one() {
        let body = body(of(&search(), &offers(), None, 0));
        assert_eq!(
            body,
            concat!(
                r#"{"data":[{"carrier":"KE","price":{"total":123400.50,"currency":"KRW"},"#,
                r#""outbound":{"departs_at":"2026-11-22T09:35:00+09:00"}}],"#,
                r#""meta":{"count":1,"distance_km":1257}}"#
            )
        );
    }

    #[test]
    fn a_missing_price_leaves_valid_json() {
        let body = body(of(&search(), &offers(), Some(&Fault::PriceMissing), 0));
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            json["data"][0]["price"],
            serde_json::json!({"currency": "KRW"})
        );
    }
}
