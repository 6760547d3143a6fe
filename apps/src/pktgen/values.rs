//! Values that fields of frames take: one, or one after the other, or at random.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;

use pagewire_ethdev::MacAddr;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// What can be counted up.
pub(super) trait Number: FromStr<Err: fmt::Display> + Copy {
    /// What an example looks like.
    const EXAMPLE: &'static str;

    fn bits(self) -> u128;
}

impl Number for u16 {
    const EXAMPLE: &'static str = "80";

    fn bits(self) -> u128 {
        self.into()
    }
}

impl Number for MacAddr {
    const EXAMPLE: &'static str = "02:00:00:00:00:01";

    fn bits(self) -> u128 {
        self.0.iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte))
    }
}

impl Number for IpAddr {
    const EXAMPLE: &'static str = "10.0.0.1";

    fn bits(self) -> u128 {
        match self {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => address.to_bits(),
        }
    }
}

/// A value, or those from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range<T> {
    pub(super) min: T,
    pub(super) max: T,
    /// The first of them.
    pub(super) start: T,
    /// From one to the next.
    pub(super) step: u64,
    /// Not in order.
    pub(super) random: bool,
}

impl<T: Copy> Range<T> {
    pub(super) fn one(value: T) -> Range<T> {
        Range { min: value, max: value, start: value, step: 1, random: false }
    }
}

impl<T: Number> Range<T> {
    /// Whether there is more than one.
    pub(super) fn varies(&self) -> bool {
        self.min.bits() != self.max.bits()
    }

    fn check(self) -> Result<Range<T>, String> {
        let [min, max, start] = [self.min, self.max, self.start].map(T::bits);
        if min > max {
            return Err("the first of a range is above the last".into());
        }
        if !(min..=max).contains(&start) {
            return Err("a range starts with one of its values".into());
        }
        if self.step == 0 {
            return Err("a step of 0 leads nowhere".into());
        }
        // Only so much of an address is counted.
        if min >> 64 != max >> 64 {
            return Err("the values of a range differ in their last 64 bits only".into());
        }
        Ok(self)
    }
}

impl<T: Number> FromStr for Range<T> {
    type Err = String;

    /// `VALUE`, `FIRST-LAST`, `FIRST-LAST/STEP` or `random FIRST-LAST`.
    fn from_str(text: &str) -> Result<Range<T>, String> {
        let number = |text: &str| {
            text.trim().parse::<T>().map_err(|error| {
                format!(
                    "{text:?}: {error}; expected something like {0}, {0}-{0}, {0}-{0}/2 or random {0}-{0}",
                    T::EXAMPLE
                )
            })
        };
        let (random, values) = text.strip_prefix("random ").map_or((false, text), |values| (true, values));
        let (values, step) = match values.split_once('/') {
            Some((values, step)) => {
                (values, step.trim().parse().map_err(|_| format!("{step:?} is no step"))?)
            }
            None => (values, 1),
        };
        // An address alone may have hyphens of its own.
        if let (Ok(value), 1, false) = (number(values), step, random) {
            return Ok(Range::one(value));
        }
        let Some((min, max)) = values.split_once('-') else { return number(values).map(Range::one) };
        let (min, max) = (number(min)?, number(max)?);
        Range { min, max, start: min, step, random }.check()
    }
}

/// The same as a table.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    min: Text,
    max: Text,
    start: Option<Text>,
    #[serde(default = "one")]
    step: u64,
    #[serde(default)]
    random: bool,
}

fn one() -> u64 {
    1
}

/// A string, or a number for one.
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.into()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl<'de, T: Number> Deserialize<'de> for Range<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Range<T>, D::Error> {
        struct Any<T>(PhantomData<T>);
        impl<'de, T: Number> Visitor<'de> for Any<T> {
            type Value = Range<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a value, a range such as \"FIRST-LAST\" or a table of min, max, start, step and random",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Range<T>, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Range<T>, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Range<T>, A::Error> {
                let Table { min, max, start, step, random } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                let value = |text: &Text| {
                    let value = text.0.parse::<T>();
                    value.map_err(|error| de::Error::custom(format!("{:?}: {error}", text.0)))
                };
                let (min, max) = (value(&min)?, value(&max)?);
                let start = start.as_ref().map_or(Ok(min), value)?;
                Range { min, max, start, step, random }.check().map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Any(PhantomData))
    }
}

/// Lengths of frames with their check sequence, and how often each comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// In the order in which they come, or all that may.
    pub(super) order: Vec<u16>,
    pub(super) random: bool,
}

/// The shortest frame and the longest.
pub(super) const SIZES: std::ops::RangeInclusive<u16> = 64..=9622;

impl FromStr for Sizes {
    type Err = String;

    /// A length, `FIRST-LAST`, `FIRST-LAST/STEP`, `random FIRST-LAST`, `LENGTH:WEIGHT,…` or `imix`.
    fn from_str(text: &str) -> Result<Sizes, String> {
        let text = if text == "imix" { "64:7,594:4,1518:1" } else { text };
        let checked = |size: u16| match SIZES.contains(&size) {
            true => Ok(size),
            false => {
                let (least, most) = (SIZES.start(), SIZES.end());
                Err(format!("a frame of {size} bytes: with its check sequence it has {least} to {most}"))
            }
        };
        if !text.contains([':', ',']) {
            let range: Range<u16> = text.parse()?;
            checked(range.min)?;
            checked(range.max)?;
            let step = usize::try_from(range.step).unwrap_or(usize::MAX);
            return Ok(Sizes {
                order: (range.min..=range.max).step_by(step).collect(),
                random: range.random,
            });
        }
        let part = |part: &str| {
            let (size, weight) = part.split_once(':').unwrap_or((part, "1"));
            let error = || format!("{part:?} is no length and weight; expected something like 64:7");
            let number = |text: &str| text.trim().parse().map_err(|_| error());
            let (size, weight) = (checked(number(size)?)?, number(weight)?);
            if (1..=1000).contains(&weight) { Ok((size, weight)) } else { Err(error()) }
        };
        let parts = text.split(',').map(part).collect::<Result<Vec<_>, String>>()?;
        Ok(Sizes { order: spread(&parts), random: false })
    }
}

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sizes, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Each value as often as its weight says, as evenly as it goes.
fn spread(parts: &[(u16, u16)]) -> Vec<u16> {
    let total = parts.iter().map(|(_, weight)| i64::from(*weight)).sum();
    let mut credit: Vec<i64> = vec![0; parts.len()];
    let mut next = || {
        credit.iter_mut().zip(parts).for_each(|(credit, (_, weight))| *credit += i64::from(*weight));
        // The first of those that have waited longest.
        let most = (0..parts.len()).rev().max_by_key(|part| credit[*part]).unwrap_or(0);
        credit[most] -= total;
        parts[most].0
    };
    (0..total).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed() {
        let range = |text: &str| text.parse::<Range<u16>>();
        assert_eq!(range("80"), Ok(Range::one(80)));
        assert_eq!(range("1-9/2"), Ok(Range { min: 1, max: 9, start: 1, step: 2, random: false }));
        assert_eq!(range("random 1-9"), Ok(Range { min: 1, max: 9, start: 1, step: 1, random: true }));
        for bad in ["", "a", "9-1", "1-9/0", "1-70000", "-1", "1-", "random"] {
            assert!(range(bad).is_err(), "{bad}");
        }
        let macs: Range<MacAddr> = "02:00:00:00:00:01-02:00:00:00:00:ff".parse().unwrap();
        assert_eq!((macs.min.bits(), macs.max.bits()), (0x0200_0000_0001, 0x0200_0000_00ff));
        assert_eq!("02-00-00-00-00-01".parse::<Range<MacAddr>>().map(|range| range.varies()), Ok(false));
        assert!("10.0.0.1-10.0.0.9".parse::<Range<IpAddr>>().is_ok_and(|range| range.varies()));
        assert!("2001:db8::1-2001:db9::1".parse::<Range<IpAddr>>().is_err());
    }

    #[test]
    fn sizes_are_parsed_and_spread_evenly() {
        let order = |text: &str| text.parse::<Sizes>().map(|sizes| sizes.order);
        assert_eq!(order("64"), Ok(vec![64]));
        assert_eq!(order("64-70/3"), Ok(vec![64, 67, 70]));
        assert_eq!(order("64:2,128:1"), Ok(vec![64, 128, 64]));
        assert_eq!(order("64,128"), Ok(vec![64, 128]));
        let imix = order("imix").unwrap();
        let count = |size| imix.iter().filter(|other| **other == size).count();
        assert_eq!((count(64), count(594), count(1518), imix.len()), (7, 4, 1, 12));
        assert!(imix.windows(3).all(|three| three.contains(&64)), "{imix:?}");
        assert!(
            "random 64-1518".parse::<Sizes>().is_ok_and(|sizes| sizes.random && sizes.order.len() == 1455)
        );
        for bad in ["63", "9623", "64:0", "64:", "64:1,", "imixx", "64:1001"] {
            assert!(order(bad).is_err(), "{bad}");
        }
    }
}
