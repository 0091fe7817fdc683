//! Calendar periods in a time zone: where the day, week or month that contains a moment begins and
//! ends.
//!
//! The zones are those that the binary carries, never the machine's: two nodes that disagree about
//! where a month ends would throw each other's count away, and a node in an empty container has no
//! zones at all.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp, ToSpan};

/// A calendar period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
}

/// A time zone, looked up once.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// The period that contains `now_ms`, as [start, end) in milliseconds of Unix time.
///
/// Where midnight falls into a gap of the clock, the day begins when the gap ends; where it comes
/// twice, at the first one. Periods follow each other without a gap. What lies before 1970 is cut
/// off, and the last period that the calendar knows, in the year 9999, goes on for ever.
#[must_use]
pub fn period(period: Period, zone: &Zone, now_ms: u64) -> (u64, u64) {
    let now = i64::try_from(now_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let now = now.unwrap_or(Timestamp::MAX);
    let first = period.first(now.to_zoned(zone.0.clone()).date());
    // A clock that is set back over midnight enters its date twice, and with the second coming
    // of the earlier date the later one's period has already begun.
    let mut start = first;
    loop {
        let next = start.and_then(|first| first.checked_add(period.span()).ok());
        let end = next.map_or(u64::MAX, |next| zone.begin_ms(next).unwrap_or(u64::MAX));
        if now_ms < end || end == u64::MAX {
            return (start.and_then(|first| zone.begin_ms(first)).unwrap_or(0), end);
        }
        start = next;
    }
}

// === impl Period ===

impl Period {
    /// The first date of the period that `date` is in; none where the calendar begins later.
    fn first(self, date: Date) -> Option<Date> {
        match self {
            Self::Day => Some(date),
            Self::Week => {
                let days = i64::from(date.weekday().to_monday_zero_offset());
                date.checked_sub(Span::new().days(days)).ok()
            }
            Self::Month => Some(date.first_of_month()),
        }
    }

    fn span(self) -> Span {
        match self {
            Self::Day => 1.day(),
            Self::Week => 1.week(),
            Self::Month => 1.month(),
        }
    }
}

// === impl Zone ===

impl Zone {
    /// The zone of this IANA name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let zone = TimeZoneDatabase::bundled().get(name).ok()?;
        (!zone.is_unknown()).then_some(Self(zone))
    }

    /// The names of all zones there are.
    #[must_use]
    pub fn names() -> Vec<String> {
        TimeZoneDatabase::bundled().available().map(|name| name.as_str().to_owned()).collect()
    }

    /// Its IANA name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// When this date begins, in milliseconds of Unix time; none beyond what can be said.
    fn begin_ms(&self, date: Date) -> Option<u64> {
        let begin = date.to_zoned(self.0.clone()).ok()?.timestamp();
        Some(u64::try_from(begin.as_millisecond()).unwrap_or(0))
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}

#[cfg(test)]
mod tests;
