//! The times in certificates and revocation lists, also before 1970.

use std::fmt;
use std::time::{Duration, SystemTime};

use x509_parser::time::ASN1Time;

pub(crate) fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    match time.timestamp() >= 0 {
        true => SystemTime::UNIX_EPOCH + seconds,
        false => SystemTime::UNIX_EPOCH - seconds,
    }
}

/// A time in RFC 3339, in seconds. humantime fails for times before 1970 or after 9999, and a
/// `Display` that fails causes a panic.
pub(crate) struct Date(pub SystemTime);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = match self.0.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
        };
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// Year, month and day from the number of days since 1970. Years begin in March, so that the leap
/// day is the last day, and 400 years have 146,097 days.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

const DAY: i64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_any_century_is_displayed() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (-631_152_000, "1950-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (-62_135_596_800, "0001-01-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "10000-01-01T00:00:00Z"),
        ] {
            let time = ASN1Time::from_timestamp(seconds.min(253_402_300_799));
            let time = system_time(time.expect("a time"));
            let beyond = Duration::from_secs((seconds - 253_402_300_799).max(0).unsigned_abs());
            assert_eq!(Date(time + beyond).to_string(), expected);
        }
    }

    #[test]
    fn a_time_since_1970_is_displayed_as_by_humantime() {
        for day in 0..40_000 {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400 + day);
            let expected = humantime::format_rfc3339_seconds(time).to_string();
            assert_eq!(Date(time).to_string(), expected);
        }
    }
}
