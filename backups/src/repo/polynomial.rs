//! The irreducible polynomial over GF(2) that restic wants in every repository's config. It cuts with it; this engine
//! keeps it valid for restic, and uses it as the secret that its own chunker is seeded with.

use std::str::FromStr;

/// A polynomial: bit n is the coefficient of x^n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Polynomial(u64);

const DEGREE: u32 = 53;

impl Polynomial {
    /// A random irreducible polynomial of degree 53. About one of 53 candidates is.
    pub(crate) fn random() -> Self {
        loop {
            let candidate = Self((rand::random::<u64>() & ((1 << DEGREE) - 1)) | (1 << DEGREE) | 1);
            if candidate.is_irreducible() {
                return candidate;
            }
        }
    }

    /// The secret that it makes.
    pub(crate) fn secret(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Ben-Or's test: no common factor with x^(2^i) - x for any i up to half the degree.
    fn is_irreducible(self) -> bool {
        let Some(degree) = self.0.checked_ilog2() else {
            return false;
        };
        let mut power = 2;
        (0..degree / 2).all(|_| {
            power = self.square_mod(power);
            gcd(self.0, power ^ 2) == 1
        })
    }

    fn square_mod(self, value: u64) -> u64 {
        let square = (0..64)
            .filter(|bit| value >> bit & 1 == 1)
            .fold(0_u128, |sum, bit| sum | 1 << (2 * bit));
        remainder(square, self.0)
    }
}

fn remainder(mut dividend: u128, divisor: u64) -> u64 {
    let degree = divisor.ilog2();
    while let Some(top) = dividend.checked_ilog2().filter(|&top| top >= degree) {
        dividend ^= u128::from(divisor) << (top - degree);
    }
    dividend as u64
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, remainder(u128::from(a), b));
    }
    a
}

impl std::fmt::Display for Polynomial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for Polynomial {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_polynomials_are_judged_right() {
        for (bits, irreducible) in [
            (0b111, true),
            (0b1011, true),
            (0b101, false),
            (0b110, false),
            (0b10011, true),
            (0b11111, true),
            (0b10101, false),
        ] {
            assert_eq!(Polynomial(bits).is_irreducible(), irreducible, "{bits:b}");
        }
        // The polynomial of the tests of restic's chunker.
        assert!("3DA3358B4DC173".parse::<Polynomial>().unwrap().is_irreducible());
    }

    #[test]
    fn random_ones_have_restics_degree() {
        let polynomial = Polynomial::random();
        assert_eq!(polynomial.0.ilog2(), DEGREE);
        assert_eq!(polynomial.to_string().parse(), Ok(polynomial));
    }
}
