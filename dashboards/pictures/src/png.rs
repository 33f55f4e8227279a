//! A picture as PNG, drawn by `resvg` with one font that is part of the program: the same bytes on every machine.

use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{Options, Tree};

use crate::canvas::Svg;
use crate::theme::Theme;

/// No PNG has more pixels.
const PIXELS: u64 = 120_000_000;

/// Why there is no PNG.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// Its colours are those of a viewer.
    #[error("a PNG is for light or for dark; this picture follows its viewer")]
    Theme,
    /// It would have too many pixels.
    #[error("a PNG of {width} times {height} pixels is too large")]
    Size {
        /// From left to right.
        width: u64,
        /// From top to bottom.
        height: u64,
    },
    /// The renderer refused it.
    #[error("the picture could not be read")]
    Read(#[source] resvg::usvg::Error),
    /// The pixels could not be written.
    #[error("the pixels could not be written as PNG: {0}")]
    Write(String),
}

/// The picture as PNG, `scale` pixels for each unit of it.
pub fn png(svg: &Svg, scale: f64) -> Result<Vec<u8>, PngError> {
    if matches!(svg.theme(), Theme::Viewer | Theme::Page) {
        return Err(PngError::Theme);
    }
    let options = Options {
        fontdb: Arc::clone(fonts()),
        font_family: "Noto Sans".to_owned(),
        ..Options::default()
    };
    let tree = Tree::from_str(svg.as_str(), &options).map_err(PngError::Read)?;
    let size = |length: f32| (f64::from(length) * scale).ceil().clamp(1.0, 1e9) as u64;
    let (width, height) = (size(tree.size().width()), size(tree.size().height()));
    if width * height > PIXELS {
        return Err(PngError::Size { width, height });
    }
    let mut pixels = Pixmap::new(width as u32, height as u32).ok_or(PngError::Size { width, height })?;
    resvg::render(
        &tree,
        Transform::from_scale(scale as f32, scale as f32),
        &mut pixels.as_mut(),
    );
    pixels.encode_png().map_err(|error| PngError::Write(error.to_string()))
}

/// The one font; every generic family is it.
fn fonts() -> &'static Arc<Database> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    FONTS.get_or_init(|| {
        let mut fonts = Database::new();
        fonts.load_font_data(ttf_noto_sans::REGULAR.to_vec());
        fonts.set_sans_serif_family("Noto Sans");
        Arc::new(fonts)
    })
}
