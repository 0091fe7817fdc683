//! Bodies of answers: bytes that are ready, or a script that is played beat by beat.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::body::{BodySize, MessageBody};
use actix_rt::time::{Sleep, sleep};
use bytes::Bytes;

/// One step of a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// These bytes, which are never empty: an empty piece would end a chunked body.
    Send(Bytes),
    /// Nothing for so long.
    Wait(Duration),
    /// The connection closes here, in the middle of what its framing promises.
    Cut,
}

/// The steps of a body; its end is a clean end.
pub(super) type Script = Box<dyn Iterator<Item = Beat>>;

/// The body of an answer.
pub(super) enum Body {
    /// All there is.
    Whole(Bytes),
    /// A script, in chunks or, where it has a length, as so many bytes.
    Play(Play),
    /// Not even a head: the connection closes at once.
    Nothing,
}

/// A script on the stage.
pub(super) struct Play {
    script: Script,
    size: BodySize,
    waiting: Option<Pin<Box<Sleep>>>,
    cutting: bool,
}

/// The body ends before its end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("simulated fault")]
pub(super) struct CutOff;

impl Body {
    /// A body without a length.
    pub(super) fn chunked(script: impl Iterator<Item = Beat> + 'static) -> Self {
        Self::play(script, BodySize::Stream)
    }

    /// A body that promises so many bytes.
    pub(super) fn sized(script: impl Iterator<Item = Beat> + 'static, len: usize) -> Self {
        Self::play(script, BodySize::Sized(len as u64))
    }

    fn play(script: impl Iterator<Item = Beat> + 'static, size: BodySize) -> Self {
        Self::Play(Play { script: Box::new(script), size, waiting: None, cutting: false })
    }
}

impl Play {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        loop {
            if self.cutting {
                return Poll::Ready(Some(Err(CutOff)));
            }
            if let Some(waiting) = &mut self.waiting {
                std::task::ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            match self.script.next() {
                Some(Beat::Send(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Beat::Wait(time)) if time.is_zero() => {}
                Some(Beat::Wait(time)) => self.waiting = Some(Box::pin(sleep(time))),
                Some(Beat::Cut) => {
                    // An error at once would take the bytes along that are not written yet.
                    self.cutting = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl MessageBody for Body {
    type Error = CutOff;

    fn size(&self) -> BodySize {
        match self {
            Self::Whole(bytes) => BodySize::Sized(bytes.len() as u64),
            Self::Play(play) => play.size,
            Self::Nothing => BodySize::Stream,
        }
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, CutOff>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Play(play) => play.poll_next(cx),
            Self::Nothing => Poll::Ready(Some(Err(CutOff))),
        }
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            other => Err(other),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size", &self.size()).finish_non_exhaustive()
    }
}
