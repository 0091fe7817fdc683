//! What an answer says, in pieces that count as tokens: words, a JSON text, or a call of a tool.

use serde_json::Value;

use super::super::config::Config;
use super::super::fault::Fault;
use super::super::json::push_escaped;
use super::super::sample::sample;
use super::ask::Ask;

/// The words an answer is made of, over and over; nothing in them needs an escape.
const WORDS: [&str; 16] = [
    "This",
    " answer",
    " was",
    " made",
    " up",
    " by",
    " a",
    " simulated",
    " provider",
    ",",
    " word",
    " after",
    " word",
    ",",
    " for",
    " tests.",
];

/// A made-up filling for tokens of a fixed size.
const FILLING: &str = "simulated";

/// JSON is split into pieces of about this many bytes.
const PIECE_BYTES: usize = 6;

/// The content of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// So many words, of natural length or of so many bytes.
    Words { count: u32, bytes: Option<u32> },
    /// A JSON text in pieces.
    Text(Vec<String>),
    /// A call of this tool with these arguments, in pieces.
    Call { name: String, arguments: Vec<String> },
}

/// The content of an answer and why it ends.
#[derive(Debug)]
pub(super) struct Said {
    /// The content.
    pub(super) say: Say,
    /// The finish reason.
    pub(super) reason: &'static str,
}

impl Said {
    /// What to say to this request.
    pub(super) fn choose(ask: &Ask<'_>, config: &Config, fault: Option<Fault>) -> Self {
        if fault.is_none_or(|fault| fault != Fault::Empty) {
            if let Some(say) = call(ask) {
                return Self { say, reason: "tool_calls" };
            }
            if let Some(say) = structured(ask) {
                return Self { say, reason: "stop" };
            }
        }
        let (count, reason) = match fault {
            Some(Fault::Empty) => (0, "stop"),
            Some(Fault::ContentFilter) => (half(config.tokens, config), "content_filter"),
            _ => match ask.max_tokens {
                Some(most) if most < config.tokens => (most, "length"),
                _ => (config.tokens, "stop"),
            },
        };
        Self { say: Say::Words { count, bytes: config.token_bytes }, reason }
    }
}

/// Where in so many tokens a fault happens.
pub(super) fn half(tokens: u32, config: &Config) -> u32 {
    config.fault_after.unwrap_or(tokens.div_ceil(2)).min(tokens)
}

impl Say {
    /// How many pieces it has.
    pub(super) fn pieces(&self) -> u32 {
        match self {
            Self::Words { count, .. } => *count,
            Self::Text(pieces) | Self::Call { arguments: pieces, .. } => {
                u32::try_from(pieces.len()).unwrap_or(u32::MAX)
            }
        }
    }

    /// Appends one piece as it stands between the quotes of a JSON string.
    pub(super) fn push_piece(&self, out: &mut String, piece: u32) {
        let at = piece as usize;
        match self {
            Self::Words { bytes: None, .. } => out.push_str(WORDS[at % WORDS.len()]),
            Self::Words { bytes: Some(bytes), .. } => {
                let letters = std::iter::once(' ').chain(FILLING.chars().cycle());
                out.extend(letters.take(*bytes as usize));
            }
            Self::Text(pieces) | Self::Call { arguments: pieces, .. } => {
                push_escaped(out, pieces.get(at).map_or("", String::as_str));
            }
        }
    }

    /// Appends all of it.
    pub(super) fn push_all(&self, out: &mut String) {
        for piece in 0..self.pieces() {
            self.push_piece(out, piece);
        }
    }
}

/// A call of the first tool, where tools are given and the last message, a user's, speaks of a
/// "tool" or the request demands a call.
fn call(ask: &Ask<'_>) -> Option<Say> {
    let tools: Value = serde_json::from_str(ask.tools?).ok()?;
    let choice = ask.tool_choice.unwrap_or("\"auto\"");
    let demanded = choice == "\"required\"" || choice.starts_with('{');
    if choice == "\"none\"" || !(demanded || wants_tool(ask.input)) {
        return None;
    }
    let function = tools.get(0)?.get("function")?;
    let arguments = function.get("parameters").map(sample).filter(Value::is_object);
    let arguments = arguments.map_or_else(|| "{}".to_owned(), |value| value.to_string());
    let name = function.get("name")?.as_str()?.to_owned();
    Some(Say::Call { name, arguments: split(&arguments) })
}

/// Whether the last message is the user's and speaks of a tool. One that is a tool's result must
/// get words, or a client's loop never ends.
fn wants_tool(messages: &str) -> bool {
    let Ok(Value::Array(messages)) = serde_json::from_str(messages) else { return false };
    let Some(last) = messages.last() else { return false };
    let content = last.get("content").map(Value::to_string).unwrap_or_default();
    last.get("role").and_then(Value::as_str) == Some("user") && content.contains("tool")
}

/// A JSON text, where one is asked for.
fn structured(ask: &Ask<'_>) -> Option<Say> {
    let format: Value = serde_json::from_str(ask.format?).ok()?;
    let value = match format.get("type")?.as_str()? {
        "json_object" => serde_json::json!({ "answer": "simulated" }),
        "json_schema" => sample(format.pointer("/json_schema/schema")?),
        _ => return None,
    };
    Some(Say::Text(split(&value.to_string())))
}

/// Splits a text into pieces of a few bytes, between characters.
fn split(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for char in text.chars() {
        if pieces.last().is_some_and(|piece| piece.len() >= PIECE_BYTES) {
            pieces.push(String::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(char);
        }
    }
    pieces
}
