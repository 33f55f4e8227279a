//! How items wait in a queue: those of one severity in a lane, in the order in which they came. Most kinds of items wait
//! as they are; lines wait as bytes ([`LineLane`](crate::log::waiting::LineLane)).

use std::collections::VecDeque;

use super::queue::{BatchLimits, Item};

/// Items of one severity, each with its number among all of the queue.
pub(crate) trait Lane: Default + Send {
    /// What is handed to the queue.
    type Item<'a>: Item;
    /// Many of them, as the consumer gets them.
    type Batch;

    /// Puts an item behind the others.
    fn push(&mut self, number: u64, item: Self::Item<'_>);

    /// Number and bytes of the first item.
    fn first(&self) -> Option<(u64, usize)>;

    /// Throws the first item away.
    fn drop_first(&mut self);

    /// Moves to a batch what came before the item of this number, as long as there is room.
    fn take(&mut self, before: u64, room: &mut Room, batch: &mut Self::Batch);
}

/// What a batch has room for, and what it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    most: Size,
    pub(crate) taken: Size,
}

/// Of items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

impl Size {
    /// With one item more.
    pub(crate) fn and_one(self, bytes: usize) -> Self {
        let (items, bytes) = (self.items + 1, self.bytes + bytes);
        Self { items, bytes }
    }

    /// With so much less.
    pub(crate) fn without(self, taken: Self) -> Self {
        let (items, bytes) = (self.items - taken.items, self.bytes - taken.bytes);
        Self { items, bytes }
    }

    pub(crate) fn fits(self, most: Self) -> bool {
        self.items <= most.items && self.bytes <= most.bytes
    }

    /// Whether it is as much as `enough`, in items or in bytes.
    pub(crate) fn reaches(self, enough: Self) -> bool {
        self.items >= enough.items || self.bytes >= enough.bytes
    }
}

impl Room {
    pub(crate) fn new(limits: BatchLimits) -> Self {
        let BatchLimits { items, bytes, .. } = limits;
        Self {
            most: Size { items, bytes },
            taken: Size::default(),
        }
    }

    /// Takes room for items if there is any; for one there always is when nothing was taken.
    pub(crate) fn take(&mut self, size: Size) -> bool {
        let items = self.taken.items + size.items;
        let bytes = self.taken.bytes + size.bytes;
        let fits = Size { items, bytes }.fits(self.most);
        if fits || items == 1 {
            self.taken = Size { items, bytes };
        }
        fits || items == 1
    }
}

impl<T: Item + Send> Lane for VecDeque<(u64, T)> {
    type Item<'a> = T;
    type Batch = Vec<T>;

    fn push(&mut self, number: u64, item: T) {
        self.push_back((number, item));
    }

    fn first(&self) -> Option<(u64, usize)> {
        self.front().map(|(number, item)| (*number, item.bytes()))
    }

    fn drop_first(&mut self) {
        self.pop_front();
    }

    fn take(&mut self, before: u64, room: &mut Room, batch: &mut Vec<T>) {
        while let Some((number, bytes)) = self.first()
            && number < before
            && room.take(Size { items: 1, bytes })
        {
            batch.extend(self.pop_front().map(|(_, item)| item));
        }
    }
}
