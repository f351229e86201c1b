//! README and docs say what is so: every block of code is run as it would be pasted, or checked, or says why not; every
//! metric is described, and no other.
//!
//! Shell blocks (`sh`) are run in order, those under one heading on one machine: a network of their own with the default
//! ports, and an empty folder. A block is a terminal of its own; it must end with exit code 0. A block of `text` is what must
//! then be on the screen; `…` in it stands for anything. Of other languages the syntax is checked. What else is to be known
//! of a block stands in comments above it, which readers do not see:
//!
//! - `<!-- not run: WHY -->`
//! - `<!-- run as: COMMAND -->`, for what takes too long here
//! - `<!-- serves from: WORDS -->`: it does not end, and the next block comes when WORDS are on the screen

mod blocks;
mod checks;
mod metrics;
mod terminals;

use std::{fs, path::Path};

use self::{
    blocks::{Block, blocks},
    terminals::Terminals,
};

/// Blocks that nothing runs or checks. Whoever adds one says why above it, and counts it here.
const NOT_RUN: usize = 10;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// The pages that readers are given, by their path in the repository.
fn pages() -> Vec<(String, String)> {
    let mut folders = vec!["docs".to_owned(), "examples".to_owned()];
    let mut pages = vec!["README.md".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(REPOSITORY).join(&folder)).expect("a folder of the repository") {
            let entry = entry.expect("it can be read");
            let path = format!("{folder}/{}", entry.file_name().to_str().expect("our names are text"));
            if entry.file_type().expect("it can be read").is_dir() {
                folders.push(path);
            } else if path.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    let text = |page: &String| fs::read_to_string(Path::new(REPOSITORY).join(page)).expect("a page is text");
    pages.into_iter().map(|page| (page.clone(), text(&page))).collect()
}

fn all_blocks() -> Vec<Block> {
    pages().iter().flat_map(|(page, text)| blocks(page, text)).collect()
}

#[test]
fn what_is_not_run_says_why_and_is_counted() {
    let blocks = all_blocks();
    let not_run: Vec<_> = blocks.iter().filter_map(|block| Some((block, block.not_run.as_ref()?))).collect();
    for (block, why) in &not_run {
        assert!(why.contains(' '), "{block}: {why:?} is no reason");
        eprintln!("{block} is not run: {why}");
    }
    assert_eq!(not_run.len(), NOT_RUN, "blocks that are not run, of {}", blocks.len());
}

#[test]
fn what_is_not_for_a_shell_is_written_correctly() {
    for block in all_blocks().iter().filter(|block| block.not_run.is_none()) {
        if let Err(why) = checks::check(block) {
            panic!("{block}: {why}\n{}", block.text);
        }
    }
}

#[test]
fn what_is_pasted_into_a_shell_does_what_the_page_says() {
    if !Terminals::there_are() {
        return eprintln!("skipped: no network namespace can be made here (unshare, ip); run it as root");
    }
    let blocks: Vec<Block> = all_blocks().into_iter().filter(|block| block.not_run.is_none()).collect();
    let mut pasted = 0;
    for scene in blocks.chunk_by(|one, next| one.scene() == next.scene()) {
        let scene: Vec<_> = scene.iter().filter(|block| ["sh", "text"].contains(&&*block.language)).collect();
        if scene.is_empty() {
            continue;
        }
        let mut terminals = Terminals::open();
        for block in scene {
            let done = match &*block.language {
                "text" => terminals.shows(&block.text),
                _ => terminals.paste(block),
            };
            if let Err(why) = done {
                panic!("{block}: {why}\n{}\n--- on the screen:\n{}", block.text, terminals.screen());
            }
            pasted += 1;
        }
    }
    assert!(pasted > 5, "only {pasted} blocks were found");
}

/// What fails in the tests above, on a page of its own.
#[test]
fn a_page_that_says_what_is_not_so_is_found_out() {
    let page = |text: &str| blocks("page.md", &text.replace('~', "`"));
    let [block] = &page("# A\n\n~~~cobol\nDISPLAY 1\n~~~\n")[..] else { panic!("one block") };
    assert!(checks::check(block).unwrap_err().contains("cobol"));
    let [block] = &page("# A\n\n~~~toml\n[slave]\nlisen = \"127.0.0.1:1\"\n~~~\n")[..] else { panic!("one block") };
    assert!(checks::check(block).unwrap_err().contains("did you mean"));
    let [block] = &page("# A\n\n- a\n\n  <!-- not run: for a reason -->\n  ~~~sh\n  x\n    y\n  ~~~\n")[..] else {
        panic!("one block")
    };
    assert_eq!((block.not_run.as_deref(), &*block.text), (Some("for a reason"), "x\n  y\n"));
    if Terminals::there_are() {
        let shell = page("# A\n~~~sh\necho 'eyJh.b is it'; false\n~~~\n~~~sh\necho eyJ…\necho 2\n~~~\n");
        let mut terminals = Terminals::open();
        assert!(terminals.paste(&shell[0]).unwrap_err().contains("exit code 1"));
        terminals.paste(&shell[1]).unwrap();
        assert!(terminals.screen().contains("\neyJh.b\n"), "{}", terminals.screen());
        terminals.shows("2\n").unwrap();
        terminals.shows("e…J… is\n").unwrap();
        assert!(terminals.shows_now("2\n2\n").is_err() && terminals.shows_now("3\n").is_err());
    }
}
