//! A dense table of values by number, in pages: growing copies nothing, holds no room for more than a page, and gives the
//! pages of a crowd back when it has gone. The free places of the first pages are taken first, so that later ones empty.

use std::collections::BTreeSet;

/// Values in a page.
const PAGE: usize = 64;

/// Values by number. A number is that of one value, until the value is removed.
#[derive(Debug)]
pub struct Pages<T> {
    pages: Vec<Page<T>>,
    /// Pages that are there and have a free place.
    with_room: BTreeSet<u32>,
    /// Places in the vector whose page was given back, and may be there again.
    unused: BTreeSet<u32>,
    len: usize,
}

#[derive(Debug)]
struct Page<T> {
    /// [`PAGE`] of them, or none.
    places: Box<[Option<T>]>,
    taken: u32,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { places: Box::default(), taken: 0 }
    }
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), with_room: BTreeSet::new(), unused: BTreeSet::new(), len: 0 }
    }
}

impl<T> Pages<T> {
    /// Keep `value`; its number from now on.
    ///
    /// # Panics
    ///
    /// Beyond 2^32 values.
    pub fn insert(&mut self, value: T) -> u32 {
        let page = self.with_room.first().or_else(|| self.unused.first()).copied();
        let page = page.unwrap_or_else(|| u32::try_from(self.pages.len()).expect("memory ends before numbers do"));
        let is_free = |place: &Option<T>| place.is_none();
        let place = self.pages.get(page as usize).map_or(0, |page| page.places.iter().position(is_free).unwrap_or(0));
        let no = page * PAGE as u32 + place as u32;
        self.put(no, value);
        no
    }

    /// Keep `value` by a number of the caller's choice, which must be free.
    pub fn put(&mut self, no: u32, value: T) {
        let (at, place) = split(no);
        while self.pages.len() <= at {
            self.unused.insert(self.pages.len() as u32);
            self.pages.push(Page::default());
        }
        let page = &mut self.pages[at];
        if page.places.is_empty() {
            page.places = std::iter::repeat_with(|| None).take(PAGE).collect();
            self.unused.remove(&(at as u32));
            self.with_room.insert(at as u32);
        }
        let before = page.places[place].replace(value);
        debug_assert!(before.is_none(), "the number {no} was taken");
        page.taken += 1;
        if page.taken as usize == PAGE {
            self.with_room.remove(&(at as u32));
        }
        self.len += 1;
    }

    /// Give up the value of that number, which is free then.
    pub fn remove(&mut self, no: u32) -> Option<T> {
        let (at, place) = split(no);
        let page = self.pages.get_mut(at)?;
        let value = page.places.get_mut(place)?.take()?;
        page.taken -= 1;
        self.len -= 1;
        if page.taken == 0 {
            page.places = Box::default();
            self.with_room.remove(&(at as u32));
            self.unused.insert(at as u32);
            while self.pages.last().is_some_and(|page| page.taken == 0) {
                self.pages.pop();
                self.unused.remove(&(self.pages.len() as u32));
            }
            if self.pages.capacity() > 16 + 4 * self.pages.len() {
                self.pages.shrink_to(2 * self.pages.len());
            }
        } else {
            self.with_room.insert(at as u32);
        }
        Some(value)
    }

    /// The value of that number.
    pub fn get(&self, no: u32) -> Option<&T> {
        let (at, place) = split(no);
        self.pages.get(at)?.places.get(place)?.as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, no: u32) -> Option<&mut T> {
        let (at, place) = split(no);
        self.pages.get_mut(at)?.places.get_mut(place)?.as_mut()
    }

    /// All of them with their numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let numbered = self.pages.iter().enumerate().flat_map(|(at, page)| {
            let first = (at * PAGE) as u32;
            page.places.iter().zip(first..)
        });
        numbered.filter_map(|(place, no)| Some((no, place.as_ref()?)))
    }

    /// All of them, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flat_map(|page| page.places.iter_mut()).flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn split(no: u32) -> (usize, usize) {
    (no as usize / PAGE, no as usize % PAGE)
}

impl<T> std::ops::Index<u32> for Pages<T> {
    type Output = T;

    fn index(&self, no: u32) -> &T {
        self.get(no).expect("a number that is in use has a value")
    }
}

impl<T> std::ops::IndexMut<u32> for Pages<T> {
    fn index_mut(&mut self, no: u32) -> &mut T {
        self.get_mut(no).expect("a number that is in use has a value")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn pages_agree_with_a_map(steps in vec((0..4u8, 0..400u32), 0..600)) {
            let (mut pages, mut model) = (Pages::default(), BTreeMap::new());
            for (step, no) in steps {
                match step {
                    0 | 1 => {
                        let no = pages.insert(no);
                        prop_assert!(model.insert(no, pages[no]).is_none());
                    }
                    2 if !model.contains_key(&no) => {
                        pages.put(no, no);
                        model.insert(no, no);
                    }
                    _ => prop_assert_eq!(pages.remove(no), model.remove(&no)),
                }
                prop_assert_eq!(pages.len(), model.len());
                prop_assert_eq!(pages.get(no), model.get(&no));
            }
            prop_assert_eq!(pages.iter().collect::<Vec<_>>(), model.iter().map(|(no, value)| (*no, value)).collect::<Vec<_>>());
            for no in model.into_keys() {
                pages.remove(no);
            }
            prop_assert!(pages.is_empty() && pages.pages.is_empty() && pages.with_room.is_empty() && pages.unused.is_empty());
        }
    }

    #[test]
    fn what_a_crowd_needed_is_given_back_and_numbers_stay_small() {
        let mut pages = Pages::default();
        let crowd: Vec<_> = (0..10_000).map(|no| pages.insert(no)).collect();
        assert_eq!(crowd, (0..10_000).collect::<Vec<_>>());
        for no in crowd.into_iter().filter(|no| *no != 5_000) {
            pages.remove(no);
        }
        assert_eq!(pages.pages.iter().filter(|page| !page.places.is_empty()).count(), 1);
        assert_eq!(pages.insert(0) / PAGE as u32, 5_000 / PAGE as u32, "where there is room already");
        assert_eq!(pages.len(), 2);
    }
}
