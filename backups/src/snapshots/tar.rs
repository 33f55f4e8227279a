//! Tar archives as POSIX has them (pax interchange format): what `dump` writes for a directory. Only headers; no reader.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::repo::{Node, NodeKind};

const BLOCK: usize = 512;

/// Two empty blocks end an archive.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// What follows content of this length, up to the next block.
pub(super) fn padding(length: u64) -> &'static [u8] {
    let over = (length % BLOCK as u64) as usize;
    if over == 0 { &[] } else { &END[..BLOCK - over] }
}

/// The header of a node, with a pax header before it for whatever the old fields cannot say. `None` for sockets and
/// what is unknown, which archives cannot hold.
pub(crate) fn header(name: &Path, node: &Node) -> Option<Vec<u8>> {
    let mut path = name.as_os_str().as_bytes().to_vec();
    let kind = match node.kind {
        NodeKind::File => b'0',
        NodeKind::Symlink => b'2',
        NodeKind::Chardev => b'3',
        NodeKind::Dev => b'4',
        NodeKind::Dir => b'5',
        NodeKind::Fifo => b'6',
        NodeKind::Socket | NodeKind::Unknown => return None,
    };
    if node.kind == NodeKind::Dir {
        path.push(b'/');
    }
    let link = if node.kind == NodeKind::Symlink {
        node.link_target().as_bytes()
    } else {
        b""
    };
    let size = if node.kind == NodeKind::File { node.size } else { 0 };
    let mut records = Vec::new();
    if path.len() > 100 {
        record(&mut records, "path", &path);
    }
    if link.len() > 100 {
        record(&mut records, "linkpath", link);
    }
    if size >= 1 << 33 {
        record(&mut records, "size", size.to_string().as_bytes());
    }
    let (seconds, nanoseconds) = (node.mtime.as_second(), node.mtime.subsec_nanosecond());
    if nanoseconds != 0 || !(0..1 << 33).contains(&seconds) {
        record(&mut records, "mtime", decimal(node.mtime.as_nanosecond()).as_bytes());
    }
    for (key, number) in [("uid", node.uid), ("gid", node.gid)] {
        if number >= 1 << 21 {
            record(&mut records, key, number.to_string().as_bytes());
        }
    }
    let mut out = Vec::new();
    if !records.is_empty() {
        out.extend(block(
            b"pax",
            b"",
            b'x',
            records.len() as u64,
            0,
            &Node::new("pax", NodeKind::File, 0o644),
        ));
        out.extend_from_slice(&records);
        out.extend_from_slice(padding(records.len() as u64));
    }
    out.extend(block(&path, link, kind, size, seconds.max(0).cast_unsigned(), node));
    Some(out)
}

/// Seconds with nine digits after the point.
fn decimal(nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let nanoseconds = nanoseconds.unsigned_abs();
    format!(
        "{sign}{}.{:09}",
        nanoseconds / 1_000_000_000,
        nanoseconds % 1_000_000_000
    )
}

/// `length key=value\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn block(path: &[u8], link: &[u8], kind: u8, size: u64, mtime: u64, node: &Node) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    text(&mut block[0..100], path);
    octal(&mut block[100..108], node.permissions().into());
    octal(&mut block[108..116], node.uid.into());
    octal(&mut block[116..124], node.gid.into());
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], mtime);
    block[156] = kind;
    text(&mut block[157..257], link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    text(&mut block[265..296], node.user.as_bytes());
    text(&mut block[297..328], node.group.as_bytes());
    // The device number as Linux packs it into 64 bits.
    octal(&mut block[329..337], (node.device >> 8) & 0xfff);
    octal(
        &mut block[337..345],
        (node.device & 0xff) | ((node.device >> 12) & 0xf_ff00),
    );
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

fn text(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Octal digits and a zero byte. Too large a number is cut, and then said by a pax record.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let value = value & ((1 << (3 * digits)) - 1);
    field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        let (short, long) = ("y".repeat(90), "y".repeat(91));
        let expected = [
            ("x", "9 path=x\n".to_owned()),
            ("12", "11 path=12\n".to_owned()),
            (&short, format!("99 path={short}\n")),
            (&long, format!("101 path={long}\n")),
        ];
        for (value, expected) in expected {
            let mut records = Vec::new();
            record(&mut records, "path", value.as_bytes());
            assert_eq!(records, expected.as_bytes());
        }
    }

    #[test]
    fn times_before_the_epoch_are_decimal() {
        assert_eq!(decimal(-1), "-0.000000001");
        assert_eq!(decimal(1_500_000_000), "1.500000000");
    }
}
