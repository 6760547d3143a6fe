//! Values that fields of frames take: one, or one after the other, or at random.

use std::fmt;
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
        if self.random && (self.step != 1 || start != min) {
            return Err("random values have neither start nor step".into());
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
                (values, Some(step.trim().parse().map_err(|_| format!("{step:?} is no step"))?))
            }
            None => (values, None),
        };
        // An address alone may have hyphens of its own.
        let (first, range) = (number(values), values.split_once('-'));
        if first.is_ok() && (random || step.is_some()) {
            let what = if random { "`random`" } else { "a step" };
            return Err(format!(
                "{text:?}: {what} is of a range, and this is one value; expected something like {0}-{0}, {0}-{0}/2 or random {0}-{0}",
                T::EXAMPLE
            ));
        }
        let (Err(_), Some((min, max))) = (&first, range) else { return first.map(Range::one) };
        let step = step.unwrap_or(1);
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
        deserializer.deserialize_any(TextOrTable(Ok))
    }
}

/// What is said by text, or made of a range that a table has.
struct TextOrTable<T, N>(fn(Range<N>) -> Result<T, String>);

impl<'de, T: FromStr<Err = String>, N: Number> Visitor<'de> for TextOrTable<T, N> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a range such as \"FIRST-LAST\" or a table of min, max, start, step and random")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let Table { min, max, start, step, random } = Table::deserialize(MapAccessDeserializer::new(map))?;
        let value = |text: &Text| {
            let value = text.0.parse::<N>();
            value.map_err(|error| de::Error::custom(format!("{:?}: {error}", text.0)))
        };
        let (min, max) = (value(&min)?, value(&max)?);
        let start = start.as_ref().map_or(Ok(min), value)?;
        Range { min, max, start, step, random }.check().and_then(self.0).map_err(de::Error::custom)
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
        if !text.contains([':', ',']) {
            return text.parse().and_then(Sizes::of_range);
        }
        let part = |part: &str| {
            let (size, weight) = part.split_once(':').unwrap_or((part, "1"));
            let error = || format!("{part:?} is no length and weight; expected something like 64:7");
            let number = |text: &str| text.trim().parse().map_err(|_| error());
            let (size, weight) = (Sizes::checked(number(size)?)?, number(weight)?);
            if (1..=1000).contains(&weight) { Ok((size, weight)) } else { Err(error()) }
        };
        let parts = text.split(',').map(part).collect::<Result<Vec<_>, String>>()?;
        Ok(Sizes { order: spread(&parts), random: false })
    }
}

impl Sizes {
    fn checked(size: u16) -> Result<u16, String> {
        match SIZES.contains(&size) {
            true => Ok(size),
            false => {
                let (least, most) = (SIZES.start(), SIZES.end());
                Err(format!("a frame of {size} bytes: with its check sequence it has {least} to {most}"))
            }
        }
    }

    /// As a field has a range's values: from the start to the last, and from the lowest that steps lead to.
    fn of_range(range: Range<u16>) -> Result<Sizes, String> {
        let Range { start, step, random, .. } = range;
        let (min, max) = (Sizes::checked(range.min)?, Sizes::checked(range.max)?);
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        let before = usize::from(start - min);
        let lowest = min + (before % step) as u16;
        let mut order: Vec<u16> = (lowest..=max).step_by(step).collect();
        order.rotate_left(before / step);
        Ok(Sizes { order, random })
    }
}

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sizes, D::Error> {
        deserializer.deserialize_any(TextOrTable(Sizes::of_range))
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
    fn a_step_or_random_without_a_range_is_refused_with_what_is_expected() {
        let error = "10.0.0.0/24".parse::<Range<IpAddr>>().expect_err("no range");
        assert_eq!(
            error,
            "\"10.0.0.0/24\": a step is of a range, and this is one value; expected something like 10.0.0.1-10.0.0.1, \
             10.0.0.1-10.0.0.1/2 or random 10.0.0.1-10.0.0.1"
        );
        let error = "random 10.0.0.1".parse::<Range<IpAddr>>().expect_err("no range");
        assert!(error.contains("`random` is of a range"), "{error}");
        for bad in ["80/2", "80/1", "random 80", "random 80/2"] {
            assert!(bad.parse::<Range<u16>>().is_err_and(|error| error.contains("is of a range")), "{bad}");
        }
        assert!("02-00-00-00-00-01/2".parse::<Range<MacAddr>>().is_err_and(|error| error.contains("a step")));
        assert!("64/2".parse::<Sizes>().is_err_and(|error| error.contains("a step is of a range")));
        let step = |text: &str| text.parse::<Range<IpAddr>>().map(|range| range.step);
        assert_eq!(step("10.0.0.0-10.0.0.255/24"), Ok(24));
        let error = "random 1-9/2".parse::<Range<u16>>().expect_err("no steps");
        assert!(error.contains("neither start nor step"), "{error}");
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
        let table = |text: &str| {
            let table =
                toml::from_str::<std::collections::BTreeMap<String, Sizes>>(&format!("size = {text}"));
            table.map(|table| table["size"].clone()).map_err(|error| error.to_string())
        };
        let order_of = |text: &str| table(text).map(|sizes| sizes.order);
        assert_eq!(order_of("{ min = 64, max = 80, start = 72, step = 4 }"), Ok(vec![72, 76, 80, 64, 68]));
        assert_eq!(order_of("{ min = 64, max = 80, start = 71, step = 5 }"), Ok(vec![71, 76, 66]));
        assert!(
            table("{ min = 64, max = 70, random = true }")
                .is_ok_and(|sizes| sizes.random && sizes.order.len() == 7)
        );
        assert!(table("{ min = 63, max = 70 }").is_err_and(|error| error.contains("a frame of 63 bytes")));
        assert!(
            table("{ min = 64, max = 70, start = 71 }").is_err_and(|error| error.contains("starts with one"))
        );
        assert_eq!((order_of("100"), order_of("\"64,128\"")), (Ok(vec![100]), Ok(vec![64, 128])));
        for bad in ["63", "9623", "64:0", "64:", "64:1,", "imixx", "64:1001"] {
            assert!(order(bad).is_err(), "{bad}");
        }
    }
}
