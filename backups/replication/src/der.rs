//! The little that is read of a certificate ourselves: with which hash it is signed, and when it is valid. Everything
//! else of certificates is rustls's.

/// A hash of RFC 5929; MD5 and SHA-1 are replaced by SHA-256 there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// Object identifiers of signatures, and their hashes.
const SIGNATURES: [(&[u8], Hash); 9] = [
    // RSA (PKCS #1): with MD5, SHA-1, SHA-256, SHA-384, SHA-512.
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", Hash::Sha384),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", Hash::Sha512),
    // ECDSA: with SHA-1, SHA-256, SHA-384, SHA-512.
    (b"\x2a\x86\x48\xce\x3d\x04\x01", Hash::Sha256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", Hash::Sha256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", Hash::Sha384),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", Hash::Sha512),
];

/// The hash that a certificate is signed with; `None` for signatures that have none, and for what is no certificate.
pub(crate) fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    let (mut inside, _) = expect(certificate, SEQUENCE)?;
    (_, inside) = expect(inside, SEQUENCE)?;
    let (algorithm, _) = expect(inside, SEQUENCE)?;
    let (object, _) = expect(algorithm, OBJECT)?;
    SIGNATURES
        .iter()
        .find(|(known, _)| *known == object)
        .map(|(_, hash)| *hash)
}

/// From when until when a certificate is valid, in seconds of Unix; `None` for what is no certificate.
pub(crate) fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (inside, _) = expect(certificate, SEQUENCE)?;
    let (mut signed, _) = expect(inside, SEQUENCE)?;
    if let Some((_, rest)) = expect(signed, VERSION) {
        signed = rest;
    }
    // The serial number, the algorithm and the issuer stand before it.
    for _ in 0..3 {
        (_, _, signed) = element(signed)?;
    }
    let (validity, _) = expect(signed, SEQUENCE)?;
    let (from, rest) = time(validity)?;
    let (until, _) = time(rest)?;
    Some((from, until))
}

/// The first element: its tag, what is in it, what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        rest = after;
    }
    let (inside, after) = rest.split_at_checked(length)?;
    Some((tag, inside, after))
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, inside, after) = element(bytes)?;
    (tag == wanted).then_some((inside, after))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, and what follows it.
fn time(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (tag, text, after) = element(bytes)?;
    let (digits, years) = match tag {
        UTC_TIME => (text.get(..12)?, 2),
        GENERALIZED_TIME => (text.get(..14)?, 4),
        _ => return None,
    };
    if text.get(digits.len()..) != Some(b"Z") || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |from: usize, to: usize| {
        digits[from..to]
            .iter()
            .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'))
    };
    let mut year = number(0, years);
    if tag == UTC_TIME {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let part = |index: usize| number(years + 2 * index, years + 2 * index + 2);
    let (month, day, hour, minute, second) = (part(0), part(1), part(2), part(3), part(4));
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    // Days since 1970 by counting from March, so that a leap day is the last one of its year (Hinnant, "chrono-compatible
    // low-level date algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let (era, in_era) = (year / 400, year % 400);
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let days = era * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + of_year;
    Some((
        days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second,
        after,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn a_certificate_says_its_hash_and_its_time() {
        let certificate = CertificateDer::from_pem_file(fixtures::tls::CERTIFICATE).unwrap();
        assert_eq!(signature_hash(&certificate), Some(Hash::Sha256));
        let (from, until) = validity(&certificate).unwrap();
        // For a hundred years, as its page says.
        assert!(from > 1_577_836_800, "{from}");
        assert!((99..=101).contains(&((until - from) / 31_556_952)), "{from} to {until}");
    }

    #[test]
    fn times_are_read_as_openssl_reads_them() {
        let read = |text: &[u8]| time(text).map(|(time, _)| time);
        assert_eq!(read(b"\x17\x0d260101000000Z"), Some(1_767_225_600));
        assert_eq!(read(b"\x17\x0d991231235959Z"), Some(946_684_799));
        assert_eq!(read(b"\x18\x0f21000301000000Z"), Some(4_107_542_400));
        assert_eq!(read(b"\x18\x0f20240229120000Z"), Some(1_709_208_000));
        for wrong in [
            &b"\x17\x0d261301000000Z"[..],
            b"\x17\x0d26010100000+Z",
            b"\x18\x0f19690101000000Z",
            b"\x17\x01Z",
        ] {
            assert_eq!(read(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, at in 0..400usize, byte: u8) {
            let _ = (signature_hash(&bytes), validity(&bytes));
            let mut certificate = CertificateDer::from_pem_file(fixtures::tls::CERTIFICATE).unwrap().to_vec();
            if let Some(place) = certificate.get_mut(at) {
                *place = byte;
            }
            let _ = (signature_hash(&certificate), validity(&certificate));
        }
    }
}
