//! Map and set as sorted vectors, for few keys (interfaces, settings, clients) that are mostly inserted in order. They
//! replace the standard library's B-tree because that adds 5 KB to the binary for each pair of types, ten times as
//! much as these. For thousands of keys in random order the B-tree is still the better choice.

use std::borrow::Borrow;
use std::mem;
use std::ops::Range;

use serde::{Serialize, Serializer};

/// Replacement for `BTreeMap`. Insertion and removal move all later pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map<K, V>(Vec<(K, V)>);

/// Replacement for `BTreeSet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<K>(Map<K, ()>);

/// The position of one key.
pub struct Entry<'a, K, V> {
    map: &'a mut Map<K, V>,
    /// `Ok` with the index of the key, `Err` with the index at which it would be inserted.
    at: Result<usize, usize>,
    key: K,
}

impl<K: Ord, V> Map<K, V> {
    pub const fn new() -> Map<K, V> {
        Map(Vec::new())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| &self.0[at].1)
    }

    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| &mut self.0[at].1)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        let at = self.find(&key);
        Entry { map: self, at, key }
    }

    /// Returns the previous value.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| self.0.remove(at).1)
    }

    /// Removes the pairs with smaller keys than `key`, in ascending order.
    pub fn drain_below(&mut self, key: &K) -> impl Iterator<Item = (K, V)> {
        let end = self.0.partition_point(|(other, _)| other < key);
        self.0.drain(..end)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.0.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.0.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    pub fn range(&self, keys: Range<K>) -> impl Iterator<Item = (&K, &V)> {
        let from = self.0.partition_point(|(key, _)| *key < keys.start);
        self.0[from..].iter().take_while(move |(key, _)| *key < keys.end).map(|(key, value)| (key, value))
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        // Most keys are inserted in ascending order.
        match self.0.last() {
            Some((last, _)) if last.borrow() < key => Err(self.0.len()),
            _ => self.0.binary_search_by(|(other, _)| other.borrow().cmp(key)),
        }
    }
}

impl<'a, K: Ord, V> Entry<'a, K, V> {
    pub fn or_insert(self, value: V) -> &'a mut V {
        let vector = &mut self.map.0;
        let at = self.at.unwrap_or_else(|at| {
            vector.insert(at, (self.key, value));
            at
        });
        &mut vector[at].1
    }

    pub fn or_default(self) -> &'a mut V
    where
        V: Default,
    {
        self.or_insert(V::default())
    }
}

impl<K: Ord> Set<K> {
    pub const fn new() -> Set<K> {
        Set(Map::new())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// Returns whether the key is new.
    pub fn insert(&mut self, key: K) -> bool {
        self.0.insert(key, ()).is_none()
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.remove(key).is_some()
    }

    /// Removes the keys smaller than `key`, in ascending order.
    pub fn drain_below(&mut self, key: &K) -> impl Iterator<Item = K> {
        self.0.drain_below(key).map(|(key, ())| key)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.0.keys()
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Map<K, V> {
        Map(Vec::new())
    }
}

impl<K> Default for Set<K> {
    fn default() -> Set<K> {
        Set(Map::default())
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Map<K, V> {
        let mut map = Map::default();
        map.extend(pairs);
        map
    }
}

impl<K: Ord, V> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(pairs: [(K, V); N]) -> Map<K, V> {
        pairs.into_iter().collect()
    }
}

impl<K: Ord> FromIterator<K> for Set<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Set<K> {
        Set(keys.into_iter().map(|key| (key, ())).collect())
    }
}

impl<K: Ord> Extend<K> for Set<K> {
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        self.0.extend(keys.into_iter().map(|key| (key, ())));
    }
}

impl<K, V> IntoIterator for Map<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<K> IntoIterator for Set<K> {
    type Item = K;
    type IntoIter = std::iter::Map<std::vec::IntoIter<(K, ())>, fn((K, ())) -> K>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(|(key, ())| key)
    }
}

impl<'a, K> IntoIterator for &'a Set<K> {
    type Item = &'a K;
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (K, ())>, fn(&'a (K, ())) -> &'a K>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.0.iter().map(|(key, ())| key)
    }
}

impl<K: Serialize + Ord, V: Serialize> Serialize for Map<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// 20 runs of 300 random operations on few keys, compared after each.
    #[test]
    fn a_map_behaves_like_a_b_tree_map() {
        for seed in 1..=20u64 {
            let mut random = seed;
            let mut next = move |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let (mut map, mut tree) = (Map::new(), BTreeMap::new());
            for step in 0..300 {
                let key = next(20);
                match next(8) {
                    0 | 1 => assert_eq!(map.insert(key, step), tree.insert(key, step)),
                    2 => assert_eq!(map.remove(&key), tree.remove(&key)),
                    3 => {
                        *map.entry(key).or_default() += step;
                        *tree.entry(key).or_default() += step;
                    }
                    4 => assert_eq!(map.get(&key), tree.get(&key)),
                    5 => assert_eq!(map.entry(key).or_insert(step), tree.entry(key).or_insert(step)),
                    6 => assert!(map.range(key..key + 5).eq(tree.range(key..key + 5))),
                    _ if step % 9 == 0 => {
                        let above = tree.split_off(&key);
                        assert!(map.drain_below(&key).eq(mem::replace(&mut tree, above)));
                    }
                    _ => {
                        map.retain(|key, value| (*key + *value) % 7 != 0);
                        tree.retain(|key, value| (*key + *value) % 7 != 0);
                    }
                }
                assert!(map.iter().eq(tree.iter()), "seed {seed}, step {step}: {map:?} {tree:?}");
            }
            let (set, tree): (Set<u64>, BTreeSet<u64>) = (map.keys().copied().collect(), tree.into_keys().collect());
            assert!(set.iter().eq(tree.iter()));
            assert_eq!(set.contains(&3), tree.contains(&3));
        }
    }

    #[test]
    fn a_map_is_an_object_in_json() {
        let map = Map::from([("b".to_string(), 1), ("a".to_string(), 2), ("b".to_string(), 3)]);
        assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"a":2,"b":3}"#);
    }
}
