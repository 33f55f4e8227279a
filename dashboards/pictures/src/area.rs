//! A rectangle of a picture, and how one is cut into others. It draws nothing.

/// A rectangle: left upper corner and size, in the units of the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    /// Left end.
    pub x: f64,
    /// Upper end.
    pub y: f64,
    /// From left to right.
    pub width: f64,
    /// From top to bottom.
    pub height: f64,
}

impl Area {
    /// A rectangle; sizes below zero are zero.
    pub fn new(x: f64, y: f64, width: f64, height: f64) -> Self {
        Self {
            x,
            y,
            width: width.max(0.0),
            height: height.max(0.0),
        }
    }

    /// Its right end.
    pub fn right(self) -> f64 {
        self.x + self.width
    }

    /// Its lower end.
    pub fn bottom(self) -> f64 {
        self.y + self.height
    }

    /// Its middle.
    pub fn middle(self) -> (f64, f64) {
        (self.x + self.width / 2.0, self.y + self.height / 2.0)
    }

    /// What is left when so much is taken off on the left, above, on the right and below.
    #[must_use]
    pub fn inset(self, left: f64, top: f64, right: f64, bottom: f64) -> Self {
        Self::new(
            self.x + left.min(self.width),
            self.y + top.min(self.height),
            self.width - left - right,
            self.height - top - bottom,
        )
    }

    /// What it has in common with another one.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        let (x, y) = other.clamp((self.x, self.y));
        let (right, bottom) = other.clamp((self.right(), self.bottom()));
        Self::new(x, y, right - x, bottom - y)
    }

    /// The nearest point inside of it. What is no number becomes its corner.
    pub fn clamp(self, (x, y): (f64, f64)) -> (f64, f64) {
        let hold = |value: f64, low: f64, high: f64| {
            if value.is_nan() {
                low
            } else {
                value.clamp(low, high.max(low))
            }
        };
        (hold(x, self.x, self.right()), hold(y, self.y, self.bottom()))
    }
}
