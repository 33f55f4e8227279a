//! What the gRPC requests of all services have in common: fields that must be as the protocol says, and pages of a list.
//! What a service's own fields must be is its own matter.

use tonic::Status;

/// Entries on a page of a client that does not say how many.
const PAGE: u32 = 100;
/// The most entries on a page.
const MAX_PAGE: u32 = 1000;

/// A field that is not as the protocol says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {expected}")]
pub struct Invalid {
    /// The field's name in the protocol.
    pub field: &'static str,
    /// What it must be.
    pub expected: &'static str,
}

impl Invalid {
    /// `field` must be `expected`.
    pub fn new(field: &'static str, expected: &'static str) -> Self {
        Self { field, expected }
    }
}

impl From<Invalid> for Status {
    /// INVALID_ARGUMENT.
    fn from(error: Invalid) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// The pages of one list. A page's token is the place in the list after which the next one begins.
#[derive(Debug, Clone, Copy)]
pub struct Pages {
    prefix: &'static str,
}

impl Pages {
    /// Tokens start with `prefix`, so that their form can change.
    pub const fn new(prefix: &'static str) -> Self {
        Self { prefix }
    }

    /// The place after which a page begins (0: at the start), and how many entries it has at the most: 100 when `size`
    /// is 0.
    ///
    /// # Errors
    /// [`Invalid`] for a size above 1000, and for a token that no page of this list had.
    pub fn place(self, token: &str, size: u32) -> Result<(u64, usize), Invalid> {
        let limit = match size {
            0 => PAGE,
            size @ 1..=MAX_PAGE => size,
            _ => return Err(Invalid::new("page_size", "at most 1000")),
        };
        let after = match token {
            "" => 0,
            token => token
                .strip_prefix(self.prefix)
                .and_then(|place| place.parse().ok())
                .ok_or(Invalid::new("page_token", "the next_page_token of a page"))?,
        };
        Ok((after, limit as usize))
    }

    /// The token of the page after `place`; empty when there is none.
    pub fn token(self, place: Option<u64>) -> String {
        place.map_or_else(String::new, |place| format!("{}{place}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_its_place_and_others_are_refused() {
        let pages = Pages::new("c1.");
        assert_eq!(pages.place("", 0), Ok((0, 100)));
        assert_eq!(pages.place(&pages.token(Some(7)), 1000), Ok((7, 1000)));
        assert_eq!(pages.token(None), "");
        for token in ["7", "c1.", "c1.-1", "c2.7", "c1.7 "] {
            assert_eq!(pages.place(token, 1).unwrap_err().field, "page_token", "{token}");
        }
        assert_eq!(pages.place("", 1001).unwrap_err().field, "page_size");
    }
}
