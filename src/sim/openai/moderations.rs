//! Moderations: nothing is ever flagged.

use super::super::json::push;
use super::super::reply::Reply;
use super::Scene;

/// What OpenAI looks for.
const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

pub(super) fn answer(scene: &Scene<'_>) -> Reply {
    let ask = scene.ask;
    let mut out = String::with_capacity(2048);
    let id = scene.stage.id("modr-");
    push(&mut out, format_args!(r#"{{"id":"{id}","model":"{}","results":["#, ask.model));
    for index in 0..ask.inputs().len() {
        out.push_str(if index > 0 { "," } else { "" });
        out.push_str(r#"{"flagged":false"#);
        for (member, value) in [
            ("categories", "false"),
            ("category_scores", "0.0001"),
            ("category_applied_input_types", r#"["text"]"#),
        ] {
            push(&mut out, format_args!(r#","{member}":{{"#));
            for (place, category) in CATEGORIES.iter().enumerate() {
                let comma = if place > 0 { "," } else { "" };
                push(&mut out, format_args!(r#"{comma}"{category}":{value}"#));
            }
            out.push('}');
        }
        out.push('}');
    }
    out.push_str("]}");
    scene.json(out)
}
