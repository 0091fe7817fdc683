//! What holds for the reader of requests, whatever the body.

use bytes::Bytes;
use flotilla::domain::Code;
use flotilla::provider::{Endpoint, Envelope};
use serde_json::Value;

use super::tree::Tree;

/// The fields that may stand once only, in any spelling.
const ONCE: [&str; 10] = [
    "model",
    "stream",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "user",
    "safety_identifier",
    "stream_options",
    "prompt",
    "stream_format",
];

/// It never panics, and accepts and reads exactly what another reader of JSON finds in the body.
pub(crate) fn check(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let tree = serde_json::from_slice::<Tree>(bytes);
    for endpoint in [Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::AudioSpeech] {
        let outcome = Envelope::read(endpoint, None, &body);
        match (&tree, outcome) {
            (Ok(tree), outcome) => agree(endpoint, tree, outcome),
            (Err(_), Err(_)) => {}
            // What decides nothing is not built, so neither its depth nor its numbers are looked
            // at, and a text in it may hold half a character.
            (Err(error), Ok(_)) => {
                let words = error.to_string();
                let harmless = ["recursion limit", "out of range", "surrogate", "hex escape"];
                assert!(
                    harmless.iter().any(|it| words.contains(it)),
                    "accepted in spite of {words}"
                );
            }
        }
    }
    for content_type in ["multipart/form-data; boundary=b", "multipart/form-data"] {
        drop(Envelope::read(Endpoint::ImagesEdits, Some(content_type), &body));
    }
}

fn agree(endpoint: Endpoint, tree: &Tree, outcome: Result<Envelope, flotilla::domain::Fault>) {
    let options = tree.get("stream_options");
    let twice = ONCE.iter().any(|name| tree.spellings(name) > 1);
    let asked_twice = options.is_some_and(|options| options.spellings("include_usage") > 1);
    let envelope = match outcome {
        Ok(envelope) => envelope,
        Err(fault) => {
            let doubled = fault.code == Code::DuplicateField;
            assert!(!twice || doubled, "a field stands twice: {}", fault.message);
            assert!(!doubled || twice || asked_twice, "nothing stands twice: {}", fault.message);
            assert!(doubled || !is_good(endpoint, tree), "refused: {}", fault.message);
            return;
        }
    };
    assert!(!twice && !asked_twice, "a field stands twice");
    assert!(is_good(endpoint, tree), "accepted");

    let given = |name: &str| tree.get(name).and_then(Tree::given);
    assert_eq!(given("model").and_then(Tree::text), Some(envelope.model.as_str()));
    let stream = match endpoint {
        Endpoint::AudioSpeech => given("stream_format").and_then(Tree::text) == Some("sse"),
        _ => given("stream").and_then(Tree::flag) == Some(true),
    };
    assert_eq!(envelope.stream, stream);
    let number = |name: &str| given(name).and_then(Tree::number);
    let most = number("max_tokens").max(number("max_completion_tokens"));
    assert_eq!(envelope.max_tokens, most);
    let text = |name: &str| given(name).and_then(Tree::text).filter(|text| !text.is_empty());
    assert_eq!(envelope.user.as_deref(), text("user").or(text("safety_identifier")));
    let asked = options.and_then(|options| options.get("include_usage")).and_then(Tree::flag);
    assert_eq!(envelope.include_usage, asked == Some(true));
    let prompts = match tree.get("prompt") {
        Some(Tree::List(prompts)) if endpoint == Endpoint::Completions => {
            let whole = |prompt: &&Tree| prompt.text().is_some() || matches!(prompt, Tree::List(_));
            prompts.iter().filter(whole).count().max(1)
        }
        _ => 1,
    };
    assert_eq!(u64::from(envelope.choices), number("n").unwrap_or(1) * prompts as u64);
}

/// Whether every field that decides something is what it must be.
fn is_good(endpoint: Endpoint, tree: &Tree) -> bool {
    let given = |name: &str| tree.get(name).and_then(Tree::given);
    let all = |names: &[&str], good: fn(&Tree) -> bool| {
        names.iter().all(|name| given(name).is_none_or(good))
    };
    let model = given("model")
        .and_then(Tree::text)
        .is_some_and(|name| (1..=256).contains(&name.len()) && !name.chars().any(char::is_control));
    let flags = match endpoint {
        Endpoint::AudioSpeech => all(&["stream_format"], |it| it.text().is_some()),
        _ => all(&["stream"], |it| it.flag().is_some()),
    };
    let n = |it: &Tree| it.number().is_some_and(|n| (1..=u64::from(u32::MAX)).contains(&n));
    let name = |it: &Tree| it.text().is_some_and(|text| text.len() <= 512);
    // The second of the two is looked at where the first says nothing.
    let named = given("user").is_some_and(|user| user.text() != Some(""));
    let users: &[&str] = if named { &["user"] } else { &["user", "safety_identifier"] };
    let options = match given("stream_options") {
        None => true,
        Some(options @ Tree::Map(_)) => {
            let asked = options.get("include_usage");
            asked.is_none_or(|it| matches!(it, Tree::Leaf(Value::Null | Value::Bool(_))))
        }
        Some(_) => false,
    };
    let lower = |tree: &Tree, name: &str| tree.spellings(name) == tree.exactly(name);
    let inner = tree.get("stream_options").is_none_or(|options| lower(options, "include_usage"));
    tree.fields().is_some()
        && ONCE.iter().all(|name| lower(tree, name))
        && inner
        && model
        && flags
        && all(&["n"], n)
        && all(&["max_tokens", "max_completion_tokens"], |it| it.number().is_some())
        && all(users, name)
        && options
}

// What is asked of a tree here.
impl Tree {
    /// The fields of a map.
    fn fields(&self) -> Option<&[(String, Tree)]> {
        if let Self::Map(fields) = self { Some(fields) } else { None }
    }

    /// The value of the first field of this name.
    fn get(&self, name: &str) -> Option<&Tree> {
        self.fields()?.iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// How many fields have this name in any spelling.
    fn spellings(&self, name: &str) -> usize {
        let fields = self.fields().unwrap_or_default();
        fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).count()
    }

    /// How many fields have exactly this name.
    fn exactly(&self, name: &str) -> usize {
        self.fields().unwrap_or_default().iter().filter(|(key, _)| key == name).count()
    }

    /// The value as a leaf that is not `null`.
    fn given(&self) -> Option<&Tree> {
        Some(self).filter(|tree| **tree != Self::Leaf(Value::Null))
    }

    /// A text.
    fn text(&self) -> Option<&str> {
        if let Self::Leaf(Value::String(text)) = self { Some(text) } else { None }
    }

    /// A truth value.
    fn flag(&self) -> Option<bool> {
        if let Self::Leaf(Value::Bool(flag)) = self { Some(*flag) } else { None }
    }

    /// A whole number that is not negative.
    fn number(&self) -> Option<u64> {
        if let Self::Leaf(Value::Number(number)) = self { number.as_u64() } else { None }
    }
}
