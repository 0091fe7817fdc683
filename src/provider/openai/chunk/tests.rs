use super::*;

fn chat(delta: &str) -> Chunk {
    let data = format!(r#"{{"id":"x","choices":[{{"index":0,"delta":{delta}}}]}}"#);
    read(Kind::Choices, data.as_bytes()).expect("JSON")
}

#[test]
fn content_of_every_sort_is_seen_and_its_text_counted() {
    for (delta, bytes) in [
        (r#"{"content":"Hä"}"#, 3),
        (r#"{"content":"\u00e4\n"}"#, 3),
        (r#"{"refusal":"no"}"#, 2),
        (r#"{"reasoning_content":"hm"}"#, 2),
        (r#"{"reasoning":"hm","reasoning_details":[{"text":"hm"}]}"#, 2),
        (r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]}"#, 1),
        (r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"a"}}]}"#, 3),
        (r#"{"tool_calls":[{"index":0,"custom":{"input":"ls"}}]}"#, 2),
        (r#"{"function_call":{"name":"f","arguments":"{}"}}"#, 3),
        (r#"{"audio":{"id":"a","data":"AAAA","transcript":"yes"}}"#, 3),
        (r#"{"content":[{"type":"thinking"}]}"#, 21),
    ] {
        let chunk = chat(delta);
        assert!(chunk.content, "{delta}");
        assert_eq!(chunk.text_bytes, bytes, "{delta}");
    }
}

#[test]
fn what_says_nothing_is_no_content() {
    for delta in [
        "{}",
        "null",
        r#"{"role":"assistant"}"#,
        r#"{"role":"assistant","content":"","refusal":null,"tool_calls":[ ],"audio":{}}"#,
        r#"{"content":null,"reasoning_content":""}"#,
    ] {
        let chunk = chat(delta);
        assert!(!chunk.content && chunk.finished.is_empty(), "{delta}");
    }
    for data in ["{}", r#"{"choices":[]}"#, r#"{"choices":null,"error":null}"#, r#"{"choices":7}"#]
    {
        let chunk = read(Kind::Choices, data.as_bytes()).expect("JSON");
        assert!(!chunk.content && chunk.error.is_none(), "{data}");
    }
}

#[test]
fn finish_reasons_name_their_choice() {
    let data = r#"{"choices":[{"index":2,"finish_reason":"stop"},{"finish_reason":null,"index":1},
        {"delta":{},"finish_reason":"length"}]}"#;
    assert_eq!(read(Kind::Choices, data.as_bytes()).expect("JSON").finished.as_slice(), [2, 0]);
}

#[test]
fn errors_are_seen_in_every_shape() {
    for (data, status) in [
        (
            r#"{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}"#,
            Some(429),
        ),
        (r#"{"error":"it broke"}"#, None),
        (r#"{"object":"error","message":"m","type":"BadRequestError","code":400}"#, Some(400)),
        (r#"{"type":"error","code":"server_error","message":"m"}"#, Some(500)),
        (r#"{"choices":[{"index":0,"finish_reason":"error"}],"error":{"code":502}}"#, Some(502)),
    ] {
        assert_eq!(
            read(Kind::Choices, data.as_bytes()).expect("JSON").error,
            Some(status),
            "{data}"
        );
    }
}

#[test]
fn what_is_no_json_object_is_refused() {
    for data in ["", "x", "1", "null", "[]", "\"a\"", "{", "{} {}", "{\"a\":}"] {
        assert!(read(Kind::Choices, data.as_bytes()).is_err(), "{data}");
    }
    assert!(read(Kind::Choices, b"{\"a\":\"\xff\"}").is_err());
}

#[test]
fn usage_is_left_out_with_its_comma_and_nothing_else() {
    for (data, rest) in [
        (r#"{"a":1,"usage":null,"b":2}"#, r#"{"a":1,"b":2}"#),
        (r#"{"a": 1, "usage": null, "b": 2}"#, r#"{"a": 1, "b": 2}"#),
        (r#"{"a":1,"usage":{"x":[1]}}"#, r#"{"a":1}"#),
        (r#"{"usage":null,"a":1}"#, r#"{"a":1}"#),
        (r#"{"usage": null, "a": 1}"#, r#"{"a": 1}"#),
        (r#"{ "usage":null }"#, "{  }"),
        (r#"{"a":1,"us\u0061ge":null}"#, r#"{"a":1}"#),
    ] {
        let chunk = read(Kind::Choices, data.as_bytes()).expect("JSON");
        let mut text = data.to_owned();
        text.replace_range(chunk.usage_at.expect("found"), "");
        assert_eq!(text, rest);
    }
}

#[test]
fn nesting_costs_no_stack() {
    let deep = format!(
        r#"{{"x":{},"choices":[{{"delta":{{"content":"a"}}}}]}}"#,
        "[".repeat(1 << 20) + &"]".repeat(1 << 20)
    );
    assert!(read(Kind::Choices, deep.as_bytes()).expect("JSON").content);
    let deep = format!(r#"{{"choices":{}}}"#, "[".repeat(1 << 20) + &"]".repeat(1 << 20));
    assert!(!read(Kind::Choices, deep.as_bytes()).expect("JSON").content);
}
