//! The fare calendar from one end to the other: what was collected is what the provider has, every number
//! that is told is true, and the same run again does nothing.

use std::time::Duration;

use harness::{Calendar, Shape};
use serde_json::{Value, json};

const RUN: &str = "2026-11-21";
const GRACE: Duration = Duration::from_secs(60);

fn two_destinations() -> Shape {
    Shape {
        destinations: &["NRT", "BKK"],
        ..Shape::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calendar_end_to_end() {
    let calendar = Calendar::new("fares", two_destinations()).expect("a calendar");
    let collectors: Vec<_> = (0..3)
        .map(|_| calendar.collect().expect("started"))
        .collect();
    let loader = calendar.load().expect("started");
    let ended = calendar.enqueue_and_wait(RUN).expect("it ends");
    assert_eq!(ended.expect_code(0).stdout.trim(), RUN);
    for mut process in collectors.into_iter().chain([loader]) {
        let status = process.terminate(GRACE).expect("drained");
        assert!(status.success(), "{}", process.last_words(20));
    }

    let verdict = calendar.check(RUN).await.expect("checked");
    verdict.assert_kept();
    let compared = calendar.compare_with_the_truth(RUN).await;
    assert_eq!(compared.expect("the truth"), calendar.cells());
    let live = calendar.live_index().await.expect("an answer");
    assert_eq!(live, Some(calendar.index_of(RUN)));
    the_numbers_agree(&calendar).await;
    the_same_again_does_nothing(&calendar);
}

/// Provider, manifest, audit and status tell one story.
async fn the_numbers_agree(calendar: &Calendar) {
    let seen = calendar.provider.report();
    assert_eq!((seen.calls, seen.repeated), (calendar.cells(), 0));
    assert!(seen.rates[0].worst <= 400, "{:?}", seen.rates);

    let manifest = calendar.manifest(RUN).await.expect("a manifest");
    assert_eq!(manifest.succeeded, seen.served);
    assert_eq!(manifest.empty, seen.empty);
    assert_eq!(manifest.documents, manifest.records);
    assert_eq!(manifest.sets.len(), 2);

    let audit = calendar.json(&["audit", RUN]).expect("an audit");
    // Asking whether the provider is ready is a call like others.
    assert_eq!(audit["calls"], seen.calls + seen.health, "{audit}");
    assert_eq!(audit["refused"], seen.refused);
    assert_eq!(audit["repeated"], seen.repeated);
    let limits = audit["limits"].as_array().expect("limits");
    for limit in limits {
        let number = |name: &str| limit[name].as_u64().expect("a number");
        assert!(number("worst") <= number("allowed"), "{limit}");
    }

    let status = calendar.json(&["status", RUN]).expect("a status");
    let expected = json!({
        "run": RUN, "job": "fares", "state": "completed", "cells": calendar.cells(),
        "succeeded": seen.served, "empty": seen.empty, "failed": 0, "shards": 6,
        "eta_s": null, "binds": null, "progress": {},
    });
    assert_eq!(status, expected);
}

fn the_same_again_does_nothing(calendar: &Calendar) {
    let calls = calendar.provider.log().len();
    let again = calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    assert_eq!(again.stdout.trim(), RUN);
    assert!(again.stderr.contains("has completed"), "{}", again.stderr);
    assert_eq!(calendar.provider.log().len(), calls, "nothing is called");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_loaders_finish_one_run_once() {
    let calendar = Calendar::new("loaders", Shape::default()).expect("a calendar");
    let _collector = calendar.collect().expect("started");
    let _loaders = [calendar.load(), calendar.load(), calendar.load()].map(|l| l.expect("started"));
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    let live = calendar.live_index().await.expect("an answer");
    assert_eq!(live, Some(calendar.index_of(RUN)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_takes_the_alias_over() {
    let calendar = Calendar::new("nights", Shape::default()).expect("a calendar");
    let _collector = calendar.collect().expect("started");
    let _loader = calendar.load().expect("started");
    for run in ["first", "second"] {
        calendar
            .enqueue_and_wait(run)
            .expect("it ends")
            .expect_code(0);
        calendar.check(run).await.expect("checked").assert_kept();
        let live = calendar.live_index().await.expect("an answer");
        assert_eq!(live, Some(calendar.index_of(run)));
    }
    let runs = calendar.json(&["runs", "fares"]).expect("runs");
    let listed: Vec<&Value> = runs
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| &r["run"])
        .collect();
    assert_eq!(listed.len(), 2, "{runs}");
}
