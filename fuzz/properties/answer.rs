//! What holds for the reading of answers' heads and framing, whatever a provider sends.
//!
//! Both are private to `upstream`. The fuzz target and the tests there bring them along under
//! their names, so that nothing has to be public for this.

use actix_http::h1::{ClientCodec, MessageType};
use bytes::BytesMut;
use tokio_util::codec::Decoder;

use super::framing::{Body, Malformed};
use super::head::{Head, Sniffed, sniff};
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
    /// The final head and its bytes as they came.
    head: Option<(Head, Vec<u8>)>,
    /// What belongs to the body.
    body: Vec<u8>,
    /// What is left of the body.
    left: Option<Body>,
}

/// It never panics, any split gives the same, and another reader sees an answer of exactly the same
/// length.
pub(crate) fn check(bytes: &[u8]) {
    for to_head in [false, true] {
        let whole = take_in(&[bytes], to_head);
        for pieces in splits(bytes) {
            let count = pieces.len();
            assert_eq!(take_in(&pieces, to_head), whole, "cut in {count}, to HEAD: {to_head}");
        }
        let Ok(whole) = whole else { continue };
        let head = whole.head.as_ref().map_or(0, |(_, came)| came.len());
        let taken = whole.interim + head + whole.body.len();
        assert!(bytes.len() >= taken, "bytes were made up");
        if let Some((head, came)) = &whole.head
            && !to_head
        {
            // The codec's clock is a task of the runtime that it is made on.
            RUNTIME.with(|system| system.block_on(async { codec_agrees(head, came, &whole) }));
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
            let came = stash.clone();
            match sniff(stash.as_mut_slice(), to_head)? {
                Sniffed::Partial => {
                    assert_eq!(stash, came, "what is not whole stays as it is");
                    break;
                }
                Sniffed::Interim(len) => {
                    made.interim += len;
                    stash.drain(..len);
                }
                Sniffed::Final(head) => {
                    let (came, _) = came.split_at(head.len);
                    let left: Vec<u8> = stash.drain(..head.len).collect();
                    let good = left == came || left == for_codec(&head, came);
                    assert!(good, "a head stays as it is or becomes what the codec needs");
                    made.left = Some(head.body);
                    made.head = Some((head, came.to_vec()));
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

/// The head as the codec draws the right conclusions from it: it knows a body that ends with the
/// connection in HTTP/1.0 only, waits for a close where that says a length of 0, and for a body
/// behind 204 and 304; and after an `upgrade` it reads something else.
fn for_codec(head: &Head, came: &[u8]) -> Vec<u8> {
    let mut bytes = came.to_vec();
    bytes["HTTP/1.".len()] = if head.body == Body::UntilClose { b'0' } else { b'1' };
    let status = &came["HTTP/1.1 ".len()..][..3];
    let mut start = 0;
    for line in came.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let hidden = match name.to_ascii_lowercase().as_slice() {
            b"content-length" | b"transfer-encoding" => status == b"204" || status == b"304",
            b"upgrade" => true,
            _ => false,
        };
        if hidden {
            bytes[start] = b'x';
        }
        start += line.len();
    }
    bytes
}

/// The codec may refuse a head. What it accepts has the same end for both.
fn codec_agrees(head: &Head, came: &[u8], made: &Made) {
    let mut source = BytesMut::from(for_codec(head, came).as_slice());
    source.extend_from_slice(&made.body);
    let mut codec = ClientCodec::default();
    let Ok(decoded) = codec.decode(&mut source) else { return };
    assert!(decoded.is_some(), "the head is whole");
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
