//! An answer as a provider's file judges it.

use super::HttpAnswer;
use crate::connector::{Answer, Connector, Judged, TokenAnswer, TokenTemplates, provider_trace};

impl HttpAnswer {
    /// A header's value as a template or rule sees it.
    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.get(name)?;
        value.to_str().ok().map(str::to_owned)
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
