use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read(endpoint: Endpoint, body: &str) -> Result<Envelope, Fault> {
    Envelope::read(endpoint, Some("application/json"), &Bytes::from(body.to_owned()))
}

fn chat(body: &str) -> Result<Envelope, Fault> {
    read(Endpoint::ChatCompletions, body)
}

/// The code and message of the fault that `body` is.
fn fault(body: &str) -> (Code, String) {
    let fault = chat(body).expect_err(body);
    (fault.code, fault.message.into_owned())
}

#[test]
fn the_fields_are_read() {
    let envelope = chat(
        r#" {"messages":[{"role":"user","content":"model","model":"no"}],"mod\u0065l":"gpt\u002d4o",
        "stream":true,"n":3,"max_tokens":7,"max_completion_tokens":900,"user":"u","stream_options":
        {"include_usage":true},"safety_identifier":"s","temperature":1e-2} "#,
    );
    let envelope = envelope.expect("valid");
    assert_eq!(envelope.model, "gpt-4o");
    assert!(envelope.stream && envelope.include_usage && !envelope.usage_can_be_asked());
    assert_eq!((envelope.choices, envelope.max_tokens), (3, Some(900)));
    assert_eq!(envelope.user.as_deref(), Some("u"));
}

#[test]
fn null_is_as_good_as_absent() {
    let body = r#"{"model":"m","stream":null,"n":null,"max_tokens":null,"user":null,
        "max_completion_tokens":null,"safety_identifier":"s","stream_options":null}"#;
    let envelope = chat(body).expect("valid");
    assert!(!envelope.stream && !envelope.include_usage);
    assert_eq!((envelope.choices, envelope.max_tokens), (1, None));
    assert_eq!(envelope.user.as_deref(), Some("s"));
}

#[test]
fn zero_tokens_and_an_empty_user_are_what_they_are() {
    let envelope = chat(r#"{"model":"m","max_tokens":0,"user":""}"#).expect("valid");
    assert_eq!((envelope.max_tokens, envelope.user), (Some(0), None));
}

#[test]
fn a_field_that_stands_twice_is_refused_in_any_spelling() {
    for (second, field) in [
        (r#""model":"x""#, "`model`"),
        (r#""mod\u0065l":"x""#, "`model`"),
        (r#""\u006D\u006f\u0064\u0065\u006c":null"#, "`model`"),
        (r#""Model":"x""#, "`model`"),
        (r#""MODEL":null"#, "`model`"),
        (r#""stream":true,"stream":false"#, "`stream`"),
        (r#""n":1,"n":1"#, "`n`"),
        (r#""max_tokens":null,"max_tokens":9"#, "`max_tokens`"),
        (r#""max_completion_tokens":1,"Max_completion_tokens":2"#, "`max_completion_tokens`"),
        (r#""user":"a","us\u0065r":"b""#, "`user`"),
        (r#""safety_identifier":"a","safety_identifier":"b""#, "`safety_identifier`"),
        (r#""stream_options":{},"stream_options":{}"#, "`stream_options`"),
        (
            r#""stream_options":{"include_usage":true,"include_us\u0061ge":false}"#,
            "`stream_options.include_usage`",
        ),
    ] {
        let (code, message) = fault(&format!(r#"{{"model":"m",{second}}}"#));
        assert_eq!(code, Code::DuplicateField, "{second}");
        assert!(message.contains(field), "{message}");
    }
    assert_eq!(fault(r#"{"Model":"a","model":"b"}"#).0, Code::DuplicateField);
    assert!(chat(r#"{"model":"m","x":1,"x":2,"metadata":{"model":"y"}}"#).is_ok());
}

#[test]
fn a_field_in_another_case_is_refused_even_alone() {
    for (member, field) in [
        (r#""N":100"#, "`n`"),
        (r#""Stream":true"#, "`stream`"),
        (r#""Max_tokens":9"#, "`max_tokens`"),
        (r#""\u0055ser":"u""#, "`user`"),
        (r#""stream":true,"Stream_options":{"include_usage":false}"#, "`stream_options`"),
        (
            r#""stream":true,"stream_options":{"Include_usage":false}"#,
            "`stream_options.include_usage`",
        ),
    ] {
        let (code, message) = fault(&format!(r#"{{"model":"m",{member}}}"#));
        assert_eq!(code, Code::InvalidRequest, "{member}");
        assert!(message.contains(field), "{message}");
    }
}

#[test]
fn wrong_types_name_their_field() {
    for (member, field) in [
        (r#""stream":"true""#, "`stream`"),
        (r#""stream":1"#, "`stream`"),
        (r#""n":0"#, "`n`"),
        (r#""n":-1"#, "`n`"),
        (r#""n":5000000000"#, "`n`"),
        (r#""n":"2""#, "`n`"),
        (r#""max_tokens":-5"#, "`max_tokens`"),
        (r#""max_tokens":1.5"#, "`max_tokens`"),
        (r#""max_tokens":99999999999999999999"#, "`max_tokens`"),
        (r#""max_completion_tokens":[]"#, "`max_completion_tokens`"),
        (r#""user":{}"#, "`user`"),
        (r#""safety_identifier":7"#, "`safety_identifier`"),
        (r#""stream_options":[]"#, "`stream_options`"),
        (r#""stream_options":{"include_usage":"yes"}"#, "`stream_options.include_usage`"),
    ] {
        let (code, message) = fault(&format!(r#"{{"model":"m",{member}}}"#));
        assert_eq!(code, Code::InvalidRequest, "{member}");
        assert!(message.contains(field), "{message}");
    }
    assert!(
        fault(&format!(r#"{{"model":"m","user":"{}"}}"#, "u".repeat(600))).1.contains("`user`")
    );
}

#[test]
fn a_model_is_needed_and_must_be_a_name() {
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(257));
    for body in [
        "{}",
        r#"{"Model":"m"}"#,
        r#"{"model":null}"#,
        r#"{"model":""}"#,
        r#"{"model":7}"#,
        r#"{"model":["m"]}"#,
        r#"{"model":"a\nb"}"#,
        r#"{"model":"\ud800"}"#,
        &long,
    ] {
        let (code, message) = fault(body);
        assert_eq!(code, Code::InvalidRequest);
        assert!(message.contains("`model`"), "{message}");
    }
    assert!(chat(&long.replacen('m', "", 2).replace("odel", "model")).is_ok());
}

#[test]
fn what_is_not_json_is_told_by_its_place_and_never_quoted() {
    for (body, place) in [
        ("", "empty"),
        (" \n", "empty"),
        ("[]", "object"),
        ("\"secret\"", "object"),
        ("{\"model\":\"m\"", "ends too early at line 1, column 12"),
        ("{\"model\":\"m\",\n  \"a\": secret}", "line 2, column 8"),
        ("{\"model\":\"m\"} secret", "line 1, column 15"),
        ("{\"model\":\"m\",}", "line 1, column 14"),
        ("{'model':'m'}", "line 1, column 2"),
        ("{\"model\":\"m\",\"a\":\"\u{1}secret\"}", "line 1"),
        ("{\"model\":\"m\",\"\\ud800\":1}", "line 1"),
        ("\u{feff}{\"model\":\"m\"}", "byte order mark"),
    ] {
        let (code, message) = fault(body);
        assert_eq!(code, Code::InvalidRequest);
        assert!(message.contains(place) && !message.contains("secret"), "{body}: {message}");
    }
    let body = Bytes::from_static(b"{\"model\":\"m\",\"a\":\"\xff\"}");
    let fault = Envelope::read(Endpoint::ChatCompletions, None, &body).expect_err("not UTF-8");
    assert!(fault.message.contains("at byte 18"), "{}", fault.message);
}

#[test]
fn nesting_costs_no_stack() {
    let deep = 1_000_000;
    let open = format!(r#"{{"model":"m","a":{}"#, "[".repeat(deep));
    assert_eq!(fault(&open).0, Code::InvalidRequest);
    let closed = format!(r#"{{"model":"m","a":{}{}}}"#, "[".repeat(deep), "]".repeat(deep));
    assert_eq!(chat(&closed).expect("valid").model, "m");
    for key in ["model", "stream_options", "prompt"] {
        let body = format!(
            r#"{{"{key}":{}{}}}"#,
            r#"{"a":"#.repeat(1 << 20),
            "1".to_owned() + &"}".repeat(1 << 20)
        );
        assert!(read(Endpoint::Completions, &body).is_err());
    }
}

#[test]
fn a_batch_of_prompts_has_as_many_choices() {
    for (prompt, choices) in [
        (r#""one""#, 2),
        (r#"["one","two","three"]"#, 6),
        ("[1,2,3]", 2),
        ("[[1,2],[3]]", 4),
        ("[]", 2),
        ("null", 2),
    ] {
        let body = format!(r#"{{"model":"m","n":2,"prompt":{prompt}}}"#);
        assert_eq!(read(Endpoint::Completions, &body).expect("valid").choices, choices, "{prompt}");
        assert_eq!(chat(&body).expect("valid").choices, 2);
    }
}

#[test]
fn speech_streams_where_its_format_says_so() {
    let stream = |body| read(Endpoint::AudioSpeech, body).map(|envelope| envelope.stream);
    assert_eq!(stream(r#"{"model":"tts","stream_format":"sse"}"#), Ok(true));
    assert_eq!(stream(r#"{"model":"tts","stream_format":"audio"}"#), Ok(false));
    assert_eq!(stream(r#"{"model":"tts"}"#), Ok(false));
    assert!(stream(r#"{"model":"tts","stream_format":1}"#).is_err());
}

#[test]
fn each_endpoint_takes_the_bodies_it_knows() {
    let json = Bytes::from_static(br#"{"model":"m"}"#);
    let form = Bytes::from_static(
        b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n",
    );
    for endpoint in Endpoint::ALL {
        let kind = endpoint.body_kind();
        for content_type in
            [None, Some("Application/JSON; charset=utf-8"), Some("application/x+json")]
        {
            let outcome = Envelope::read(endpoint, content_type, &json);
            assert_eq!(outcome.is_ok(), kind != BodyKind::Form, "{endpoint:?}");
        }
        let outcome = Envelope::read(endpoint, Some("multipart/form-data; boundary=b"), &form);
        assert_eq!(outcome.is_ok(), kind != BodyKind::Json, "{endpoint:?}");
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "é", ""] {
            let fault = Envelope::read(endpoint, Some(content_type), &json).expect_err("refused");
            assert!(fault.message.contains("this endpoint takes"), "{}", fault.message);
        }
    }
}

// === multipart ===

fn upload(fields: &str) -> Result<Envelope, Fault> {
    let body = Bytes::from(form(fields));
    Envelope::read(Endpoint::ImagesEdits, Some("multipart/form-data; boundary=\"b b\""), &body)
}

/// A form of `name=value` fields and a file.
fn form(fields: &str) -> String {
    let mut body = String::new();
    for (name, value) in fields.split_whitespace().filter_map(|field| field.split_once('=')) {
        body +=
            &format!("--b b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    body + "--b b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\
        Content-Type: image/png\r\n\r\n\u{89}PNG\r\n--b b--\r\n"
}

#[test]
fn the_fields_of_a_form_are_read_and_its_model_replaced() {
    let envelope = upload("stream=true model=gpt-image-1 n=2 user=u").expect("valid");
    assert_eq!(
        (envelope.model.as_str(), envelope.stream, envelope.choices),
        ("gpt-image-1", true, 2)
    );
    assert_eq!(envelope.user.as_deref(), Some("u"));
    let body = Bytes::from(form("stream=true model=gpt-image-1 n=2 user=u"));
    let new = envelope.rewrite(&body, Some("my \"model\"\r\n"), true).to_bytes();
    let old = form("stream=true model=gpt-image-1 n=2 user=u");
    assert_eq!(new, old.replace("gpt-image-1", "my \"model\""));
}

#[test]
fn faults_of_a_form_name_their_field() {
    for (fields, code, field) in [
        ("n=1", Code::InvalidRequest, "`model` is missing"),
        ("model=", Code::InvalidRequest, "`model` is empty"),
        ("model=a model=b", Code::DuplicateField, "`model`"),
        ("model=a MODEL=b", Code::DuplicateField, "`model`"),
        ("model=a n=1 n=2", Code::DuplicateField, "`n`"),
        ("model=a n=0", Code::InvalidRequest, "`n`"),
        ("model=a N=9", Code::InvalidRequest, "`n`"),
        ("model=a stream=yes", Code::InvalidRequest, "`stream`"),
        ("model=a\u{0}b", Code::InvalidRequest, "`model`"),
    ] {
        let fault = upload(fields).expect_err(fields);
        assert_eq!(fault.code, code, "{fields}");
        assert!(fault.message.contains(field), "{}", fault.message);
    }
    let body = Bytes::from(form("model=a").replace("name=\"image\"", "name=\"user\""));
    let content_type = Some("multipart/form-data; boundary=\"b b\"");
    let fault = Envelope::read(Endpoint::ImagesEdits, content_type, &body).expect_err("a file");
    assert!(fault.message.contains("`user`"));
    for content_type in ["multipart/form-data", "multipart/form-data; boundary=c"] {
        let fault = Envelope::read(Endpoint::AudioTranslations, Some(content_type), &body);
        assert_eq!(fault.expect_err("no such boundary").code, Code::InvalidRequest);
    }
}

// === rewriting ===

#[test]
fn a_body_that_stays_is_one_piece_and_the_same_bytes() {
    let asked = r#"{"model":"gpt\u002d4","stream":true,"stream_options":{"include_usage":true}}"#;
    let plain = r#"{"model":"gpt-4","stream":false,"stream_options":null}"#;
    for text in [asked, plain] {
        let body = Bytes::from_static(text.as_bytes());
        let envelope = chat(text).expect("valid");
        for model in [None, Some("gpt-4")] {
            let payload = envelope.rewrite(&body, model, true);
            assert_eq!(payload.pieces().len(), 1);
            assert_eq!(payload.pieces()[0].as_ptr(), body.as_ptr());
            assert_eq!(payload.len(), body.len());
        }
    }
}

#[test]
fn usage_is_asked_for_where_it_is_needed() {
    let new = |text: &'static str| {
        let envelope = chat(text).expect("valid");
        let payload = envelope.rewrite(&Bytes::from_static(text.as_bytes()), None, true);
        String::from_utf8(payload.to_bytes().to_vec()).expect("UTF-8")
    };
    for (old, expected) in [
        (
            r#" { "model":"m","stream":true}"#,
            r#" {"stream_options":{"include_usage":true}, "model":"m","stream":true}"#,
        ),
        (
            r#"{"stream_options":null,"model":"m","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{ },"model":"m"}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true },"model":"m"}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"include_obfuscation":false}}"#,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"x":{},"include_usage" : false}}"#,
            r#"{"model":"m","stream":true,"stream_options":{"x":{},"include_usage" : true}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":null}}"#,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        assert_eq!(new(old), expected);
    }
}

#[test]
fn other_endpoints_are_not_asked_for_usage() {
    let body = Bytes::from_static(br#"{"model":"m","stream":true}"#);
    for endpoint in Endpoint::ALL.into_iter().filter(|e| e.body_kind() != BodyKind::Form) {
        let envelope = Envelope::read(endpoint, None, &body).expect("valid");
        let same = envelope.rewrite(&body, None, true).to_bytes() == body;
        assert_eq!(same, !endpoint.usage_is_optional(), "{endpoint:?}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[\\PC\\n\"\\\\]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z\"ß]{1,5}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_rewritten_body_differs_in_the_two_fields_only(
        others in prop::collection::btree_map("[a-c\"ßz]{1,3}", value(), 0..4),
        options in prop_oneof![
            Just(None),
            Just(Some(Value::Null)),
            Just(Some(json!({}))),
            Just(Some(json!({"x": [1], "include_usage": false}))),
            Just(Some(json!({"include_usage": null, "x": "}"}))),
            Just(Some(json!({"include_usage": true}))),
        ],
        old in "[\\PC\"\\\\]{1,20}",
        new in prop::option::of("[\\PC\"\\\\]{1,20}"),
        (stream, ask, pretty) in any::<(bool, bool, bool)>(),
    ) {
        let mut before = json!({"model": old, "stream": stream});
        for (key, value) in others {
            before[key] = value;
        }
        if let Some(options) = &options {
            before["stream_options"] = options.clone();
        }
        let text = if pretty { format!(" {before:#}\n") } else { before.to_string() };
        let body = Bytes::from(text);
        let envelope = Envelope::read(Endpoint::ChatCompletions, None, &body).expect("valid");
        prop_assert_eq!(&envelope.model, &old);
        let payload = envelope.rewrite(&body, new.as_deref(), ask);

        let mut expected = before;
        if let Some(new) = &new {
            expected["model"] = json!(new);
        }
        if ask && stream {
            if !expected["stream_options"].is_object() {
                expected["stream_options"] = json!({});
            }
            expected["stream_options"]["include_usage"] = json!(true);
        }
        let sent = payload.to_bytes();
        prop_assert_eq!(serde_json::from_slice::<Value>(&sent).expect("JSON"), expected);

        // All pieces that lie in the original stand in order, and only the two places are left out.
        let inside: Vec<_> = payload.pieces().iter().filter_map(|piece| {
            let start = (piece.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
            (start + piece.len() <= body.len()).then_some(start..start + piece.len())
        }).collect();
        prop_assert!(inside.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let kept: usize = inside.iter().map(ExactSizeIterator::len).sum();
        let model_len = serde_json::to_string(&old).expect("JSON").len();
        prop_assert!(kept + model_len + "false".len() >= body.len());
    }

    #[test]
    fn arbitrary_bodies_never_do_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in "(--b\r\n)?[\\{\\[\"a-z:,;= \r\n\\\\-]{0,80}",
    ) {
        for body in [Bytes::from(bytes), Bytes::from(text)] {
            for endpoint in [Endpoint::Completions, Endpoint::ImagesEdits] {
                for content_type in ["application/json", "multipart/form-data; boundary=b"] {
                    if let Ok(envelope) = Envelope::read(endpoint, Some(content_type), &body) {
                        prop_assert!(!envelope.rewrite(&body, Some("x"), true).is_empty());
                    }
                }
            }
        }
    }
}
