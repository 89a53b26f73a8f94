//! Templates: what the reader passes compiles, is rendered or refused, and no error tells a secret.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minijinja::{Value, context};
use paceline_protocol::spec::{expression_names, template_names};
use paceline_protocol::template::{Templates, environment, whole_expression};

fuzz_target!(|source: &str| {
    let is_read = template_names(source).is_ok();
    let mut templates = Templates::new(environment());
    let compiled = templates.compile(source);
    if is_read {
        let compiled = compiled.as_ref().expect("what is read compiles");
        // A loop may take as long as whoever wrote it likes.
        if !source.contains("{%") {
            if let Err(error) = templates.render(compiled, &known()) {
                let told = format!("{error:#} {error:?}");
                assert!(!told.contains("hunter2"), "an error tells a secret: {told}");
            }
        }
    }
    if let Some(expression) = whole_expression(source)
        && expression_names(expression).is_ok()
    {
        let _ = templates.evaluate(expression, &known());
    }
});

fn known() -> Value {
    context! {
        day => "2026-12-30", at => "2026-11-21T03:04:05Z", now_ms => 1_795_000_000_000_i64, n => 12.5,
        text => "a <b>\u{ac00}</b> & ../\r\n", list => [1, 2, 3],
        credential => context! { key => "hunter2", secret => "$2a$04$abcdefghijklmnopqrstuv", totp => "GEZDGNBVGY3TQOJQ" },
    }
}
