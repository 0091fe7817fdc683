use proptest::prelude::*;

use super::*;
use crate::provider::openai::UsageScan;
use crate::provider::{DecodeError, Decoder};

/// A recorded stream: its endpoint, its choices, its bytes, and what a client is to see of it that
/// did not ask for usage.
struct Fixture {
    name: &'static str,
    endpoint: Endpoint,
    choices: u32,
    asked: &'static [u8],
    hidden: &'static [u8],
    usage: (u64, u64, u64, u64),
}

macro_rules! fixture {
    ($name:literal, $hidden:literal, $endpoint:ident, $choices:literal, $usage:expr) => {
        Fixture {
            name: $name,
            endpoint: Endpoint::$endpoint,
            choices: $choices,
            asked: include_bytes!(concat!("../../../../tests/fixtures/openai/", $name)),
            hidden: include_bytes!(concat!("../../../../tests/fixtures/openai/", $hidden)),
            usage: $usage,
        }
    };
}

const FIXTURES: [Fixture; 8] = [
    fixture!("text.sse", "text.hidden.sse", ChatCompletions, 1, (14, 9, 4, 0)),
    fixture!("tools.sse", "tools.hidden.sse", ChatCompletions, 1, (61, 15, 0, 0)),
    fixture!("two_choices.sse", "two_choices.hidden.sse", ChatCompletions, 2, (8, 5, 0, 0)),
    fixture!("reasoning.sse", "reasoning.hidden.sse", ChatCompletions, 1, (20, 30, 0, 22)),
    fixture!("completions.sse", "completions.hidden.sse", Completions, 2, (6, 4, 0, 0)),
    fixture!("transcript.sse", "transcript.sse", AudioTranscriptions, 1, (31, 14, 0, 0)),
    fixture!("image.sse", "image.sse", ImagesGenerations, 1, (40, 260, 0, 0)),
    fixture!("speech.sse", "speech.sse", AudioSpeech, 1, (12, 88, 0, 0)),
];

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    bytes: Vec<u8>,
    end: Result<(), StreamFault>,
    content: bool,
    usage: Option<Usage>,
    text_bytes: u64,
}

fn run<'a>(stream: &mut Stream, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut bytes, mut content, mut end) = (Vec::new(), false, Ok(()));
    for chunk in chunks {
        let progress = stream.feed(Bytes::copy_from_slice(chunk));
        bytes.extend_from_slice(&progress.bytes);
        content |= progress.content;
        if let Some(fault) = progress.fault {
            end = Err(fault);
            break;
        }
    }
    let end = end.and_then(|()| stream.finish().map(|rest| bytes.extend_from_slice(&rest)));
    assert_eq!(stream.is_complete(), end.is_ok());
    Outcome { bytes, end, content, usage: stream.usage(), text_bytes: stream.text_bytes() }
}

impl Fixture {
    fn stream(&self, hide: bool) -> Stream {
        Stream::new(self.endpoint, self.choices, hide)
    }

    fn run<'a>(&self, hide: bool, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        run(&mut self.stream(hide), chunks)
    }
}

fn chat(bytes: &str) -> Outcome {
    run(&mut Stream::new(Endpoint::ChatCompletions, 1, false), [bytes.as_bytes()])
}

fn delta(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

const FINISH: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

#[test]
fn recorded_streams_pass_and_tell_their_usage() {
    for fixture in &FIXTURES {
        for (hide, expected) in [(false, fixture.asked), (true, fixture.hidden)] {
            let outcome = fixture.run(hide, [fixture.asked]);
            let text = String::from_utf8_lossy(&outcome.bytes);
            assert_eq!(text, String::from_utf8_lossy(expected), "{}", fixture.name);
            assert_eq!(outcome.end, Ok(()), "{}", fixture.name);
            assert!(outcome.content, "{}", fixture.name);
            let usage = outcome.usage.expect("figures");
            let figures = (
                usage.input_tokens,
                usage.output_tokens,
                usage.cached_tokens,
                usage.reasoning_tokens,
            );
            assert_eq!(figures, fixture.usage, "{}", fixture.name);
        }
    }
}

// T18
#[test]
fn every_split_gives_the_same_bytes_and_the_same_usage() {
    for fixture in &FIXTURES {
        let whole = fixture.run(true, [fixture.asked]);
        assert_eq!(fixture.run(true, fixture.asked.chunks(1)), whole, "{}", fixture.name);
        for at in 0..fixture.asked.len() {
            let (left, right) = fixture.asked.split_at(at);
            assert_eq!(fixture.run(true, [left, right]), whole, "{} at {at}", fixture.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // T18
    #[test]
    fn any_splits_give_the_same_bytes_and_the_same_usage(
        fixture in 0..FIXTURES.len(),
        hide: bool,
        sizes in prop::collection::vec(1_usize..300, 1..40),
    ) {
        let fixture = &FIXTURES[fixture];
        let mut rest = fixture.asked;
        let mut chunks = Vec::new();
        for size in sizes.into_iter().cycle() {
            if rest.is_empty() { break }
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            chunks.push(chunk);
            rest = after;
        }
        prop_assert_eq!(fixture.run(hide, chunks), fixture.run(hide, [fixture.asked]));
    }

    #[test]
    fn arbitrary_bytes_never_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
        let (left, right) = bytes.split_at(cut.min(bytes.len()));
        run(&mut Stream::new(Endpoint::ChatCompletions, 1, true), [left, right]);
    }
}

// T18
#[test]
fn compressed_streams_tell_the_same_usage() -> Result<(), DecodeError> {
    use std::io::Write as _;
    for fixture in &FIXTURES {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(fixture.asked).expect("memory");
        let gzip = gzip.finish().expect("memory");
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let zstd = ruzstd::encoding::compress_to_vec(fixture.asked, level);
        let usage = fixture.run(false, [fixture.asked]).usage;
        for (encoding, bytes) in [("gzip", gzip), ("zstd", zstd)] {
            let mut decoder = Decoder::for_encoding(encoding).expect("known");
            let mut stream = fixture.stream(false);
            for byte in bytes.chunks(1) {
                stream.feed(decoder.feed(byte)?);
            }
            assert_eq!(stream.finish(), Ok(Bytes::new()), "{} {encoding}", fixture.name);
            assert_eq!(stream.usage(), usage, "{} {encoding}", fixture.name);
        }
    }
    Ok(())
}

// T19
#[test]
fn a_stream_and_a_plain_answer_tell_the_same_usage() {
    let mut scan = UsageScan::default();
    scan.feed(include_bytes!("../../../../tests/fixtures/openai/text.json"));
    assert!(scan.usage().is_some());
    assert_eq!(FIXTURES[0].run(true, [FIXTURES[0].asked]).usage, scan.usage());
}

// T16
#[test]
fn a_stream_cut_anywhere_is_complete_only_where_all_content_came() {
    for fixture in &FIXTURES {
        let whole = fixture.run(true, [fixture.asked]);
        for at in 0..fixture.asked.len() {
            let cut = fixture.run(true, [&fixture.asked[..at]]);
            if cut.end.is_err() {
                assert_eq!(cut.end, Err(StreamFault::Truncated), "{} at {at}", fixture.name);
                continue;
            }
            assert_eq!(cut.text_bytes, whole.text_bytes, "{} at {at}", fixture.name);
            let text = String::from_utf8_lossy(&cut.bytes).into_owned();
            let last = match fixture.endpoint {
                Endpoint::ImagesGenerations => "completed",
                Endpoint::AudioSpeech | Endpoint::AudioTranscriptions => ".done",
                _ => "[DONE]",
            };
            assert!(text.contains(last), "{} at {at}: {text}", fixture.name);
            assert!(text.ends_with("\n\n") || text.ends_with("\n\r\n"), "{} at {at}", fixture.name);
        }
    }
}

// T16
#[test]
fn a_missing_terminal_event_is_added_only_where_every_choice_is_finished() {
    let fixture = &FIXTURES[2];
    let whole = String::from_utf8_lossy(fixture.hidden);
    let body = whole.strip_suffix("data: [DONE]\n\n").expect("it ends so");
    assert_eq!(fixture.run(true, [body.as_bytes()]).bytes, fixture.hidden);
    let mut three = Stream::new(fixture.endpoint, 3, true);
    assert_eq!(run(&mut three, [body.as_bytes()]).end, Err(StreamFault::Truncated));
    let twice = delta("a") + FINISH + FINISH;
    let mut two = Stream::new(fixture.endpoint, 2, true);
    assert_eq!(run(&mut two, [twice.as_bytes()]).end, Err(StreamFault::Truncated));
}

#[test]
fn a_last_event_without_its_blank_line_is_completed() {
    for end in ["\n\n", "\n", "", "\r\n", "\r\n\r"] {
        let text = delta("a") + FINISH.trim_end() + end;
        let outcome = chat(&text);
        assert_eq!(outcome.end, Ok(()), "{end:?}");
        assert!(outcome.bytes.ends_with(DONE));
        let outcome = chat(&(delta("a") + "data: [DONE]" + end));
        let text = String::from_utf8_lossy(&outcome.bytes).into_owned();
        assert_eq!(outcome.end, Ok(()), "{end:?}");
        assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    }
    assert_eq!(chat(&(delta("a") + "data: [DONE")).end, Err(StreamFault::Truncated));
    assert_eq!(chat(&(delta("a") + FINISH + "data")).end, Err(StreamFault::Truncated));
    assert_eq!(chat(&(delta("a") + FINISH + ": pi")).end, Ok(()));
    assert_eq!(chat("").end, Err(StreamFault::Truncated));
}

// T16
#[test]
fn a_malformed_event_is_a_fault_after_what_came_before_it() {
    for bad in ["{\"choices\":[", "nonsense", "[1]", "\u{7f}"] {
        let outcome = chat(&format!("{}data: {bad}\n\n{}", delta("a"), delta("b")));
        assert_eq!(outcome.end, Err(StreamFault::Malformed));
        assert_eq!(outcome.bytes, delta("a").as_bytes());
    }
}

// T17
#[test]
fn an_error_after_harmless_events_comes_before_any_content() {
    let harmless = [
        ": ping\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"choices\":[]}\n\n",
        "event: ping\ndata: {}\n\n",
        "data:\n\n",
    ];
    let error = "data: {\"error\":{\"code\":\"insufficient_quota\",\"message\":\"m\"}}\n\n";
    for count in 0..=harmless.len() {
        let text = harmless[..count].concat() + error + &delta("late");
        let outcome = chat(&text);
        assert!(!outcome.content);
        assert_eq!(outcome.bytes, harmless[..count].concat().as_bytes());
        let event = Bytes::from_static(error.as_bytes());
        assert_eq!(outcome.end, Err(StreamFault::Provider { event, status: Some(429) }));
    }
}

#[test]
fn an_event_named_error_is_one_whatever_its_data() {
    for data in ["{\"message\":\"m\"}", "it broke"] {
        let text = format!("event: error\ndata: {data}\n\n");
        let event = Bytes::from(text.clone());
        assert_eq!(chat(&text).end, Err(StreamFault::Provider { event, status: None }));
    }
    let cut = chat("data: {\"error\":{\"code\":503}}");
    let event = Bytes::from_static(b"data: {\"error\":{\"code\":503}}");
    assert_eq!(cut.end, Err(StreamFault::Provider { event, status: Some(503) }));
}

#[test]
fn content_is_reported_with_the_event_that_brings_it() {
    let mut stream = Stream::new(Endpoint::ChatCompletions, 1, false);
    let role = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    assert!(!stream.feed(Bytes::from(role)).content);
    assert!(stream.feed(Bytes::from(delta("a"))).content);
}

#[test]
fn an_empty_answer_is_an_answer() {
    let role = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    for end in [FINISH, "data: [DONE]\n\n"] {
        let outcome = chat(&(role.to_owned() + end));
        assert!(outcome.content && outcome.end.is_ok(), "{end}");
    }
    let mut two = Stream::new(Endpoint::ChatCompletions, 2, false);
    assert!(!two.feed(Bytes::from(FINISH)).content, "the other choice may still fail");
}

#[test]
fn nothing_after_the_end_is_passed_on() {
    let text = delta("a") + "data: [DONE]\n\n" + &delta("b") + "data: nonsense\n\n";
    let outcome = chat(&text);
    assert_eq!(outcome.bytes, (delta("a") + "data: [DONE]\n\n").as_bytes());
    assert_eq!(outcome.end, Ok(()));
    let image = &FIXTURES[6];
    let text = [image.asked, b"data: nonsense\n\n"].concat();
    let outcome = image.run(false, [&text[..]]);
    assert_eq!((&outcome.bytes[..], outcome.end), (image.asked, Ok(())));
}

#[test]
fn two_images_need_two_ends() {
    let end = "data: {\"type\":\"image_generation.completed\",\"b64_json\":\"AA\"}\n\n";
    let mut stream = Stream::new(Endpoint::ImagesGenerations, 2, false);
    assert_eq!(run(&mut stream, [end.as_bytes()]).end, Err(StreamFault::Truncated));
    let mut stream = Stream::new(Endpoint::ImagesGenerations, 2, false);
    assert_eq!(run(&mut stream, [end.as_bytes(), end.as_bytes()]).end, Ok(()));
}

#[test]
fn usage_beside_choices_loses_only_its_member() {
    let chunk = |usage: &str| {
        format!("id: 1\ndata: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}]{usage}}}\n\n")
    };
    let asked =
        chunk(",\n\ndata: \"usage\":{\"prompt_tokens\":3,\n\ndata: \"completion_tokens\":1}")
            .replace("\n\ndata", "\ndata");
    let mut stream = Stream::new(Endpoint::ChatCompletions, 1, true);
    let progress = stream.feed(Bytes::from(asked));
    assert_eq!(progress.bytes, chunk(""));
    assert_eq!(stream.usage().map(|usage| usage.input_tokens), Some(3));
}

#[test]
fn whole_untouched_events_are_not_copied() {
    let chunk = Bytes::from(delta("a") + &delta("b"));
    for hide in [false, true] {
        let mut stream = Stream::new(Endpoint::ChatCompletions, 1, hide);
        let progress = stream.feed(chunk.clone());
        assert_eq!((progress.bytes.as_ptr(), progress.bytes.len()), (chunk.as_ptr(), chunk.len()));
    }
}

#[test]
fn an_endless_event_is_a_fault() {
    let mut stream = Stream::new(Endpoint::ChatCompletions, 1, false);
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    let fault = (0..20).find_map(|_| stream.feed(chunk.clone()).fault);
    assert_eq!(fault, Some(StreamFault::TooLarge));
    assert!(stream.feed(Bytes::from(delta("a"))).bytes.is_empty());
    assert!(stream.finish().is_err());
}

#[test]
fn any_number_of_choices_takes_bounded_memory() {
    let mut stream = Stream::new(Endpoint::ChatCompletions, u32::MAX, false);
    let far = "data: {\"choices\":[{\"index\":4294967294,\"finish_reason\":\"stop\"}]}\n\n";
    stream.feed(Bytes::from(far));
    assert!(stream.finished.seen.len() <= 1024);
    assert_eq!(stream.finish(), Err(StreamFault::Truncated));
}
