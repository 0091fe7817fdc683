//! Logs: text or JSON lines on stderr, written by a thread of their own.
//!
//! A request never waits for whoever reads the log. Lines go through a bounded channel; when it is
//! full they are thrown away and counted, and the log says so itself once it can again. At the
//! end of the process the guard waits a bounded time for what is still to be written.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait: seconds of a busy node's log, and at a usual 300 bytes some megabytes.
const QUEUE: usize = 16 << 10;

/// A line is cut beyond this; nothing that belongs into a log is longer.
const MAX_LINE: usize = 16 << 10;

/// How long the end of the process waits for the last lines.
const FLUSH: Duration = Duration::from_secs(2);

/// How often it looks whether there is room again.
const RETRY: Duration = Duration::from_millis(5);

/// What actix reports as errors is a client that left or sent nonsense; we answer and count that
/// ourselves. It can be had again by naming `actix_http` in the filter.
const QUIET: &str = "actix_http=off,actix_server=warn";

/// Lines thrown away so far. One for the process, as the subscriber is.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that wait now. Signed, because a line may be written before it is counted.
static QUEUED: AtomicI64 = AtomicI64::new(0);

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be understood.
    #[error("{0:?} is not a log filter; write a level such as info, or flotilla=debug,warn")]
    Filter(String),
    /// There is one already.
    #[error("the log is already set up")]
    Twice,
    /// The thread that writes could not be started.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
}

/// Lines thrown away because their reader was too slow.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Lines that wait for the thread that writes.
#[must_use]
pub fn queued() -> i64 {
    QUEUED.load(Ordering::Relaxed).max(0)
}

/// Sets the log of this process up: `filter` is a level or a list of directives.
///
/// # Errors
/// A filter that cannot be understood, or a second call.
pub fn init(format: Format, filter: &str) -> Result<Guard, LogError> {
    let filter = self::filter(filter)?;
    let (queue, guard) = start(io::stderr(), format, &DROPPED).map_err(LogError::Thread)?;
    let subscriber = subscriber(format, filter, queue);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    Ok(guard)
}

fn subscriber(
    format: Format,
    filter: EnvFilter,
    queue: Queue,
) -> Box<dyn Subscriber + Send + Sync> {
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(queue);
    match format {
        Format::Text => Box::new(builder.finish()),
        // The module that speaks is left out: `target` is where a request went.
        Format::Json => Box::new(builder.json().flatten_event(true).with_target(false).finish()),
    }
}

fn filter(text: &str) -> Result<EnvFilter, LogError> {
    let text = text.trim();
    let whole = if text.is_empty() {
        format!("info,{QUIET}")
    } else if text.contains("actix") {
        text.to_owned()
    } else {
        format!("{text},{QUIET}")
    };
    EnvFilter::try_new(whole).map_err(|_| LogError::Filter(text.to_owned()))
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Keeps the log running; when it is dropped, the last lines are written, within two seconds.
#[derive(Debug)]
#[must_use = "the log's last lines are lost without it"]
pub struct Guard {
    queue: SyncSender<Message>,
}

impl Drop for Guard {
    #[expect(clippy::disallowed_methods, reason = "the process is over; no worker waits")]
    fn drop(&mut self) {
        let begun = Instant::now();
        let (done, written) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        // The queue may be full, and its reader may stand still.
        while let Err(TrySendError::Full(returned)) = self.queue.try_send(message) {
            if begun.elapsed() > FLUSH {
                return;
            }
            message = returned;
            thread::sleep(RETRY);
        }
        written.recv_timeout(FLUSH.saturating_sub(begun.elapsed())).ok();
    }
}

/// Starts the thread that writes to `out`; it ends when all of its senders are gone.
fn start(
    out: impl Write + Send + 'static,
    format: Format,
    dropped: &'static AtomicU64,
) -> io::Result<(Queue, Guard)> {
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    let write = move || write_all(&receiver, out, format, dropped);
    thread::Builder::new().name("log".into()).spawn(write)?;
    Ok((Queue { sender: sender.clone(), dropped }, Guard { queue: sender }))
}

fn write_all(
    lines: &Receiver<Message>,
    mut out: impl Write,
    format: Format,
    dropped: &'static AtomicU64,
) {
    let mut told = 0;
    while let Ok(message) = lines.recv() {
        // A log that cannot be written has nowhere to say so.
        match message {
            Message::Line(line) => {
                QUEUED.fetch_sub(1, Ordering::Relaxed);
                out.write_all(&line).ok()
            }
            Message::Flush(done) => out.flush().ok().and_then(|()| done.try_send(()).ok()),
        };
        let dropped = dropped.load(Ordering::Relaxed);
        if dropped > told {
            let lines = dropped - told;
            match format {
                Format::Text => writeln!(out, "WARN log: lines were thrown away lines={lines}"),
                Format::Json => writeln!(
                    out,
                    r#"{{"level":"WARN","message":"lines were thrown away","lines":{lines}}}"#
                ),
            }
            .ok();
            told = dropped;
        }
    }
}

/// Makes one `Line` for each event.
#[derive(Clone, Debug)]
struct Queue {
    sender: SyncSender<Message>,
    dropped: &'static AtomicU64,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: self, text: Vec::new() }
    }
}

/// One event on its way; it is sent when it is dropped.
struct Line<'a> {
    queue: &'a Queue,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_LINE.saturating_sub(self.text.len());
        self.text.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.text.is_empty() {
            return;
        }
        if self.text.last() != Some(&b'\n') {
            self.text.push(b'\n');
        }
        let line = Message::Line(std::mem::take(&mut self.text));
        match self.queue.sender.try_send(line) {
            Ok(()) => QUEUED.fetch_add(1, Ordering::Relaxed).cast_unsigned(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.queue.dropped.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Nothing is thrown away where this counts.
    static NONE: AtomicU64 = AtomicU64::new(0);

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics with it").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_before_the_guard_lets_go() {
        let out = Shared::default();
        let (queue, guard) = start(out.clone(), Format::Text, &NONE).expect("a thread starts");
        for number in 0..1000 {
            write!(queue.make_writer(), "line {number}").expect("a line takes anything");
        }
        drop(guard);
        let text = String::from_utf8(out.0.lock().expect("no panic").clone()).expect("text");
        assert_eq!(text.lines().count(), 1000);
        assert!(text.ends_with("line 999\n"));
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_never_time() {
        // Nobody receives.
        let (sender, _receiver) = mpsc::sync_channel(2);
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let queue = Queue { sender, dropped: &DROPPED };
        for _ in 0..5 {
            queue.make_writer().write_all(b"x").expect("a line takes anything");
        }
        assert_eq!(DROPPED.load(Ordering::Relaxed), 3);
        let begun = Instant::now();
        drop(Guard { queue: queue.sender });
        assert!(begun.elapsed() < FLUSH * 2);
    }

    #[test]
    fn a_line_carries_its_fields_in_both_forms() {
        for format in [Format::Text, Format::Json] {
            let out = Shared::default();
            let (queue, guard) = start(out.clone(), Format::Text, &NONE).expect("a thread starts");
            let filter = filter("info").expect("a level");
            tracing::subscriber::with_default(subscriber(format, filter, queue), || {
                tracing::info!(request_id = "abc", status = 200, "request");
                tracing::debug!("nobody asked for this");
            });
            drop(guard);
            let text = String::from_utf8(out.0.lock().expect("no panic").clone()).expect("text");
            assert_eq!(text.lines().count(), 1, "{text}");
            match format {
                Format::Text => assert!(text.contains(r#"request request_id="abc" status=200"#)),
                Format::Json => {
                    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    assert_eq!(
                        (&line["request_id"], &line["status"]),
                        (&"abc".into(), &200.into())
                    );
                }
            }
        }
    }

    #[test]
    fn a_line_is_cut_where_it_is_absurdly_long() {
        let (sender, receiver) = mpsc::sync_channel(1);
        Queue { sender, dropped: &NONE }
            .make_writer()
            .write_all(&vec![b'x'; MAX_LINE * 2])
            .expect("takes anything");
        let len = match receiver.recv() {
            Ok(Message::Line(line)) => line.len(),
            _ => 0,
        };
        assert_eq!(len, MAX_LINE + 1);
    }

    #[test]
    fn a_filter_is_a_level_or_directives() {
        assert!(filter("debug").is_ok() && filter("").is_ok());
        assert!(filter("flotilla=debug,warn").is_ok());
        assert!(filter("actix_http=trace").is_ok());
        assert!(matches!(filter("what is this=loud"), Err(LogError::Filter(_))));
    }
}
