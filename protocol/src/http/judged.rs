//! An answer as a provider's file judges it.

use super::HttpAnswer;
use crate::connector::{Answer, Connector, Judged, TokenAnswer, TokenTemplates, provider_trace};

impl HttpAnswer {
    /// A header's value as a template or rule sees it: that of several lines is one list (RFC 9110, section 5.3),
    /// each member said once.
    pub fn header(&self, name: &str) -> Option<String> {
        let lines = self.headers.get_all(name).iter();
        let mut values: Vec<&str> = Vec::new();
        for value in lines.filter_map(|value| value.to_str().ok()) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The provider's own id of the call, where it tells one.
    pub fn trace(&self) -> Option<String> {
        provider_trace(|name| self.headers.get(name)?.to_str().ok())
    }

    /// What it means; `now_us` is the fleet's clock when it had come.
    pub fn judge(&self, connector: &Connector, now_us: i64) -> Judged {
        let header = |name: &str| self.header(name);
        connector.judge(&self.as_answer(&header, now_us))
    }

    /// What it means as the answer to a request for a token or session.
    pub fn judge_token(
        &self,
        connector: &Connector,
        tokens: &TokenTemplates,
        now_us: i64,
    ) -> TokenAnswer {
        let header = |name: &str| self.header(name);
        let cookies = self.headers.get_all("set-cookie").iter();
        let cookies: Vec<String> = cookies
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        connector.judge_token(tokens, &self.as_answer(&header, now_us), &cookies)
    }

    fn as_answer<'a>(
        &'a self,
        header: &'a dyn Fn(&str) -> Option<String>,
        now_us: i64,
    ) -> Answer<'a> {
        Answer {
            status: self.status,
            header,
            body: &self.body,
            now_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_one_header_are_one_list() {
        let mut answer = HttpAnswer {
            status: 200,
            headers: reqwest::header::HeaderMap::new(),
            body: Vec::new(),
        };
        let lines = [
            ("link", "</p1>; rel=\"prev\""),
            ("link", "</p3>; rel=\"next\""),
            ("ratelimit-policy", "\"day\";q=100000;w=86400"),
            ("ratelimit-policy", "\"burst\";q=40;w=10"),
            ("retry-after", "5"),
            ("retry-after", "5"),
        ];
        for (name, value) in lines {
            let value = value.parse().expect("a value");
            answer.headers.append(name, value);
        }
        let joined = "</p1>; rel=\"prev\", </p3>; rel=\"next\"";
        assert_eq!(answer.header("Link").as_deref(), Some(joined));
        let policies = answer.header("RateLimit-Policy").expect("policies");
        assert!(policies.ends_with("w=86400, \"burst\";q=40;w=10"));
        assert_eq!(answer.header("Retry-After").as_deref(), Some("5"));
        assert_eq!(answer.header("x-none"), None);
    }
}
