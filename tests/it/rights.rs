//! A fleet works with the rights that `producer rights` prints, and no others.

use std::time::Duration;

use serde_json::{Value, json};

use harness::{Bucket, Fleet};
use paceline_protocol::stores::index::{Index, IndexError};

use crate::scene::RUN;
use crate::serve::{LIMIT, scene};

/// The Redis user's and the RabbitMQ user's password.
const PASSWORD: &str = "narrow-1f0a";

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_works_with_the_least_rights() {
    let mut scene = scene("rights");
    scene.fleet.tells_nobody();
    let Some(management) = scene.fleet.management().map(str::to_owned) else {
        // Somebody's own RabbitMQ: its users are not ours to change.
        return;
    };
    let user = scene.fleet.name.clone();
    let [redis_line, rabbitmq, s3_policy, role] =
        ["redis", "rabbitmq", "s3", "elasticsearch"].map(|of| {
            let ended = scene.fleet.producer(&["rights", of], LIMIT);
            ended.expect("it runs").expect_code(0).stdout
        });
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let redis = redis_user(
        scene.fleet.value("REDIS_URL"),
        &redis_line.replace("user paceline", &format!("user {user}")),
    )
    .await;
    let permissions = json(&rabbitmq);
    rabbitmq_user(&management, &user, &permissions["permissions"][0]).await;
    let s3 = harness::shared::stack().s3();
    let administrator = Bucket::of(&scene.fleet);
    if let Some(s3) = s3 {
        let allowed = s3.add_user(&user, PASSWORD, &json(&s3_policy));
        allowed.expect("a policy");
        scene.fleet.set("AWS_ACCESS_KEY_ID", user.clone());
        scene.fleet.set("AWS_SECRET_ACCESS_KEY", PASSWORD);
    }
    let index = scene.fleet.value("ELASTICSEARCH_URL").to_owned();
    let stack = harness::shared::stack();
    let is_secured = stack.elasticsearch().is_some();
    if is_secured {
        let made = stack.add_elasticsearch_user(&user, PASSWORD, &role);
        made.expect("a user");
        let index = as_user(&index, &user);
        until_known(&index).await;
        scene.fleet.set("ELASTICSEARCH_URL", index);
    }
    let amqp = as_user(scene.fleet.value("AMQP_URL"), &user);
    scene.fleet.set("AMQP_URL", amqp);
    scene.fleet.set("REDIS_URL", redis.clone());

    let (serving, _) = crate::serve::serve(&scene.fleet);
    scene.collect();
    scene.load();
    scene.enqueue();
    scene.ends_with(0).await;
    scene.assert_nothing_repeated();
    for command in [
        &["doctor"][..],
        &["limits", "fare-search"],
        &["status", RUN],
    ] {
        let ended = scene.fleet.producer(command, LIMIT).expect("it runs");
        ended.expect_code(0);
    }
    drop(serving);
    passwords_that_are_wrong(&mut scene.fleet, is_secured, s3.is_some()).await;
    // What belongs to others stays theirs.
    if is_secured {
        let url = format!("{}/somebody-else", scene.fleet.value("ELASTICSEARCH_URL"));
        let refused = reqwest::Client::new()
            .put(url)
            .send()
            .await
            .expect("an answer");
        assert_eq!(refused.status(), 403);
    }
    if s3.is_some() {
        let own = Bucket::of(&scene.fleet);
        let foreign = "somebody-else/object";
        administrator.put(foreign, b"theirs").await.expect("put");
        assert!(own.get(foreign).await.is_err());
        assert!(own.put(foreign, b"ours").await.is_err());
        assert!(own.keys(&scene.fleet.name).await.is_ok());
    }
    let mut connection = harness::redis_at(&redis).await;
    let mut foreign = redis::cmd("SET");
    foreign.arg("somebody-else").arg(1);
    let refused = foreign.query_async::<()>(&mut connection).await;
    assert!(refused.is_err_and(|e| e.code() == Some("NOPERM")));
    let refused = redis::cmd("FLUSHALL")
        .query_async::<()>(&mut connection)
        .await;
    assert!(refused.is_err_and(|e| e.code() == Some("NOPERM")));
}

/// A server that does not let us in is not waited for as one that is away: what to do is said at once.
async fn passwords_that_are_wrong(fleet: &mut Fleet, is_secured: bool, own_s3: bool) {
    let mut names = vec!["AMQP_URL", "REDIS_URL"];
    names.extend(own_s3.then_some("AWS_SECRET_ACCESS_KEY"));
    for name in names {
        let right = fleet.value(name).to_owned();
        fleet.set(name, right.replace(PASSWORD, "not-the-word"));
        let ended = fleet.producer(&["enqueue", "fares", "--run-id", "refused"], LIMIT);
        let said = ended.expect("it ends").expect_code(1).stderr;
        assert!(said.contains(name), "what is to be corrected: {said}");
        assert!(!said.contains("waiting up to"), "{said}");
        assert!(!said.contains("not-the-word"), "{said}");
        fleet.set(name, right);
    }
    if is_secured {
        let url = fleet.value("ELASTICSEARCH_URL");
        let index = Index::new(&url.replace(PASSWORD, "not-the-word"), None).expect("a URL");
        let refused = index.version().await.expect_err("it is refused");
        assert!(
            matches!(refused, IndexError::Denied { status: 401, .. }),
            "{refused}"
        );
        assert!(!refused.to_string().contains("not-the-word"), "{refused}");
    }
}

/// Makes the user of an ACL file's line; returns the URL for it.
async fn redis_user(url: &str, line: &str) -> String {
    let mut connection = harness::redis_at(url).await;
    let line = line.replace(">PASSWORD", &format!(">{PASSWORD}"));
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("user"));
    let user = words.next().expect("a name").to_owned();
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg(&user).arg("reset");
    words.for_each(|word| {
        command.arg(word);
    });
    let made = command.query_async::<()>(&mut connection).await;
    made.expect("the rules are understood");
    as_user(url, &user)
}

/// `url` with another user.
fn as_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{user}:{PASSWORD}@{host}")
}

/// Waits until the server knows the user of `url`.
async fn until_known(url: &str) {
    let url = format!("{}/_security/_authenticate", url.trim_end_matches('/'));
    let until = std::time::Instant::now() + LIMIT;
    loop {
        let answer = reqwest::get(&url).await.expect("an answer");
        if answer.status().is_success() {
            return;
        }
        assert!(std::time::Instant::now() < until, "{}", answer.status());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn rabbitmq_user(management: &str, user: &str, permissions: &Value) {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .expect("a client");
    let put = |path: String, body: Value| {
        let ask = client
            .put(format!("{}/{path}", management.trim_end_matches('/')))
            .json(&body);
        async move {
            let answer = ask.send().await.expect("an answer").error_for_status();
            answer.expect("it is allowed");
        }
    };
    let account = json!({"password": PASSWORD, "tags": ""});
    put(format!("api/users/{user}"), account).await;
    put(format!("api/permissions/%2F/{user}"), permissions.clone()).await;
}
