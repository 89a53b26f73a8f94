//! What the environment says of traces, by OpenTelemetry's own names.

use crate::settings::{Environment, SettingError};

/// Whereto, as whom, how many.
pub(super) struct Settings {
    /// The URL that takes traces.
    pub(super) url: String,
    /// Further headers of each request: often a secret.
    pub(super) headers: Vec<(String, String)>,
    /// `service.name`
    pub(super) service: String,
    /// `service.version`
    pub(super) version: String,
    /// `service.namespace`
    pub(super) namespace: String,
    /// The share of runs that is recorded, 0 to 1.
    pub(super) share: f64,
}

impl Settings {
    /// `None` without an endpoint.
    pub(super) fn read(
        env: &impl Environment,
        service: &str,
        version: &str,
    ) -> Result<Option<Self>, SettingError> {
        let Some(url) = url(env)? else {
            return Ok(None);
        };
        let text = |name: &str| env.get(name).filter(|text| !text.is_empty());
        Ok(Some(Settings {
            url,
            headers: headers(env)?,
            service: text("OTEL_SERVICE_NAME").unwrap_or_else(|| service.to_owned()),
            version: version.to_owned(),
            namespace: text("PACELINE_NAMESPACE").unwrap_or_else(|| "paceline".to_owned()),
            share: share(env)?,
        }))
    }
}

fn url(env: &impl Environment) -> Result<Option<String>, SettingError> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let Some(endpoint) = env.get(NAME).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let is_http = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    if !url::Url::parse(&endpoint).is_ok_and(|url| is_http(&url)) {
        return Err(SettingError::NoUrl {
            name: NAME,
            schemes: crate::settings::HTTP,
        });
    }
    Ok(Some(format!(
        "{}/v1/traces",
        endpoint.trim_end_matches('/')
    )))
}

/// `name=value,name=value`, values percent-encoded.
fn headers(env: &impl Environment) -> Result<Vec<(String, String)>, SettingError> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    let Some(text) = env.secret(NAME)? else {
        return Ok(Vec::new());
    };
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let value = percent_encoding::percent_decode_str(value.trim());
            let value = value.decode_utf8().ok()?.into_owned();
            let legal = reqwest::header::HeaderName::from_bytes(name.trim().as_bytes()).is_ok()
                && reqwest::header::HeaderValue::from_str(&value).is_ok();
            legal.then(|| (name.trim().to_owned(), value))
        })
        .collect::<Option<Vec<_>>>()
        .ok_or(SettingError::Invalid {
            name: NAME,
            // It may be a secret.
            value: "...".to_owned(),
            why: "use name=value,name=value",
        })
}

fn share(env: &impl Environment) -> Result<f64, SettingError> {
    let text = |name: &str| env.get(name).filter(|text| !text.is_empty());
    let ratio = match text("OTEL_TRACES_SAMPLER_ARG") {
        None => 1.0,
        Some(share) => match share.parse() {
            Ok(number) if (0.0..=1.0).contains(&number) => number,
            _ => {
                return Err(SettingError::Invalid {
                    name: "OTEL_TRACES_SAMPLER_ARG",
                    value: share,
                    why: "use the share of runs to be traced, from 0 to 1",
                });
            }
        },
    };
    let sampler = text("OTEL_TRACES_SAMPLER").unwrap_or_default();
    match sampler.trim_start_matches("parentbased_") {
        "" | "traceidratio" => Ok(ratio),
        "always_on" => Ok(1.0),
        "always_off" => Ok(0.0),
        _ => Err(SettingError::Invalid {
            name: "OTEL_TRACES_SAMPLER",
            value: sampler,
            why: "use always_on, always_off or traceidratio (with OTEL_TRACES_SAMPLER_ARG)",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Settings>, SettingError> {
        let own = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Settings::read(&own.collect::<BTreeMap<_, _>>(), "paceline-x", "1")
    }

    #[test]
    fn without_an_endpoint_nothing_is_sent() {
        assert!(read(&[]).expect("fine").is_none());
        assert!(
            read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")])
                .expect("fine")
                .is_none()
        );
    }

    #[test]
    fn an_endpoint_gets_the_path_of_traces() {
        let read = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20x, x-team=night",
            ),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        let settings = read.expect("fine").expect("on");
        assert_eq!(settings.url, "http://127.0.0.1:4318/v1/traces");
        let headers = [("authorization", "Bearer x"), ("x-team", "night")];
        assert_eq!(
            settings.headers,
            headers.map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(settings.share, 0.25);
        assert_eq!(settings.service, "paceline-x");
    }

    #[test]
    fn nonsense_is_refused() {
        let with = |name, value| {
            let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
            read(&[endpoint, (name, value)]).is_err()
        };
        assert!(with("OTEL_TRACES_SAMPLER", "sometimes"));
        assert!(with("OTEL_TRACES_SAMPLER_ARG", "7"));
        assert!(with("OTEL_EXPORTER_OTLP_HEADERS", "no pair"));
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317")]).is_err());
    }
}
