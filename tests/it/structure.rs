//! How modules of a crate stand to each other, by what their files import: what all use stands below its users. The files
//! of one module may name its own items: they are one thing in several files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The crates that are held to it.
const CRATES: [&str; 4] = ["proto/src", "master/src", "slave/src", "src"];

type Module = Vec<String>;

/// A crate's modules, each with the modules that it imports from.
struct Imports(BTreeMap<Module, BTreeSet<Module>>);

impl Imports {
    fn of_crate(sources: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(sources);
        let mut files = BTreeMap::<Module, String>::new();
        for path in rust_files(&root) {
            let text = fs::read_to_string(&path).expect("a source file");
            let served = without_tests(&text);
            files.entry(module_of(path.strip_prefix(&root).expect("it lies there"))).or_default().push_str(&served);
        }
        let mut imports = BTreeMap::new();
        for (module, text) in &files {
            let paths = imported(text).into_iter().map(|path| absolute(module, &path));
            // the names behind a module's are items of it
            let known = paths.filter_map(|path| {
                (0..=path.len()).rev().map(|end| path[..end].to_vec()).find(|prefix| files.contains_key(prefix))
            });
            imports.insert(module.clone(), known.filter(|other| other != module).collect());
        }
        Self(imports)
    }

    /// Which of the modules right inside `parent` import from which others.
    fn inside(&self, parent: &[String]) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut inside = BTreeMap::<_, BTreeSet<_>>::new();
        for (module, others) in &self.0 {
            let Some(child) = child_of(parent, module) else { continue };
            let others = others.iter().filter_map(|other| child_of(parent, other)).filter(|other| *other != child);
            inside.entry(child).or_default().extend(others);
        }
        inside
    }
}

/// The module right inside `parent` that `module` is, or lies in.
fn child_of<'a>(parent: &[String], module: &'a Module) -> Option<&'a str> {
    module.strip_prefix(parent)?.first().map(String::as_str)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let is_test = matches!(name, "tests" | "testkit" | "golden") || name.ends_with("_tests");
        if is_test {
            continue;
        }
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn module_of(path: &Path) -> Module {
    let mut module: Module = path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|name| matches!(&**name, "mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// The text without comments, and without the tests at its foot.
fn without_tests(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.fold(String::new(), |all, line| all + line + "\n")
}

/// Every path that begins at the crate, at the module or above it: those of `use`, and those that stand elsewhere.
fn imported(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in
        text.match_indices("crate::").chain(text.match_indices("super::")).chain(text.match_indices("self::"))
    {
        let before = text[..at].trim_end_matches("super::");
        if before.ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':') {
            // the end of another word or path
            continue;
        }
        spell(&text[before.len()..], "", &mut paths);
    }
    paths
}

/// The paths that a tree of imports stands for, whose beginning is `text`; what stands behind it.
fn spell<'a>(text: &'a str, prefix: &str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut inner) = text.strip_prefix('{') {
        loop {
            inner = inner.trim_start();
            if let Some(rest) = inner.strip_prefix('}') {
                return rest;
            }
            inner = spell(inner, prefix, paths).trim_start();
            match inner.strip_prefix(',') {
                Some(rest) => inner = rest,
                None if inner.starts_with('}') => {}
                // no tree of imports
                None => return inner,
            }
        }
    }
    let end = text.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    if let Some(rest) = rest.strip_prefix("::") {
        return spell(rest, &path, paths);
    }
    paths.push(path);
    // `as` another name
    match rest.strip_prefix(" as ") {
        Some(alias) => alias.trim_start_matches(|next: char| next.is_alphanumeric() || next == '_'),
        None => rest,
    }
}

fn absolute(module: &Module, path: &str) -> Module {
    let mut at = module.clone();
    for (no, name) in path.split("::").enumerate() {
        match name {
            "crate" => at.clear(),
            "super" => drop(at.pop()),
            "self" if no == 0 => {}
            "self" => {}
            name => at.push(name.to_owned()),
        }
    }
    at
}

/// A way through `arrows` that comes back to where it began.
fn circle<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    fn walk<'a>(
        at: &'a str,
        arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(begin) = way.iter().position(|there| *there == at) {
            return Some(way[begin..].to_vec());
        }
        if !done.insert(at) {
            return None;
        }
        way.push(at);
        let found = arrows.get(at).into_iter().flatten().find_map(|next| walk(next, arrows, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|&at| walk(at, arrows, &mut Vec::new(), &mut done))
}

#[test]
fn no_modules_of_a_crate_import_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for sources in CRATES {
        let imports = Imports::of_crate(sources);
        assert!(imports.0.values().any(|others| !others.is_empty()), "{sources}: nothing was read");
        let modules = imports.0.keys();
        let parents: BTreeSet<_> = modules.flat_map(|module| (0..=module.len()).map(|end| &module[..end])).collect();
        for parent in parents {
            let found = circle(&imports.inside(parent));
            circles.extend(found.map(|found| format!("{sources}, inside {}: {found:?}", parent.join("::"))));
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

/// The root hands names on; what modules need stands in a module, below them.
#[test]
fn nothing_is_imported_from_the_root_of_a_crate() {
    let mut from_root = Vec::new();
    for sources in CRATES {
        for (module, others) in Imports::of_crate(sources).0 {
            if !module.is_empty() && others.contains(&Module::new()) {
                from_root.push(format!("{sources}: {}", module.join("::")));
            }
        }
    }
    assert!(from_root.is_empty(), "{from_root:#?}");
}

#[test]
fn imports_are_read_as_they_are_written() {
    let text = "use crate::{\n    a::{self, B as C, d::E},\n    f,\n};\nuse super::super::g;\nlet it = crate::h::I;\nuse other::crate_::x;";
    let read = imported(text).into_iter().map(|path| absolute(&vec!["m".into(), "n".into()], &path).join("::"));
    let read: BTreeSet<_> = read.collect();
    let expected = ["a", "a::B", "a::d::E", "f", "g", "h::I"].map(String::from);
    assert_eq!(read, expected.into());
    let arrows = [("a", ["b"]), ("b", ["c"]), ("c", ["b"])].map(|(from, to)| (from, BTreeSet::from(to)));
    assert_eq!(circle(&arrows.into()), Some(vec!["b", "c"]));
}
