//! Text files that people write: settings, keys, secrets.

use std::{fs, io, path::Path};

/// What some editors put before a text in UTF-8. It is no part of the text, and must never become part of a secret.
const MARK: char = '\u{feff}';

/// The text of a file, without a byte order mark.
///
/// # Errors
///
/// It cannot be read, or is not UTF-8.
pub fn read_text(file: impl AsRef<Path>) -> io::Result<String> {
    let text = fs::read_to_string(file).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"),
        _ => error,
    })?;
    Ok(without_mark(&text).to_owned())
}

/// `text` without a byte order mark.
#[must_use]
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Does a file begin with a byte order mark?
///
/// # Errors
///
/// It cannot be read.
pub fn begins_with_mark(file: &Path) -> io::Result<bool> {
    Ok(fs::read(file)?.starts_with(MARK.encode_utf8(&mut [0; 4]).as_bytes()))
}
