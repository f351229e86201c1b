//! Spans of time and sizes as settings write them: `"60s"`, `"64KiB"`.

use std::{fmt, str::FromStr, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// A span of time, written with its unit: `"500ms"`, `"60s"`, `"2m 30s"`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|error| format!("{text:?} is no span of time ({error}); write it with its unit, as in \"60s\""))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A number of bytes, written with its unit: `"64KiB"`, `"10MiB"`, `"10240B"`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

impl Size {
    /// So many KiB.
    #[must_use]
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// So many MiB.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// In memory.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let with_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
        match text.parse::<ByteSize>() {
            Ok(size) if with_unit => Ok(Self(size.0)),
            _ => Err(format!("{text:?} is no size; write it with its unit, as in \"64KiB\" or \"10240B\"")),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_part_of_the_value() {
        assert_eq!("60s".parse(), Ok(Span::seconds(60)));
        assert_eq!("1m 30s".parse(), Ok(Span::seconds(90)));
        assert_eq!("64KiB".parse(), Ok(Size::kib(64)));
        assert_eq!("10240B".parse(), Ok(Size::kib(10)));
        for bad in ["", "60", "-1s", "s", "1 parsec"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
        for bad in ["", "64", "-1KiB", "KiB", "many"] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for size in [Size(0), Size(1), Size::kib(64), Size::mib(10), Size(10_241)] {
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        assert_eq!(Span::seconds(90).to_string().parse(), Ok(Span::seconds(90)));
    }
}
