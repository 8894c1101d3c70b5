//! Lists of things to measure that have a name.

use std::str::FromStr;

use crate::BenchError;

/// A list under a name.
#[derive(Debug)]
pub struct Named<T: 'static> {
    /// The name, as the command line takes it.
    pub name: &'static str,
    /// What is in it.
    pub about: &'static str,
    /// Its items.
    pub items: &'static [T],
}

/// The names of all lists, for messages.
#[must_use]
pub fn names<T>(lists: &[Named<T>]) -> String {
    let names: Vec<_> = lists.iter().map(|list| list.name).collect();
    names.join(", ")
}

/// The names of all lists with what is in them, for help.
#[must_use]
pub fn about<T>(lists: &[Named<T>]) -> Vec<(&'static str, &'static str)> {
    lists.iter().map(|list| (list.name, list.about)).collect()
}

/// Reads names and items with commas between; one that comes twice is kept once.
///
/// # Errors
///
/// What the item's own reading gives for a part that is neither.
pub fn parse<T>(text: &str, lists: &[Named<T>]) -> Result<Vec<T>, BenchError>
where
    T: Copy + PartialEq + FromStr<Err = BenchError>,
{
    let mut items = Vec::new();
    for part in text.split(',').map(str::trim) {
        let more = match lists.iter().find(|list| list.name == part) {
            Some(list) => list.items.to_vec(),
            None => vec![part.parse()?],
        };
        for item in more {
            if !items.contains(&item) {
                items.push(item);
            }
        }
    }
    Ok(items)
}
