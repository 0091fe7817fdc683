//! Chat completions and their elder sister, plain and as streams.
//!
//! The plain answer is the simulator's hot path: it is written straight into one string.

use std::rc::Rc;

use bytes::Bytes;

use super::super::json::{push, push_escaped, push_number};
use super::super::reply::Reply;
use super::super::server::created;
use super::say::{Said, Say};
use super::script::{Ending, Pace, script};
use super::{Scene, tokens_in};

/// What does not depend on the request: the simulator is one backend that never changes.
const BACKEND: &str = r#","service_tier":"default","system_fingerprint":"fp_f107111a00""#;

/// What a completion and its chunks are called.
const TEXT: &str = "text_completion";

/// Room for all of a plain answer but its text.
const FRAME_BYTES: usize = 768;

/// Answers `chat/completions` or, where `chat` is false, `completions`.
pub(super) fn answer(scene: &Scene<'_>, chat: bool) -> Reply {
    let Scene { stage, ask, config, fault } = *scene;
    let Said { say, reason } = Said::choose(ask, &config, fault);
    let pieces = say.pieces();
    let choices = if chat { ask.n } else { ask.n.saturating_mul(prompts(ask.inputs().len())) };
    let prompt = tokens_in(ask.input);
    let completion = u64::from(pieces) * u64::from(choices);
    let call_id = matches!(say, Say::Call { .. }).then(|| stage.id("call_")).unwrap_or_default();

    if ask.stream {
        let mut prefix = String::from("data: ");
        push_head(&mut prefix, scene, chat, if chat { "chat.completion.chunk" } else { TEXT });
        prefix.push_str(BACKEND);
        prefix.push_str(r#","choices":["#);
        let suffix = if ask.include_usage { "],\"usage\":null}\n\n" } else { "]}\n\n" };
        let last = ask.include_usage.then(|| {
            let mut last = format!("{prefix}],");
            push_usage(&mut last, prompt, completion);
            last.push_str("}\n\n");
            Bytes::from(last)
        });
        let voice = Voice { prefix, suffix, chat, say, call_id, choices };
        let pace = Pace::new(&config, stage.chance.fork());
        let ending = Ending { reason, usage: last };
        return Reply::events(script(Rc::new(voice), pace, &ending, fault));
    }

    let mut out = String::with_capacity(FRAME_BYTES + 8 * pieces as usize * choices as usize);
    push_head(&mut out, scene, chat, if chat { "chat.completion" } else { TEXT });
    out.push_str(r#","choices":["#);
    for index in 0..choices {
        out.push_str(if index > 0 { r#",{"index":"# } else { r#"{"index":"# });
        push_number(&mut out, index.into());
        if chat {
            push_message(&mut out, &say, &call_id)
        } else {
            push_text(&mut out, &say)
        }
        out.push_str(r#","logprobs":null,"finish_reason":""#);
        out.push_str(reason);
        out.push_str(r#""}"#);
    }
    out.push_str("],");
    push_usage(&mut out, prompt, completion);
    out.push_str(BACKEND);
    out.push('}');
    Reply::json(out, scene.duration(pieces), fault)
}

/// Whatever an answer, or a chunk of it, begins with.
fn push_head(out: &mut String, scene: &Scene<'_>, chat: bool, object: &str) {
    scene.stage.push_id(out, if chat { r#"{"id":"chatcmpl-"# } else { r#"{"id":"cmpl-"# });
    out.push_str(r#"","object":""#);
    out.push_str(object);
    out.push_str(r#"","created":"#);
    push_number(out, created());
    out.push_str(r#","model":""#);
    out.push_str(&scene.ask.model);
    out.push('"');
}

/// The number of prompts as the multiplier of choices.
fn prompts(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The `usage` member.
fn push_usage(out: &mut String, prompt: u64, completion: u64) {
    for (name, tokens) in [
        (r#""usage":{"prompt_tokens":"#, prompt),
        (r#","completion_tokens":"#, completion),
        (r#","total_tokens":"#, prompt + completion),
    ] {
        out.push_str(name);
        push_number(out, tokens);
    }
    out.push_str(concat!(
        r#","prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"#,
        r#""completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"#,
        r#""accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#,
    ));
}

/// The `message` of a plain chat answer.
fn push_message(out: &mut String, say: &Say, call_id: &str) {
    out.push_str(r#","message":{"role":"assistant","content":"#);
    if let Say::Call { name, .. } = say {
        push(out, format_args!(r#"null,"tool_calls":[{{"id":"{call_id}","type":"function","#));
        out.push_str(r#""function":{"name":""#);
        push_escaped(out, name);
        out.push_str(r#"","arguments":""#);
        say.push_all(out);
        out.push_str(r#""}}]"#);
    } else {
        out.push('"');
        say.push_all(out);
        out.push('"');
    }
    out.push_str(r#","refusal":null,"annotations":[]}"#);
}

/// The `text` of a plain completion.
fn push_text(out: &mut String, say: &Say) {
    out.push_str(r#","text":""#);
    say.push_all(out);
    out.push('"');
}

/// The events of one stream, made one at a time: a long stream costs no more memory than a short
/// one.
pub(super) struct Voice {
    prefix: String,
    suffix: &'static str,
    chat: bool,
    /// What is said.
    pub(super) say: Say,
    call_id: String,
    /// To how many choices.
    pub(super) choices: u32,
}

impl Voice {
    /// The event in which a choice begins; a completion has none.
    pub(super) fn opening(&self, index: u32) -> Option<Bytes> {
        self.chat.then(|| {
            self.event(index, "null", |out| {
                out.push_str(r#""role":"assistant","content":"#);
                match &self.say {
                    Say::Call { name, .. } => {
                        push(
                            out,
                            format_args!(
                                r#"null,"tool_calls":[{{"index":0,"id":"{}","#,
                                self.call_id
                            ),
                        );
                        out.push_str(r#""type":"function","function":{"name":""#);
                        push_escaped(out, name);
                        out.push_str(r#"","arguments":""}}]"#);
                    }
                    _ => out.push_str(r#""""#),
                }
                out.push_str(r#","refusal":null"#);
            })
        })
    }

    /// The event that brings one piece of a choice.
    pub(super) fn piece(&self, index: u32, piece: u32) -> Bytes {
        self.event(index, "null", |out| {
            let call = matches!(self.say, Say::Call { .. });
            out.push_str(match (self.chat, call) {
                (true, true) => r#""tool_calls":[{"index":0,"function":{"arguments":""#,
                (true, false) => r#""content":""#,
                (false, _) => "",
            });
            self.say.push_piece(out, piece);
            out.push_str(match (self.chat, call) {
                (true, true) => r#""}}]"#,
                (true, false) => "\"",
                (false, _) => "",
            });
        })
    }

    /// The event in which a choice ends.
    pub(super) fn finish(&self, index: u32, reason: &str) -> Bytes {
        self.event(index, &format!("\"{reason}\""), |_| {})
    }

    fn event(&self, index: u32, reason: &str, delta: impl FnOnce(&mut String)) -> Bytes {
        let mut out = String::with_capacity(self.prefix.len() + self.suffix.len() + 128);
        out.push_str(&self.prefix);
        out.push_str(r#"{"index":"#);
        push_number(&mut out, index.into());
        out.push_str(if self.chat { r#","delta":{"# } else { r#","text":""# });
        delta(&mut out);
        out.push_str(if self.chat { "}" } else { "\"" });
        out.push_str(r#","logprobs":null,"finish_reason":"#);
        out.push_str(reason);
        out.push('}');
        out.push_str(self.suffix);
        Bytes::from(out)
    }
}
