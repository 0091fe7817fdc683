//! An answer that broke off is an error and never a short success.

use flotilla::upstream::{BodyError, Config, SendError};

use super::{client_of, on_worker, read, send};
use crate::support::wall::{Script, Wall};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// How a provider leaves, by name.
type Leave = (&'static str, fn(Script) -> Script);

const ENDS: [Leave; 3] = [("close", Script::close), ("cut", Script::cut), ("reset", Script::reset)];

// T32: plain awc gives `Ok` and the bytes so far.
#[test]
fn a_body_that_breaks_off_is_truncated() {
    let starts = [
        (format!("{CHUNKED}5\r\nhello\r\n"), "hello"),
        (format!("{CHUNKED}5\r\nhel"), "hel"),
        (format!("{CHUNKED}5\r\nhello\r\n0\r\n"), "hello"),
        (CHUNKED.to_owned(), ""),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".to_owned(), "hello"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".to_owned(), ""),
        ("HTTP/1.0 200 OK\r\ncontent-length: 10\r\n\r\nhello".to_owned(), "hello"),
    ];
    for tls in [false, true] {
        for (bytes, came) in &starts {
            for (end, leave) in ENDS {
                let script = leave(Script::new().send(bytes));
                let wall = Wall::start_with(tls, move |_| script.clone());
                on_worker(async {
                    let upstream = client_of(&wall, Config::default());
                    let what = format!("{bytes:?}, {end}, TLS {tls}");
                    let outcome = match send(&upstream, &wall.origin()).await {
                        Ok(answer) => read(answer).await,
                        // A reset may overtake the head; that is an error too.
                        Err(SendError::Closed) if end == "reset" => continue_with(came),
                        Err(error) => unreachable!("{what}: {error:?}"),
                    };
                    let (so_far, error) = outcome.expect_err(&what);
                    assert_eq!(error, BodyError::Truncated, "{what}");
                    assert!(so_far == *came || end == "reset", "{what}: {so_far:?}");
                    assert_eq!(upstream.standing().idle, 0, "{what}: kept a broken connection");
                });
            }
        }
    }
}

fn continue_with(came: &str) -> Result<bytes::Bytes, (bytes::Bytes, BodyError)> {
    Err((came.to_owned().into(), BodyError::Truncated))
}

// T32: plain awc takes a close without close_notify for an error, but not one with.
#[test]
fn a_body_that_ends_with_the_connection_needs_a_proper_close_over_tls() {
    for (tls, leave, whole) in [
        (false, Script::close as fn(Script) -> Script, true),
        (true, Script::close, true),
        (true, Script::cut, false),
    ] {
        let script = leave(Script::new().send("HTTP/1.1 200 OK\r\n\r\nhello"));
        let wall = Wall::start_with(tls, move |_| script.clone());
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            let answer = send(&upstream, &wall.origin()).await.expect("a head");
            let outcome = read(answer).await;
            let truncated = Err(("hello".into(), BodyError::Truncated));
            assert_eq!(outcome, if whole { Ok("hello".into()) } else { truncated });
        });
    }
}

#[test]
fn a_head_that_breaks_off_is_closed() {
    for tls in [false, true] {
        for bytes in ["", "H", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r"] {
            for (_, leave) in ENDS {
                let script = leave(Script::new().send(bytes));
                let wall = Wall::start_with(tls, move |_| script.clone());
                on_worker(async {
                    let upstream = client_of(&wall, Config::default());
                    let outcome = send(&upstream, &wall.origin()).await;
                    assert!(matches!(outcome, Err(SendError::Closed)), "{bytes:?}: {outcome:?}");
                    assert_eq!(wall.count(), 1, "a fresh connection is not retried");
                });
            }
        }
    }
}

#[test]
fn what_is_not_http_is_malformed() {
    for bytes in ["SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "HTTP/1.1 101 S\r\n\r\n"] {
        let wall = Wall::always(Script::new().send(bytes).stall());
        on_worker(async {
            let upstream = client_of(&wall, Config::default());
            let outcome = send(&upstream, &wall.origin()).await;
            assert!(matches!(outcome, Err(SendError::Malformed)), "{bytes:?}: {outcome:?}");
            wall.attempt(0).await.closed().await;
        });
    }
    // Informational heads without end, which a client's clocks alone would end.
    let endless = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(2000);
    let wall = Wall::always(Script::new().send(endless).stall());
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let outcome = send(&upstream, &wall.origin()).await;
        assert!(matches!(outcome, Err(SendError::Malformed)), "{outcome:?}");
        wall.attempt(0).await.closed().await;
    });
    let bytes = format!("{CHUNKED}5\r\nhello\r\n?");
    let wall = Wall::always(Script::new().send(bytes).stall());
    on_worker(async {
        let upstream = client_of(&wall, Config::default());
        let answer = send(&upstream, &wall.origin()).await.expect("a head");
        let outcome = read(answer).await;
        assert_eq!(outcome, Err(("hello".into(), BodyError::Malformed)), "good bytes come first");
        wall.attempt(0).await.closed().await;
    });
}
