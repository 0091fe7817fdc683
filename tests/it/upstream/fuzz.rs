//! Answers of all shapes, cut anywhere: each request gets its own or an error, never another's.

use flotilla::upstream::{Config, SendError};
use proptest::prelude::*;

use super::{client_of, on_worker, read};
use crate::support::wall::{Script, Wall};

/// How an answer looks. `#` stands for the number of its request.
#[derive(Clone, Debug)]
struct Shape {
    bytes: String,
    /// What a client must make of it; `None` where it may refuse it.
    body: Option<String>,
    closes: bool,
    /// How much comes behind it. It comes together with the last byte of the answer: where it
    /// arrives later, when the next request is on its way, no client can tell whose it is.
    surplus: usize,
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// Answers that are whole and clear.
fn good() -> impl Strategy<Value = Shape> {
    let interim = prop_oneof![
        4 => Just(""),
        1 => Just("HTTP/1.1 100 Continue\r\n\r\n"),
        1 => Just("HTTP/1.1 103 Early Hints\r\nlink: x\r\ncontent-length: 3\r\n\r\n"),
        1 => Just("HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\nlink: x\r\n\r\n"),
    ];
    let own = "answer #";
    let length = own.len();
    let shape = prop_oneof![
        Just((format!("{OK}content-length: {length}\r\n\r\n{own}"), own, false)),
        Just((
            format!("{OK}Content-Length:{length}\r\nconnection: close\r\n\r\n{own}"),
            own,
            false
        )),
        (1..length, any::<bool>(), any::<bool>()).prop_map(move |(cut, extension, trailer)| {
            let (first, second) = own.split_at(cut);
            let extension = if extension { ";x=\"y\"" } else { "" };
            let trailer = if trailer { "x-end: #\r\n" } else { "" };
            let chunks = format!(
                "{:x}{extension}\r\n{first}\r\n0{:X}\r\n{second}\r\n0\r\n{trailer}\r\n",
                first.len(),
                second.len(),
            );
            (format!("{OK}transfer-encoding: chunked\r\n\r\n{chunks}"), own, false)
        }),
        Just((format!("{OK}x: y\r\n\r\n{own}"), own, true)),
        Just((format!("HTTP/1.0 200 OK\r\n\r\n{own}"), own, true)),
        Just((
            format!(
                "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: {length}\r\n\r\n{own}"
            ),
            own,
            false
        )),
        Just(("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n".into(), "", false)),
        Just(("HTTP/1.1 304 N\r\ntransfer-encoding: chunked\r\n\r\n".into(), "", false)),
        Just(("HTTP/1.1 205 Reset\r\ncontent-length: 0\r\n\r\n".into(), "", false)),
    ];
    (interim, shape).prop_map(|(interim, (bytes, body, closes)): (_, (String, &str, bool))| Shape {
        bytes: format!("{interim}{bytes}"),
        body: Some(body.to_owned()),
        closes,
        surplus: 0,
    })
}

/// The same with something wrong: surplus behind it, bytes changed, cut short.
fn bad() -> impl Strategy<Value = Shape> {
    let surplus = prop_oneof![
        Just("\r\n".to_owned()),
        Just("garbage".to_owned()),
        Just(format!("{OK}content-length: 4\r\n\r\nevil")),
        Just("HTTP/1.1 103 E\r\n\r\n".to_owned()),
    ];
    let behind = (good(), surplus).prop_map(|(good, surplus)| {
        // What reads until the close reads all.
        let body = if good.closes { None } else { good.body };
        Shape {
            bytes: format!("{}{surplus}", good.bytes),
            body,
            closes: good.closes,
            surplus: surplus.len(),
        }
    });
    let changed =
        (good(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(good, at, with)| {
            let mut bytes = good.bytes.into_bytes();
            let at = at.index(bytes.len());
            // The number itself stays: it tells whose answer this is.
            if bytes[at] != b'#' {
                bytes[at] = with & 0x7f;
            }
            let bytes = String::from_utf8(bytes).expect("ASCII");
            Shape { bytes, body: None, closes: true, surplus: 0 }
        });
    let short = (good(), any::<prop::sample::Index>()).prop_map(|(mut good, at)| {
        good.bytes.truncate(at.index(good.bytes.len()));
        Shape { bytes: good.bytes, body: None, closes: true, surplus: 0 }
    });
    prop_oneof![behind, changed, short]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: 64, ..ProptestConfig::default()
    })]

    // T32
    #[test]
    fn no_request_gets_anothers_answer(
        shapes in prop::collection::vec(prop_oneof![3 => good(), 1 => bad()], 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let count = shapes.len();
        let mut expected = Vec::new();
        let scripts = shapes.iter().enumerate().map(|(number, shape)| {
            let bytes = shape.bytes.replace('#', &number.to_string());
            let body = shape.body.as_ref();
            expected.push(body.map(|body| body.replace('#', &number.to_string())));
            let last = bytes.len() - shape.surplus;
            let mut offsets: Vec<_> = cuts.iter().map(|cut| cut.index(last.max(1))).collect();
            offsets.sort_unstable();
            let script = Script::new().split(bytes, &offsets);
            if shape.closes { script.close() } else { script }
        });
        let scripts: Vec<_> = scripts.collect();
        // A stale retry plays a script of its own; which one it was is told by the body it asks for.
        let wall = Wall::start(move |attempt| {
            let body = attempt.body();
            let number: usize = str::from_utf8(&body).expect("text").parse().expect("a number");
            scripts[number].clone()
        });
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            let origin = wall.origin();
            for number in 0..count {
                let call = super::call(actix_http::Method::POST, number.to_string());
                let outcome = match super::in_time(upstream.send(&origin, call)).await {
                    Ok(answer) => read(answer).await,
                    Err(SendError::Closed | SendError::Malformed) => {
                        assert_eq!(expected[number], None, "{number} of {shapes:?}");
                        continue;
                    }
                    Err(error) => unreachable!("{number} of {shapes:?}: {error:?}"),
                };
                match (&expected[number], outcome) {
                    (Some(expected), outcome) => {
                        assert_eq!(outcome, Ok(expected.clone().into()), "{number} of {shapes:?}");
                    }
                    (None, Ok(body) | Err((body, _))) => {
                        // Another's answer would carry another's number.
                        let others = (0..count).filter(|other| *other != number);
                        for other in others {
                            let text = format!("answer {other}");
                            let found = body.windows(text.len()).any(|it| it == text.as_bytes());
                            assert!(!found, "{number} got {body:?} of {shapes:?}");
                        }
                    }
                }
            }
        });
    }
}
