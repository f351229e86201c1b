//! Origins, as people write them.

use super::{from_file, refused};
use crate::settings::plan::{Plan, Roles};

#[test]
fn an_origin_that_no_page_has_is_refused_with_its_place_and_the_right_spelling() {
    let shop = "[[apps.listed]]\nkey = \"shop\"\n";
    for (entry, hint) in [
        ("", "https://*.example.com"),
        ("https://example.com/", "write \"https://example.com\""),
        ("wss://example.com", "write \"https://example.com\""),
        ("https://*example.com", "https://*.example.com"),
    ] {
        let entries = format!("allowed_origins = [\n  \"*\",\n  \"{entry}\",\n]");
        let error = refused(&format!("[slave]\n{entries}"));
        assert!(error.starts_with("w.toml:4: slave.allowed_origins.1: ") && error.contains(hint), "{error}");
        let error = refused(&format!("{shop}{entries}"));
        assert!(error.starts_with("w.toml:5: apps.listed.0.allowed_origins.1: ") && error.contains(hint), "{error}");
    }
}

#[test]
fn origins_of_an_app_stand_for_those_of_the_slave() {
    let text = "[slave]\nallowed_origins = [\"HTTPS://House.Example:443\"]\n[[apps.listed]]\nkey = \"shop\"\n\
                allowed_origins = [\"*.shop.example\"]\n[[apps.listed]]\nkey = \"closed\"\nallowed_origins = []";
    let loaded = from_file(text).unwrap();
    let plan = Plan::new(&loaded, Roles::Standalone).unwrap();
    let admits = |app: &str, origin| plan.tenants.named(app).admit_origin(&app.parse().unwrap(), origin).is_ok();
    assert!(admits("any", "https://house.example") && !admits("any", "https://a.shop.example"));
    assert!(admits("shop", "https://a.shop.example") && !admits("shop", "https://house.example"));
    assert!(!admits("closed", "https://house.example") && !admits("closed", "null"));
}
