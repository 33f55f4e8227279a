//! Colours can be read and told apart, reckoned as WCAG 2 reckons contrast, and as people without one kind of cone see.

use pictures::{Colour, HEAT, SERIES, Theme, Tone};

fn channels(colour: Colour, theme: Theme) -> [f64; 3] {
    let text = colour.text(theme).into_owned();
    let byte = |at: usize| f64::from(u8::from_str_radix(&text[at..at + 2], 16).unwrap()) / 255.0;
    [1, 3, 5].map(byte).map(|c| {
        if c <= 0.04045 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    })
}

fn luminance([red, green, blue]: [f64; 3]) -> f64 {
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

fn contrast(a: Colour, b: Colour, theme: Theme) -> f64 {
    let (a, b) = (luminance(channels(a, theme)), luminance(channels(b, theme)));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

const THEMES: [Theme; 2] = [Theme::Light, Theme::Dark];
const SURFACES: [Colour; 2] = [Colour::Paper, Colour::Panel];

#[test]
fn text_is_legible_on_every_surface() {
    let tones = [Tone::Plain, Tone::Good, Tone::Bad, Tone::Other].map(Colour::Of);
    for theme in THEMES {
        for text in [Colour::Ink, Colour::Soft].into_iter().chain(tones) {
            for surface in SURFACES.into_iter().chain([Colour::Band]) {
                let ratio = contrast(text, surface, theme);
                assert!(ratio >= 4.5, "{text:?} on {surface:?} in {theme:?}: {ratio:.2}");
            }
        }
        // Words inside of a bar of states.
        for colour in tones.into_iter().chain((0..SERIES).map(Colour::Series)) {
            let ratio = contrast(Colour::Paper, colour, theme);
            assert!(
                ratio >= 4.5 || matches!(colour, Colour::Series(_)) && ratio >= 4.0,
                "{colour:?} in {theme:?}: {ratio:.2}"
            );
        }
    }
}

#[test]
fn lines_are_seen_on_every_surface() {
    for theme in THEMES {
        for colour in (0..SERIES).map(Colour::Series) {
            for surface in SURFACES.into_iter().chain([Colour::Band]) {
                let ratio = contrast(colour, surface, theme);
                assert!(ratio >= 3.0, "{colour:?} on {surface:?} in {theme:?}: {ratio:.2}");
            }
        }
    }
}

#[test]
fn more_heat_is_further_from_the_panel() {
    for theme in THEMES {
        let ratios: Vec<f64> = (0..HEAT)
            .map(|step| contrast(Colour::Heat(step), Colour::Panel, theme))
            .collect();
        assert!(
            ratios.windows(2).all(|pair| pair[1] > pair[0] * 1.1),
            "{theme:?}: {ratios:?}"
        );
    }
}

/// Machado, Oliveira and Fernandes 2009, for those who lack one kind of cone.
const SIGHTS: [(&str, [[f64; 3]; 3]); 4] = [
    ("usual", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    (
        "protanopia",
        [
            [0.152_286, 1.052_583, -0.204_868],
            [0.114_503, 0.786_281, 0.099_216],
            [-0.003_882, -0.048_116, 1.051_998],
        ],
    ),
    (
        "deuteranopia",
        [
            [0.367_322, 0.860_646, -0.227_968],
            [0.280_085, 0.672_501, 0.047_413],
            [-0.011_820, 0.042_940, 0.968_881],
        ],
    ),
    (
        "tritanopia",
        [
            [1.255_528, -0.076_749, -0.178_779],
            [-0.078_411, 0.930_809, 0.147_602],
            [0.004_733, 0.691_367, 0.303_900],
        ],
    ),
];

/// Ottosson's Oklab, in which a difference is about as large as it looks.
fn oklab([red, green, blue]: [f64; 3]) -> [f64; 3] {
    let l = (0.412_221_470_8 * red + 0.536_332_536_3 * green + 0.051_445_992_9 * blue).cbrt();
    let m = (0.211_903_498_2 * red + 0.680_699_545_1 * green + 0.107_396_956_6 * blue).cbrt();
    let s = (0.088_302_461_9 * red + 0.281_718_837_6 * green + 0.629_978_700_5 * blue).cbrt();
    [
        0.210_454_255_3 * l + 0.793_617_785_0 * m - 0.004_072_046_8 * s,
        1.977_998_495_1 * l - 2.428_592_205_0 * m + 0.450_593_709_9 * s,
        0.025_904_037_1 * l + 0.782_771_766_2 * m - 0.808_675_766_0 * s,
    ]
}

#[test]
fn the_first_series_are_told_apart_by_everybody() {
    for theme in THEMES {
        for (sight, matrix) in SIGHTS {
            let seen = |index: usize| {
                let c = channels(Colour::Series(index), theme);
                oklab(matrix.map(|row| (row[0] * c[0] + row[1] * c[1] + row[2] * c[2]).clamp(0.0, 1.0)))
            };
            for a in 0..SERIES {
                for b in 0..a {
                    let (x, y) = (seen(a), seen(b));
                    let apart = (0..3).map(|i| (x[i] - y[i]).powi(2)).sum::<f64>().sqrt();
                    assert!(apart >= 0.08, "{a} and {b} in {theme:?} with {sight}: {apart:.3}");
                }
            }
        }
    }
}
