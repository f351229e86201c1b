//! Metrics as text: OpenMetrics 1.0 as the library writes it, or Prometheus' older format 0.0.4, whichever the reader
//! asks for. Who does not say gets the older one, which every reader understands.

use prometheus_client::{encoding::text, registry::Registry};

/// A format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The one that an `Accept` header prefers; of two that it likes as much, OpenMetrics.
    #[must_use]
    pub fn preferred(accept: Option<&str>) -> Self {
        let mut best = (Self::Prometheus, 0.0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1.0, None);
            for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => weight = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"').to_owned()),
                    _ => {}
                }
            }
            let format = match (kind.as_str(), version.as_deref()) {
                ("application/openmetrics-text", None | Some("1.0.0")) => Self::OpenMetrics,
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", None) => Self::Prometheus,
                _ => continue,
            };
            if weight > best.1 || (weight == best.1 && weight > 0.0 && format == Self::OpenMetrics) {
                best = (format, weight);
            }
        }
        best.0
    }

    /// Its `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Everything that `registry` shows.
    ///
    /// # Errors
    ///
    /// A metric cannot be written.
    pub fn write(self, registry: &Registry) -> Result<String, std::fmt::Error> {
        let mut metrics = String::new();
        text::encode(&mut metrics, registry)?;
        Ok(match self {
            Self::Prometheus => older(&metrics),
            Self::OpenMetrics => metrics,
        })
    }
}

/// OpenMetrics in the words of 0.0.4: a family is called as its samples are, and there are neither units nor an end.
fn older(metrics: &str) -> String {
    let mut older = String::with_capacity(metrics.len());
    let mut help = None;
    for line in metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            older.extend([line, "\n"]);
            continue;
        };
        match comment.split_once(' ') {
            // the type, which comes behind it, says what the family is called
            Some(("HELP", rest)) => help = rest.split_once(' ').map(|(_, help)| help),
            Some(("TYPE", rest)) => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
                let (suffix, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                if let Some(help) = help.take() {
                    older.push_str(&format!("# HELP {name}{suffix} {help}\n"));
                }
                older.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            _ => {}
        }
    }
    older
}

#[cfg(test)]
mod tests {
    use prometheus_client::{
        metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
        registry::Unit,
    };

    use super::*;

    #[test]
    fn the_reader_chooses() {
        // as Prometheus 2.4x and 3.x ask
        let two = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                   text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.4,\
                     text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in
            [two, three, "application/openmetrics-text", "text/plain, Application/OpenMetrics-Text; version=\"1.0.0\""]
        {
            assert_eq!(Format::preferred(Some(accept)), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "*/*",
            "",
            "text/plain",
            "text/html, */*;q=0.1",
            "application/openmetrics-text; version=0.0.1; q=0.9, text/plain; q=0.1",
            "text/plain;q=0.9,application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=x",
            "application/json",
        ] {
            assert_eq!(Format::preferred(Some(accept)), Format::Prometheus, "{accept}");
        }
        assert_eq!(Format::preferred(None), Format::Prometheus);
    }

    #[test]
    fn both_formats_show_the_same_samples_under_the_names_of_each() {
        let mut registry = Registry::default();
        let pushes = Family::<[(&str, &str); 1], Counter>::default();
        pushes.get_or_create(&[("kind", "a # TYPE \\ \"b\"\n")]).inc();
        registry.register("pushes", "Pushes", pushes);
        registry.register_with_unit("queue", "Owed", Unit::Bytes, Gauge::<i64>::default());
        registry.register_with_unit("took", "Time", Unit::Seconds, Histogram::new([0.5]));
        registry.register("build", "What runs", Info::new([("version", "1")]));
        assert_eq!(
            Format::Prometheus.write(&registry).unwrap(),
            "# HELP pushes_total Pushes.\n# TYPE pushes_total counter\npushes_total{kind=\"a # TYPE \\\\ \\\"b\\\"\\n\"} 1\n\
             # HELP queue_bytes Owed.\n# TYPE queue_bytes gauge\nqueue_bytes 0\n\
             # HELP took_seconds Time.\n# TYPE took_seconds histogram\ntook_seconds_sum 0.0\ntook_seconds_count 0\n\
             took_seconds_bucket{le=\"0.5\"} 0\ntook_seconds_bucket{le=\"+Inf\"} 0\n\
             # HELP build_info What runs.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n"
        );
        let open = Format::OpenMetrics.write(&registry).unwrap();
        assert!(open.contains("# TYPE pushes counter\n") && open.ends_with("# EOF\n"), "{open}");
    }
}
