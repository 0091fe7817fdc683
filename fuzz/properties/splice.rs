//! What holds for a body that is sent on with another model or a question for usage.

use std::ops::Range;

use bytes::Bytes;
use flotilla::domain::Payload;
use flotilla::provider::{Endpoint, Envelope};
use serde_json::{Value, from_slice, json};

use super::tree::Tree;

/// Names that a body may get: plain, and with whatever has to be escaped in JSON.
const NAMES: [Option<&str>; 4] = [None, Some("m"), Some("n"), Some("vendor/\"mödel\"\\ \u{1f6a2}")];

/// What is sent reads as the original with nothing but the model and the question changed, and all
/// other bytes are the original's own.
pub(crate) fn check(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let (endpoint, content_type) = if bytes.starts_with(b"--") {
        (Endpoint::ImagesEdits, Some("multipart/form-data; boundary=b"))
    } else {
        (Endpoint::ChatCompletions, None)
    };
    let Ok(envelope) = Envelope::read(endpoint, content_type, &body) else { return };
    for model in NAMES {
        for ask in [false, true] {
            let payload = envelope.rewrite(&body, model, ask);
            others_are_shared(&envelope, &body, &payload);
            let sent = payload.to_bytes();
            assert_eq!(sent.len(), payload.len());
            let asks = ask && envelope.usage_can_be_asked();
            if !asks && model.is_none_or(|name| name == envelope.model) {
                assert_eq!(sent, body, "nothing was to be changed");
            }
            let again = Envelope::read(endpoint, content_type, &sent).expect("it stays valid");
            assert_eq!(again.model, model.unwrap_or(&envelope.model));
            assert_eq!(again.include_usage, envelope.include_usage || asks);
            let rest = |it: &Envelope| (it.stream, it.max_tokens, it.user.clone(), it.choices);
            assert_eq!(rest(&again), rest(&envelope));
            if content_type.is_none()
                && let Ok(before) = from_slice::<Tree>(&body)
            {
                let after: Tree = from_slice(&sent).expect("it stays JSON");
                assert_eq!(after, expected(before, model, asks));
            }
        }
    }
}

/// The original with the two changes made to the tree.
fn expected(mut tree: Tree, model: Option<&str>, asks: bool) -> Tree {
    let Tree::Map(fields) = &mut tree else { unreachable!("an envelope is a map") };
    let yes = || ("include_usage".to_owned(), Tree::Leaf(json!(true)));
    let mut asked = !asks;
    for (key, value) in fields.iter_mut() {
        match (key.as_str(), model) {
            ("model", Some(name)) => *value = Tree::Leaf(name.into()),
            ("stream_options", _) if asks => {
                asked = true;
                match value {
                    Tree::Map(options) => {
                        match options.iter_mut().find(|(key, _)| key == "include_usage") {
                            Some(option) => *option = yes(),
                            None => options.insert(0, yes()),
                        }
                    }
                    _ => *value = Tree::Map(vec![yes()]),
                }
            }
            _ => {}
        }
    }
    if !asked {
        fields.insert(0, ("stream_options".to_owned(), Tree::Map(vec![yes()])));
    }
    tree
}

/// Every piece is either the original's own memory, in order, or one of two insertions; and what
/// is left out between them is a model's name, `false` or `null`.
fn others_are_shared(envelope: &Envelope, body: &Bytes, payload: &Payload) {
    let place = |piece: &Bytes| -> Option<Range<usize>> {
        let start = (piece.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
        (start + piece.len() <= body.len()).then_some(start..start + piece.len())
    };
    let (mut done, mut inserted) = (0, 0);
    let mut left_out = Vec::new();
    for piece in payload.pieces() {
        match place(piece) {
            Some(at) => {
                assert!(done <= at.start, "pieces stand in order");
                left_out.push(done..at.start);
                done = at.end;
            }
            None => inserted += 1,
        }
    }
    left_out.push(done..body.len());
    assert!(inserted <= 2, "the model and the question");
    for gap in left_out.into_iter().filter(|gap| !gap.is_empty()) {
        let text = &body[gap];
        let plain = text == envelope.model.as_bytes();
        let harmless = match from_slice::<Value>(text) {
            Ok(Value::String(name)) => name == envelope.model,
            Ok(Value::Bool(false) | Value::Null) => true,
            _ => false,
        };
        assert!(plain || harmless, "{:?} was left out", String::from_utf8_lossy(text));
    }
}
