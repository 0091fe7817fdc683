use super::*;

fn names(body: &[u8], boundary: &str) -> Result<Vec<(String, bool, String)>, &'static str> {
    let mut found = Vec::new();
    parts(body, boundary, |part| {
        let value = String::from_utf8_lossy(&body[part.value]).into_owned();
        found.push((part.name.to_owned(), part.file || part.encoded, value));
    })
    .map_err(|bad| bad.what)?;
    Ok(found)
}

fn form(parts: &[(&str, &str)]) -> Vec<u8> {
    let parts = parts.iter().map(|(headers, value)| format!("--b\r\n{headers}\r\n\r\n{value}\r\n"));
    (parts.collect::<String>() + "--b--\r\n").into_bytes()
}

const NAMED: &str = "Content-Disposition: form-data; name=\"x\"";

#[test]
fn parts_are_found_with_their_values() {
    let body = form(&[
        ("Content-Disposition: form-data; name=\"model\"", "whisper-1"),
        (
            "content-type: audio/wav\r\ncontent-disposition:form-data;name=file ; filename=\"a;\\b.wav\"",
            "\r\n--\r\nbinary\0",
        ),
        ("Content-Disposition: form-data; name=\"\"", ""),
    ]);
    let expected =
        [("model", false, "whisper-1"), ("file", true, "\r\n--\r\nbinary\0"), ("", false, "")];
    let expected: Vec<_> =
        expected.map(|(name, file, value)| (name.to_owned(), file, value.to_owned())).to_vec();
    assert_eq!(names(&body, "b"), Ok(expected.clone()));
    let padded = String::from_utf8_lossy(&body).replace("--b\r\n", "--b \t\r\n");
    assert_eq!(names(format!("\r\n{padded}").as_bytes(), "b"), Ok(expected));
}

#[test]
fn whatever_two_parsers_could_read_in_two_ways_is_refused() {
    let good = form(&[(NAMED, "1")]);
    assert!(names(&good, "b").is_ok());
    for body in [
        b"".to_vec(),
        b"preamble\r\n--b\r\n".to_vec(),
        good[..good.len() - 4].to_vec(),
        [&good[..], b"--b\r\n"].concat(),
        String::from_utf8_lossy(&good).replace("\r\n", "\n").into_bytes(),
        form(&[(NAMED, "1\r\n--better")]),
        form(&[("content-type: text/plain", "1")]),
        form(&[("Content-Disposition: form-data", "1")]),
        form(&[("Content-Disposition: attachment; name=x", "1")]),
        form(&[("Content-Disposition: form-data; name=x; name=y", "1")]),
        form(&[("Content-Disposition: form-data; name=x; name*=y", "1")]),
        form(&[("Content-Disposition: form-data; name=\"x\\\"; y\"", "1")]),
        form(&[("Content-Disposition: form-data; name=\"x\"y", "1")]),
        form(&[("Content-Disposition: form-data; name=y\"x\"", "1")]),
        form(&[("Content-Disposition: form-data; name=\"x", "1")]),
        form(&[(&format!("{NAMED}\r\n{NAMED}"), "1")]),
        form(&[(&format!("{NAMED}\r\n folded"), "1")]),
        form(&[(&format!("{NAMED}\nx: y"), "1")]),
        form(&[(&format!("{NAMED}\r\nno colon"), "1")]),
        form(&[(&format!("{NAMED}\r\nx: {}", "y".repeat(MAX_HEADERS)), "1")]),
        form(&[(NAMED, "1"); MAX_PARTS + 1]),
    ] {
        assert!(names(&body, "b").is_err(), "{}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn a_transfer_encoding_is_seen() {
    for (encoding, seen) in [("binary", false), ("8BIT", false), ("base64", true), ("x", true)] {
        let headers = format!("{NAMED}\r\nContent-Transfer-Encoding: {encoding}");
        assert_eq!(names(&form(&[(&headers, "1")]), "b").map(|found| found[0].1), Ok(seen));
    }
}

#[test]
fn the_boundary_is_read_quoted_or_not() {
    for (content_type, expected) in [
        ("multipart/form-data; boundary=abc", Some("abc")),
        ("multipart/form-data; charset=utf-8; Boundary=\"a b:c\"", Some("a b:c")),
        ("multipart/form-data;boundary=----WebKit7MA4", Some("----WebKit7MA4")),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary=\"a", None),
        ("multipart/form-data; boundary=a; boundary=b", None),
        ("multipart/form-data; boundary=\"a \"", None),
    ] {
        assert_eq!(boundary(content_type), expected, "{content_type}");
    }
    assert_eq!(boundary(&format!("multipart/form-data; boundary={}", "a".repeat(300))), None);
}
