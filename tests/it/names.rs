//! A type's name means one thing in the whole workspace: whoever reads it, or searches for it, finds one definition.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What every module may have of its own.
const OF_EACH_MODULE: [&str; 4] = ["Error", "Limits", "Metrics", "Settings"];

/// Every Rust file of the workspace, what is built left out.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder is read to its end").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("names are UTF-8");
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// The type that `line` defines. What a trait leaves to its implementations is none.
fn defined(line: &str) -> Option<&str> {
    let code = line.trim_start();
    let is_nested = code.len() < line.len();
    let code = match code.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) if rest.starts_with(' ') => rest.trim_start(),
        _ => code,
    };
    let (keyword, rest) = code.split_once(' ')?;
    let is_type = matches!(keyword, "struct" | "enum" | "trait") || keyword == "type" && !is_nested;
    let name = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?;
    (is_type && name.starts_with(char::is_uppercase)).then_some(name)
}

#[test]
fn a_type_has_its_name_for_itself() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(root, &mut files);
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let file = file.strip_prefix(root).unwrap_or(&file).display();
        for (number, line) in text.lines().enumerate() {
            if let Some(name) = defined(line).filter(|name| !OF_EACH_MODULE.contains(name)) {
                places.entry(name.to_owned()).or_default().push(format!("{file}:{}", number + 1));
            }
        }
    }
    assert!(places.len() > 400, "only {} types were found", places.len());
    let shared: Vec<_> = places.iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(shared.is_empty(), "types that share their name (docs/glossary.md): {shared:#?}");
}

/// What the backticks of the glossary name: files, folders and types that are there.
#[test]
fn what_the_glossary_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(root, &mut files);
    let text: String = files.iter().map(|file| fs::read_to_string(file).expect("it was listed")).collect();
    let defined: Vec<_> = text.lines().filter_map(defined).collect();
    let glossary = fs::read_to_string(root.join("docs/glossary.md")).expect("the glossary is there");
    let tables = glossary.lines().filter(|line| line.starts_with('|')).collect::<Vec<_>>().join("\n");
    for name in tables.split('`').skip(1).step_by(2) {
        if name.contains('/') {
            assert!(root.join(name).exists(), "{name} is not there");
        } else {
            // a macro makes the names of apps, channels and users
            let is_made = text.contains(&format!("\n    {name}"));
            assert!(defined.contains(&name) || is_made, "no type is called {name}");
        }
    }
}
