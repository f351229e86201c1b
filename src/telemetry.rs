//! Logs: `log` through env_logger to stderr, one line each, as text or JSON. Control characters never reach the
//! terminal or the collector, whatever a client put into a name; nor does what reads as another line, turns the direction of
//! writing, or cannot be seen.

use std::{
    io::{self, Write},
    panic,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use env_logger::Target;
use log::{LevelFilter, Record, error, kv};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What actix reports of clients that break off or send rubbish is no error of ours; the HTTP service counts them. What happens
/// to the bus we say ourselves.
const QUIET: &str = "actix_http=off,actix_server=warn,async_nats=off,mio=warn,";

/// `[log]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// What is logged: a level, or levels per target.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// From now on log as `log` says. Later calls change nothing.
pub fn start(log: &LogSection) {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&format!("{QUIET}{}", log.level)).target(Target::Stderr);
    match log.format {
        LogFormat::Text => builder.format(|to, record| match is_repeated(record) {
            true => Ok(()),
            false => text(to, record, SystemTime::now()),
        }),
        LogFormat::Json => builder.format(|to, record| match is_repeated(record) {
            true => Ok(()),
            false => json(to, record, SystemTime::now()),
        }),
    };
    // fails if there is a logger already: a second cluster in the process of a test
    if builder.try_init().is_ok() {
        panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            error!(place; "panic: {}", panic.payload_as_str().unwrap_or("of an unknown kind"));
        }));
    }
}

/// How long a line of actix-server says enough. It logs every try to accept a connection, and tries twice a second while
/// there is no file descriptor.
const SAID: Duration = Duration::from_secs(60);

/// Has actix-server said the same a moment ago?
fn is_repeated(record: &Record<'_>) -> bool {
    static LAST: Mutex<Option<(String, Instant)>> = Mutex::new(None);
    if !record.target().starts_with("actix_server") {
        return false;
    }
    repeats(&mut LAST.lock().unwrap_or_else(PoisonError::into_inner), record.args().to_string(), Instant::now())
}

fn repeats(last: &mut Option<(String, Instant)>, message: String, now: Instant) -> bool {
    if last.as_ref().is_some_and(|(said, at)| *said == message && now.duration_since(*at) < SAID) {
        return true;
    }
    *last = Some((message, now));
    false
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
    // JSON escapes C0 itself; the others stay, and terminals obey them too
    let mut shown = String::with_capacity(line.len());
    for c in line.chars() {
        if misleads(c) {
            shown.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            shown.push(c);
        }
    }
    writeln!(to, "{shown}")
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
    text.chars().map(|c| if misleads(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Would `c` change how a line of the log reads? Controls (C0, DEL, C1), separators of lines and paragraphs, and what
/// Unicode calls default-ignorable: bidirectional controls, zero-width letters, fillers, tags, selectors.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
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
    fn the_same_cause_is_said_once_a_minute() {
        let (mut last, start) = (None, Instant::now());
        let mut repeats =
            |message: &str, after| repeats(&mut last, message.to_owned(), start + Duration::from_secs(after));
        assert!(!repeats("no descriptors", 0));
        assert!(repeats("no descriptors", 1) && repeats("no descriptors", 59));
        assert!(!repeats("no descriptors", 60));
        assert!(!repeats("no memory", 61));
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
    fn nothing_that_misleads_a_reader_is_written_as_it_came() {
        // each kind, from its first to its last: lines, directions, what has no width, C1, beyond the first plane
        let bad = "\u{85}\u{9b}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}\u{200b}\u{200d}\
                   \u{2060}\u{feff}\u{ad}\u{34f}\u{3164}\u{180e}\u{fe0f}\u{fff9}\u{1d173}\u{e0001}\u{e007f}";
        let said = |c: char| format!("a{c}b");
        for c in bad.chars() {
            let (text, json) = (line(text, &said(c)), line(json, &said(c)));
            assert!(!text.contains(c) && text.contains(&format!("a\\u{{{:x}}}b", c as u32)), "{text:?}");
            assert!(!json.contains(c), "{json:?}");
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["message"], said(c), "nothing is lost");
        }
        let good = "Grüße, 中文, العربية, 🚀 e\u{301}";
        assert!(line(text, good).contains(good) && line(json, good).contains(good));
    }

    #[test]
    fn levels_per_target_are_levels_too() {
        assert_eq!(check_level("info,wellhead_slave=debug"), Ok(()));
        for bad in ["", "loud", "info,", "info,x=loud"] {
            assert!(check_level(bad).is_err(), "{bad:?}");
        }
    }
}
