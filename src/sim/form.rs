//! Fields of a multipart form, found without taking it apart: uploads can be large.

use memchr::memmem;

/// The value of a field; none where the form has no such field.
pub(super) fn field<'a>(body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let marker = format!(" name=\"{name}\"");
    let from = memmem::find(body, marker.as_bytes())? + marker.len();
    let part = body.get(from..)?;
    let head = memmem::find(part, b"\r\n\r\n")?;
    let value = part.get(head + 4..)?;
    value.get(..memmem::find(value, b"\r\n--")?)
}

/// The value of a field that is text.
pub(super) fn text<'a>(body: &'a [u8], name: &str) -> Option<&'a str> {
    field(body, name).and_then(|value| std::str::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_found_between_their_boundaries() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
            Content-Type: audio/wav\r\n\r\n\x00\xff\r\n--b\r\nContent-Disposition: form-data; \
            name=\"model\"\r\n\r\nwhisper-1\r\n--b--\r\n";
        assert_eq!(super::text(body, "model"), Some("whisper-1"));
        assert_eq!(super::field(body, "file"), Some(&b"\x00\xff"[..]));
        assert_eq!(super::field(body, "prompt"), None);
    }
}
