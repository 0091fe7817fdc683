//! Audio: a tenth of a second of silence, and transcripts of whatever is uploaded.

use bytes::Bytes;

use super::super::base64;
use super::super::body::Beat;
use super::super::json::push;
use super::super::reply::Reply;
use super::say::{Said, half};
use super::script::{Pace, breaks, interrupted};
use super::{Scene, tokens_in};

/// Samples in the speech: a tenth of a second.
const SAMPLES: u32 = 800;

/// Samples in a second: as many as a telephone has.
const RATE: u32 = 8000;

/// Answers `audio/speech`: always a WAV, whatever format is asked for.
pub(super) fn speech(scene: &Scene<'_>) -> Reply {
    if scene.ask.stream_format != Some("sse") {
        return Reply::whole("audio/wav", silence(), scene.duration(1), scene.fault);
    }
    let mut delta = String::from("data: {\"type\":\"speech.audio.delta\",\"audio\":\"");
    base64::push(&mut delta, silence());
    delta.push_str("\"}\n\n");
    let input = tokens_in(scene.ask.input);
    let done = format!(
        "data: {{\"type\":\"speech.audio.done\",{}}}\n\n",
        format_args!(
            r#""usage":{{"input_tokens":{input},"output_tokens":2,"total_tokens":{}}}"#,
            input + 2
        )
    );
    events(scene, vec![delta.into()], done.into())
}

/// Answers `audio/transcriptions` and, where they may not stream, `audio/translations`.
pub(super) fn transcript(scene: &Scene<'_>, may_stream: bool) -> Reply {
    let Said { say, .. } = Said::choose(scene.ask, &scene.config, scene.fault);
    let mut text = String::new();
    say.push_all(&mut text);
    let tokens = say.pieces();
    let after = scene.duration(tokens);
    let usage = format!(
        concat!(
            r#""usage":{{"type":"tokens","input_tokens":10,"#,
            r#""input_token_details":{{"text_tokens":0,"audio_tokens":10}},"#,
            r#""output_tokens":{},"total_tokens":{}}}"#,
        ),
        tokens,
        u64::from(tokens) + 10
    );
    if may_stream && scene.ask.stream {
        let deltas = (0..tokens).map(|piece| {
            let mut out = String::from("data: {\"type\":\"transcript.text.delta\",\"delta\":\"");
            say.push_piece(&mut out, piece);
            out.push_str("\"}\n\n");
            Bytes::from(out)
        });
        let done =
            format!("data: {{\"type\":\"transcript.text.done\",\"text\":\"{text}\",{usage}}}\n\n");
        return events(scene, deltas.collect(), done.into());
    }
    match scene.ask.format {
        Some("text") => {
            text.push('\n');
            Reply::whole("text/plain; charset=utf-8", text, after, scene.fault)
        }
        Some("srt") => {
            let srt = format!("1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n");
            Reply::whole("text/plain; charset=utf-8", srt, after, scene.fault)
        }
        Some("vtt") => {
            let vtt = format!("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{text}\n\n");
            Reply::whole("text/plain; charset=utf-8", vtt, after, scene.fault)
        }
        Some("verbose_json") => {
            let task = if may_stream { "transcribe" } else { "translate" };
            let mut out = format!(r#"{{"task":"{task}","language":"english","duration":1.0,"#);
            push(&mut out, format_args!(r#""text":"{text}","segments":[{{"id":0,"seek":0,"#));
            push(&mut out, format_args!(r#""start":0.0,"end":1.0,"text":"{text}","tokens":[],"#));
            out.push_str(r#""temperature":0.0,"avg_logprob":-0.1,"compression_ratio":1.0,"#);
            out.push_str(r#""no_speech_prob":0.0}],"usage":{"type":"duration","seconds":1}}"#);
            Reply::json(out, after, scene.fault)
        }
        _ => Reply::json(format!(r#"{{"text":"{text}",{usage}}}"#), after, scene.fault),
    }
}

/// A stream of typed events: some pieces and the one that ends it.
fn events(scene: &Scene<'_>, mut deltas: Vec<Bytes>, done: Bytes) -> Reply {
    let pace = Pace::new(&scene.config, scene.stage.chance.fork());
    let broken = scene.fault.filter(|fault| breaks(*fault));
    if broken.is_some() {
        let all = u32::try_from(deltas.len()).unwrap_or(u32::MAX);
        deltas.truncate(half(all, &scene.config) as usize);
    }
    let content = (0..)
        .zip(deltas)
        .flat_map(move |(token, delta)| [Beat::Wait(pace.before(token)), Beat::Send(delta)]);
    let middle = broken.into_iter().flat_map(interrupted);
    let closing = broken.is_none().then_some(Beat::Send(done));
    Reply::events(content.chain(middle).chain(closing))
}

/// A WAV file of silence: one channel, eight bits.
fn silence() -> Vec<u8> {
    let mut out = Vec::with_capacity(44 + SAMPLES as usize);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&(36 + SAMPLES).to_le_bytes());
    out.extend_from_slice(b"WAVEfmt ");
    out.extend_from_slice(&16_u32.to_le_bytes());
    // Format 1 is plain samples, of one channel.
    out.extend_from_slice(&[1, 0, 1, 0]);
    // Samples and bytes per second are the same: one byte for each sample.
    out.extend_from_slice(&RATE.to_le_bytes());
    out.extend_from_slice(&RATE.to_le_bytes());
    out.extend_from_slice(&[1, 0, 8, 0]);
    out.extend_from_slice(b"data");
    out.extend_from_slice(&SAMPLES.to_le_bytes());
    // The middle of the range is silence.
    out.resize(44 + SAMPLES as usize, 128);
    out
}
