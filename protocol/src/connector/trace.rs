//! The provider's own id of a call: what its support asks for first.

/// The headers that providers put it into, the most telling first (`GNCP-GW-Trace-ID`: Naver Commerce;
/// `x-amzn-RequestId`: Amazon; `request-id`: Duffel; `CF-RAY`: whoever stands behind Cloudflare).
const HEADERS: [&str; 9] = [
    "gncp-gw-trace-id",
    "x-amzn-requestid",
    "x-amz-request-id",
    "x-request-id",
    "request-id",
    "x-trace-id",
    "trace-id",
    "x-correlation-id",
    "cf-ray",
];

/// No id that is kept is longer, in bytes.
const LONGEST: usize = 128;

/// The id that an answer's headers carry, if any; an answer chooses it, so only what is short and plain is kept.
pub fn provider_trace<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let mut told = HEADERS.into_iter().filter_map(header).map(str::trim);
    let id = told.find(|id| !id.is_empty())?;
    let plain = id.len() <= LONGEST && id.bytes().all(|b| b.is_ascii_graphic());
    plain.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Option<String> {
        provider_trace(|name| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| *v))
    }

    #[test]
    fn the_most_telling_header_is_kept() {
        assert_eq!(of(&[("content-type", "x")]), None);
        assert_eq!(of(&[("x-request-id", " 7f-3 ")]).as_deref(), Some("7f-3"));
        let two = [("x-request-id", "edge"), ("gncp-gw-trace-id", "n1")];
        assert_eq!(of(&two).as_deref(), Some("n1"));
        assert_eq!(
            of(&[("x-request-id", ""), ("cf-ray", "c")]).as_deref(),
            Some("c")
        );
    }

    #[test]
    fn what_no_id_looks_like_is_not_kept() {
        assert_eq!(of(&[("x-request-id", "two words")]), None);
        let long: &'static str = "x".repeat(129).leak();
        assert_eq!(of(&[("x-request-id", long)]), None);
    }
}
