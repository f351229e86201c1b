//! Logs: `log` through env_logger to stderr, one line each, as text or JSON. Control characters never reach the
//! terminal or the collector, whatever a client put into a name.

use std::{
    io::{self, Write},
    panic,
    time::SystemTime,
};

use env_logger::Target;
use log::{LevelFilter, Record, error, kv};
use serde_json::{Map, Value};

use crate::settings::{Log, LogFormat};

/// What actix reports of clients that break off or send rubbish is no error of ours; the door counts them. What happens
/// to the bus we say ourselves.
const QUIET: &str = "actix_http=off,actix_server=warn,async_nats=off,mio=warn,";

/// From now on log as `log` says. Later calls change nothing.
pub fn start(log: &Log) {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&format!("{QUIET}{}", log.level)).target(Target::Stderr);
    match log.format {
        LogFormat::Text => builder.format(|to, record| text(to, record, SystemTime::now())),
        LogFormat::Json => builder.format(|to, record| json(to, record, SystemTime::now())),
    };
    // fails if there is a logger already: a second cluster in the process of a test
    if builder.try_init().is_ok() {
        panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            error!(place; "panic: {}", panic.payload_as_str().unwrap_or("of an unknown kind"));
        }));
    }
}

/// Is `level` what [`start`] understands: a level, or levels per target, between commas?
///
/// # Errors
///
/// What it is not.
pub fn check_level(level: &str) -> Result<(), String> {
    for part in level.split(',').map(str::trim) {
        let wanted = part.rsplit_once('=').map_or(part, |(_, wanted)| wanted);
        if wanted.parse::<LevelFilter>().is_err() {
            return Err(format!("{wanted:?} is no level"));
        }
    }
    Ok(())
}

fn text(to: &mut dyn Write, record: &Record<'_>, now: SystemTime) -> io::Result<()> {
    let mut line = format!(
        "{} {:5} {} {}",
        humantime::format_rfc3339_millis(now),
        record.level(),
        record.target(),
        escaped(&record.args().to_string()),
    );
    for (key, value) in pairs(record) {
        let value = match value {
            Value::String(text) if text.chars().any(|c| c.is_whitespace() || c == '"') => format!("{text:?}"),
            Value::String(text) => text,
            other => other.to_string(),
        };
        line.push_str(&format!(" {key}={}", escaped(&value)));
    }
    writeln!(to, "{line}")
}

fn json(to: &mut dyn Write, record: &Record<'_>, now: SystemTime) -> io::Result<()> {
    let mut line = pairs(record);
    line.insert("time".to_owned(), humantime::format_rfc3339_millis(now).to_string().into());
    line.insert("level".to_owned(), record.level().as_str().to_lowercase().into());
    line.insert("target".to_owned(), record.target().into());
    line.insert("message".to_owned(), record.args().to_string().into());
    let line = serde_json::to_string(&line)?;
    // JSON escapes C0 itself; DEL and C1 stay, and terminals obey those too
    let line: String =
        line.chars().map(|c| if c.is_control() { format!("\\u{:04x}", c as u32) } else { c.to_string() }).collect();
    writeln!(to, "{line}")
}

fn pairs(record: &Record<'_>) -> Map<String, Value> {
    struct Pairs(Map<String, Value>);
    impl<'kvs> kv::VisitSource<'kvs> for Pairs {
        fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
            let value = if let Some(flag) = value.to_bool() {
                flag.into()
            } else if let Some(number) = value.to_u64() {
                number.into()
            } else if let Some(number) = value.to_i64() {
                number.into()
            } else if let Some(number) = value.to_f64() {
                number.into()
            } else {
                value.to_string().into()
            };
            self.0.insert(key.to_string(), value);
            Ok(())
        }
    }
    let mut pairs = Pairs(Map::new());
    // it fails only if `visit_pair` does
    let _ = record.key_values().visit(&mut pairs);
    pairs.0
}

fn escaped(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn line(format: fn(&mut dyn Write, &Record<'_>, SystemTime) -> io::Result<()>, message: &str) -> String {
        let mut line = Vec::new();
        let pairs: [(&str, kv::Value<'_>); 3] =
            [("role", "master".into()), ("count", 3_u64.into()), ("note", "two\nlines".into())];
        let pairs: &[(&str, kv::Value<'_>)] = &pairs;
        let now = UNIX_EPOCH + Duration::from_millis(1_500);
        format(
            &mut line,
            &Record::builder()
                .args(format_args!("{message}"))
                .level(log::Level::Warn)
                .target("here")
                .key_values(&pairs)
                .build(),
            now,
        )
        .unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_of_text_has_its_pairs_and_no_control_characters() {
        assert_eq!(
            line(text, "hello \u{1b}[31m\r\nworld 中"),
            "1970-01-01T00:00:01.500Z WARN  here hello \\u{1b}[31m\\r\\nworld 中 \
             count=3 note=\"two\\nlines\" role=master\n"
        );
    }

    #[test]
    fn a_line_of_json_is_one_object() {
        let line = line(json, "a \"b\"\n\u{9b}31m\u{7f}");
        assert!(line.ends_with('\n') && !line.trim_end().chars().any(char::is_control), "{line:?}");
        assert_eq!(
            serde_json::from_str::<Value>(&line).unwrap(),
            serde_json::json!({
                "time": "1970-01-01T00:00:01.500Z", "level": "warn", "target": "here",
                "message": "a \"b\"\n\u{9b}31m\u{7f}", "role": "master", "count": 3, "note": "two\nlines",
            })
        );
    }

    #[test]
    fn levels_per_target_are_levels_too() {
        assert_eq!(check_level("info,wellhead_slave=debug"), Ok(()));
        for bad in ["", "loud", "info,", "info,x=loud"] {
            assert!(check_level(bad).is_err(), "{bad:?}");
        }
    }
}
