//! What holds for the reading of answers' heads and framing, whatever a provider sends.
//!
//! Both are private to `upstream`. The fuzz target and the tests there bring them along under
//! their names, so that nothing has to be public for this.

use actix_http::h1::{ClientCodec, MessageType};
use bytes::BytesMut;
use tokio_util::codec::Decoder;

use super::framing::{Body, Malformed};
use super::head::{Head, Sniffed, restore, sniff};
use super::splits::splits;

thread_local! {
    /// One for each thread and never dropped: making one takes longer than a check.
    static RUNTIME: &'static actix_rt::SystemRunner = Box::leak(Box::new(actix_rt::System::new()));
}

/// What a connection makes of what came.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    /// Bytes of informational heads.
    interim: usize,
    /// The final head and its patched bytes.
    head: Option<(Head, Vec<u8>)>,
    /// What belongs to the body.
    body: Vec<u8>,
    /// What is left of the body.
    left: Option<Body>,
}

/// It never panics, any split gives the same, and the codec behind it sees an answer of exactly
/// the same length.
pub(crate) fn check(bytes: &[u8]) {
    for to_head in [false, true] {
        let whole = take_in(&[bytes], to_head);
        for pieces in splits(bytes) {
            let count = pieces.len();
            assert_eq!(take_in(&pieces, to_head), whole, "cut in {count}, to HEAD: {to_head}");
        }
        let Ok(whole) = whole else { continue };
        assert!(whole.interim + whole.body.len() <= bytes.len());
        if let Some((head, patched)) = &whole.head {
            assert_eq!(patched.len(), head.len, "patching changes no length");
            if !to_head {
                // The codec's clock is a task of the runtime that it is made on.
                RUNTIME
                    .with(|system| system.block_on(async { codec_agrees(head, patched, &whole) }));
            }
        }
    }
}

/// As a connection takes it in: pieces are gathered until the final head is whole.
fn take_in(pieces: &[&[u8]], to_head: bool) -> Result<Made, Malformed> {
    let mut made = Made { interim: 0, head: None, body: Vec::new(), left: None };
    let mut stash: Vec<u8> = Vec::new();
    for piece in pieces {
        stash.extend_from_slice(piece);
        while made.head.is_none() && !stash.is_empty() {
            match sniff(&mut stash, to_head)? {
                Sniffed::Partial => break,
                Sniffed::Interim(len) => {
                    made.interim += len;
                    stash.drain(..len);
                }
                Sniffed::Final(head) => {
                    let patched = stash.drain(..head.len).collect();
                    made.left = Some(head.body);
                    made.head = Some((head, patched));
                }
            }
        }
        if let Some(left) = &mut made.left {
            let taken = left.feed(&stash);
            assert!(taken == stash.len() || left.is_complete() || left.is_malformed());
            made.body.extend(stash.drain(..taken));
            if left.is_complete() || left.is_malformed() {
                break;
            }
        }
    }
    Ok(made)
}

/// The codec may refuse a head. What it accepts has the same end for both.
fn codec_agrees(head: &Head, patched: &[u8], made: &Made) {
    let mut source = BytesMut::from(patched);
    source.extend_from_slice(&made.body);
    let mut codec = ClientCodec::default();
    let Ok(decoded) = codec.decode(&mut source) else { return };
    let mut decoded = decoded.expect("the head is whole");
    if head.patched {
        restore(&mut decoded.headers);
    }
    if codec.message_type() == MessageType::None {
        assert_eq!(head.body, Body::Length(0), "the codec sees no body");
        return;
    }
    let mut codec = codec.into_payload_codec();
    let (mut data, mut ended) = (Vec::new(), false);
    while let Some(piece) = codec.decode(&mut source).expect("the framing is good so far") {
        match piece {
            Some(piece) => data.extend_from_slice(&piece),
            None => {
                ended = true;
                break;
            }
        }
    }
    let left = made.left.expect("there is a head");
    assert_eq!(ended, left.is_complete(), "both see the same end");
    assert!(!ended || source.is_empty(), "and nothing behind it");
    if !matches!(head.body, Body::Chunked(..)) {
        assert_eq!(data, made.body, "and the same bytes");
    }
}
