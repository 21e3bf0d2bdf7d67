//! When a message is to be delivered, as it is given on the command line.

use broker::{Attempt as _, Broker};
use chrono::{Days, Local, NaiveDate, NaiveTime};
use common::api::ApiError;
use common::message::{Envelope, Status};
use common::{Timestamp, later};

use super::client::now;

/// A time, in full or of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// In full.
    Time(Timestamp),
    /// The next time that clocks show this, where the command is given.
    OfDay(NaiveTime),
}

/// Parses `2026-12-01T10:00:00Z`, `2026-12-01T10:00:00+02:00`, `10:00` or `10:00:30`.
pub(crate) fn at(text: &str) -> Result<At, String> {
    let of_day =
        ["%H:%M", "%H:%M:%S"].iter().find_map(|form| NaiveTime::parse_from_str(text, form).ok());
    match of_day {
        Some(of_day) => Ok(At::OfDay(of_day)),
        None => later::parse_time(text).map(At::Time).map_err(|error| format!("{error}, or 10:00")),
    }
}

/// When a message is to be delivered; none: at once. How long that is, the broker's clock tells, and not this host's.
pub(crate) async fn deliver_at(
    broker: &Broker,
    at: Option<At>,
    within: Option<std::time::Duration>,
) -> Result<Option<Timestamp>, ApiError> {
    if let Some(At::Time(time)) = at {
        return Ok(Some(time));
    }
    if at.is_none() && within.is_none() {
        return Ok(None);
    }
    let now = broker.clock().await.attempt("cannot read the broker's clock")?;
    Ok(match at {
        Some(At::OfDay(of_day)) => next(of_day, now, &Local),
        Some(At::Time(_)) | None => within.map(|within| now.after(within)),
    })
}

/// The next time that clocks of a zone show a time of the day. One that is skipped on a day, as clocks are set, comes on the next.
fn next<Zone: chrono::TimeZone>(
    of_day: NaiveTime,
    now: Timestamp,
    zone: &Zone,
) -> Option<Timestamp> {
    let millis = i64::try_from(now.as_millis()).ok()?;
    let today: NaiveDate = zone.timestamp_millis_opt(millis).earliest()?.date_naive();
    (0..3).find_map(|days| {
        let day = today.checked_add_days(Days::new(days))?;
        let time = zone.from_local_datetime(&day.and_time(of_day)).earliest()?;
        let time = Timestamp::from_millis(time.timestamp_millis().try_into().ok()?);
        (time > now).then_some(time)
    })
}

/// A status for people: `pending (at 2026-12-01 10:00:00)` of one that waits to be delivered.
pub(crate) fn status(status: Status, deliver_at: Option<Timestamp>) -> String {
    match deliver_at.filter(|at| status == Status::Pending && *at > now()) {
        Some(at) => format!("{} (at {})", status.as_str(), shown(at, now(), &Local)),
        None => status.as_str().to_owned(),
    }
}

/// The time by the clocks of a zone, with as much of it as tells today's from another day's.
fn shown<Zone: chrono::TimeZone>(at: Timestamp, now: Timestamp, zone: &Zone) -> String
where
    Zone::Offset: std::fmt::Display,
{
    let zoned = |time: Timestamp| {
        let millis = i64::try_from(time.as_millis()).ok()?;
        zone.timestamp_millis_opt(millis).earliest()
    };
    let Some((at_zoned, now)) = zoned(at).zip(zoned(now)) else { return at.to_string() };
    let form = match at_zoned.date_naive() == now.date_naive() {
        true => "%H:%M:%S",
        false => "%Y-%m-%d %H:%M",
    };
    at_zoned.format(form).to_string()
}

/// The note that a message waits.
pub(crate) fn note(envelope: &Envelope) -> Option<String> {
    let at = envelope.deliver_at.filter(|at| *at > now())?;
    Some(format!("it is delivered at {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::Europe::Berlin;

    fn time(text: &str) -> Timestamp {
        later::parse_time(text).expect("a time")
    }

    #[test]
    fn a_time_is_in_full_or_of_the_day() {
        assert_eq!(at("2026-12-01T10:00:00Z"), Ok(At::Time(time("2026-12-01T10:00:00Z"))));
        let ten = NaiveTime::from_hms_opt(10, 0, 0).expect("valid");
        assert_eq!((at("10:00"), at("10:00:00")), (Ok(At::OfDay(ten)), Ok(At::OfDay(ten))));
        for bad in ["", "10", "25:00", "10:00 pm", "tomorrow", "2026-12-01"] {
            let error = at(bad).expect_err("no time");
            assert!(error.contains("2026-12-01T10:00:00Z"), "{error}");
        }
    }

    #[test]
    fn a_time_of_the_day_is_the_next_one() {
        let ten = NaiveTime::from_hms_opt(10, 0, 0).expect("valid");
        let next = |now: &str| next(ten, time(now), &Berlin).map(|at| at.to_string());
        let at = |text: &str| Some(text.to_owned());
        assert_eq!(next("2026-12-01T08:59:59Z"), at("2026-12-01T09:00:00.000Z"));
        assert_eq!(next("2026-12-01T09:00:00Z"), at("2026-12-02T09:00:00.000Z"));
        let skipped = NaiveTime::from_hms_opt(2, 30, 0).expect("valid");
        let after = super::next(skipped, time("2026-03-29T00:00:00Z"), &Berlin);
        assert_eq!(after.map(|at| at.to_string()), at("2026-03-30T00:30:00.000Z"));
    }

    #[test]
    fn a_message_that_waits_says_until_when() {
        let shown = |at: &str| super::shown(time(at), time("2026-12-01T08:00:00Z"), &Berlin);
        assert_eq!(shown("2026-12-01T09:00:05Z"), "10:00:05");
        assert_eq!(shown("2026-12-02T09:00:05Z"), "2026-12-02 10:00");
        assert_eq!(status(Status::Pending, Some(Timestamp::from_millis(1))), "pending");
        let far = now().after(std::time::Duration::from_secs(3 * 86_400));
        assert!(status(Status::Pending, Some(far)).starts_with("pending (at "));
        assert_eq!(status(Status::Cancelled, Some(far)), "cancelled");
    }
}
