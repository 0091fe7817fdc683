use super::*;

/// A script's header, read strictly.
struct Header {
    /// `KEYS` and `ARGV`: how many are numbered, and whether more follow.
    keys: (usize, bool),
    argv: (usize, bool),
}

fn file(name: Name) -> String {
    let text = format!("{name:?}");
    let mut file = String::new();
    for (at, letter) in text.chars().enumerate() {
        if letter.is_uppercase() && at > 0 {
            file.push('_');
        }
        file.extend(letter.to_lowercase());
    }
    file
}

fn parts(name: Name) -> (&'static str, &'static str) {
    let source = name.source().strip_prefix("--[[ ").expect("a script opens with its header");
    source.split_once("\n]]\n").expect("a header ends on a line of its own")
}

/// Reads the lines of `KEYS` or `ARGV`: numbered from 1 without a gap, then open ends.
fn declared(header: &str, list: &str) -> (usize, bool) {
    let (mut count, mut open) = (0, false);
    for line in header.lines() {
        let Some(rest) = line.strip_prefix(&format!("  {list}[")) else { continue };
        let (number, what) = rest.split_once(']').expect("a bracket is closed");
        assert!(what.split_whitespace().count() >= 2, "type and name: {line}");
        if let Ok(number) = number.parse::<usize>() {
            assert_eq!((number, open), (count + 1, false), "in order: {line}");
            count = number;
        } else if let Some(number) = number.strip_suffix('+') {
            assert_eq!((number.parse().ok(), open), (Some(count + 1), false), "{line}");
            open = true;
        } else {
            assert_eq!((number, open), ("..", true), "{line}");
        }
    }
    (count, open)
}

fn header(name: Name) -> Header {
    let (header, _) = parts(name);
    assert!(header.starts_with(&format!("{}: ", file(name))), "{name:?}: its name comes first");
    for line in ["  Returns  ", "  Cost     "] {
        assert!(header.contains(line), "{name:?}: {line}");
    }
    Header { keys: declared(header, "KEYS"), argv: declared(header, "ARGV") }
}

/// How `KEYS` or `ARGV` is used in code: the highest number, and whether by a computed one.
fn used(code: &str, list: &str) -> (Vec<usize>, bool) {
    let (mut numbers, mut computed) = (Vec::new(), false);
    for (at, _) in code.match_indices(list) {
        let rest = &code[at + list.len()..];
        let index = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        match index.map(|(index, _)| index.parse::<usize>()) {
            Some(Ok(number)) => numbers.push(number),
            _ => computed = true,
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    (numbers, computed)
}

fn code(text: &str) -> String {
    text.lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn headers_declare_what_the_bodies_use_and_nothing_else() {
    for name in Name::ALL {
        let header = header(name);
        let (_, body) = parts(name);
        for (list, (count, open)) in [("KEYS", header.keys), ("ARGV", header.argv)] {
            let (numbers, computed) = used(&code(body), list);
            assert!(numbers.iter().all(|number| *number <= count), "{name:?} {list}: {numbers:?}");
            // What is not named by its number is reached by a computed one.
            let all_named = numbers.len() == count;
            assert!(all_named || computed, "{name:?} {list}: declares {count}, uses {numbers:?}");
            assert!(!open || computed, "{name:?} {list}: more than {count} are never used");
        }
    }
}

#[test]
fn pieces_use_no_keys_and_no_arguments_of_their_own() {
    for (name, piece) in PIECES {
        assert!(piece.starts_with(&format!("-- {name}: ")), "{name} opens with why it is");
        for list in ["KEYS", "ARGV"] {
            assert!(!code(piece).contains(list), "{name} uses {list}");
        }
    }
}

#[test]
fn every_script_is_whole_and_short() {
    for name in Name::ALL {
        let lines = code(name.source()).lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= 120, "{name:?} has {lines} lines");
        let text = &Scripts::real().get(name).text;
        assert!(!text.contains("@include"), "{name:?}: a piece is missing");
        assert!(!text.contains("table.remove(ARGV)"), "{name:?} runs on the clock of tests");
        let test = Scripts::with_test_clock().get(name);
        assert!(!test.text.contains("'TIME'"), "{name:?}: the tests' clock is not in it");
        assert_ne!(test.sha, Scripts::real().get(name).sha);
    }
}

#[test]
fn scripts_write_numbers_as_whole_text_and_never_by_concatenation() {
    for name in Name::ALL {
        let text = code(&Scripts::real().get(name).text);
        for trap in ["tostring", "cjson", "math.random", "KEYS *"] {
            assert!(!text.contains(trap), "{name:?} uses {trap}");
        }
    }
}
