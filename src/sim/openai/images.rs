//! Images: one pixel, plain or as a stream of a partial and a final picture.

use bytes::Bytes;

use super::super::body::Beat;
use super::super::json::push;
use super::super::reply::Reply;
use super::super::server::created;
use super::script::{Pace, breaks, interrupted};
use super::{Scene, tokens_in};

/// A PNG of one blue pixel, in base64.
const PIXEL: &str = concat!(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mPQz18PAAIeAU4YXjpHAAAA",
    "AElFTkSuQmCC",
);

/// What every picture of the simulator is.
const LOOK: &str =
    r#""background":"opaque","output_format":"png","quality":"low","size":"1024x1024""#;

/// Answers with pictures; `event` begins the names of a stream's events.
pub(super) fn answer(scene: &Scene<'_>, event: &str) -> Reply {
    let input = tokens_in(scene.ask.input);
    let output = 16 * u64::from(scene.ask.n);
    let total = input + output;
    let usage = format!(
        concat!(
            r#""usage":{{"input_tokens":{},"output_tokens":{},"total_tokens":{},"#,
            r#""input_tokens_details":{{"text_tokens":{},"image_tokens":0}}}}"#,
        ),
        input, output, total, input
    );
    let created = created();
    if scene.ask.stream {
        return stream(scene, event, created, &usage);
    }
    let mut out = format!(r#"{{"created":{created},"data":["#);
    for index in 0..scene.ask.n {
        out.push_str(if index > 0 { "," } else { "" });
        push(&mut out, format_args!(r#"{{"b64_json":"{PIXEL}"}}"#));
    }
    push(&mut out, format_args!("],{LOOK},{usage}}}"));
    scene.json(out)
}

fn stream(scene: &Scene<'_>, event: &str, created: u64, usage: &str) -> Reply {
    let make = |name: &str, more: &str| {
        let name = format!("{event}.{name}");
        let body = format!(r#""b64_json":"{PIXEL}","created_at":{created},{LOOK},{more}"#);
        Bytes::from(format!("event: {name}\ndata: {{\"type\":\"{name}\",{body}}}\n\n"))
    };
    let pace = Pace::new(&scene.config, scene.stage.chance.fork());
    let partial = make("partial_image", r#""partial_image_index":0"#);
    let opening = [Beat::Wait(pace.before(0)), Beat::Send(partial)];
    let broken = scene.fault.filter(|fault| breaks(*fault));
    let closing = broken
        .is_none()
        .then(|| [Beat::Wait(pace.before(1)), Beat::Send(make("completed", usage))]);
    let middle = broken.into_iter().flat_map(interrupted);
    Reply::events(opening.into_iter().chain(middle).chain(closing.into_iter().flatten()))
}
