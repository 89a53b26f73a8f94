//! Where a webhook may lead. An URL whose host comes from the environment (`${RUN_WEBHOOK_URL}`) is the
//! operator's own word: it may be private. One that is written in a job's file may not, unless
//! `PACELINE_WEBHOOK_PRIVATE=allow`. Link-local addresses, where clouds keep credentials, are never called.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use paceline_protocol::settings::Environment;
use reqwest::redirect::Policy;

use super::delivery::Hook;

/// Why it is not called.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::serve) enum Refused {
    /// The URL is at fault.
    Never(String),
    /// Names cannot be resolved now.
    Later(String),
}

/// Whether the operator's own environment says where the webhook is, or allows any place.
pub(super) fn is_operators(hook: &Hook, env: &impl Environment) -> bool {
    hook.webhook.starts_with("${")
        || env.get("PACELINE_WEBHOOK_PRIVATE").as_deref() == Some("allow")
}

/// A client that reaches only the addresses that were looked at: the name is not asked again.
pub(in crate::serve) async fn client(
    url: &str,
    trusted: bool,
    longest: Duration,
) -> Result<reqwest::Client, Refused> {
    let never = |why: &str| Refused::Never(why.to_owned());
    let parsed = reqwest::Url::parse(url).map_err(|_| never("its URL cannot be read"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(never("its URL is neither http nor https"));
    }
    let host = parsed
        .host_str()
        .ok_or_else(|| never("its URL has no host"))?;
    let port = parsed.port_or_known_default().unwrap_or(443);
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((name, port)).await;
    let found: Vec<SocketAddr> = found
        .map_err(|_| Refused::Later("its host cannot be resolved".into()))?
        .collect();
    if let Some(bad) = found.iter().find(|at| !may_be_called(at.ip(), trusted)) {
        return Err(Refused::Never(format!(
            "its address {} is not called",
            bad.ip()
        )));
    }
    reqwest::Client::builder()
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .resolve_to_addrs(host, &found)
        .connect_timeout(Duration::from_secs(5))
        .timeout(longest)
        .user_agent(concat!("paceline/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|_| never("no client can be made for it"))
}

/// The address of version 4 within one of version 6: mapped, or reached through a translator (64:ff9b::/96, 2002::/16).
fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
        _ => v6.to_canonical(),
    }
}

/// Whether an address may be called at all, and when only by the operator's word.
fn may_be_called(address: IpAddr, trusted: bool) -> bool {
    match inner(address) {
        IpAddr::V4(v4) => {
            let never =
                v4.is_link_local() || v4.is_multicast() || v4.is_unspecified() || v4.is_broadcast();
            let shared = v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]);
            // Of 192.0.0.0/24 and 198.18.0.0/15 nobody outside has one either.
            let reserved = matches!(v4.octets(), [192, 0, 0, _] | [198, 18 | 19, ..]);
            let private = v4.is_private() || v4.is_loopback() || shared || v4.octets()[0] == 0;
            let private = private || reserved || v4.octets()[0] >= 240;
            !never && (trusted || !private)
        }
        IpAddr::V6(v6) => {
            let metadata = v6 == std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            let never =
                v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified() || metadata;
            !never && (trusted || !(v6.is_loopback() || v6.is_unique_local()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_need_the_operators_word_and_metadata_is_never_called() {
        let may = |ip: &str, trusted| may_be_called(ip.parse().expect("an address"), trusted);
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "100.64.0.1",
            "::1",
            "fc00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "198.18.0.1",
        ] {
            assert!(!may(private, false) && may(private, true), "{private}");
        }
        for never in [
            "169.254.169.254",
            "0.0.0.0",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "224.0.0.1",
        ] {
            assert!(!may(never, true), "{never}");
        }
        assert!(may("203.0.113.9", false) && may("2001:db8::1", false));
    }

    #[tokio::test]
    async fn a_url_in_a_file_does_not_lead_inside() {
        let refused = client("http://127.0.0.1:9/x", false, Duration::from_secs(1)).await;
        assert!(matches!(refused, Err(Refused::Never(_))));
        assert!(
            client("http://127.0.0.1:9/x", true, Duration::from_secs(1))
                .await
                .is_ok()
        );
        assert!(
            client("file:///etc/passwd", true, Duration::from_secs(1))
                .await
                .is_err()
        );
    }
}
