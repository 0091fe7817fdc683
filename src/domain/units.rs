//! Durations and sizes as people write them: a whole number and a unit, never a bare number. And
//! decimal numbers as whole numbers of their smallest part, because money is never a float.

use std::time::Duration;

/// Why a text is not a duration, a size or a decimal number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number without a unit could mean anything.
    #[error("{0:?} has no unit; write for instance {1}")]
    Bare(String, &'static str),
    /// Not a whole number followed by a known unit.
    #[error("{0:?} is not {1}")]
    Malformed(String, &'static str),
    /// More decimals than can be kept.
    #[error("{0:?} has more than {1} decimals")]
    TooFine(String, u32),
    /// More than 64 bits can hold.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

const DURATION: &str = "a duration such as 250ms, 10s, 5m or 1h";
const DECIMAL: &str = "a number such as 12 or 0.15";
const SIZE: &str = "a size such as 512B, 64KiB, 8MiB or 1GiB";

/// Reads `250ms`, `10s`, `5m`, `1h` or `1d`.
///
/// # Errors
/// A bare number, an unknown unit, or a value beyond 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    parse(text, &units, DURATION, "10s or 250ms").map(Duration::from_millis)
}

/// Reads `512B`, `64KiB`, `8MiB`, `1GiB`, or the decimal `kB`, `MB`, `GB`; the answer is in bytes.
///
/// # Errors
/// A bare number, an unknown unit, or a value beyond 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];
    parse(text, &units, SIZE, "8MiB or 64KiB")
}

/// Reads `12` or `0.15` as a whole number of parts, 10^`places` to the whole: digit by digit, so
/// that nothing is rounded. Zeros at the end are no decimals too many.
///
/// # Errors
/// Anything but digits and one point between them, more decimals than `places`, or a value beyond
/// 64 bits.
pub fn parse_fixed(text: &str, places: u32) -> Result<u64, UnitError> {
    let malformed = || UnitError::Malformed(text.into(), DECIMAL);
    let too_large = || UnitError::TooLarge(text.into());
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return Err(malformed());
    }
    let part = part.trim_end_matches('0');
    let kept = u32::try_from(part.len()).ok().filter(|kept| *kept <= places);
    let missing = places - kept.ok_or_else(|| UnitError::TooFine(text.into(), places))?;
    let number: u64 = format!("{whole}{part}").parse().map_err(|_| too_large())?;
    let factor = 10_u64.checked_pow(missing).ok_or_else(too_large)?;
    number.checked_mul(factor).ok_or_else(too_large)
}

fn parse(
    text: &str,
    units: &[(&str, u64)],
    what: &'static str,
    example: &'static str,
) -> Result<u64, UnitError> {
    let malformed = || UnitError::Malformed(text.into(), what);
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err(malformed());
    }
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge(text.into()))?;
    if unit.is_empty() {
        return Err(UnitError::Bare(text.into(), example));
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
    number.checked_mul(*factor).ok_or_else(|| UnitError::TooLarge(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_carry_their_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("1kB"), Ok(1000));
    }

    #[test]
    fn decimals_are_read_without_rounding() {
        for (text, parts) in [
            ("0", 0),
            ("0.15", 150_000),
            ("100", 100_000_000),
            ("1.10", 1_100_000),
            ("0.000001", 1),
            ("281474976.710655", 281_474_976_710_655),
            ("0007.5000000000", 7_500_000),
        ] {
            assert_eq!(parse_fixed(text, 6), Ok(parts), "{text}");
        }
        for text in ["", ".", ".5", "5.", "-1", "+1", "1e3", "1,5", "1.5.", " 1", "inf", "0x1"] {
            let error = parse_fixed(text, 6).err();
            assert!(matches!(error, Some(UnitError::Malformed(..))), "{text} {error:?}");
        }
        let fine = parse_fixed("0.0000001", 6);
        assert_eq!(fine, Err(UnitError::TooFine("0.0000001".into(), 6)));
        for text in ["18446744073710", "99999999999999999999999999"] {
            assert_eq!(parse_fixed(text, 6), Err(UnitError::TooLarge(text.into())));
        }
    }

    #[test]
    fn a_bare_number_and_nonsense_are_errors() {
        for text in ["10", "", "s", "-1s", "1.5s", "10 s", "10sec", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["10", "10mib", "1TiB ", "18446744073709551615GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
