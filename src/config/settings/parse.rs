//! Each kind of setting from its text. An error says what is wrong and what to write.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::LogFormat;
use crate::config::fault::shown;
use crate::domain::BaseUrl;

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// A value, or what is wrong with the text.
pub(super) type Parsed<T> = Result<T, String>;

pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| {
        format!("\"{}\" is not an address and port such as 127.0.0.1:8080", shown(text))
    })
}

pub(super) fn url(text: &str) -> Parsed<String> {
    let url: BaseUrl = text.parse().map_err(|error| format!("{error}"))?;
    Ok(url.to_string())
}

/// A secret that goes into a header; never repeated.
pub(super) fn header_text(text: &str) -> Parsed<String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("holds a character that no header can carry".to_owned())
    }
}

/// A name that stands in headers, metrics and keys.
pub(super) fn label(text: &str) -> Parsed<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@+".contains(&byte);
    if (1..=128).contains(&text.len()) && text.bytes().all(good) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 128 letters, digits or . _ - : / @ +".to_owned())
    }
}

/// Levels by module. A word that is no level would silence everything, so it is an error.
pub(super) fn log(text: &str) -> Parsed<String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    for part in text.split(',') {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
        if !levels.contains(&level.to_ascii_lowercase().as_str()) {
            let level = shown(level);
            return Err(format!("\"{level}\" is no level; use one of {}", levels.join(", ")));
        }
    }
    Ok(text.to_owned())
}

pub(super) fn log_format(text: &str) -> Parsed<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("\"{}\" is neither text nor json", shown(text))),
    }
}

pub(super) fn number<T: FromStr>(text: &str) -> Parsed<T> {
    text.parse().map_err(|_| format!("\"{}\" is not a whole number that fits", shown(text)))
}

pub(super) fn share(text: &str) -> Parsed<f64> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("\"{}\" is not between 0 and 1", shown(text)))
}

/// A network, or one address of it.
pub(super) fn network(text: &str) -> Parsed<IpNet> {
    let network = text.parse::<IpNet>().ok();
    network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).ok_or_else(|| {
        format!("\"{}\" is not a network such as 10.0.0.0/8 or an address", shown(text))
    })
}

/// An origin exactly as browsers send it.
pub(super) fn origin(text: &str) -> Parsed<String> {
    let url = text.parse::<BaseUrl>().ok().filter(|url| url.prefix.is_empty());
    url.filter(|_| !text.contains('*')).map(|url| url.origin.to_string()).ok_or_else(|| {
        format!("\"{}\" is not an origin such as https://app.example.com", shown(text))
    })
}
