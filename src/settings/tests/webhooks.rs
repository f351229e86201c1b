//! Webhooks of apps.

use super::*;

const APP: &str = "[[apps.listed]]\nkey = \"shop\"\nid = \"42\"\nsecret = \"0123456789abcdef0123\"\n";

fn with(webhook: &str) -> String {
    format!("{APP}webhooks = [{{ {webhook} }}]")
}

#[test]
fn an_app_has_targets_whose_secrets_are_shown_nowhere() {
    let folder = SettingsFolder::new("webhooks");
    folder.write("header", "X-Token: hush in a file\n");
    let text = format!(
        "{APP}webhooks = [\n  {{ url = \"https://hooks.example.com/hush?key=hush\", header_file = \"header\" }},\n  \
         {{ url = \"http://1.1.1.1\", events = [\"client_event\"], channels = [\"private-*\"], header = \"X-Token: hush\" }},\n]"
    );
    let file = folder.write("w.toml", &text);
    let loaded = load::load(Some(&file), &[]).unwrap();
    let (plan, _) = crate::app::check(&loaded, Roles::Slave).unwrap();
    let [first, second] = &pushers(&plan)[0].webhooks[..] else { panic!("two targets") };
    assert_eq!((first.events.len(), second.events.len()), (6, 1));
    assert_eq!(first.target.header(), Some(("x-token", "hush in a file")));
    assert_eq!(second.channels[0].as_str(), "private-*");
    let described = [
        "webhooks of shop to https://hooks.example.com:443: all events; channels *, with the header x-token",
        "webhooks of shop to http://1.1.1.1:80: client_event; channels private-*, with the header x-token",
    ];
    assert_eq!(crate::webhooks::described(&plan.tenants), described);
    let shown = format!("{:?}{}{first:?}{second:?}", loaded.settings, toml::to_string(&loaded.settings).unwrap());
    assert!(!shown.contains("hush") && shown.contains("https://hooks.example.com:443"), "{shown}");
}

#[test]
fn a_target_that_cannot_be_used_is_refused_with_its_place() {
    let url = "url = \"https://hooks.example.com/\"";
    for (text, place, what) in [
        (with(""), "apps.listed.0.webhooks.0.url", "is missing"),
        (with("url = \"hooks.example.com\""), "apps.listed.0.webhooks.0.url", "url = \"https://"),
        (with("url = \"ftp://hooks.example.com\""), "apps.listed.0.webhooks.0.url", "http:// or https://"),
        (with("url = \"https://a:b@hooks.example.com\""), "apps.listed.0.webhooks.0.url", "header = \"Authorization"),
        (with(&format!("{url}, events = []")), "apps.listed.0.webhooks.0.events", "is empty"),
        (
            with(&format!("{url}, events = [\"*\", \"member_add\"]")),
            "apps.listed.0.webhooks.0.events.1",
            "some of channel_occupied, channel_vacated, member_added, member_removed, client_event, subscription_count",
        ),
        (with(&format!("{url}, events = [\"cache_miss\"]")), "apps.listed.0.webhooks.0.events.0", "no event"),
        (with(&format!("{url}, channels = [\"*\", \"\"]")), "apps.listed.0.webhooks.0.channels.1", "means no channel"),
        (with(&format!("{url}, channels = []")), "apps.listed.0.webhooks.0.channels", "is empty"),
        (with(&format!("{url}, header = \"hush\"")), "apps.listed.0.webhooks.0.header", "is not a header"),
        (with(&format!("{url}, header = \"Host: hush\"")), "apps.listed.0.webhooks.0.header", "by Wellhead itself"),
        (format!("{APP}webhooks = [\"https://hush\"]"), "w.toml:5", "a table such as { url = "),
        (format!("{APP}remote = \"https://hush\""), "w.toml:5", "a table such as { url = "),
        (
            "[[webhooks]]\nurl = \"https://hush\"".to_owned(),
            "w.toml:1",
            "not [[webhooks]]; those of an app are [[apps.listed.webhooks]]",
        ),
        ("[[slave]]\nlisten = \"x\"".to_owned(), "w.toml:1", "write [slave], not [[slave]]"),
        (
            with(&format!("{url}, header = \"X: y\", header_file = \"x\"")),
            "apps.listed.0.webhooks.0.header_file",
            "set as well",
        ),
        (with(&format!("{url}, event = [\"*\"]")), "w.toml:5", "did you mean `events`?"),
        (
            format!("[[apps.listed]]\nkey = \"shop\"\nwebhooks = [{{ {url} }}]"),
            "apps.listed.0.webhooks",
            "an id and a secret",
        ),
        ("[webhooks]\nallow_privat = true".to_owned(), "w.toml:2", "did you mean"),
    ] {
        let error = refused(&text);
        assert!(error.contains(place) && error.contains(what) && !error.contains("hush"), "{text}\n{error}");
    }
}

#[test]
fn an_address_that_could_never_be_asked_is_refused_where_webhooks_are_sent() {
    let check = |text: &str, roles| {
        let loaded = from_file(text).unwrap();
        crate::app::check(&loaded, roles).map(|_| ()).map_err(|error| error.to_string())
    };
    for host in ["127.0.0.1", "0x7f.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]"] {
        let text = with(&format!("url = \"http://{host}/\""));
        let error = check(&text, Roles::Standalone).unwrap_err();
        assert!(error.contains("apps.listed.0.webhooks.0.url") && error.contains("allow_private = true"), "{error}");
        // a master sends none
        assert_eq!(check(&text, Roles::Master), Ok(()));
        assert_eq!(check(&format!("{text}\n[webhooks]\nallow_private = true"), Roles::Standalone), Ok(()));
    }
}
