use super::*;

fn times(cron: &str, tz: &str) -> Times {
    let schedule = Schedule {
        cron: cron.into(),
        tz: Some(tz.into()),
        prompt: "x".into(),
        options: crate::spec::ScheduleOptions::default(),
    };
    Times::of(&schedule).expect("valid")
}

fn at(text: &str) -> Timestamp {
    let json = format!("\"{text}Z\"");
    serde_json::from_str(&json).expect("a time")
}

/// Times after another one: zone, expression, from when on, and the next ones, in UTC.
type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);

fn check(rows: &[Row]) {
    for (zone, cron, from, expected) in rows {
        let found: Vec<Timestamp> = times(cron, zone).next(at(from)).take(expected.len()).collect();
        let expected: Vec<Timestamp> = expected.iter().map(|text| at(text)).collect();
        assert_eq!(found, expected, "{cron} in {zone} after {from}");
    }
}

#[test]
fn a_fixed_time_that_a_clock_skips_runs_once_after_the_gap() {
    check(&[
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-03-28T00:00:00",
            &["2026-03-28T01:30:00", "2026-03-29T01:00:00", "2026-03-30T00:30:00"],
        ),
        (
            "America/New_York",
            "30 2 * * *",
            "2026-03-07T00:00:00",
            &["2026-03-07T07:30:00", "2026-03-08T07:00:00", "2026-03-09T06:30:00"],
        ),
        // By half an hour.
        (
            "Australia/Lord_Howe",
            "15 2 * * *",
            "2026-10-02T12:00:00",
            &["2026-10-02T15:45:00", "2026-10-03T15:30:00", "2026-10-04T15:15:00"],
        ),
        // At midnight.
        (
            "Africa/Cairo",
            "0 0 * * *",
            "2026-04-22T12:00:00",
            &["2026-04-22T22:00:00", "2026-04-23T22:00:00", "2026-04-24T21:00:00"],
        ),
        (
            "America/Santiago",
            "0 0 * * *",
            "2026-09-05T00:00:00",
            &["2026-09-05T04:00:00", "2026-09-06T04:00:00", "2026-09-07T03:00:00"],
        ),
    ]);
}

#[test]
fn a_fixed_time_that_a_clock_shows_twice_runs_at_the_first() {
    check(&[
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-10-24T00:00:00",
            &["2026-10-24T00:30:00", "2026-10-25T00:30:00", "2026-10-26T01:30:00"],
        ),
        (
            "America/New_York",
            "30 1 * * *",
            "2026-10-31T00:00:00",
            &["2026-10-31T05:30:00", "2026-11-01T05:30:00", "2026-11-02T06:30:00"],
        ),
        (
            "Australia/Lord_Howe",
            "45 1 * * *",
            "2026-04-03T12:00:00",
            &["2026-04-03T14:45:00", "2026-04-04T14:45:00", "2026-04-05T15:15:00"],
        ),
        (
            "Africa/Cairo",
            "30 23 * * *",
            "2026-10-28T00:00:00",
            &["2026-10-28T20:30:00", "2026-10-29T20:30:00", "2026-10-30T21:30:00"],
        ),
        (
            "America/Santiago",
            "15 23 * * *",
            "2026-04-04T00:00:00",
            &["2026-04-04T02:15:00", "2026-04-05T02:15:00", "2026-04-06T03:15:00"],
        ),
    ]);
}

#[test]
fn an_interval_follows_the_clock_on_the_wall() {
    check(&[
        // Nothing between two and three.
        (
            "Europe/Berlin",
            "*/30 1-3 * * *",
            "2026-03-28T23:30:00",
            &[
                "2026-03-29T00:00:00",
                "2026-03-29T00:30:00",
                "2026-03-29T01:00:00",
                "2026-03-29T01:30:00",
                "2026-03-29T23:00:00",
            ],
        ),
        // Twice between two and three: at four different times.
        (
            "Europe/Berlin",
            "*/30 2 * * *",
            "2026-10-24T12:00:00",
            &[
                "2026-10-25T00:00:00",
                "2026-10-25T00:30:00",
                "2026-10-25T01:00:00",
                "2026-10-25T01:30:00",
                "2026-10-26T01:00:00",
            ],
        ),
        // Every hour that passes.
        (
            "America/New_York",
            "0 * * * *",
            "2026-11-01T03:30:00",
            &["2026-11-01T04:00:00", "2026-11-01T05:00:00", "2026-11-01T06:00:00"],
        ),
        (
            "America/New_York",
            "0 * * * *",
            "2026-03-08T05:30:00",
            &["2026-03-08T06:00:00", "2026-03-08T07:00:00", "2026-03-08T08:00:00"],
        ),
    ]);
}

#[test]
fn leap_days_and_last_days_are_those_of_the_calendar() {
    check(&[
        (
            "UTC",
            "0 12 29 2 *",
            "2026-01-01T00:00:00",
            &["2028-02-29T12:00:00", "2032-02-29T12:00:00", "2036-02-29T12:00:00"],
        ),
        (
            "UTC",
            "0 18 L * *",
            "2027-12-31T18:00:00",
            &["2028-01-31T18:00:00", "2028-02-29T18:00:00", "2028-03-31T18:00:00"],
        ),
        (
            "UTC",
            "0 0 31 * *",
            "2027-01-31T00:00:00",
            &["2027-03-31T00:00:00", "2027-05-31T00:00:00"],
        ),
        ("UTC", "@yearly", "2026-12-31T23:59:59", &["2027-01-01T00:00:00", "2028-01-01T00:00:00"]),
        // The last Friday.
        (
            "UTC",
            "0 9 * * 5L",
            "2026-12-01T00:00:00",
            &["2026-12-25T09:00:00", "2027-01-29T09:00:00"],
        ),
    ]);
}

/// Whoever asks at whatever moment gets the same times: none twice, and none lost, also on the days when clocks change.
#[test]
fn the_next_time_is_the_same_from_wherever_one_looks() {
    let zones = [
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Africa/Cairo",
        "America/Santiago",
    ];
    let changes = [
        "2026-03-28T12:00:00",
        "2026-10-24T12:00:00",
        "2026-03-07T12:00:00",
        "2026-10-31T12:00:00",
        "2026-04-04T00:00:00",
        "2026-10-03T00:00:00",
        "2026-04-23T00:00:00",
        "2026-10-29T00:00:00",
        "2026-09-05T12:00:00",
    ];
    for zone in zones {
        for cron in ["30 2 * * *", "0 0 * * *", "45 1 * * *", "*/20 * * * *", "7,52 0-3 * * *"] {
            let times = times(cron, zone);
            for begin in changes {
                let begin = at(begin);
                let mut before = begin;
                let end = begin.after(std::time::Duration::from_secs(40 * 3600));
                for next in times.next(begin).take_while(|next| *next < end) {
                    assert!(next > before, "{cron} in {zone} after {before}");
                    let (from, until) = (before.as_millis(), next.as_millis());
                    for look in [from, from + 1, from + 999, (from + until) / 2, until - 1] {
                        let found = times.after(Timestamp::from_millis(look));
                        // Looks before it, and not before the one before.
                        if look >= from {
                            assert_eq!(found, Some(next), "{cron} in {zone} from {look}");
                        }
                    }
                    before = next;
                }
            }
        }
    }
}

#[test]
fn times_are_shown_in_the_schedules_zone() {
    let times = times("0 9 * * *", "Europe/Berlin");
    assert_eq!(times.show(at("2026-12-01T08:00:00")), "Tue 2026-12-01 09:00 CET");
    assert_eq!(times.before(at("2026-12-01T08:00:00")), Some(at("2026-11-30T08:00:00")));
}
