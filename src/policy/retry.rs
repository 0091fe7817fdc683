//! Whether a failed attempt is followed by another one, where, and after which wait.
//!
//! The table below is the whole policy. A failure is somebody's: the credential's (401, 403), the
//! target's (5xx, redirects, resets, silence), its for now (429), or the client's (any other 4xx),
//! and only the client's own is final at once. Another target is tried without a wait; the same
//! target again only after its `Retry-After` or a backoff with full jitter, only where that wait is
//! short, and only within the retry budget. A target that ran out of its clock is not asked again:
//! it has cost the client a whole clock already.

mod budget;

use std::time::Duration;

pub use budget::RetryBudget;

/// The longest backoff, and the longest `Retry-After` that is waited for here; a longer one is the
/// client's to wait for, since it can do so without holding a connection.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The first backoff; it doubles with each attempt.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

/// How an attempt failed before its commit point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: look-up, TCP, TLS, or the connect clock.
    Connect,
    /// The provider's name leads to an address that is never connected to.
    Address,
    /// The connection broke, or what came was not the protocol.
    Broken,
    /// The first-token or answer clock ran out.
    Timeout,
    /// Too many requests to this provider are in flight on this worker.
    Busy,
    /// The provider answered with this status, or with an error event that stands for it.
    Status(u16),
}

/// What is known when an attempt has failed.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// How it failed.
    pub failure: Failure,
    /// How long it takes until one of the targets that failed may be asked again; none where none
    /// of them may.
    pub again: Option<Duration>,
    /// Attempts made so far, this one included.
    pub attempts: u32,
    /// Attempts allowed in all.
    pub cap: u32,
    /// Whether a target that was not tried yet is left.
    pub untried: bool,
    /// Time left until the request's deadline.
    pub left: Duration,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try a target that was not tried yet, now.
    Another,
    /// Ask a target again that failed before, after this wait; takes one retry from the budget.
    Again(Duration),
    /// Tell the client.
    Stop(Reason),
}

/// Why no further attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The same request would fail again anywhere.
    ClientsOwn,
    /// All attempts are used up.
    Attempts,
    /// No target is left that could do better.
    Exhausted,
    /// The wait would be too long, or there is no time left.
    Time,
}

impl Failure {
    /// Whether another target may do better.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Connect | Self::Address | Self::Broken | Self::Timeout | Self::Busy => true,
            // A redirect speaks of this target's address, which no client chose.
            Self::Status(status) => {
                matches!(status, 401 | 403 | 408 | 425 | 429) || !(400..500).contains(&status)
            }
        }
    }

    /// Whether the same target may do better a little later.
    #[must_use]
    pub fn may_pass(self) -> bool {
        match self {
            Self::Connect | Self::Broken | Self::Busy => true,
            Self::Address | Self::Timeout => false,
            // 501, 505 and redirects say what the server never does, not what it cannot do now.
            Self::Status(status) => {
                self.is_retryable() && !matches!(status, 401 | 403 | 501 | 505 | 300..=399)
            }
        }
    }
}

/// Decides what follows; `random` is 64 uniform bits for the jitter.
#[must_use]
pub fn decide(situation: Situation, random: u64) -> Verdict {
    let Situation { failure, again, attempts, cap, untried, left } = situation;
    if !failure.is_retryable() {
        return Verdict::Stop(Reason::ClientsOwn);
    }
    if attempts >= cap {
        return Verdict::Stop(Reason::Attempts);
    }
    if left.is_zero() {
        return Verdict::Stop(Reason::Time);
    }
    if untried {
        return Verdict::Another;
    }
    let Some(asked) = again else {
        return Verdict::Stop(Reason::Exhausted);
    };
    // Everybody was told the same time, so the jitter comes on top of it.
    let wait = asked.saturating_add(backoff(attempts, random));
    if asked > LONGEST_WAIT || wait >= left {
        return Verdict::Stop(Reason::Time);
    }
    Verdict::Again(wait)
}

/// Exponential backoff with full jitter (Brooker 2015), never zero so that a storm spreads.
fn backoff(attempts: u32, random: u64) -> Duration {
    let ceiling = FIRST_BACKOFF.saturating_mul(1 << attempts.min(5)).min(LONGEST_WAIT);
    let share = (random >> 32) as u32;
    let micros = (ceiling.as_micros() as u64 * u64::from(share)) >> 32;
    Duration::from_micros(micros.max(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(failure: Failure) -> Situation {
        Situation {
            failure,
            again: failure.may_pass().then_some(Duration::ZERO),
            attempts: 1,
            cap: 3,
            untried: false,
            left: Duration::from_secs(60),
        }
    }

    #[test]
    fn the_clients_own_errors_are_final() {
        for status in [400, 404, 409, 413, 415, 422] {
            let now = Situation { untried: true, ..situation(Failure::Status(status)) };
            assert_eq!(decide(now, 0), Verdict::Stop(Reason::ClientsOwn), "{status}");
        }
    }

    #[test]
    fn another_target_is_tried_at_once() {
        for failure in [
            Failure::Connect,
            Failure::Broken,
            Failure::Timeout,
            Failure::Busy,
            Failure::Status(302),
            Failure::Status(401),
            Failure::Status(429),
            Failure::Status(503),
        ] {
            let now = Situation {
                untried: true,
                again: Some(Duration::from_secs(30)),
                ..situation(failure)
            };
            assert_eq!(decide(now, 0), Verdict::Another, "{failure:?}");
        }
    }

    #[test]
    fn the_same_target_is_asked_again_only_where_time_may_help() {
        let never = [401, 403, 501, 302, 308].map(Failure::Status);
        for failure in never.into_iter().chain([Failure::Timeout, Failure::Address]) {
            assert_eq!(decide(situation(failure), 0), Verdict::Stop(Reason::Exhausted));
        }
        for failure in [Failure::Connect, Failure::Status(429), Failure::Status(500)] {
            assert!(matches!(decide(situation(failure), u64::MAX), Verdict::Again(_)));
        }
    }

    #[test]
    fn a_target_that_failed_earlier_is_asked_again_although_the_last_one_never_may() {
        let now = Situation { again: Some(Duration::ZERO), ..situation(Failure::Status(401)) };
        assert!(matches!(decide(now, 0), Verdict::Again(_)));
    }

    #[test]
    fn a_retry_after_is_waited_for_only_when_short() {
        let with = |seconds| Situation {
            again: Some(Duration::from_secs(seconds)),
            ..situation(Failure::Status(429))
        };
        assert_eq!(decide(with(1), 0), Verdict::Again(Duration::from_millis(1001)));
        assert_eq!(decide(with(1), u64::MAX / 2), Verdict::Again(Duration::from_micros(1_049_999)));
        assert_eq!(decide(with(2), 0), Verdict::Again(Duration::from_millis(2001)));
        for seconds in [3, 20, u64::MAX] {
            assert_eq!(decide(with(seconds), 0), Verdict::Stop(Reason::Time));
        }
    }

    #[test]
    fn attempts_and_time_are_bounded() {
        let now = Situation { attempts: 3, untried: true, ..situation(Failure::Connect) };
        assert_eq!(decide(now, 0), Verdict::Stop(Reason::Attempts));
        let now = Situation { left: Duration::ZERO, untried: true, ..situation(Failure::Connect) };
        assert_eq!(decide(now, 0), Verdict::Stop(Reason::Time));
    }

    #[test]
    fn the_backoff_is_jittered_and_bounded() {
        assert_eq!(backoff(1, 0), Duration::from_millis(1));
        assert!(backoff(1, u64::MAX) <= Duration::from_millis(100));
        assert!(backoff(40, u64::MAX) <= LONGEST_WAIT);
    }
}
