//! What holds for names of objects: they come from listings that anybody may have written.

use std::path::{Component, Path};

use super::StoreKey;
use crate::fuzzing::Target;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "store_key",
    seeds: || {
        let seeds = ["config", "data/4f/4f1a", "ship/db/1-2/3-4-part", "../x", "a\0"];
        seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
    },
    property: store_key,
}];

fn store_key(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(key) = StoreKey::new(text.as_ref()) else { return };
    assert_eq!(key.as_str(), text);
    assert!(text.is_ascii() && text.len() <= 512);
    let below = Path::new("/root").join(key.as_str());
    assert!(below.starts_with("/root"));
    let mut inside = Path::new(key.as_str()).components();
    assert!(inside.all(|part| matches!(part, Component::Normal(_))));
    assert_eq!(below.file_name().and_then(|name| name.to_str()), Some(key.file_name()));
}
