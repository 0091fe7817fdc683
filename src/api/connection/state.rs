//! What a connection and the requests on it tell each other.
//!
//! The socket does not know where a request begins and ends; the handler does not see the bytes.
//! Each writes what it knows here, and the deadlines follow from both.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The clocks of a connection.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Clocks {
    /// For each request head, from its first byte (of a connection's first: from the accept).
    pub(in crate::api) head: Duration,
    /// For a connection without a request.
    pub(in crate::api) keep_alive: Duration,
    /// For a client that reads nothing of its answer.
    pub(in crate::api) write_stall: Duration,
}

/// What happens on the connection now, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of a next request is here.
    Idle,
    /// A part of a request's head is here.
    Head,
    /// A request is being served.
    Busy,
    /// Answered, but its body was not read to the end: the rest is thrown away as it comes.
    Draining,
}

/// What a connection that broke one of its deadlines gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A head took too long: it is told so.
    Head,
    /// Nothing to tell.
    Idle,
}

/// The state of one connection, shared between the socket and its requests.
#[derive(Debug)]
pub(in crate::api) struct Conn {
    clocks: Clocks,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// No request was served yet: the head's clock runs from the accept.
    first: Cell<bool>,
    /// The body of the request that is being served was read to its end.
    body_read: Cell<bool>,
    /// Bytes of a next request are here and wait for their turn.
    ahead: Cell<bool>,
    /// Who waits for that turn.
    turn_waiter: RefCell<Option<Waker>>,
    /// Requests answered so far.
    ended: Cell<u64>,
    /// The end of the connection is the end of the answer, which is not there yet.
    open_ended: Cell<bool>,
    /// All bytes that were given to the socket are with the kernel.
    flushed: Cell<bool>,
    flush_waiter: RefCell<Option<Waker>>,
    /// The client sends no more.
    gone: Cell<bool>,
    /// Who sent the connection: the peer, or whom a trusted peer named with PROXY v2.
    client: Cell<IpAddr>,
}

impl Conn {
    pub(super) fn new(peer: IpAddr, clocks: Clocks, now: Instant) -> Rc<Self> {
        Rc::new(Self {
            clocks,
            phase: Cell::new(Phase::Idle),
            since: Cell::new(now),
            first: Cell::new(true),
            body_read: Cell::new(true),
            ahead: Cell::new(false),
            turn_waiter: RefCell::new(None),
            ended: Cell::new(0),
            open_ended: Cell::new(false),
            flushed: Cell::new(true),
            flush_waiter: RefCell::new(None),
            gone: Cell::new(false),
            client: Cell::new(peer),
        })
    }

    /// Who sent the connection.
    pub(in crate::api) fn client(&self) -> IpAddr {
        self.client.get()
    }

    pub(super) fn set_client(&self, ip: IpAddr) {
        self.client.set(ip);
    }

    // === what the handler says ===

    /// A request begins; it ends when the guard is dropped.
    pub(in crate::api) fn begin(self: &Rc<Self>, has_body: bool) -> Serving {
        self.phase.set(Phase::Busy);
        self.first.set(false);
        self.body_read.set(!has_body);
        self.flushed.set(false);
        Serving(Rc::clone(self))
    }

    /// The body of the request was read to its end.
    pub(in crate::api) fn body_read(&self) {
        self.body_read.set(true);
    }

    /// Resolves when every byte before this call is with the kernel.
    pub(in crate::api) fn poll_flushed(&self, cx: &Context<'_>) -> Poll<()> {
        if self.flushed.get() {
            return Poll::Ready(());
        }
        *self.flush_waiter.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// True once the client sends no more, on purpose or because its connection broke.
    pub(in crate::api) fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Something is about to be written.
    pub(in crate::api) fn unflushed(&self) {
        self.flushed.set(false);
    }

    /// The answer is told to end with the connection, or it has ended.
    pub(in crate::api) fn set_open_ended(&self, open: bool) {
        self.open_ended.set(open);
    }

    fn end(&self) {
        let next = match (self.body_read.get(), self.ahead.get()) {
            (false, _) => Phase::Draining,
            (true, true) => Phase::Head,
            (true, false) => Phase::Idle,
        };
        self.phase.set(next);
        self.since.set(Instant::now());
        self.ended.set(self.ended.get() + 1);
        // The end of the answer is still on its way to the socket.
        self.flushed.set(false);
        // Nearly always nobody waits.
        let waiter = self.turn_waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    // === what the socket says ===

    /// Bytes of the request whose turn it is came.
    pub(super) fn received(&self) {
        if self.phase.get() == Phase::Idle {
            self.phase.set(Phase::Head);
            if !self.first.get() {
                self.since.set(Instant::now());
            }
        }
    }

    /// Whether bytes of a next request wait for their turn.
    pub(super) fn set_ahead(&self, ahead: bool) {
        self.ahead.set(ahead);
    }

    /// Requests answered so far.
    pub(super) fn ended(&self) -> u64 {
        self.ended.get()
    }

    /// Wakes this task when the request at hand is answered.
    pub(super) fn await_turn(&self, cx: &Context<'_>) {
        *self.turn_waiter.borrow_mut() = Some(cx.waker().clone());
    }

    /// True where what is sent is thrown away until the request's body is over.
    pub(super) fn is_draining(&self) -> bool {
        self.phase.get() == Phase::Draining
    }

    /// True where the answer ends with the connection, and its end is not with the kernel.
    pub(super) fn is_cut_short(&self) -> bool {
        self.open_ended.get() && (self.phase.get() == Phase::Busy || !self.flushed.get())
    }

    /// The client sends no more.
    pub(super) fn gone(&self) {
        self.gone.set(true);
    }

    /// Everything that was given to the socket is with the kernel.
    pub(super) fn flushed(&self) {
        self.flushed.set(true);
        // Nearly always nobody waits.
        let waiter = self.flush_waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// True where neither a request nor a rest of its answer is under way: what is written now
    /// does not come from a handler.
    pub(super) fn is_quiet(&self) -> bool {
        self.phase.get() != Phase::Busy && self.flushed.get()
    }

    /// When the client is overdue, unless something happens before.
    pub(super) fn deadline(&self) -> Option<(Instant, Overdue)> {
        let since = self.since.get();
        match self.phase.get() {
            Phase::Idle if self.first.get() => Some((since + self.clocks.head, Overdue::Idle)),
            Phase::Idle => Some((since + self.clocks.keep_alive, Overdue::Idle)),
            Phase::Head => Some((since + self.clocks.head, Overdue::Head)),
            Phase::Draining => Some((since + self.clocks.head, Overdue::Idle)),
            Phase::Busy => None,
        }
    }

    pub(super) fn clocks(&self) -> Clocks {
        self.clocks
    }
}

/// A request is being served, its answer's body included.
#[derive(Debug)]
pub(in crate::api) struct Serving(Rc<Conn>);

impl Serving {
    pub(in crate::api) fn conn(&self) -> &Rc<Conn> {
        &self.0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCKS: Clocks = Clocks {
        head: Duration::from_secs(10),
        keep_alive: Duration::from_secs(75),
        write_stall: Duration::from_secs(60),
    };

    fn conn() -> Rc<Conn> {
        Conn::new(IpAddr::from([127, 0, 0, 1]), CLOCKS, Instant::now())
    }

    #[test]
    fn the_first_head_is_due_from_the_accept_on_and_later_ones_from_their_first_byte() {
        let conn = conn();
        let accepted = conn.since.get();
        assert_eq!(conn.deadline(), Some((accepted + CLOCKS.head, Overdue::Idle)));
        conn.received();
        assert_eq!(conn.deadline(), Some((accepted + CLOCKS.head, Overdue::Head)));
        drop(conn.begin(false));
        let idle = conn.since.get();
        assert_eq!(conn.deadline(), Some((idle + CLOCKS.keep_alive, Overdue::Idle)));
        conn.received();
        assert_eq!(conn.deadline(), Some((conn.since.get() + CLOCKS.head, Overdue::Head)));
    }

    #[test]
    fn a_request_under_way_has_no_deadline_here() {
        let conn = conn();
        let _serving = conn.begin(true);
        conn.received();
        assert_eq!(conn.deadline(), None);
        assert!(!conn.is_quiet());
    }

    #[test]
    fn a_body_left_unread_and_a_head_sent_ahead_are_due_from_the_answers_end() {
        let unread = conn();
        drop(unread.begin(true));
        assert_eq!(unread.deadline(), Some((unread.since.get() + CLOCKS.head, Overdue::Idle)));

        let ahead = conn();
        let serving = ahead.begin(true);
        ahead.body_read();
        ahead.set_ahead(true);
        drop(serving);
        assert_eq!(ahead.deadline(), Some((ahead.since.get() + CLOCKS.head, Overdue::Head)));
    }

    #[test]
    fn a_connection_is_quiet_only_once_the_answer_is_with_the_kernel() {
        let conn = conn();
        assert!(conn.is_quiet());
        drop(conn.begin(false));
        assert!(!conn.is_quiet());
        conn.flushed();
        assert!(conn.is_quiet());
    }
}
