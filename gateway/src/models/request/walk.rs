//! Walking a body without building it: it may be large, and what it would become larger.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Outside;

/// The messages: how many, and whether one has a picture or text that the provider fetches.
#[derive(Default)]
pub(super) struct Messages {
    pub(super) count: usize,
    pub(super) fetches: bool,
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Messages;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of messages")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Messages, A::Error> {
                let mut out = Messages::default();
                while let Some(Fetches(one)) = all.next_element()? {
                    out.count += 1;
                    out.fetches |= one;
                }
                Ok(out)
            }
        }
        from.deserialize_seq(Each)
    }
}

/// The tools: how many, and what they make the provider do.
#[derive(Default)]
pub(super) struct Tools {
    pub(super) count: usize,
    pub(super) outside: Outside,
}

impl<'de> Deserialize<'de> for Tools {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Tool {
            #[serde(rename = "type")]
            kind: Option<String>,
        }
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Tools;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tools")
            }
            fn visit_unit<E>(self) -> Result<Tools, E> {
                Ok(Tools::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Tools, A::Error> {
                let mut out = Tools::default();
                while let Some(tool) = all.next_element::<Tool>()? {
                    out.count += 1;
                    out.outside.tool(tool.kind.as_deref().unwrap_or("custom"));
                }
                Ok(out)
            }
        }
        from.deserialize_any(Each)
    }
}

/// How many a list has.
pub(super) struct Count(pub(super) usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while all.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        from.deserialize_seq(Each)
    }
}

/// Whether a `source` somewhere in a value is an address, which the provider then fetches.
#[derive(Default)]
pub(super) struct Fetches(pub(super) bool);

impl<'de> Deserialize<'de> for Fetches {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Walk { in_source: false }).map(Self)
    }
}

/// Visits any JSON.
#[derive(Clone, Copy)]
struct Walk {
    in_source: bool,
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(one) = all.next_element_seed(Walk { in_source: false })? {
            found |= one;
        }
        Ok(found)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                // What a tool was called with is the caller's, and is fetched by nobody.
                "input" => {
                    members.next_value::<IgnoredAny>()?;
                }
                "url" if self.in_source => {
                    found = true;
                    {
                        members.next_value::<IgnoredAny>()?;
                    };
                }
                name => {
                    let in_source = name == "source";
                    found |= members.next_value_seed(Walk { in_source })?;
                }
            }
        }
        Ok(found)
    }
}
