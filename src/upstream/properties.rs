//! The property of the fuzz target `answer` on stable: for every committed seed, and for answers
//! that chance has put together.

#[path = "../../fuzz/properties/answer.rs"]
mod answer;
#[path = "../../fuzz/properties/seeds.rs"]
mod seeds;
#[path = "../../fuzz/properties/splits.rs"]
mod splits;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{framing, head};

const STATUS_LINES: [&str; 7] = [
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 204 \r\n",
    "HTTP/1.1 304 N\r\n",
    "HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200\r\n",
    "HTTP/1.1 101 S\r\n",
];

const HEADERS: [&str; 9] = [
    "Content-Length: 5\r\n",
    "content-length:0\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:\tCHUNKED \r\n",
    "Connection: keep-alive, close\r\n",
    "connection:Keep-Alive\r\n",
    "Upgrade: h2c\r\n",
    "X: y\r\n",
];

const BODIES: [&str; 9] = [
    "hello",
    "5\r\nhello\r\n",
    "0a;x=\"y\" \r\n0123456789\r\n",
    "0\r\n\r\n",
    "0\r\nTrailer: x\r\n\r\n",
    "\r",
    "\n",
    " ",
    "\u{e9}",
];

/// Answers put together from parts that often fit; now and then one byte of them has slipped.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    let headers = prop::collection::vec(select(HEADERS.as_slice()), 0..4);
    let body = prop::collection::vec(select(BODIES.as_slice()), 0..4);
    let slip = prop::option::weighted(0.3, (any::<Index>(), any::<u8>()));
    (select(STATUS_LINES.as_slice()), headers, body, slip).prop_map(
        |(line, headers, body, slip)| {
            let mut bytes = [line, &headers.concat(), "\r\n", &body.concat()].concat().into_bytes();
            if let Some((at, byte)) = slip {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

#[test]
fn every_seed_has_its_property() {
    seeds::seeds(&["fuzz/seeds/answer"]).iter().for_each(|bytes| answer::check(bytes));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2048) })]

    #[test]
    fn any_split_of_an_answer_gives_the_same_and_the_codec_agrees(bytes in answers()) {
        answer::check(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]

    #[test]
    fn a_head_at_the_bound_is_taken_or_refused_wherever_it_is_cut(beside in -40_isize..40) {
        let long = head::MAX_HEAD.saturating_add_signed(beside);
        let start = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ";
        let bytes = format!("{start}{}\r\n\r\n", "y".repeat(long - start.len() - 4));
        answer::check(bytes.as_bytes());
    }
}
