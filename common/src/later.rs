//! When a message is to be delivered. Pure: the time is an argument, and it is the broker's.

use std::time::Duration;

use crate::Timestamp;

/// The furthest that a message can be delivered in the future.
pub const FURTHEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads a point in time as RFC 3339 has it: `2026-12-01T10:00:00Z`, `2026-12-01T10:00:00+02:00`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "{text:?} is no time: expected one such as 2026-12-01T10:00:00Z or 2026-12-01T10:00:00+02:00"
        )
    };
    let (local, offset) = split_offset(text).ok_or_else(wrong)?;
    if !local.is_ascii() || local.len() < "2026-12-01T10:00:00".len() {
        return Err(wrong());
    }
    let at = humantime::parse_rfc3339(&format!("{}Z", local.replacen([' ', 't'], "T", 1)));
    let at = i64::try_from(Timestamp::from(at.map_err(|_| wrong())?).as_millis());
    let at = at.ok().and_then(|at| at.checked_sub(offset * 60_000));
    at.and_then(|at| u64::try_from(at).ok()).map(Timestamp::from_millis).ok_or_else(wrong)
}

/// A time without its offset from UTC, and that in minutes.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+02:00".len())?)?;
    let sign = match offset.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let number = |text: &str, most: i64| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| is_number && *number <= most)
    };
    Some((local, sign * (number(hours, 23)? * 60 + number(minutes, 59)?)))
}

/// Whether a message waits that is to be delivered then: one whose time has passed is delivered at once.
///
/// # Errors
/// When it is too far ahead.
pub fn waits(deliver_at: Timestamp, now: Timestamp) -> Result<bool, String> {
    if deliver_at > now.after(FURTHEST) {
        return Err(format!("{deliver_at} is more than a year ahead"));
    }
    Ok(deliver_at > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_have_an_offset() {
        let at = |text: &str| parse_time(text).map(|at| at.to_string());
        let utc = Ok("2026-12-01T08:00:00.000Z".to_owned());
        for same in [
            "2026-12-01T08:00:00Z",
            "2026-12-01t08:00:00z",
            "2026-12-01 08:00:00Z",
            "2026-12-01T10:00:00+02:00",
            "2026-12-01T02:30:00-05:30",
            "2026-12-01T08:00:00.000Z",
        ] {
            assert_eq!(at(same), utc, "{same}");
        }
        for bad in [
            "",
            "Z",
            "tomorrow",
            "10:00",
            "2026-12-01",
            "2026-12-01T10:00:00",
            "2026-13-01T10:00:00Z",
            "2026-12-01T25:00:00Z",
            "2026-12-01T10:00:00+2:00",
            "2026-12-01T10:00:00+24:00",
            "2026-12-01T10:00:00+02:60",
            "1960-01-01T00:00:00Z",
            "2026-12-01T10:00:0é+02:00",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_past_does_not_wait_and_what_is_far_is_refused() {
        let now = Timestamp::from_millis(1_000_000);
        assert_eq!(waits(now, now), Ok(false));
        assert_eq!(waits(Timestamp::from_millis(1), now), Ok(false));
        assert_eq!(waits(now.after(Duration::from_millis(1)), now), Ok(true));
        assert_eq!(waits(now.after(FURTHEST), now), Ok(true));
        assert!(waits(now.after(FURTHEST + Duration::from_millis(1)), now).is_err());
    }
}
