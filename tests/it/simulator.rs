//! The simulator over real connections. Periods are hours, so that no assertion depends on speed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use paceline_loadtest::simulator::{
    Expected, Fault, FaultRule, Limits, Quota, Rate, RetryAfter, Simulator, SimulatorConfig,
    SimulatorHandle, Verdict, read_log,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// A search that has offers in the default world.
const TARGET: &str = "/v1/fares?origin=ICN&destination=NRT&depart=2026-11-22&return=2026-11-25";

fn start(limits: Limits) -> SimulatorHandle {
    Simulator::start(SimulatorConfig {
        limits,
        ..SimulatorConfig::default()
    })
    .expect("a free port")
}

fn request(method: &str, target: &str, key: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nhost: sim\r\nx-api-key: {key}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Sends bytes on a connection of their own and reads until the simulator ends it.
fn exchange(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the simulator listens");
    stream.write_all(bytes.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    String::from_utf8(answer).expect("answers are text")
}

fn get(simulator: &SimulatorHandle, target: &str, key: &str) -> String {
    exchange(simulator.address(), &request("GET", target, key, ""))
}

fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0)
}

#[test]
fn it_serves_what_the_truth_says() {
    let simulator = start(Limits::none());
    let answer = get(&simulator, TARGET, "a");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let Expected::Records(offers) = simulator.truth("ICN", "NRT", "2026-11-22", "2026-11-25")
    else {
        panic!("offers");
    };
    let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let data = json["data"].as_array().expect("a list");
    assert_eq!(data.len(), offers.len());
    for (item, offer) in data.iter().zip(&offers) {
        assert_eq!(item["carrier"], offer.carrier);
        assert_eq!(item["price"]["total"].to_string(), offer.price);
        assert_eq!(item["outbound"]["departs_at"], *offer.departs_at);
    }
    assert_eq!(status(&get(&simulator, "/health", "")), 200);
}

#[test]
fn refusals_are_told_apart_and_logged() {
    let mut simulator = start(Limits {
        rates: vec![Rate::strict(3, HOUR)],
        quota: Some(Quota::daily(2)),
        ..Limits::default()
    });
    assert!(get(&simulator, TARGET, "stranger").contains("BAD_KEY"));
    assert_eq!(status(&get(&simulator, TARGET, "a")), 200);
    assert_eq!(status(&get(&simulator, "/v1/fares?origin=ICN", "a")), 400);
    assert!(get(&simulator, TARGET, "a").contains("DAILY_QUOTA"));
    assert_eq!(status(&get(&simulator, TARGET, "b")), 200);
    let limited = get(&simulator, TARGET, "b");
    assert!(
        limited.contains("RATE_LIMIT") && limited.contains("retry-after: 3"),
        "{limited}"
    );
    simulator.stop().expect("in order");

    let report = simulator.report();
    assert_eq!((report.calls, report.served, report.refused), (6, 2, 3));
    assert_eq!(
        (report.bad_requests, report.repeated, report.rates[0].worst),
        (1, 1, 3)
    );
    let names: Vec<_> = report.refused_by.keys().map(String::as_str).collect();
    assert_eq!(names, ["key", "quota", "rate 3/1h"]);
    assert!(
        simulator
            .log()
            .iter()
            .all(|call| call.duration_us.is_some())
    );
}

#[test]
fn every_fault_shows_on_the_wire() {
    let simulator = start(Limits::none());
    let struck_by = |fault: Fault| {
        simulator.set_faults(vec![FaultRule::share(fault, 1.0)]);
        get(&simulator, TARGET, "a")
    };
    assert_eq!(status(&struck_by(Fault::Status(503))), 503);
    assert_eq!(struck_by(Fault::Reset), "");
    assert!(!struck_by(Fault::Truncated).ends_with("}}"));
    assert!(struck_by(Fault::NotJson).contains("<html>"));
    assert!(struck_by(Fault::Huge(2)).len() > 2_000_000);
    assert!(struck_by(Fault::Redirect("http://other/".into())).contains("location: http://other/"));
    assert!(struck_by(Fault::BadTime).contains("soon"));
    let throttle = Fault::Throttle {
        wait_ms: 1_500,
        retry_after: RetryAfter::Float,
    };
    assert!(struck_by(throttle).contains("retry-after: 1.500"));
    assert_eq!(simulator.report().faults.values().sum::<u64>(), 8);
    assert_eq!(simulator.report().served, 0);
}

#[test]
fn a_hanging_call_holds_its_place_until_the_caller_goes() {
    let simulator = start(Limits {
        concurrency: Some(1),
        ..Limits::default()
    });
    simulator.set_faults(vec![FaultRule::cells(Fault::Hang, "NRT").first(1)]);
    let mut hanging = TcpStream::connect(simulator.address()).expect("the simulator listens");
    hanging
        .write_all(request("GET", TARGET, "a", "").as_bytes())
        .expect("it reads");
    while simulator.log().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(status(&get(&simulator, TARGET, "a")), 429);
    drop(hanging);
    while simulator.log()[0].duration_us.is_none() {
        std::thread::yield_now();
    }
    assert_eq!(status(&get(&simulator, TARGET, "a")), 200);
    let verdicts: Vec<_> = simulator.log().iter().map(|call| call.verdict).collect();
    assert_eq!(
        verdicts,
        [Verdict::Fault, Verdict::Refused, Verdict::Served]
    );
}

#[test]
fn it_is_steered_from_outside() {
    let simulator = start(Limits::none());
    let post = |path: &str, body: &str| {
        status(&exchange(
            simulator.address(),
            &request("POST", path, "", body),
        ))
    };
    get(&simulator, TARGET, "a");
    // The call so far counts under the new limit.
    assert_eq!(post("/_sim/limits", r#"{"rates": ["1/1h"]}"#), 200);
    assert_eq!(status(&get(&simulator, TARGET, "a")), 429);
    assert_eq!(post("/_sim/reset", ""), 200);
    assert_eq!(post("/_sim/faults", r#"[{"fault": {"status": 500}}]"#), 200);
    assert_eq!(post("/_sim/faults", r#"[{"fault": "gremlins"}]"#), 400);
    assert_eq!(status(&get(&simulator, TARGET, "a")), 500);
    let log = get(&simulator, "/_sim/log", "");
    let lines = log.split_once("\r\n\r\n").expect("a body").1;
    assert_eq!(read_log(lines.as_bytes()).expect("NDJSON"), simulator.log());
    assert!(get(&simulator, "/_sim/report", "").contains(r#""calls":1"#));
}

#[test]
fn requests_that_come_together_are_answered_in_turn() {
    let simulator = start(Limits::none());
    let kept = request("GET", TARGET, "a", "").replace("connection: close\r\n", "");
    let last = request("GET", TARGET, "a", "");
    let answers = exchange(simulator.address(), &format!("{kept}{kept}{last}"));
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3);
    assert_eq!(simulator.report().repeated, 2);
}

#[test]
fn a_lenient_provider_answers_hostile_values() {
    let simulator = Simulator::start(SimulatorConfig {
        lenient: true,
        ..SimulatorConfig::default()
    })
    .expect("a free port");
    let long = "x".repeat(4_096);
    for hostile in ["..%2F..%2Fetc", "%22%0A%F0%9F%98%80", &long] {
        let answer = get(&simulator, &TARGET.replace("NRT", hostile), "a");
        assert!(matches!(status(&answer), 200 | 404), "{answer}");
    }
    assert_eq!(simulator.report().bad_requests, 0);
}

#[test]
fn a_port_can_be_taken_again_after_a_stop() {
    let mut first = start(Limits::none());
    let address = first.address();
    get(&first, TARGET, "a");
    first.stop().expect("in order");
    let second = Simulator::start(SimulatorConfig {
        listen: address,
        ..SimulatorConfig::default()
    })
    .expect("the same port");
    assert_eq!(status(&get(&second, TARGET, "a")), 200);
}
