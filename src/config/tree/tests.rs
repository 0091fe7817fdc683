//! Tests of the three readers.

use super::*;

fn json_of(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => number.clone().into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), json_of(&entry.value))).collect()
        }
    }
}

fn read(format: Format, text: &str) -> serde_json::Value {
    match parse(format, text) {
        Ok(node) => json_of(&node),
        Err(problems) => unreachable!("{text}: {problems:?}"),
    }
}

fn problem(format: Format, text: &str) -> String {
    let problems = parse(format, text).err().unwrap_or_default();
    let show = |p: &Problem| format!("{}:{} {}", p.at.line, p.at.column, p.what);
    problems.iter().map(show).collect::<Vec<_>>().join(" | ")
}

#[test]
fn the_same_document_reads_the_same_in_all_formats() {
    let expected = serde_json::json!({"a": {"b": [1, 2.5, true, "x"]}, "c": "é😀"});
    let yaml = "a:\n  b: [1, 2.5, true, x]\nc: é😀\n";
    let json = r#"{"a": {"b": [1, 2.5, true, "x"]},	"c": "\u00e9\ud83d\ude00"}"#;
    let toml = "c = \"é\\U0001F600\"\n[a]\nb = [1, 2.5, true, \"x\"]\n";
    assert_eq!(read(Format::Yaml, yaml), expected);
    assert_eq!(read(Format::Json, json), expected);
    assert_eq!(read(Format::Toml, toml), expected);
    assert_eq!(read(Format::Yaml, &format!("\u{feff}{yaml}")), expected);
}

#[test]
fn names_in_yaml_keep_their_letters() {
    let text = "on: 1\n1.10: 2\n007: 3\ntrue: 4\n";
    let expected = serde_json::json!({"on": 1, "1.10": 2, "007": 3, "true": 4});
    assert_eq!(read(Format::Yaml, text), expected);
}

#[test]
fn only_unmistakable_yaml_numbers_are_numbers() {
    let text = "[0, -1, .5, 5., 1e3, 007, 1_000, 0x1F, 1:30, no, 2027-01-01T00:00:00Z, .inf, +1]";
    let expected = serde_json::json!([
        0,
        -1,
        0.5,
        5.0,
        1000.0,
        "007",
        "1_000",
        "0x1F",
        "1:30",
        "no",
        "2027-01-01T00:00:00Z",
        ".inf",
        "+1"
    ]);
    assert_eq!(read(Format::Yaml, text), expected);
}

#[test]
fn aliases_work_and_bombs_do_not() {
    let text = "a: &x [1, 2]\nb: *x\n";
    assert_eq!(read(Format::Yaml, text), serde_json::json!({"a": [1, 2], "b": [1, 2]}));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    assert!(problem(Format::Yaml, &bomb).contains("aliases repeat more than"));
    assert!(!problem(Format::Yaml, "a: &a [*a]").is_empty());
}

#[test]
fn what_stands_twice_is_found_with_both_places() {
    let yaml = parse(Format::Yaml, "a: 1\nb:\n  c: 1\n  c: 2\na: 2\n").err().unwrap_or_default();
    assert_eq!(yaml.len(), 2);
    assert_eq!(yaml.first().map(|p| p.at), Some(Place { line: 4, column: 3 }));
    assert_eq!(yaml.first().and_then(|p| p.hint.as_deref()), Some("it was first given at 3:3"));
    assert_eq!(problem(Format::Json, "{\"a\": 1,\n \"\\u0061\": 2}"), "2:2 `a` stands twice");
    assert_eq!(problem(Format::Toml, "a = 1\na = 2\n"), "2:1 `a` stands twice");
}

#[test]
fn broken_texts_are_named_with_their_place() {
    for (format, text, expected) in [
        (Format::Yaml, "", "1:1 the document is empty"),
        (Format::Yaml, "# nothing\n", "1:1 the document is empty"),
        (Format::Yaml, "a: 1\n---\nb: 2\n", "2:1 a second document begins"),
        (Format::Yaml, "a: !!int 3\n", "1:4 tags are not supported"),
        (Format::Yaml, "? [a]\n: 1\n", "1:3 a field's name must be text"),
        (Format::Json, "", "1:1 the document ends where a value should stand"),
        (Format::Json, "{\"a\": 1,}", "1:9 expected a field name in quotes"),
        (Format::Json, "{\"a\" 1}", "1:6 expected `:`"),
        (Format::Json, "[1 2]", "1:4 expected `,` or `]`"),
        (Format::Json, "[01]", "1:2 not a number"),
        (Format::Json, "{\"a\": b}", "1:7 not a JSON value"),
        (Format::Json, "{} x", "1:4 something stands after the end of the document"),
        (Format::Json, "[\"\\ud83d\"]", "1:2 not a JSON text: a bad escape or a control character"),
        (Format::Json, "[\"a", "1:2 the text is not closed with a quote"),
        (Format::Json, "\"\\", "1:1 the text is not closed with a quote"),
    ] {
        assert_eq!(problem(format, text), expected, "{text}");
    }
    assert!(problem(Format::Yaml, "a:\n\t- b\n").contains("not YAML"));
}

#[test]
fn depth_is_bounded() {
    for levels in [40, 100_000] {
        let lists = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let maps = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let block = (0..levels.min(1000)).map(|level| format!("{:level$}a:\n", "")).collect();
        for (format, text) in [
            (Format::Yaml, &lists),
            (Format::Yaml, &block),
            (Format::Json, &lists),
            (Format::Json, &maps),
            (Format::Toml, &format!("a = {lists}")),
        ] {
            // Some readers have a bound of their own.
            let problem = problem(format, text);
            assert!(problem.contains("nested deeper") || levels > 40, "{format:?}: {problem}");
            assert!(!problem.is_empty(), "{format:?}");
        }
    }
}

#[test]
fn a_path_quotes_odd_names() {
    let path = Path::default().field("targets").field("gpt-4.1").field("x").item(0).item(12);
    assert_eq!(path.to_string(), "targets.\"gpt-4.1\".x[0][12]");
}
