//! Tests of the reader of JSON, most of them beside `serde_json`, whose judgement it shares.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

/// Where `text` stops to be one JSON value.
fn judge(text: &str) -> Result<&str, Invalid> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value()?;
    reader.end()?;
    Ok(value)
}

/// Walks into every object and array, and says how many members and elements there are.
fn walk(text: &str) -> Result<usize, Invalid> {
    fn enter(reader: &mut Reader<'_>, count: &mut usize) -> Result<(), Invalid> {
        *count += 1;
        let start = reader.at();
        let is_object = reader.peek() == Some(b'{');
        if is_object {
            reader.members(|_, inner| enter(inner, count))?;
        } else {
            reader.elements(|inner| enter(inner, count))?;
        }
        assert_eq!(judge(reader.since(start)), Ok(reader.since(start)), "the same, entered or not");
        Ok(())
    }
    let (mut reader, mut count) = (Reader { text, at: 0 }, 0);
    reader.space();
    enter(&mut reader, &mut count)?;
    reader.end()?;
    Ok(count)
}

/// What both readers must agree on.
fn is_judged_alike(text: &str) {
    let theirs = serde_json::from_str::<IgnoredAny>(text);
    let ours = judge(text);
    assert_eq!(ours.is_ok(), theirs.is_ok(), "{text:?}: {ours:?}, {theirs:?}");
}

#[test]
fn members_are_found_with_their_places() {
    let text = r#" { "a" : [1, {"b":2}] , "mod\u0065l":"x" } "#;
    let mut seen = Vec::new();
    members(text, |key, reader| {
        let value = reader.value()?;
        seen.push((key.name.into_owned(), &text[key.start..reader.at()], value));
        assert_eq!(&text[span(text, value)], value);
        Ok(())
    })
    .expect("valid");
    assert_eq!(seen[0], ("a".to_owned(), r#""a" : [1, {"b":2}]"#, r#"[1, {"b":2}]"#));
    assert_eq!(seen[1], ("model".to_owned(), r#""mod\u0065l":"x""#, r#""x""#));
}

#[test]
fn what_is_not_read_is_skipped_and_what_is_no_object_has_no_members() {
    let text = r#"{"a":{"x":[1,{}]},"b":"{","c":{"d":[2,3]},"e":null}"#;
    let (mut keys, mut sum) = (Vec::new(), 0);
    members(text, |key, reader| {
        keys.push(key.name.into_owned());
        if keys.len() > 1 {
            reader.members(|key, reader| {
                keys.push(key.name.into_owned());
                reader.elements(|number| {
                    sum += number.value()?.parse::<u32>().expect("a number");
                    Ok(())
                })?;
                Ok(())
            })?;
        }
        Ok(())
    })
    .expect("valid");
    assert_eq!((keys.concat().as_str(), sum), ("abcde", 5));
}

#[test]
fn what_is_not_one_object_is_refused() {
    for text in ["", "[]", "{", "{}{}", "{\"a\":1,}", "{\"\\ud800\":1}", "{a:1}", "null", "\"{}\""]
    {
        assert!(members(text, |_, _| Ok(())).is_err(), "{text}");
    }
    assert!(elements("{}", |_| Ok(())).is_err() && elements("[1,]", |_| Ok(())).is_err());
    assert_eq!(elements(" [1 , 2] ", |_| Ok(())), Ok(()));
}

#[test]
fn oddities_are_judged_as_by_others() {
    for text in [
        "0",
        "-0",
        "-",
        "01",
        "1.",
        ".1",
        "1.5e+7",
        "1e",
        "1E-",
        "-1.0E5 ",
        "+1",
        "1e999",
        "tru",
        "true",
        "nullx",
        "falsE",
        "\"\\u12g4\"",
        "\"\\u1234\"",
        "\"\\ud800\"",
        "\"\\x\"",
        "\"a",
        "\"\\",
        "\"\u{1f}\"",
        "\"\u{7f}\u{80}\u{ff}\"",
        "\"\t\"",
        "[",
        "[]",
        "[,]",
        "[1,]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1,,}",
        "{,}",
        "[}",
        "{]",
        "[[[]]",
        "[{\"a\":[}]",
        " ",
        "",
        "\u{a0}1",
        "1\u{b}",
        "\"12345678",
        "\"1234567\"",
        "\"12345678\"",
        "\"1234567\\\"9\"",
        "\"1234567\u{0}9\"",
        "\"\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}!\u{20ac}#\"",
        "\"\u{10}!!!!!!!!\"",
    ] {
        is_judged_alike(text);
    }
}

#[test]
fn every_beginning_of_a_text_ends_too_early() {
    let text = r#"{"a":["x\n\u12aB",-1.5e+3,true,{"b":null,"c":[]}],"d":{}}"#;
    assert_eq!(judge(text), Ok(text));
    for end in 0..text.len() {
        assert_eq!(judge(&text[..end]), Err(Invalid { at: end }), "{}", &text[..end]);
    }
}

fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        "[ -~\u{80}-\u{fff}]{0,40}"
            .prop_map(|text| serde_json::to_string(&text).expect("a string")),
        any::<f64>().prop_map(|number| serde_json::to_string(&number).expect("a number")),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("true".to_owned()),
        Just(" null ".to_owned()),
    ];
    scalar.prop_recursive(5, 40, 6, |inner| {
        let inner = prop::collection::vec(inner, 0..6);
        (inner, any::<bool>()).prop_map(|(parts, object)| {
            let join = |parts: Vec<String>| parts.join(" ,\n");
            if object {
                let member = |(at, part)| format!("\"k{at}\"\t: {part}");
                format!("{{{}}}", join(parts.into_iter().enumerate().map(member).collect()))
            } else {
                format!("[{}]", join(parts))
            }
        })
    })
}

proptest! {
    #[test]
    fn plain_text_ends_where_it_seems_to(
        long in prop_oneof![Just(0), 50..300_usize], text in "[!-~\u{80}\u{ff}\u{20ac}\"\\\\\u{0}-\u{21}]{0,20}") {
        let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
        let text = "x".repeat(long) + &text;
        let bytes = text.as_bytes();
        for at in 0..=bytes.len() {
            let end = bytes[at..].iter().position(|byte| special(*byte)).map_or(bytes.len(), |end| at + end);
            prop_assert_eq!(end_of_plain(bytes, at), end);
        }
    }

    #[test]
    fn valid_texts_are_valid_entered_or_not(text in json()) {
        is_judged_alike(&text);
        prop_assert!(walk(&text).expect("valid") > 0);
    }

    #[test]
    fn broken_texts_are_judged_as_by_others(
        text in json(), at in any::<prop::sample::Index>(), byte in "[\"\\\\{}\\[\\],:0-9a-f\u{1}. -]?",
    ) {
        let at = at.index(text.len());
        if text.is_char_boundary(at) {
            let rest = text[at..].chars().next().map_or(0, char::len_utf8);
            is_judged_alike(&format!("{}{byte}{}", &text[..at], &text[at + rest..]));
            is_judged_alike(&format!("{}{byte}{}", &text[..at], &text[at..]));
        }
    }

    #[test]
    fn noise_is_judged_as_by_others(text in "[\\[\\]{}\",:\\\\u0-9eE+.tfn \u{1}-]{0,24}") {
        is_judged_alike(&text);
    }
}
