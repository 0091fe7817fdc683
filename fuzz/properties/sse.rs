//! What holds for the events of a stream, whatever its bytes.

use bytes::Bytes;
use flotilla::provider::openai::Stream;
use flotilla::provider::{Endpoint, Event, Scanner};

use super::splits::splits;

/// Any split gives the same events; no byte is lost, none is made up, none is held after the end.
/// What follows a stream by its events says the same of it, too.
pub(crate) fn check(bytes: &[u8]) {
    let whole = scan(&[bytes]);
    let raw: Vec<u8> = whole.iter().flat_map(|event| event.raw.to_vec()).collect();
    assert_eq!(raw, bytes, "bytes were lost or made up");
    for event in &whole {
        let data = event.data.as_deref().unwrap_or_default();
        assert!(data.len() <= event.raw.len(), "the data of an event is part of it");
        // What is asked for is JSON, which neither begins nor ends with an LF between two lines.
        let in_line = |byte: &u8| *byte != b'\n';
        if let Some(start) = data.iter().position(in_line)
            && let Some(last) = data.iter().rposition(in_line)
        {
            for (start, end) in [(start, last + 1), (start, start + 1), (last, last + 1)] {
                let place = &event.raw[event.place(start..end)];
                assert_eq!(place.first(), data.get(start), "the data stands there");
                assert_eq!(place.last(), data.get(end - 1), "and ends there");
            }
        }
    }
    for pieces in splits(bytes) {
        assert_eq!(scan(&pieces), whole, "cut in {} pieces", pieces.len());
    }

    for endpoint in [Endpoint::ChatCompletions, Endpoint::ImagesGenerations] {
        for hide in [false, true] {
            let whole = follow(endpoint, hide, &[bytes]);
            for pieces in splits(bytes) {
                assert_eq!(follow(endpoint, hide, &pieces), whole, "{endpoint:?}, hide: {hide}");
            }
        }
    }
}

/// All events, the unfinished last one included.
fn scan(pieces: &[&[u8]]) -> Vec<Event> {
    let mut scanner = Scanner::new();
    let mut events = Vec::new();
    for piece in pieces {
        scanner.feed(Bytes::copy_from_slice(piece));
        while let Some(event) = scanner.next_event().expect("far below the bound") {
            events.push(event);
        }
    }
    events.extend(scanner.finish());
    assert_eq!(scanner.finish(), None, "nothing is held after the end");
    events
}

/// What a client sees of a stream, and what is known of it at its end.
fn follow(
    endpoint: Endpoint,
    hide: bool,
    pieces: &[&[u8]],
) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut stream = Stream::new(endpoint, 1, hide);
    let (mut seen, mut content, mut fault) = (Vec::new(), false, None);
    for piece in pieces {
        let progress = stream.feed(Bytes::copy_from_slice(piece));
        seen.extend_from_slice(&progress.bytes);
        content |= progress.content;
        fault = fault.or(progress.fault);
        if fault.is_some() {
            break;
        }
    }
    if fault.is_none() {
        match stream.finish() {
            Ok(rest) => seen.extend_from_slice(&rest),
            Err(end) => fault = Some(end),
        }
    }
    assert_eq!(stream.is_complete(), fault.is_none());
    (seen, content, fault, stream.usage(), stream.text_bytes())
}
