//! Blocks of code in Markdown, with what the comments above them say.

use std::fmt;

/// A block between fences.
pub struct Block {
    page: String,
    /// Of its first fence, counted from 1.
    line: usize,
    heading: usize,
    /// What stands behind the fence.
    pub language: String,
    /// What stands between the fences, each line with its end.
    pub text: String,
    /// Why nothing runs it.
    pub not_run: Option<String>,
    /// What is run instead.
    pub run_as: Option<String>,
    /// It does not end, but does its work once these words are on the screen.
    pub serves_from: Option<String>,
}

impl Block {
    /// What comes under the same heading belongs together.
    pub fn scene(&self) -> (&str, usize) {
        (&self.page, self.heading)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.page, self.line)
    }
}

/// The blocks of a page, in order.
pub fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut heading, mut comments) = (0, Vec::new());
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let written = line.trim_start();
        if let Some(comment) = written.strip_prefix("<!-- ").and_then(|comment| comment.strip_suffix(" -->")) {
            comments.push(comment);
        } else if let Some(language) = written.strip_prefix("```") {
            let indent = line.len() - written.len();
            let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```");
            let text = inside.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
            let told = |what: &str| {
                let mut told = comments.iter().filter_map(|comment| comment.strip_prefix(what));
                told.next().map(str::to_owned)
            };
            blocks.push(Block {
                page: page.to_owned(),
                line: index + 1,
                heading,
                language: language.to_owned(),
                text,
                not_run: told("not run: "),
                run_as: told("run as: "),
                serves_from: told("serves from: "),
            });
            comments.clear();
        } else if !written.is_empty() {
            heading = if line.starts_with('#') { index } else { heading };
            comments.clear();
        }
    }
    blocks
}
