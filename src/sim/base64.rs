//! Base64 with padding, as embeddings and images carry it; too small a thing for a dependency.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes`, encoded.
pub(super) fn push(out: &mut String, bytes: impl IntoIterator<Item = u8>) {
    let mut bytes = bytes.into_iter();
    while let Some(first) = bytes.next() {
        let (second, third) = (bytes.next(), bytes.next());
        let group = u32::from(first) << 16
            | u32::from(second.unwrap_or(0)) << 8
            | u32::from(third.unwrap_or(0));
        let digit = |shift: u32| char::from(ALPHABET[(group >> shift & 63) as usize]);
        out.push(digit(18));
        out.push(digit(12));
        out.push(if second.is_some() { digit(6) } else { '=' });
        out.push(if third.is_some() { digit(0) } else { '=' });
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_texts_encode_as_known() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            let mut out = String::new();
            super::push(&mut out, plain.bytes());
            assert_eq!(out, encoded);
        }
        let mut out = String::new();
        super::push(&mut out, [0xfb, 0xff]);
        assert_eq!(out, "+/8=");
    }
}
