//! What holds for every picture: it is XML, each point is inside of it, each id is its own, and it loads and runs nothing.

use std::collections::BTreeSet;

use roxmltree::{Document, Node};

const ELEMENTS: [&str; 10] = [
    "svg", "g", "title", "desc", "style", "rect", "path", "line", "circle", "text",
];

/// Holds a picture against the rules; what is wrong with it ends the test.
pub fn judge(svg: &str) {
    let document = Document::parse(svg).unwrap();
    let root = document.root_element();
    let size = |name: &str| root.attribute(name).unwrap().parse::<f64>().unwrap();
    let (width, height) = (size("width"), size("height"));
    assert_eq!(
        root.attribute("viewBox"),
        Some(format!("0 0 {width} {height}").as_str())
    );
    let mut ids = BTreeSet::new();
    for node in root.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        assert!(ELEMENTS.contains(&name), "<{name}>");
        for attribute in node.attributes() {
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
            assert!(!attribute.value().contains("url("), "{attribute:?}");
        }
        if let Some(id) = node.attribute("id") {
            assert!(ids.insert(id.to_owned()), "{id} twice");
        }
        for (across, down) in points(node) {
            assert!(
                (0.0..=width).contains(&across),
                "{across} is not inside of {width}: {node:?}"
            );
            assert!(
                (0.0..=height).contains(&down),
                "{down} is not inside of {height}: {node:?}"
            );
        }
    }
    for node in root.descendants() {
        for reference in ["aria-labelledby", "aria-describedby"] {
            if let Some(id) = node.attribute(reference) {
                assert!(ids.contains(id), "{id} is nowhere");
            }
        }
    }
}

/// The points that an element names.
fn points(node: Node<'_, '_>) -> Vec<(f64, f64)> {
    let number = |name: &str| node.attribute(name).map(|text| text.parse::<f64>().unwrap());
    let pair = |x: &str, y: &str| Some((number(x)?, number(y)?));
    let mut points: Vec<(f64, f64)> = [("x", "y"), ("x1", "y1"), ("x2", "y2"), ("cx", "cy")]
        .into_iter()
        .filter_map(|(x, y)| pair(x, y))
        .collect();
    if node.tag_name().name() == "rect" {
        let ((x, y), (width, height)) = (points[0], pair("width", "height").unwrap());
        // Written with one digit behind the point.
        points.push((x + width - 0.11, y + height - 0.11));
        for point in &mut points {
            *point = (point.0.max(0.0), point.1.max(0.0));
        }
    }
    points.extend(node.attribute("d").map(path).unwrap_or_default());
    points
}

/// The points of a path of absolute `M`, `L`, `H`, `V` and `Z`.
fn path(text: &str) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let (mut x, mut y) = (0.0, 0.0);
    let mut rest = text;
    while let Some(command) = rest.chars().next() {
        let end = rest[1..]
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or(rest.len(), |at| at + 1);
        let numbers: Vec<f64> = rest[1..end]
            .split_whitespace()
            .map(|text| text.parse().unwrap())
            .collect();
        match (command, numbers.as_slice()) {
            ('M' | 'L', [a, b]) => (x, y) = (*a, *b),
            ('H', [a]) => x = *a,
            ('V', [b]) => y = *b,
            ('Z', []) => {}
            other => panic!("{other:?} in {text}"),
        }
        points.push((x, y));
        rest = &rest[end..];
    }
    points
}

/// All text that is drawn.
pub fn words(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    // Elements of SVG have its namespace.
    let named = document.descendants().filter(|node| node.tag_name().name() == "text");
    texts
        .chain(named)
        .filter_map(|node| node.text())
        .map(str::to_owned)
        .collect()
}
