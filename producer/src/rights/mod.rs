//! The least rights that a fleet needs of its four servers, as files that can be applied: made from the
//! settings' names and the jobs of the spec folder, so that nothing else can be read or written with them.

use std::collections::BTreeSet;

use paceline_protocol::settings::FleetSettings;
use paceline_protocol::spec::{DimensionValues, LoadedJob};
use serde_json::{Value, json};

/// What jobs touch beside the fleet's own names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Sorted sets, as patterns.
    sets: BTreeSet<String>,
    /// Indices and aliases.
    indices: BTreeSet<String>,
    /// Indices and aliases that are searched when a run is planned.
    searched: BTreeSet<String>,
    /// Objects that are written: bucket (none: the runs') and key pattern.
    written: BTreeSet<(Option<String>, String)>,
    /// Objects that are read.
    read: BTreeSet<(Option<String>, String)>,
}

impl Touched {
    /// What all of `jobs` touch.
    pub fn of<'j>(jobs: impl IntoIterator<Item = &'j LoadedJob>) -> Self {
        let mut touched = Touched::default();
        for loaded in jobs {
            let outputs = &loaded.job.outputs;
            let sets = outputs.rankings.iter().map(|ranking| pattern(&ranking.key));
            touched.sets.extend(sets);
            if let Some(index) = &outputs.index {
                touched.indices.insert(index.name.clone());
            }
            let s3 = &outputs.s3;
            for key in [&s3.key, &s3.merged].into_iter().flatten() {
                let bucket = s3.bucket.as_deref().map(environment);
                touched.written.insert((bucket, pattern(key)));
            }
            for dimension in loaded.job.split.values() {
                match &dimension.values {
                    DimensionValues::Documents(documents) => {
                        touched.searched.insert(environment(&documents.index));
                    }
                    DimensionValues::Object(object) => {
                        let bucket = object.bucket.as_deref().map(environment);
                        touched.read.insert((bucket, pattern(&object.key)));
                    }
                    _ => {}
                }
            }
            for provider in loaded.providers.values() {
                let objects = provider.source.as_ref().and_then(|source| source.get("s3"));
                let text = |name: &str| objects?.get(name)?.as_str();
                if let Some(key) = text("key") {
                    let bucket = text("bucket").map(environment);
                    touched.read.insert((bucket, pattern(key)));
                }
            }
        }
        touched
    }
}

/// A template with `*` for what it renders.
fn pattern(template: &str) -> String {
    let mut pattern = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        pattern.push_str(before);
        pattern.push('*');
        rest = behind.split_once("}}").map_or("", |(_, rest)| rest);
    }
    pattern.push_str(rest);
    pattern
}

/// `${NAME}` by its value, where the environment has it.
fn environment(text: &str) -> String {
    let name = text.strip_prefix("${").and_then(|t| t.strip_suffix('}'));
    name.and_then(|name| std::env::var(name).ok())
        .unwrap_or_else(|| text.to_owned())
}

/// The user of the fleet in Redis' ACL file; the password is to be put in.
pub fn redis(fleet: &FleetSettings, touched: &Touched) -> String {
    let mut patterns = vec![format!("~{}:*", fleet.namespace)];
    patterns.extend(touched.sets.iter().map(|set| format!("~{set}")));
    // What scripts call is checked as well. INFO says whether keys may be evicted.
    format!(
        "user paceline on >PASSWORD resetchannels resetkeys {} -@all +@connection +@hash +@set +@sortedset +@string +@bitmap +@keyspace +@scripting +@transaction -@dangerous -@admin +info +time\n",
        patterns.join(" ")
    )
}

/// The permissions of the user `paceline` on RabbitMQ, as `rabbitmqctl import_definitions` takes them.
pub fn rabbitmq(fleet: &FleetSettings) -> Value {
    let own = format!("{}\\..*", fleet.namespace);
    // Workers hear control messages in queues that the broker names; delays and dead letters go through the default exchange.
    json!({
        "permissions": [{
            "user": "paceline",
            "vhost": "/",
            "configure": format!("^({own}|amq\\.gen-.*)$"),
            "write": format!("^({own}|amq\\.gen-.*|amq\\.default)$"),
            "read": format!("^({own}|amq\\.gen-.*)$"),
        }]
    })
}

/// The policy of the fleet's identity at AWS S3, or a store that reads such policies.
pub fn s3(fleet: &FleetSettings, touched: &Touched) -> Value {
    let arn = |text: &str| format!("arn:aws:s3:::{text}");
    let object = |(bucket, key): &(Option<String>, String)| {
        let bucket = bucket.as_deref().unwrap_or(&fleet.bucket);
        arn(&format!("{bucket}/{key}"))
    };
    let runs = arn(&format!(
        "{}/{}/*",
        fleet.bucket,
        fleet.prefix.trim_matches('/')
    ));
    let listed: BTreeSet<String> = std::iter::once(fleet.bucket.clone())
        .chain(touched.read.iter().filter_map(|(bucket, _)| bucket.clone()))
        .map(|bucket| arn(&bucket))
        .collect();
    let mut statements = vec![
        json!({"Sid": "List", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": listed}),
        json!({
            "Sid": "Runs", "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
            "Resource": [runs],
        }),
    ];
    let mut add = |sid: &str, action: &str, objects: &BTreeSet<(Option<String>, String)>| {
        if !objects.is_empty() {
            let resources: Vec<String> = objects.iter().map(object).collect();
            statements.push(
                json!({"Sid": sid, "Effect": "Allow", "Action": [action], "Resource": resources}),
            );
        }
    };
    add("NamedObjects", "s3:PutObject", &touched.written);
    add("Sources", "s3:GetObject", &touched.read);
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// The role of `worker load` in Elasticsearch: `PUT /_security/role/paceline`.
pub fn elasticsearch(touched: &Touched) -> Value {
    let names: Vec<String> = touched
        .indices
        .iter()
        .flat_map(|name| [name.clone(), format!("{name}-*")])
        .collect();
    let mut indices = vec![json!({
        "names": names,
        // `manage` makes, removes and swaps: an alias is moved by it.
        "privileges": ["manage", "write", "read", "view_index_metadata"],
    })];
    if !touched.searched.is_empty() {
        indices.push(json!({"names": touched.searched, "privileges": ["read"]}));
    }
    json!({"cluster": ["monitor"], "indices": indices})
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::spec::SpecFolder;

    fn fleet() -> FleetSettings {
        FleetSettings {
            bucket: "paceline".into(),
            prefix: "paceline".into(),
            namespace: "paceline".into(),
        }
    }

    fn examples() -> Touched {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/spec");
        let folder = SpecFolder::open(folder.as_ref()).expect("the examples");
        let jobs = folder.job_names().into_iter();
        let jobs: Vec<LoadedJob> = jobs.map(|job| folder.job(job).expect(job)).collect();
        Touched::of(&jobs)
    }

    #[test]
    fn a_template_becomes_a_pattern() {
        assert_eq!(pattern("fares:{{ destination }}"), "fares:*");
        assert_eq!(pattern("a/{{ b }}/{{ c | upper }}.csv"), "a/*/*.csv");
        assert_eq!(pattern("plain"), "plain");
    }

    /// `deploy/rights` holds what the examples need. `make metrics` (`UPDATE_DOCS=1`) writes the files anew.
    #[test]
    fn the_files_are_those_of_the_examples() {
        let touched = examples();
        let json = |value: &Value| serde_json::to_string_pretty(value).expect("plain data") + "\n";
        let files = [
            ("redis.acl", redis(&fleet(), &touched)),
            ("rabbitmq.json", json(&rabbitmq(&fleet()))),
            ("s3-policy.json", json(&s3(&fleet(), &touched))),
            ("elasticsearch-role.json", json(&elasticsearch(&touched))),
        ];
        for (name, text) in files {
            let path = format!("{}/../deploy/rights/{name}", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("UPDATE_DOCS").is_some() {
                std::fs::write(&path, text).expect("written");
            } else {
                let found = std::fs::read_to_string(&path).expect(&path);
                assert_eq!(found, text, "{name}: run `make metrics`");
            }
        }
    }

    #[test]
    fn nothing_but_the_jobs_own_names_is_allowed() {
        let touched = examples();
        let line = redis(&fleet(), &touched);
        assert!(line.contains(" ~fares:* "), "{line}");
        assert!(
            !line.contains(" ~* ") && !line.contains("allkeys"),
            "{line}"
        );
        let policy = s3(&fleet(), &touched).to_string();
        assert!(
            policy.contains("arn:aws:s3:::paceline/paceline/*"),
            "{policy}"
        );
        assert!(
            !policy.contains("\"*\"") && !policy.contains("s3:*"),
            "{policy}"
        );
    }
}
