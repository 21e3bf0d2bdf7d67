//! How durations read in reasons.

use std::time::Duration;

/// A duration as people write it: `1h`, `10m`, `60s`, `1500ms`.
pub(crate) fn duration(of: Duration) -> String {
    let millis = of.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if !millis.is_multiple_of(1000) => format!("{millis}ms"),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        // A single minute reads better in seconds: `not ready within 60s`.
        _ if millis.is_multiple_of(60_000) && millis > 60_000 => format!("{}m", millis / 60_000),
        _ => format!("{}s", millis / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_a_soul() {
        let text = |millis| duration(Duration::from_millis(millis));
        assert_eq!(text(0), "0s");
        assert_eq!(text(60_000), "60s");
        assert_eq!(text(600_000), "10m");
        assert_eq!(text(7_200_000), "2h");
        assert_eq!(text(1_500), "1500ms");
        assert_eq!(text(90_000), "90s");
    }
}
