//! Reading requests, byte by byte as they come.

use bytes::{Bytes, BytesMut};

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
}

/// How much of a body is still to come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Length(usize),
    Chunks,
}

/// Takes a whole head off the buffer, if there is one.
pub(super) fn take_head(buffer: &mut BytesMut) -> Option<Head> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = buffer.split_to(end + 4);
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.trim_end().split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a header line has a colon");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    Some(Head { method, path, headers: headers.collect() })
}

impl Head {
    /// What its body consists of.
    pub(super) fn rest(&self) -> Rest {
        let value = |wanted| self.headers.iter().find(|(name, _)| name == wanted);
        if value("transfer-encoding").is_some() {
            return Rest::Chunks;
        }
        let length = value("content-length").map(|(_, value)| value.parse());
        Rest::Length(length.map_or(0, |length| length.expect("a content-length is a number")))
    }
}

impl Rest {
    /// Moves what belongs to the body from the buffer to `body`. True once the body is complete.
    pub(super) fn take(&mut self, buffer: &mut BytesMut, body: &mut BytesMut) -> bool {
        match self {
            Self::Length(left) => {
                let piece = buffer.split_to(buffer.len().min(*left));
                *left -= piece.len();
                body.extend_from_slice(&piece);
                *left == 0
            }
            Self::Chunks => loop {
                let Some(line) = buffer.windows(2).position(|window| window == b"\r\n") else {
                    return false;
                };
                let size = String::from_utf8_lossy(&buffer[..line]).into_owned();
                let size = usize::from_str_radix(&size, 16).expect("a chunk has a size");
                if buffer.len() < line + 2 + size + 2 {
                    return false;
                }
                let chunk: Bytes = buffer.split_to(line + 2 + size + 2).freeze();
                body.extend_from_slice(&chunk[line + 2..line + 2 + size]);
                if size == 0 {
                    return true;
                }
            },
        }
    }
}
