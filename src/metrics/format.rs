//! The two text formats of a scrape, and which of them a client asks for.

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

/// The text format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The older text format of Prometheus, version 0.0.4.
    Prometheus,
}

impl MetricsFormat {
    /// The value of the header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The format for a client with this `Accept` header (RFC 9110 §12.5.1). OpenMetrics, if the
    /// header names it and does not prefer `text/plain`.
    ///
    /// ```
    /// use vestibule::MetricsFormat;
    ///
    /// let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.3";
    /// assert_eq!(MetricsFormat::for_accept(prometheus), MetricsFormat::OpenMetrics);
    /// assert_eq!(MetricsFormat::for_accept("*/*"), MetricsFormat::Prometheus);
    /// assert_eq!(MetricsFormat::for_accept(""), MetricsFormat::Prometheus);
    /// ```
    pub fn for_accept(accept: &str) -> Self {
        let weight = |media: &str| {
            let ranges = accept
                .split(',')
                .filter_map(|range| weight_of(range, media));
            ranges.max().unwrap_or(0)
        };
        let open = weight("application/openmetrics-text");
        match open > 0 && open >= weight("text/plain") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }
}

/// The weight of a media range in thousandths, if it is for `media`.
fn weight_of(range: &str, media: &str) -> Option<u32> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(media) {
        return None;
    }
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    let weight = weight.map_or(Some(1.0), |weight| weight.parse::<f32>().ok());
    Some((weight.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u32)
}

pub(super) fn text(registries: &[&Registry], format: MetricsFormat) -> String {
    let mut text = String::new();
    for registry in registries {
        encode_registry(&mut text, registry).expect("a String takes everything");
    }
    match format {
        MetricsFormat::OpenMetrics => {
            encode_eof(&mut text).expect("a String takes everything");
            text
        }
        MetricsFormat::Prometheus => older(&text),
    }
}

/// OpenMetrics without its end mark, in the older format. There a counter's name includes `_total`
/// also where its type and help are stated, and the type `info` does not exist.
fn older(text: &str) -> String {
    let mut older = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("# HELP ") {
            help = named.split_once(' ').map_or("", |(_, help)| help);
            continue;
        }
        let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|named| named.split_once(' '))
        else {
            older.extend([line, "\n"]);
            continue;
        };
        let (suffix, kind) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            _ => ("", kind),
        };
        older.extend(["# HELP ", name, suffix, " ", help, "\n"]);
        older.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_format_that_it_prefers() {
        use MetricsFormat::{OpenMetrics, Prometheus};
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,\
             */*;q=0.2";
        for (accept, format) in [
            (prometheus_3, OpenMetrics),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; q=1", OpenMetrics),
            ("text/plain, application/openmetrics-text;q=0.5", Prometheus),
            ("application/openmetrics-text;q=0", Prometheus),
            ("application/openmetrics-text;q=x", Prometheus),
            ("application/openmetrics-text-2", Prometheus),
            ("text/html,*/*", Prometheus),
            (",;,;q", Prometheus),
            ("", Prometheus),
        ] {
            assert_eq!(MetricsFormat::for_accept(accept), format, "{accept}");
        }
    }

    #[test]
    fn the_older_format_names_counters_in_full_and_has_no_info() {
        let text = "# HELP a_b Words here.\n# TYPE a_b counter\na_b_total 1\n\
             # HELP i Build.\n# TYPE i info\ni_info{v=\"1\"} 1\n\
             # HELP g Gauge.\n# TYPE g gauge\ng 2\n";
        let expected = "# HELP a_b_total Words here.\n# TYPE a_b_total counter\na_b_total 1\n\
             # HELP i_info Build.\n# TYPE i_info gauge\ni_info{v=\"1\"} 1\n\
             # HELP g Gauge.\n# TYPE g gauge\ng 2\n";
        assert_eq!(older(text), expected);
    }
}
