//! What went wrong with a call, and what follows: one table of everything a server may answer.

use std::time::Instant;

use redis::{ErrorKind, RedisError};

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was not sent: no connection in time, or the breaker is open.
    #[error("redis is not asked")]
    Away,
    /// It was sent and there is no answer: until then it may still be carried out.
    #[error("redis did not answer in time")]
    InDoubt {
        /// From then on it changes nothing any more.
        until: Instant,
    },
    /// The server refuses: nothing was changed. The code is one of the table, or unknown.
    #[error("redis refuses: {code}: {means}")]
    Refused {
        /// The first word of its answer.
        code: String,
        /// What that means for an operator.
        means: &'static str,
    },
    /// An answer that the script does not give.
    #[error("redis answered what the script does not say")]
    Reply,
    /// A number too large for the state machines: a fault of whoever made the command.
    #[error("a limit or an amount is 2^48 or more, or a bucket's product 2^53")]
    Number,
}

/// What follows an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handling {
    /// The script is loaded, and the call is made again.
    Load,
    /// The master cannot serve now; counts for the breaker.
    Wait,
    /// As `Wait`, and a new connection may lead to one that can.
    Reconnect,
    /// The connection is gone; counts for the breaker, and a new one is made.
    Broken,
    /// Somebody must repair something: the fleet's configuration, the server's, or this code. The
    /// server is up: does not count.
    Report,
}

/// Every code that Redis or Valkey may answer a script with, what follows, and what to do.
const TABLE: &[(&str, Handling, &str)] = &[
    ("NOSCRIPT", Handling::Load, "the script cache was emptied, or this is a promoted replica"),
    ("LOADING", Handling::Wait, "it is still reading its data from disk"),
    (
        "BUSY",
        Handling::Wait,
        "a script runs too long: find it with SLOWLOG, end it with SCRIPT KILL",
    ),
    ("UNKILLABLE", Handling::Wait, "a script that has written runs too long"),
    ("OOM", Handling::Wait, "it is out of memory: raise maxmemory"),
    ("MISCONF", Handling::Wait, "it cannot save to disk and therefore refuses writes"),
    ("NOREPLICAS", Handling::Wait, "min-replicas-to-write is not met"),
    ("READONLY", Handling::Reconnect, "it is a replica now: another one is the master"),
    ("MASTERDOWN", Handling::Reconnect, "it is a replica without its master"),
    ("CLUSTERDOWN", Handling::Wait, "slots of the cluster are without a master"),
    ("TRYAGAIN", Handling::Wait, "the slot is being moved"),
    (
        "MOVED",
        Handling::Reconnect,
        "the slot is elsewhere: is this a cluster? use redis+cluster://",
    ),
    (
        "ASK",
        Handling::Reconnect,
        "the slot is being moved: is this a cluster? use redis+cluster://",
    ),
    ("NOAUTH", Handling::Reconnect, "it wants a password"),
    ("WRONGPASS", Handling::Reconnect, "user or password is wrong"),
    ("NOPERM", Handling::Report, "the user lacks the right: +@all on ~<prefix>:* will do"),
    ("WRONGTYPE", Handling::Report, "a key of this prefix holds something else"),
    (
        "CROSSSLOT",
        Handling::Report,
        "keys of one call are on different slots: a fault of this node",
    ),
    ("NOPROTO", Handling::Report, "it is too old: Redis 6.2 is the least"),
    ("EXECABORT", Handling::Report, "a transaction was refused: a fault of this node"),
];

/// What an error means: its code, what follows, and its line of the table.
pub(crate) fn read(error: &RedisError) -> (String, Handling, &'static str) {
    if matches!(error.kind(), ErrorKind::Io) || error.is_connection_dropped() || error.is_timeout()
    {
        return ("IO".to_owned(), Handling::Broken, "the connection broke");
    }
    if matches!(error.kind(), ErrorKind::AuthenticationFailed) {
        return ("WRONGPASS".to_owned(), Handling::Reconnect, "user or password is wrong");
    }
    let code = error.code().unwrap_or("ERR");
    let code = match (code, error.detail()) {
        // Redis 6 hides the error of a command within a script in the text of the script's.
        ("ERR", Some(detail)) => hidden_code(detail).unwrap_or(code),
        _ => code,
    };
    let row = TABLE.iter().find(|(known, ..)| *known == code);
    let (_, handling, means) =
        row.copied().unwrap_or((code, Handling::Report, "see the log of the server"));
    (code.to_owned(), handling, means)
}

fn hidden_code(detail: &str) -> Option<&'static str> {
    /// What has no code at all where it happens within a script.
    const WORDS: [(&str, &str); 4] = [
        ("can't write against a read only replica", "READONLY"),
        ("executing the script can't run this command", "NOPERM"),
        ("executing the script can't access", "NOPERM"),
        ("No permissions", "NOPERM"),
    ];
    let by_code = |code: &str| detail.contains(&format!("-{code} "));
    let by_words = WORDS.iter().find(|(words, _)| detail.contains(words)).map(|(_, code)| *code);
    TABLE.iter().map(|(code, ..)| *code).find(|code| by_code(code)).or(by_words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(line: &str) -> RedisError {
        let (code, detail) = line.split_once(' ').unwrap_or((line, ""));
        redis::make_extension_error(code.to_owned(), Some(detail.to_owned()))
    }

    #[test]
    fn every_code_of_the_table_is_found_by_its_name() {
        for (code, handling, means) in TABLE {
            let (read_code, read_handling, read_means) =
                read(&server(&format!("{code} some words")));
            assert_eq!((read_code.as_str(), read_handling, read_means), (*code, *handling, *means));
        }
    }

    #[test]
    fn an_unknown_code_is_reported_and_does_not_count_against_the_master() {
        let (code, handling, _) = read(&server("NEWCODE something"));
        assert_eq!((code.as_str(), handling), ("NEWCODE", Handling::Report));
    }

    #[test]
    fn what_redis_6_hides_in_a_scripts_error_is_found() {
        let line = "ERR Error running script (call to f_1): @user_script:40: @user_script: 40: -OOM \
                    command not allowed when used memory > 'maxmemory'.";
        assert_eq!(read(&server(line)).0, "OOM");
        let line = "ERR Error running script (call to f_1): @user_script:9: @user_script: 9: \
                    -READONLY You can't write against a read only replica.";
        assert_eq!(read(&server(line)).1, Handling::Reconnect);
    }
}
