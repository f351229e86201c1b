//! Metrics in `docs/operations.md`: all that there are, and no other.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{REPOSITORY, pages};
use crate::support::{
    http::Http,
    server::{Server, Setup},
};

/// What is added to the name that the code registers: of a counter, of a unit, of what is only labels.
const ENDINGS: [&str; 5] = ["", "_total", "_bytes", "_seconds", "_info"];

/// Words of `text` that are names of metrics.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let whole = |word: &&str| ["wellhead_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    words.filter(whole).map(str::to_owned).collect()
}

fn described() -> BTreeSet<String> {
    let page = fs::read_to_string(Path::new(REPOSITORY).join("docs/operations.md")).expect("a page");
    let rows = page.lines().filter(|line| line.starts_with("| `wellhead_") || line.starts_with("| `process_"));
    rows.flat_map(|row| names(row.split('|').nth(1).unwrap_or_default())).collect()
}

/// The names that the code registers, each with the prefix that all of ours have.
fn registered() -> BTreeSet<String> {
    let mut folders: Vec<PathBuf> = ["src", "master/src", "slave/src"].map(|it| Path::new(REPOSITORY).join(it)).into();
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("code is text");
            // what a file's own tests register is none of ours
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for call in ["registry.register(", "registry.register_with_unit(", "ours.register("] {
                for rest in code.split(call).skip(1) {
                    let Some(name) = rest.trim_start().strip_prefix('"').and_then(|name| name.split_once('"')) else {
                        continue;
                    };
                    found.insert(format!("wellhead_{}", name.0));
                }
            }
        }
    }
    found
}

/// What a process shows now, by the names that its series have.
async fn shown(server: &Server) -> BTreeSet<String> {
    let reply = Http::to(server.admin()).await.get("/metrics").await;
    let types = reply.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    types.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_metric_is_described_and_no_other() {
    let (described, registered) = (described(), registered());
    assert!(registered.len() > 30, "{registered:?}");
    let setup = Setup::keyed();
    let master = setup.clone().role("master").start().await;
    let slave = setup.clone().role("slave").start().await;
    slave.wants_work().await;
    let mut exact = BTreeSet::new();
    for server in [&master, &slave] {
        exact.extend(shown(server).await);
    }
    let is = |name: &str, base: &str| ENDINGS.iter().any(|ending| name.strip_suffix(ending) == Some(base));
    for base in &registered {
        assert!(described.iter().any(|name| is(name, base)), "docs/operations.md does not describe {base}");
    }
    for name in &exact {
        assert!(described.contains(name), "docs/operations.md does not describe {name}, as it is shown");
    }
    for name in &described {
        let is_ours = registered.iter().any(|base| is(name, base));
        assert!(is_ours || exact.contains(name), "there is no metric {name}, which docs/operations.md describes");
    }
    // other pages name only what there is
    for (page, text) in pages() {
        for name in names(&text).iter().filter(|name| name.starts_with("wellhead_")) {
            let series = ["_sum", "_count", "_bucket"].iter().filter_map(|end| name.strip_suffix(end)).next();
            let known = described.contains(name) || series.is_some_and(|name| described.contains(name));
            // names of crates, files and targets of the log
            let other = ["wellhead_proto", "wellhead_master", "wellhead_slave", "wellhead_bench"].contains(&&**name);
            assert!(known || other, "{page}: there is no metric {name}");
        }
    }
}
