//! Phase: pass the committed answer on, and end it honestly.
//!
//! A failure here can no longer be hidden. A stream of events ends with an error event of the
//! client's protocol and without a clean end; any other body just without a clean end. A comment
//! keeps a silent stream alive where the pool asks for it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use tokio::time::{Sleep, timeout};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::attempt::{Committed, Exchange};
use super::request::{Aborted, Body, Pieces};
use super::settle::{Account, OK, Trial};
use super::tap::Tap;
use crate::domain::{Code, Fault};
use crate::provider::{StreamFault, openai};
use crate::snapshot::Pool;
use crate::upstream::{AnswerBody, BodyError};

/// How long the end of the provider's body is waited for after its terminal event, so that what
/// belongs to the same bytes is passed on and the connection can be used again; most ends come with
/// the event itself.
const AFTERGLOW: Duration = Duration::from_millis(250);
/// The same for an end that comes in pieces.
const LONGEST_AFTERGLOW: Duration = Duration::from_secs(1);
/// A comment: any client of server-sent events ignores it.
pub(super) const PING: Bytes = Bytes::from_static(b": ping\n\n");

/// The clocks of a relay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    idle: Duration,
    deadline: Instant,
    heartbeat: Option<Duration>,
}

impl Clocks {
    /// The clocks of a request to `pool` that must be over at `deadline`.
    pub(super) fn new(pool: &Pool, deadline: Instant) -> Self {
        Self { idle: pool.timeouts.idle, deadline, heartbeat: pool.heartbeat }
    }
}

impl Exchange {
    /// The clocks of what follows the commit point.
    pub(super) fn clocks(&self) -> Clocks {
        Clocks::new(&self.pool, self.deadline)
    }
}

/// The body of the reply: all at once where all of it is here, else as it comes.
pub(super) fn relay(committed: Committed, mut account: Account, clocks: Clocks) -> Body {
    let Committed { len, held, rest, fault, mut trial, .. } = committed;
    let Some(rest) = rest else {
        trial.end(OK, true);
        drop(trial);
        account.end(OK);
        return Body::Whole(held);
    };
    let len = len.filter(|_| !trial.tap.as_ref().is_some_and(Tap::is_events));
    let mut relay = Relay::new(rest, len, trial, account, clocks);
    relay.take_in(held, fault);
    let pieces: Pieces = Box::pin(stream::unfold(relay, |mut relay| async move {
        let item = relay.next().await?;
        Some((item, relay))
    }));
    Body::Stream { len, pieces }
}

/// An answer on its way to the client. The trial is dropped before the account, which sums it up.
struct Relay {
    /// What is due to the client before anything else is waited for.
    due: Bytes,
    rest: AnswerBody,
    /// How many bytes are still to come, where the provider announced it.
    left: Option<u64>,
    trial: Trial,
    account: Account,
    clocks: Clocks,
    /// When the idle clock runs out; moved on by content.
    idle_at: Instant,
    /// When the next comment is due.
    ping_at: Option<Instant>,
    /// One timer for all clocks, moved only when it fires, so that an event costs no timer.
    timer: Pin<Box<Sleep>>,
    ending: Pin<Box<WaitForCancellationFutureOwned>>,
    state: State,
    /// When the wait for the end behind the terminal event is over; none before it.
    glows_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More may come.
    Live,
    /// The terminal event is due or has been passed on.
    Complete,
    /// What is due is the last, and the answer must not look complete after it.
    Broken,
    /// Over.
    Over,
}

/// What a wait ended with.
enum Woken {
    Piece(Option<Result<Bytes, BodyError>>),
    Idle,
    Deadline,
    Ping,
    Ending,
}

impl Relay {
    fn new(
        rest: AnswerBody,
        len: Option<u64>,
        trial: Trial,
        account: Account,
        clocks: Clocks,
    ) -> Self {
        let now = Instant::now();
        let events = trial.tap.as_ref().is_some_and(Tap::may_append);
        let ping_at = clocks.heartbeat.filter(|_| events).map(|period| now + period);
        let idle_at = now + clocks.idle;
        let first = [Some(idle_at), Some(clocks.deadline), ping_at].into_iter().flatten().min();
        let timer = Box::pin(tokio::time::sleep_until(first.unwrap_or(idle_at).into()));
        let ending = Box::pin(account.ending());
        let state = State::Live;
        Self {
            due: Bytes::new(),
            rest,
            left: len,
            trial,
            account,
            clocks,
            idle_at,
            ping_at,
            timer,
            ending,
            state,
            glows_until: None,
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, Aborted>> {
        loop {
            if self.trial.outruns() && !self.trial.top_up().await && self.state == State::Live {
                self.fail("the answer outran a limit that ends it");
            }
            if !self.due.is_empty() {
                return Some(Ok(std::mem::take(&mut self.due)));
            }
            match self.state {
                State::Live => {
                    let woken = poll_fn(|cx| self.poll_woken(cx)).await;
                    self.step(woken);
                }
                State::Complete => {
                    if !self.afterglow().await {
                        self.state = State::Over;
                    }
                }
                State::Broken => {
                    self.state = State::Over;
                    return Some(Err(Aborted));
                }
                State::Over => return None,
            }
        }
    }

    /// The provider's next piece, or the clock that ran out, or the end of the node.
    fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        if let Poll::Ready(piece) = Pin::new(&mut self.rest).poll_next(cx) {
            return Poll::Ready(Woken::Piece(piece));
        }
        if self.ending.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Woken::Ending);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.clocks.deadline {
                return Poll::Ready(Woken::Deadline);
            }
            if now >= self.idle_at {
                return Poll::Ready(Woken::Idle);
            }
            if self.ping_at.is_some_and(|at| now >= at) {
                return Poll::Ready(Woken::Ping);
            }
            let next = self.idle_at.min(self.clocks.deadline);
            let next = self.ping_at.map_or(next, |at| next.min(at));
            self.timer.as_mut().reset(next.into());
        }
        Poll::Pending
    }

    fn step(&mut self, woken: Woken) {
        match woken {
            Woken::Piece(Some(Ok(piece))) => self.piece(piece),
            Woken::Piece(Some(Err(_))) => self.fail("the provider's answer broke off"),
            Woken::Piece(None) => self.finish(),
            Woken::Idle => self.fail("the provider sent no content for too long"),
            Woken::Deadline => self.fail("the request took longer than its total time-out"),
            Woken::Ending => self.fail("the node is shutting down"),
            Woken::Ping => {
                self.ping_at = self.clocks.heartbeat.map(|period| Instant::now() + period);
                self.due = PING;
            }
        }
    }

    fn piece(&mut self, piece: Bytes) {
        let Some(tap) = self.trial.tap.as_mut() else { return };
        let progress = tap.feed(piece);
        let now = Instant::now();
        if progress.content {
            self.idle_at = now + self.clocks.idle;
        }
        if !progress.bytes.is_empty() && self.ping_at.is_some() {
            self.ping_at = self.clocks.heartbeat.map(|period| now + period);
        }
        self.take_in(progress.bytes, progress.fault);
        // The timer is not asked while there is always a next piece.
        if self.state == State::Live && now >= self.clocks.deadline {
            self.step(Woken::Deadline);
        }
    }

    /// Makes these bytes due to the client, and then the end that `fault` calls for.
    fn take_in(&mut self, bytes: Bytes, fault: Option<StreamFault>) {
        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
        self.due = bytes;
        match fault {
            None => {
                if self.is_whole() {
                    self.succeed(State::Complete);
                }
            }
            // It speaks of our credential, and may show it.
            Some(StreamFault::Provider { status: Some(401 | 403), .. }) => {
                self.fail("the provider refused the gateway's own credential");
            }
            Some(StreamFault::Provider { event, .. }) => self.break_off(&event),
            Some(StreamFault::Malformed) => self.fail("the provider sent a malformed event"),
            Some(StreamFault::TooLarge) => {
                self.fail("the provider sent an event that is too large")
            }
            Some(StreamFault::Truncated) => self.fail("the provider's answer broke off"),
        }
    }

    /// Whether what is due is all that belongs to the answer, although its end was not seen yet.
    fn is_whole(&mut self) -> bool {
        let at_end = self.left == Some(0);
        let tap = self.trial.tap.as_mut();
        tap.is_some_and(|tap| tap.is_complete() || at_end && tap.finish().is_ok())
    }

    /// The provider's body came to a clean end.
    fn finish(&mut self) {
        let Some(tap) = self.trial.tap.as_mut() else { return };
        match tap.finish() {
            Ok(last) => {
                self.due = last;
                self.succeed(State::Over);
            }
            Err(_) => self.fail("the provider's answer broke off"),
        }
    }

    /// Records a whole answer, now that its last bytes are due: many clients leave as soon as they
    /// have them, and nothing that follows is theirs.
    fn succeed(&mut self, state: State) {
        self.state = state;
        self.trial.end(OK, true);
        self.account.end(OK);
    }

    /// Ends a failed answer with an event of our own, where one can follow.
    fn fail(&mut self, message: &'static str) {
        self.break_off(&openai::error_event(&Fault::new(Code::StreamInterrupted, message)));
    }

    /// Ends a failed answer with this event, where one can follow.
    fn break_off(&mut self, event: &Bytes) {
        self.trial.end("interrupted", true);
        self.account.end(Code::StreamInterrupted.as_str());
        self.state = State::Broken;
        if self.trial.tap.as_ref().is_some_and(Tap::may_append) {
            self.due = [&self.due[..], &event[..]].concat().into();
        }
    }

    /// Waits a moment for what follows the terminal event; false where nothing more does. What the
    /// protocol allows there, such as `[DONE]`, is passed on, and everything else is not.
    async fn afterglow(&mut self) -> bool {
        let now = Instant::now();
        let until = *self.glows_until.get_or_insert(now + LONGEST_AFTERGLOW);
        let wait = AFTERGLOW.min(until.saturating_duration_since(now));
        // Too late is no fault: the connection is closed instead of kept.
        let Ok(Some(Ok(piece))) = timeout(wait, self.rest.next()).await else { return false };
        if let Some(tap) = &mut self.trial.tap {
            self.due = tap.feed(piece).bytes;
        }
        true
    }
}
