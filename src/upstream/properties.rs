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

/// Parts of answers: put together by chance, some of them are answers.
const PARTS: [&str; 24] = [
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 204 \r\n",
    "HTTP/1.1 304 N\r\n",
    "HTTP/1.1 103 E\r\n\r\n",
    "HTTP/1.1 100\r\nX: y\r\n\r\n",
    "HTTP/1.1 101 S\r\n",
    "Content-Length: 5\r\n",
    "content-length:0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: keep-alive, close\r\n",
    "connection:Keep-Alive\r\n",
    "Upgrade: h2c\r\n",
    "X: y\r\n",
    "\r\n",
    "hello",
    "5\r\nhello\r\n",
    "0a;x=\"y\" \r\n0123456789\r\n",
    "0\r\n",
    "0\r\nTrailer: x\r\n",
    "\r",
    "\n",
    " ",
    "\u{e9}",
];

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let start = select(&PARTS[..6]);
    let rest = prop::collection::vec(select(PARTS.as_slice()), 0..9);
    let slip = prop::option::weighted(0.3, (any::<Index>(), any::<u8>()));
    (start, rest, slip).prop_map(|(start, rest, slip)| {
        let mut bytes = [start, &rest.concat()].concat().into_bytes();
        if let Some((at, byte)) = slip {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
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
