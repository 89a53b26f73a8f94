//! `producer new`: drafts are right as `check` sees them, and secrets stay out of them.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use harness::Binaries;

fn producer(spec: &Path, arguments: &[&str]) -> Output {
    let binaries = Binaries::find().expect("they are built");
    Command::new(binaries.path("producer"))
        .args(arguments)
        .env("PACELINE_SPEC", spec)
        .env("WEATHER_URL", "http://127.0.0.1:1")
        .env("WEATHER_KEYS", "one,two")
        .output()
        .expect("it starts")
}

#[track_caller]
fn succeeds(spec: &Path, arguments: &[&str]) -> String {
    let output = producer(spec, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_job_on_a_drafted_provider_can_be_planned() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path();
    let path = succeeds(spec, &["new", "provider", "weather"]);
    assert!(
        path.trim_end().ends_with("providers/weather.yaml"),
        "{path}"
    );
    succeeds(spec, &["new", "job", "cities", "--provider", "weather"]);
    let planned = succeeds(spec, &["plan", "cities", "--json"]);
    let planned: serde_json::Value = serde_json::from_str(&planned).expect("JSON");
    assert_eq!(planned["cells"], 1);
}

#[test]
fn a_curl_command_becomes_a_provider_without_its_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path();
    let command = "curl -X POST 'https://api.example.com/v1/search?lang=en&api_key=SECRET1' \
        -H 'Authorization: Bearer SECRET2' -H 'Accept: application/json' -H 'X-Odd: a \"b\": #c' \
        --json '{\"q\": \"a: #b\", \"n\": [1, 2.50]}'";
    let path = succeeds(
        spec,
        &["new", "provider", "weather", "--from-curl", command],
    );
    let text = std::fs::read_to_string(path.trim_end()).expect("written");
    assert!(!text.contains("SECRET"), "{text}");
    succeeds(spec, &["new", "job", "cities", "--provider", "weather"]);
    succeeds(spec, &["check"]);
}

#[test]
fn a_key_in_a_path_stays_out_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path();
    let command = "curl api.example.com/v1/accounts/sk_live_ABCDEF1234567890abcdef/list";
    let path = succeeds(
        spec,
        &["new", "provider", "weather", "--from-curl", command],
    );
    let text = std::fs::read_to_string(path.trim_end()).expect("written");
    assert!(
        text.contains("/v1/accounts/{{ credential.key }}/list"),
        "{text}"
    );
    assert!(text.contains("from_env: WEATHER_KEYS"), "{text}");
    assert!(
        text.contains("http://api.example.com"),
        "as curl takes it: {text}"
    );
    let literal = text.replace("{{ credential.key }}", "bot123456:AAFabcdefghijklmnop");
    std::fs::write(path.trim_end(), literal).expect("written");
    let refused = producer(spec, &["check"]);
    assert_eq!(refused.status.code(), Some(3));
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("the path holds a secret"), "{said}");
}

#[test]
fn a_file_that_is_there_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path();
    let path = succeeds(spec, &["new", "provider", "weather"]);
    std::fs::write(path.trim_end(), "mine").expect("written");
    let again = producer(spec, &["new", "provider", "weather"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(
        std::fs::read_to_string(path.trim_end()).expect("kept"),
        "mine"
    );
    let odd = producer(spec, &["new", "provider", "../odd"]);
    assert_eq!(odd.status.code(), Some(2));
}

#[test]
fn flags_say_what_a_terminal_would_ask() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path();
    let url = "https://api.example.com/v1/search?lang=en&api_key=SECRET1";
    let records = "$.data.rows[*]";
    let flags = ["--url", url, "--rate", "300/min", "--records", records];
    let path = succeeds(
        spec,
        &[&["new", "provider", "weather"], &flags[..]].concat(),
    );
    let text = std::fs::read_to_string(path.trim_end()).expect("written");
    for line in [
        "base_url: \"https://api.example.com\"",
        "get: /v1/search",
        "lang: en",
        "rate: 300/min",
        "records: \"$.data.rows[*]\"",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("SECRET"), "{text}");
    let wrong = producer(spec, &["new", "provider", "other", "--rate", "fast"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(!spec.join("providers/other.yaml").exists());
    let nameless = producer(spec, &["new", "provider"]);
    assert_eq!(nameless.status.code(), Some(2));
    let said = String::from_utf8_lossy(&nameless.stderr).into_owned();
    assert!(said.contains("a name is missing"), "{said}");
}

/// Runs `producer` on a terminal of its own and answers what it asks, each line after the text that it waits for.
fn answered(spec: &Path, arguments: &[&str], answers: &[(&str, &str)]) -> (Option<i32>, String) {
    let binaries = Binaries::find().expect("they are built");
    let terminal = nix::pty::openpty(None, None).expect("a terminal");
    let side = || Stdio::from(terminal.slave.try_clone().expect("a copy"));
    let mut child = Command::new(binaries.path("producer"))
        .args(arguments)
        .env("PACELINE_SPEC", spec)
        .env("TERM", "xterm")
        .stdin(side())
        .stderr(side())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    drop(terminal.slave);
    let mut master = std::fs::File::from(terminal.master);
    let mut said = String::new();
    let mut seen = 0;
    let mut answers = answers.iter().peekable();
    let mut buffer = [0; 4096];
    // A terminal that nobody holds any more gives an error.
    while let Ok(read @ 1..) = master.read(&mut buffer) {
        said += &String::from_utf8_lossy(&buffer[..read]);
        if let Some((question, answer)) = answers.peek()
            && let Some(at) = said[seen..].find(question)
        {
            seen += at + question.len();
            master
                .write_all(format!("{answer}\r").as_bytes())
                .expect("written");
            answers.next();
        }
    }
    (child.wait().expect("it ends").code(), said)
}

#[test]
fn a_terminal_is_asked_for_what_was_not_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path();
    let (code, said) = answered(
        spec,
        &["new", "provider"],
        &[
            ("Name of the provider", "weather"),
            (
                "A URL that it answers",
                "https://api.example.com/v1/days?lang=en",
            ),
            ("Header that carries a key", "x-api-key"),
            ("Calls that its manual allows", "20/s"),
            ("Where the records lie", "$.days[*]"),
        ],
    );
    assert_eq!(code, Some(0), "{said}");
    let text = std::fs::read_to_string(spec.join("providers/weather.yaml")).expect("written");
    for line in ["get: /v1/days", "x-api-key", "rate: 20/s", "$.days[*]"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let asked = [("Name of the job", "No name"), ("a to z", "days")];
    let (code, said) = answered(spec, &["new", "job"], &asked);
    assert_eq!(code, Some(0), "{said}");
    assert!(spec.join("jobs/days.yaml").exists());
}

/// A document with references in circles, from which a file comes that is right.
const PETS: &str = r##"
openapi: 3.1.0
info: {title: Pets, version: "1"}
servers: [{url: "https://pets.test/v1"}]
security: [{key: []}]
paths:
  /pets:
    get:
      operationId: listPets
      parameters:
        - {name: kind, in: query, required: true, schema: {type: string}}
      responses:
        "200": {content: {application/json: {schema: {$ref: "#/components/schemas/Pets"}}}}
components:
  securitySchemes: {key: {type: apiKey, in: header, name: X-Key}}
  schemas:
    Pets: {type: object, properties: {data: {type: array, items: {$ref: "#/components/schemas/Pet"}}}}
    Pet:
      type: object
      required: [id, born]
      properties:
        id: {type: integer}
        born: {type: string, format: date}
        mother: {$ref: "#/components/schemas/Pet"}
        friends: {type: array, items: {$ref: "#/components/schemas/Pet"}}
    Same: {$ref: "#/components/schemas/Other"}
    Other: {$ref: "#/components/schemas/Same"}
"##;

#[test]
fn an_openapi_document_becomes_a_provider() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path();
    let file = spec.join("pets-api.yaml");
    std::fs::write(&file, PETS).expect("written");
    let file = file.to_string_lossy().into_owned();
    let new = |name: &str, id: &str| {
        let arguments = [
            "new",
            "provider",
            name,
            "--from-openapi",
            &file,
            "--operation",
            id,
        ];
        producer(spec, &arguments)
    };
    let made = new("weather", "listPets");
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
    let path = String::from_utf8_lossy(&made.stdout).into_owned();
    let text = std::fs::read_to_string(path.trim_end()).expect("written");
    assert!(text.contains("records: \"$.data[*]\""), "{text}");
    assert!(text.contains("as: integer}"), "{text}");
    succeeds(spec, &["new", "job", "pets", "--provider", "weather"]);
    succeeds(spec, &["check"]);
    let unknown = new("other", "listPet");
    assert_eq!(unknown.status.code(), Some(2));
    let looped = PETS.replace("schemas/Pets\"", "schemas/Same\"");
    std::fs::write(&file, looped).expect("written");
    assert_eq!(new("other", "listPets").status.code(), Some(2));
}
