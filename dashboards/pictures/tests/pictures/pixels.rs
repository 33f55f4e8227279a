//! What the renderer makes of pictures: it reads each one, and no text is wider than the table of widths says.

use pictures::{Area, Canvas, Colour, Look, PngError, Theme, Type, png, svg, width};

use crate::gallery;

#[test]
fn every_kind_becomes_a_png() {
    for theme in [Theme::Light, Theme::Dark] {
        for (name, chart, wide, high) in gallery::all() {
            let bytes = png(&svg(chart.as_ref(), name, &Look::new(theme, name, wide, high)), 2.0).unwrap();
            assert!(bytes.starts_with(b"\x89PNG"), "{name}");
            // The header says how large it is.
            let size = |at: usize| f64::from(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()));
            assert_eq!((size(16), size(20)), (wide * 2.0, high * 2.0), "{name}");
        }
    }
}

#[test]
fn a_png_needs_a_theme_of_its_own_and_a_size() {
    let (_, chart, ..) = gallery::all().remove(0);
    let picture = |theme, side| svg(chart.as_ref(), "x", &Look::new(theme, "x", side, side));
    assert!(matches!(png(&picture(Theme::Viewer, 100.0), 1.0), Err(PngError::Theme)));
    assert!(matches!(
        png(&picture(Theme::Light, 30_000.0), 1.0),
        Err(PngError::Size { .. })
    ));
    assert!(matches!(
        png(&picture(Theme::Light, 100.0), f64::NAN),
        Err(PngError::Size { .. })
    ));
}

/// The font that PNGs are written in is nowhere wider than what the layout reckons with.
#[test]
fn the_table_of_widths_is_no_narrower_than_the_font() {
    let printable: Vec<char> = (' '..='~').chain("−±≤≥×·°²³éÄßµЖωλ…".chars()).collect();
    for c in printable {
        // Ten of them, between letters, since the ends of a text have no room of their own.
        let text = format!("H{}H", c.to_string().repeat(10));
        let look = Look::new(Theme::Light, "w", 2000.0, 40.0);
        let mut canvas = Canvas::new(&look, "img", "", "");
        canvas.text((10.0, 30.0), Type::new(20.0, Colour::Ink), &text);
        canvas.rect(Area::new(0.0, 0.0, 2000.0, 1.0), Colour::Paper, 0.0, "");
        let drawn = ink(&png(&canvas.finish(), 1.0).unwrap());
        let reckoned = width(&text, 20.0);
        assert!(drawn <= reckoned + 1.0, "{c:?}: {drawn} is wider than {reckoned}");
    }
}

/// From the first to the last column of a PNG in which something dark is.
fn ink(bytes: &[u8]) -> f64 {
    let pixels = resvg::tiny_skia::Pixmap::decode_png(bytes).unwrap();
    let dark = |x: u32| (2..pixels.height()).any(|y| pixels.pixel(x, y).is_some_and(|pixel| pixel.alpha() > 40));
    let first = (0..pixels.width()).find(|x| dark(*x)).unwrap();
    let last = (0..pixels.width()).rfind(|x| dark(*x)).unwrap();
    f64::from(last - first + 1)
}
