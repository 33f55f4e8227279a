//! Extended attributes of files, and POSIX ACLs, which the kernel keeps as such: read from what is saved, set on what is
//! restored. Which of them is chosen by namespace. What a value means is not looked at, but for one thing: how much an
//! ACL grants the owning group.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::repo::ExtendedAttribute;

/// No value and no list of names is longer than this on Linux.
const LIMIT: usize = 64 << 10;

const ACCESS_ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";

/// Kinds of extended attributes that are saved and restored together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// `user.*`: what programs attach.
    User,
    /// POSIX ACLs.
    Acl,
    /// `security.*`: capabilities, labels of SELinux.
    Security,
    /// `trusted.*`: for root alone.
    Trusted,
}

impl Namespace {
    /// Every namespace with the word for it.
    pub const ALL: [(&'static str, Self); 4] = [
        ("user", Self::User),
        ("acl", Self::Acl),
        ("security", Self::Security),
        ("trusted", Self::Trusted),
    ];

    /// The namespace of an attribute; `None` for what belongs to the file system alone.
    pub fn of(attribute: &str) -> Option<Self> {
        match attribute.split_once('.')?.0 {
            "user" => Some(Self::User),
            "security" => Some(Self::Security),
            "trusted" => Some(Self::Trusted),
            _ if [ACCESS_ACL, DEFAULT_ACL].contains(&attribute) => Some(Self::Acl),
            _ => None,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        let known = Self::ALL.iter().find(|(_, namespace)| *namespace == self);
        known.map_or("", |(word, _)| word)
    }
}

/// Which extended attributes are meant. By default `user.*` and the ACLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces([bool; 4]);

impl Default for Namespaces {
    fn default() -> Self {
        [Namespace::User, Namespace::Acl].into_iter().collect()
    }
}

impl FromIterator<Namespace> for Namespaces {
    fn from_iter<T: IntoIterator<Item = Namespace>>(namespaces: T) -> Self {
        let mut chosen = [false; 4];
        for namespace in namespaces {
            chosen[namespace as usize] = true;
        }
        Self(chosen)
    }
}

impl Namespaces {
    /// These and one more.
    #[must_use]
    pub fn with(mut self, namespace: Namespace) -> Self {
        self.0[namespace as usize] = true;
        self
    }

    /// Whether an attribute of this name is meant.
    pub fn takes(self, attribute: &str) -> bool {
        Namespace::of(attribute).is_some_and(|namespace| self.0[namespace as usize])
    }

    fn are_none(self) -> bool {
        self.0 == [false; 4]
    }
}

/// What carries attributes.
#[derive(Clone, Copy)]
pub(crate) enum Carrier<'a> {
    /// Not followed if it is a symbolic link.
    Path(&'a Path),
    Open(BorrowedFd<'a>),
}

impl Carrier<'_> {
    /// The names; none where the file system has no attributes. They are bytes, and should be text.
    fn names(self) -> rustix::io::Result<Vec<Vec<u8>>> {
        let listed = grown(|buffer| match self {
            Self::Path(path) => rustix::fs::llistxattr(path, buffer),
            Self::Open(file) => rustix::fs::flistxattr(file, buffer),
        });
        match listed {
            Err(Errno::NOTSUP | Errno::NOSYS) => Ok(Vec::new()),
            listed => Ok(listed?
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
                .map(<[u8]>::to_vec)
                .collect()),
        }
    }

    fn value(self, name: &str) -> rustix::io::Result<Vec<u8>> {
        grown(|buffer| match self {
            Self::Path(path) => rustix::fs::lgetxattr(path, name, buffer),
            Self::Open(file) => rustix::fs::fgetxattr(file, name, buffer),
        })
    }

    fn set(self, attribute: &ExtendedAttribute) -> rustix::io::Result<()> {
        let (name, value) = (attribute.name.as_str(), attribute.value.as_slice());
        match self {
            Self::Path(path) => rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()),
            Self::Open(file) => rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()),
        }
    }

    fn remove(self, name: &str) -> rustix::io::Result<()> {
        match self {
            Self::Path(path) => rustix::fs::lremovexattr(path, name),
            Self::Open(file) => rustix::fs::fremovexattr(file, name),
        }
    }
}

/// Most attributes are short; long ones are asked for again.
fn grown(mut ask: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut short = [0; 512];
    match ask(&mut short) {
        Err(Errno::RANGE) => {
            let mut long = vec![0; LIMIT];
            let length = ask(&mut long)?;
            long.truncate(length);
            Ok(long)
        }
        asked => Ok(short[..asked?].to_vec()),
    }
}

/// Reads the attributes of these namespaces, sorted by name. The second list says what could not be read.
pub(crate) fn read(carrier: Carrier<'_>, namespaces: Namespaces) -> (Vec<ExtendedAttribute>, Vec<String>) {
    let (mut attributes, mut problems) = (Vec::new(), Vec::new());
    if namespaces.are_none() {
        return (attributes, problems);
    }
    let names = carrier.names().unwrap_or_else(|error| {
        problems.push(format!(
            "its extended attributes cannot be listed: {}",
            io::Error::from(error)
        ));
        Vec::new()
    });
    for name in names {
        let Ok(name) = String::from_utf8(name) else {
            problems.push("the name of an extended attribute is no text".to_owned());
            continue;
        };
        if !namespaces.takes(&name) {
            continue;
        }
        match carrier.value(&name) {
            Ok(value) => attributes.push(ExtendedAttribute { name, value }),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => problems.push(format!(
                "its extended attribute {name} was not saved: {}",
                io::Error::from(error)
            )),
        }
    }
    attributes.sort_by(|a, b| a.name.cmp(&b.name));
    (attributes, problems)
}

/// What has to be done to a carrier so that it has the attributes that it should have.
pub(crate) struct Changes<'a> {
    carrier: Carrier<'a>,
    set: Vec<&'a ExtendedAttribute>,
    remove: Vec<String>,
}

impl<'a> Changes<'a> {
    /// Compares. Attributes of other namespaces stay as they are.
    pub(crate) fn plan(carrier: Carrier<'a>, wanted: &'a [ExtendedAttribute], namespaces: Namespaces) -> Self {
        let mut changes = Self {
            carrier,
            set: wanted.iter().filter(|wanted| namespaces.takes(&wanted.name)).collect(),
            remove: Vec::new(),
        };
        if namespaces.are_none() {
            return changes;
        }
        for name in carrier.names().unwrap_or_default() {
            let Ok(name) = String::from_utf8(name) else { continue };
            if !namespaces.takes(&name) {
                continue;
            }
            match changes.set.iter().position(|wanted| wanted.name == name) {
                Some(at) if carrier.value(&name).is_ok_and(|value| value == changes.set[at].value) => {
                    changes.set.remove(at);
                }
                Some(_) => {}
                None => changes.remove.push(name),
            }
        }
        changes
    }

    pub(crate) fn are_none(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Carries them out, and says what could not be done.
    pub(crate) fn apply(self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut tell = |name: &str, outcome: rustix::io::Result<()>| {
            if let Err(error) = outcome {
                problems.push(format!(
                    "its extended attribute {name} was not restored: {}",
                    io::Error::from(error)
                ));
            }
        };
        for name in self.remove {
            match self.carrier.remove(&name) {
                Err(Errno::NODATA) => {}
                outcome => tell(&name, outcome),
            }
        }
        for attribute in self.set {
            tell(&attribute.name, self.carrier.set(attribute));
        }
        problems
    }
}

/// Whether a restore of these namespaces looks at an attribute of this name: an ACL that is not restored says what the
/// bits of the mode mean.
pub(crate) fn is_used(attribute: &str, namespaces: Namespaces) -> bool {
    attribute == ACCESS_ACL || namespaces.takes(attribute)
}

/// Whether an item lacks the ACL that it should have.
pub(crate) fn lacks_acl(carrier: Carrier<'_>, wanted: &[ExtendedAttribute]) -> bool {
    wanted.iter().any(|wanted| wanted.name == ACCESS_ACL) && carrier.value(ACCESS_ACL).is_err()
}

/// The bits `0o070` that an ACL grants the owning group itself. In the mode of a file with an ACL these bits are the mask,
/// which is what the most favoured may do: without the ACL they would grant the group more than it had.
pub(crate) fn group_bits(attributes: &[ExtendedAttribute]) -> Option<u32> {
    const VERSION: u32 = 2;
    const GROUP_OBJECT: u16 = 0x04;
    const MASK: u16 = 0x10;
    let acl = &attributes.iter().find(|attribute| attribute.name == ACCESS_ACL)?.value;
    let (version, entries) = acl.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION {
        return None;
    }
    let bits = |wanted: u16| {
        let mut entries = entries.chunks_exact(8);
        entries.find_map(|entry| {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            (tag == wanted).then(|| u32::from(u16::from_le_bytes([entry[2], entry[3]]) & 0o7))
        })
    };
    Some((bits(GROUP_OBJECT)? & bits(MASK).unwrap_or(0o7)) << 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_has_its_namespace() {
        for (attribute, namespace) in [
            ("user.note", Some(Namespace::User)),
            ("user.", Some(Namespace::User)),
            ("system.posix_acl_access", Some(Namespace::Acl)),
            ("system.posix_acl_default", Some(Namespace::Acl)),
            ("system.nfs4_acl", None),
            ("security.capability", Some(Namespace::Security)),
            ("trusted.overlay.opaque", Some(Namespace::Trusted)),
            ("user", None),
            ("", None),
        ] {
            assert_eq!(Namespace::of(attribute), namespace, "{attribute}");
        }
        let chosen = Namespaces::default();
        assert!(chosen.takes("user.x") && chosen.takes(ACCESS_ACL) && !chosen.takes("security.x"));
        assert!(chosen.with(Namespace::Security).takes("security.x"));
    }

    #[test]
    fn an_acl_says_what_the_group_may_do() {
        let acl = |entries: &[(u16, u16)]| {
            let mut value = 2_u32.to_le_bytes().to_vec();
            for (tag, bits) in entries {
                value.extend(tag.to_le_bytes());
                value.extend(bits.to_le_bytes());
                value.extend(u32::MAX.to_le_bytes());
            }
            vec![ExtendedAttribute {
                name: ACCESS_ACL.to_owned(),
                value,
            }]
        };
        assert_eq!(
            group_bits(&acl(&[(1, 6), (2, 7), (4, 0), (0x10, 7), (0x20, 0)])),
            Some(0)
        );
        assert_eq!(group_bits(&acl(&[(1, 6), (4, 6), (0x10, 4), (0x20, 0)])), Some(0o040));
        assert_eq!(group_bits(&acl(&[(1, 6), (4, 5), (0x20, 0)])), Some(0o050));
        assert_eq!(group_bits(&acl(&[])), None);
        assert_eq!(group_bits(&[]), None);
        for value in [vec![], vec![2], vec![9; 12], vec![2, 0, 0, 0, 4]] {
            let name = ACCESS_ACL.to_owned();
            assert_eq!(group_bits(&[ExtendedAttribute { name, value }]), None);
        }
    }
}
