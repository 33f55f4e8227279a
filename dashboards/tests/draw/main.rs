//! Boards as pictures: from recordings, from a real Prometheus, from servers that mean harm, and all the boards of others
//! that we have.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod boards;
mod hostile;
mod live;
mod mixins;

use roxmltree::Document;

/// Well-formed, every point inside, nothing that runs; gives the words that are drawn.
fn judged(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let root = document.root_element();
    let size = |name: &str| root.attribute(name).unwrap().parse::<f64>().unwrap();
    let (width, height) = (size("width"), size("height"));
    for node in root.descendants().filter(roxmltree::Node::is_element) {
        assert!(!["script", "image", "use", "foreignObject"].contains(&node.tag_name().name()));
        assert!(node.attributes().all(|attribute| !attribute.name().starts_with("on")));
        for (name, most) in [("x", width), ("y", height), ("cx", width), ("cy", height)] {
            let at = node.attribute(name).map_or(0.0, |text| text.parse::<f64>().unwrap());
            assert!((0.0..=most).contains(&at), "{at} is not inside of {most}");
        }
    }
    let texts = root.descendants().filter(|node| node.tag_name().name() == "text");
    texts.filter_map(|node| node.text()).map(str::to_owned).collect()
}

/// 2026-11-23 00:00:00 UTC.
const BEGIN: f64 = 1_795_392_000.0;

/// Clients need a provider of cryptography, as the command line installs it.
fn provider() {
    // The second of several tests finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
