//! T7: a clock that walks over hours, days, months, daylight saving and leap days.

use jiff::civil::{Weekday, date};
use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// With daylight saving at midnight (Cairo, Santiago, Beirut), half hours (Lord Howe), a clock that
/// went back over midnight (St Johns), a day that never was (Apia), and offsets from -12 to +14.
const ZONES: [&str; 15] = [
    "UTC",
    "Europe/Vienna",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "America/Havana",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Etc/GMT+12",
];

fn zone(name: &str) -> Zone {
    Zone::named(name).expect("the binary carries every zone")
}

fn ms(time: &str) -> u64 {
    let time: Timestamp = time.parse().expect("a time");
    u64::try_from(time.as_millisecond()).expect("after 1970")
}

fn at(which: Period, name: &str, now: &str) -> (u64, u64) {
    period(which, &zone(name), ms(now))
}

fn local(zone: &Zone, ms: u64) -> jiff::Zoned {
    let ms = i64::try_from(ms).expect("a time of this era");
    Timestamp::from_millisecond(ms).expect("a time of this era").to_zoned(zone.0.clone())
}

/// Every `step` of the time, and the milliseconds around each end.
fn walk(which: Period, name: &str, step: u64, from: &str, to: &str, lengths: &[u64]) {
    let (from, to) = (ms(from), ms(to));
    let zone = zone(name);
    let mut current = period(which, &zone, from);
    let mut now = from;
    while now < to {
        let found = period(which, &zone, now);
        assert!(found.0 <= now && now < found.1, "{name} {now}: {found:?}");
        if found != current {
            assert_eq!(found.0, current.1, "{name} {now}: periods follow each other");
            assert_eq!(period(which, &zone, found.0), found, "{name}: the start is within");
            assert_eq!(period(which, &zone, found.0 - 1), current, "{name}: the end is without");
            let start = local(&zone, found.0);
            match which {
                Period::Day => {}
                Period::Week => assert_eq!(start.weekday(), Weekday::Monday, "{start}"),
                Period::Month => assert_eq!(start.day(), 1, "{start}"),
            }
            let length = found.1 - found.0;
            assert!(lengths.contains(&length), "{name} {start}: {} h", length / HOUR);
            current = found;
        }
        now += step;
    }
}

fn hours(hours: impl IntoIterator<Item = u64>) -> Vec<u64> {
    // Lord Howe moves its clock by half an hour.
    let all = hours.into_iter().flat_map(|h| [h * HOUR - HOUR / 2, h * HOUR, h * HOUR + HOUR / 2]);
    all.collect()
}

// T7
#[test]
fn days_follow_each_other_through_every_change_of_the_clock() {
    let (from, to) = ("2024-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    ZONES.iter().for_each(|name| walk(Period::Day, name, HOUR, from, to, &hours(23..=25)));
}

// T7
#[test]
fn weeks_begin_on_monday() {
    let (from, to) = ("2023-01-01T00:00:00Z", "2029-01-01T00:00:00Z");
    ZONES.iter().for_each(|name| walk(Period::Week, name, 7 * HOUR, from, to, &hours(167..=169)));
}

// T7
#[test]
fn months_begin_on_the_first_also_in_leap_years() {
    let lengths = hours([28, 29, 30, 31].into_iter().flat_map(|d| d * 24 - 1..=d * 24 + 1));
    let (from, to) = ("2023-01-01T00:00:00Z", "2029-01-01T00:00:00Z");
    ZONES.iter().for_each(|name| walk(Period::Month, name, 7 * HOUR, from, to, &lengths));
    let (start, end) = at(Period::Month, "UTC", "2028-02-29T23:59:59.999Z");
    assert_eq!((start, end - start), (ms("2028-02-01T00:00:00Z"), 29 * DAY));
    let (start, end) = at(Period::Month, "UTC", "2100-02-28T12:00:00Z");
    assert_eq!((start, end - start), (ms("2100-02-01T00:00:00Z"), 28 * DAY));
}

// T7
#[test]
fn a_day_of_daylight_saving_has_23_or_25_hours() {
    let (start, end) = at(Period::Day, "Europe/Vienna", "2026-03-29T12:00:00Z");
    assert_eq!((start, end), (ms("2026-03-28T23:00:00Z"), ms("2026-03-29T22:00:00Z")));
    let (start, end) = at(Period::Day, "Europe/Vienna", "2026-10-25T00:30:00Z");
    assert_eq!((start, end), (ms("2026-10-24T22:00:00Z"), ms("2026-10-25T23:00:00Z")));
    let (start, end) = at(Period::Month, "America/New_York", "2026-03-31T12:00:00Z");
    assert_eq!((start, end), (ms("2026-03-01T05:00:00Z"), ms("2026-04-01T04:00:00Z")));
}

// T7: in Cairo the clock leaps from midnight to one o'clock.
#[test]
fn a_day_without_midnight_begins_when_the_gap_ends() {
    let (start, end) = at(Period::Day, "Africa/Cairo", "2024-04-26T12:00:00Z");
    assert_eq!((start, end), (ms("2024-04-25T22:00:00Z"), ms("2024-04-26T21:00:00Z")));
    assert_eq!(local(&zone("Africa/Cairo"), start).hour(), 1);
    assert_eq!(at(Period::Day, "Africa/Cairo", "2024-04-25T21:59:59.999Z").1, start);
}

// T7: in Havana the clock goes from one o'clock back to midnight.
#[test]
fn a_midnight_that_comes_twice_begins_one_day() {
    let day = at(Period::Day, "America/Havana", "2026-11-01T04:30:00Z");
    assert_eq!(day, at(Period::Day, "America/Havana", "2026-11-01T05:30:00Z"));
    assert_eq!(day, (ms("2026-11-01T04:00:00Z"), ms("2026-11-02T05:00:00Z")));
}

// T7: in St Johns the clock went from a minute past midnight back to the day before.
#[test]
fn a_clock_set_back_over_midnight_begins_no_second_day() {
    let first = ms("2010-11-07T02:30:00Z");
    let day = at(Period::Day, "America/St_Johns", "2010-11-07T03:00:00Z");
    assert_eq!(day.0, first, "still, or again, the sixth by the clock on the wall");
    assert_eq!(local(&zone("America/St_Johns"), ms("2010-11-07T03:00:00Z")).day(), 6);
    assert_eq!(at(Period::Day, "America/St_Johns", "2010-11-07T02:29:59Z").1, first);
    let (from, to) = ("2008-01-01T00:00:00Z", "2011-01-01T00:00:00Z");
    walk(Period::Day, "America/St_Johns", HOUR / 2, from, to, &hours(23..=25));
}

// T7: the 30th of December 2011 never was in Samoa.
#[test]
fn a_day_that_never_was_is_no_period() {
    let before = at(Period::Day, "Pacific/Apia", "2011-12-30T09:59:59Z");
    let after = at(Period::Day, "Pacific/Apia", "2011-12-30T10:00:00Z");
    assert_eq!((before.1, after.0), (ms("2011-12-30T10:00:00Z"), ms("2011-12-30T10:00:00Z")));
    assert_eq!(local(&zone("Pacific/Apia"), after.0).date(), date(2011, 12, 31));
    let month = at(Period::Month, "Pacific/Apia", "2011-12-15T00:00:00Z");
    assert_eq!(month.1 - month.0, 30 * DAY);
}

#[test]
fn a_zone_has_one_name_and_nonsense_none() {
    assert_eq!(zone("europe/vienna").name(), "Europe/Vienna");
    assert_eq!((zone("utc").name(), format!("{:?}", zone("UTC"))), ("UTC", "Zone(UTC)".into()));
    for name in ["", "Europe/Wien", "local", "Etc/Unknown", "../Europe/Vienna", "+02:00"] {
        assert_eq!(Zone::named(name), None, "{name}");
    }
    assert!(Zone::names().iter().any(|name| name == "Asia/Kolkata"));
}

#[test]
fn the_ends_of_the_calendar_are_periods_too() {
    for which in [Period::Day, Period::Week, Period::Month] {
        for name in ZONES {
            let (start, end) = period(which, &zone(name), 0);
            assert!(start == 0 && end > 0, "{name}");
            let (start, end) = period(which, &zone(name), u64::MAX);
            assert!(start > 0 && end == u64::MAX, "{name} {start}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    // T7, in any zone and at any time of two centuries.
    #[test]
    fn every_moment_is_in_one_period(
        index in any::<proptest::sample::Index>(),
        now in 0..6_311_433_600_000_u64,
    ) {
        let names = Zone::names();
        let zone = Zone::named(&names[index.index(names.len())]).expect("it is listed");
        for which in [Period::Day, Period::Week, Period::Month] {
            let (start, end) = period(which, &zone, now);
            prop_assert!(start <= now && now < end);
            prop_assert_eq!(period(which, &zone, start), (start, end));
            prop_assert_eq!(period(which, &zone, end - 1), (start, end));
            prop_assert_eq!(period(which, &zone, end).0, end);
        }
    }
}
