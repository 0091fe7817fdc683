use proptest::prelude::*;

use super::*;

/// All events of `chunks`, the unfinished last one included.
fn scan(chunks: &[&[u8]]) -> Vec<Event> {
    let mut scanner = Scanner::new();
    let mut events = Vec::new();
    for chunk in chunks {
        scanner.feed(Bytes::copy_from_slice(chunk));
        while let Some(event) = scanner.next_event().expect("small") {
            events.push(event);
        }
    }
    events.extend(scanner.finish());
    events
}

fn data(events: &[Event]) -> Vec<String> {
    let texts = events.iter().filter_map(|event| event.data.as_deref());
    texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

#[test]
fn fields_comments_and_several_lines_are_read() {
    let text = b": hello\n\nevent: delta\nid: 7\nretry:10\ndata: a\ndata:b\ndata\n\ndata:  c\n\n";
    let events = scan(&[text]);
    assert_eq!(events.len(), 3);
    assert!(!events[0].fields && events[0].data.is_none());
    assert_eq!(events[1].kind.as_deref(), Some(&b"delta"[..]));
    assert_eq!(data(&events), ["a\nb\n", " c"]);
}

#[test]
fn all_line_ends_and_a_byte_order_mark_are_known() {
    for end in ["\n", "\r\n", "\r"] {
        let text = format!("\u{feff}data: a{end}data: b{end}{end}data: c{end}{end}");
        let events = scan(&[text.as_bytes()]);
        assert_eq!(data(&events), ["a\nb", "c"], "{end:?}");
        assert_eq!(events.len(), 2);
    }
}

#[test]
fn an_event_is_out_as_soon_as_its_blank_line_is() {
    for end in ["\n", "\r\n", "\r"] {
        let mut scanner = Scanner::new();
        scanner.feed(Bytes::from(format!("data: a{end}{end}")));
        assert!(scanner.next_event().expect("small").is_some(), "{end:?}");
    }
}

#[test]
fn an_lf_behind_a_blank_line_that_ended_in_cr_is_cut_off_the_same_wherever_it_comes() {
    let text = b"data: a\rdata: b\r\r\ndata: c\n\n";
    let whole = scan(&[text]);
    assert_eq!(data(&whole), ["a\nb", "c"]);
    for cut in 0..text.len() {
        assert_eq!(scan(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
    }
}

#[test]
fn an_event_in_one_chunk_is_not_copied() {
    let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\n");
    let mut scanner = Scanner::new();
    scanner.feed(chunk.clone());
    let one = scanner.next_event().expect("small").expect("whole");
    let two = scanner.next_event().expect("small").expect("whole");
    assert_eq!(one.raw.as_ptr(), chunk.as_ptr());
    assert_eq!(two.data.expect("given").as_ptr(), chunk[15..].as_ptr());
}

#[test]
fn an_event_without_an_end_is_refused_at_the_bound() {
    let mut scanner = Scanner::new();
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    for _ in 0..16 {
        scanner.feed(chunk.clone());
        assert_eq!(scanner.next_event(), Ok(None));
    }
    scanner.feed(Bytes::from_static(b"\n\n"));
    assert_eq!(scanner.next_event(), Err(ScanError));
}

#[test]
fn places_in_the_data_are_found_in_the_raw_event() {
    let events = scan(&[b"\xEF\xBB\xBFdata: abc\ndata:def\n\n"]);
    let event = &events[0];
    assert_eq!(event.data.as_deref(), Some(&b"abc\ndef"[..]));
    assert_eq!(&event.raw[event.place(1..3)], b"bc");
    assert_eq!(&event.raw[event.place(2..5)], b"c\ndata:d");
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(String::new()),
        Just("data: {\"a\":1}".to_owned()),
        Just(": ping".to_owned()),
        Just("event: error".to_owned()),
        "(data:)?[a-zäß :]{0,8}",
    ];
    (prop::collection::vec(line, 0..20), prop_oneof![Just("\n"), Just("\r\n"), Just("\r")])
        .prop_map(|(lines, end)| lines.join(end).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_split_gives_the_same_events_and_loses_no_byte(
        bytes in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = scan(&[&bytes]);
        prop_assert_eq!(whole.iter().flat_map(|e| e.raw.to_vec()).collect::<Vec<_>>(), bytes.clone());
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut at = 0;
        let pieces: Vec<_> =
            cuts.iter().map(|&cut| &bytes[std::mem::replace(&mut at, cut)..cut]).collect();
        prop_assert_eq!(&scan(&pieces), &whole);
        let single: Vec<_> = bytes.chunks(1).collect();
        prop_assert_eq!(&scan(&single), &whole);
    }
}
