//! What a request has the model's API fetch by itself: pages, images and documents by URL, MCP servers. A sandbox that
//! may reach nothing but models could otherwise tell any public host something through them.
//!
//! A request is read as the API reads it, and every occurrence of a key that is there twice counts: nobody knows which
//! one an upstream takes.

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Long bodies that are looked through at the same time, of all sandboxes.
pub(crate) const TURNS: usize = 2;
/// From so many bytes on, a body is looked through on a thread that may be busy for a while.
const LONG: usize = 256 << 10;

/// What may not be there, by the place that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// A tool of type `web_fetch_…`.
    Pages,
    /// A `source` of type `url`, of an image or a document.
    Source,
    /// An entry in `mcp_servers`.
    McpServers,
}

impl Fetch {
    /// As a client writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pages => "the tool `web_fetch`",
            Self::Source => "a `source` of type `url`",
            Self::McpServers => "`mcp_servers`",
        }
    }
}

/// Finds one, if the body has any.
///
/// # Errors
/// Words on why the body is not the JSON that models are asked with.
pub(crate) async fn find(body: &Bytes, turns: &Arc<Semaphore>) -> Result<Option<Fetch>, String> {
    if body.len() < LONG {
        return look(body);
    }
    let (body, turn) = (body.clone(), Arc::clone(turns).acquire_owned().await);
    let looked = tokio::task::spawn_blocking(move || {
        // Until it is over, though nobody may wait for it any more.
        let _turn = turn;
        look(&body)
    });
    looked.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn look(body: &[u8]) -> Result<Option<Fetch>, String> {
    if body.is_empty() {
        return Ok(None);
    }
    let found = Cell::new(None);
    let mut json = serde_json::Deserializer::from_slice(body);
    let looked = Look { place: Place::Request, found: &found }.deserialize(&mut json);
    match found.get() {
        // Nothing was read behind it.
        Some(fetch) => Ok(Some(fetch)),
        None => looked.and_then(|()| json.end()).map(|()| None).map_err(|error| error.to_string()),
    }
}

/// Where in a request a value stands. A list stands where its elements do.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The request itself.
    Request,
    Message,
    /// Content: text, or blocks that may hold others.
    Block,
    Source,
    SourceType,
    Tool,
    /// A tool that is made known by a message.
    AddedTool,
    ToolType,
    McpServer,
    /// Somewhere that names nothing to be fetched: schemas, inputs of tools, words.
    Elsewhere,
}

impl Place {
    /// The place of an object's field.
    fn field(self, key: &str) -> Self {
        match (self, key) {
            (Self::Request, "messages") => Self::Message,
            (Self::Request, "system") | (Self::Message | Self::Block | Self::Source, "content") => {
                Self::Block
            }
            (Self::Request, "tools") => Self::Tool,
            (Self::Request, "mcp_servers") => Self::McpServer,
            (Self::Block, "source") => Self::Source,
            (Self::Source, "type") => Self::SourceType,
            (Self::Block, "tool_changes") => Self::Block,
            (Self::Block | Self::AddedTool, "tool") => Self::AddedTool,
            (Self::Block | Self::AddedTool, "definition") => Self::Tool,
            (Self::Tool, "type") => Self::ToolType,
            _ => Self::Elsewhere,
        }
    }

    /// What a text in this place has fetched.
    fn names(self, text: &str) -> Option<Fetch> {
        match self {
            Self::SourceType if text == "url" => Some(Fetch::Source),
            Self::ToolType if text.starts_with("web_fetch") => Some(Fetch::Pages),
            _ => None,
        }
    }
}

/// Looks at a value.
#[derive(Clone, Copy)]
struct Look<'a> {
    place: Place,
    found: &'a Cell<Option<Fetch>>,
}

impl Look<'_> {
    /// Ends reading: one is enough.
    fn stop<E: de::Error>(self, fetch: Fetch) -> Result<(), E> {
        self.found.set(Some(fetch));
        Err(E::custom("something to fetch"))
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        match self.place {
            // Passed over as it is: nothing in it is copied, and it may be nested as deep as it likes.
            Place::Elsewhere => value.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => value.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request to a model")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        if matches!(self.place, Place::McpServer) {
            return self.stop(Fetch::McpServers);
        }
        while let Some(place) = map.next_key_seed(Key(self.place))? {
            map.next_value_seed(Self { place, ..self })?;
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.place.names(text).map_or(Ok(()), |fetch| self.stop(fetch))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}

/// A key, taken for the place that it leads to.
struct Key(Place);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Place;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Place, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Place, E> {
        Ok(self.0.field(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> Option<Fetch> {
        look(body.as_bytes()).unwrap()
    }

    #[test]
    fn what_the_api_would_fetch_is_found_wherever_it_stands() {
        let block = |block: &str| format!(r#"{{"messages":[{{"role":"user","content":[{block}]}}]}}"#);
        let image = r#"{"type":"image","source":{"type":"url","url":"https://example.com/?x"}}"#;
        for inside in [
            image.to_owned(),
            image.replace("url", "\\u0075rl"),
            image.replace("source", "s\\u006furce"),
            image.replace(r#""type":"url""#, r#""type":"url","type":"base64""#),
            image.replace(r#""type":"url""#, r#""type":"base64","type":"url""#),
            format!(
                r#"{{"type":"tool_result","tool_use_id":"t","content":[{{"type":"text","text":""}},{image}]}}"#
            ),
            format!(r#"{{"type":"document","source":{{"type":"content","content":[{image}]}}}}"#),
            format!(r#"{{"content":[{{"content":{image}}}],"content":[]}}"#),
        ] {
            assert_eq!(found(&block(&inside)), Some(Fetch::Source), "{inside}");
        }
        assert_eq!(found(&format!(r#"{{"system":[{image}]}}"#)), Some(Fetch::Source));
        assert_eq!(found(r#"{"tools":[{"name":"x"},{"type":"web_fetch_20250910"}]}"#), Some(Fetch::Pages));
        assert_eq!(
            found(r#"{"tools":[],"tools":[{"type":"web_fetch_20990101"}],"tools":[]}"#),
            Some(Fetch::Pages)
        );
        assert_eq!(
            found(r#"{"mcp_servers":[{"type":"url","url":"https://example.com"}]}"#),
            Some(Fetch::McpServers)
        );
        assert_eq!(found(r#"{"mcp_servers":{}}"#), Some(Fetch::McpServers));
        let added = r#"{"type":"tool_addition","tool":{"type":"tool_definition",
            "definition":{"type":"web_fetch_20260318"}}}"#;
        assert_eq!(found(&block(added)), Some(Fetch::Pages));
        let compacted = format!(r#"{{"type":"compaction","content":"…","tool_changes":[{added}]}}"#);
        assert_eq!(found(&block(&compacted)), Some(Fetch::Pages));
        // What stands behind it is not read.
        assert_eq!(found(r#"{"mcp_servers":[{"type":"url"},nonsense"#), Some(Fetch::McpServers));
    }

    #[test]
    fn what_only_looks_like_it_is_not() {
        for body in [
            r#"{"messages":[{"role":"user","content":"{\"type\":\"url\"} web_fetch mcp_servers"}]}"#,
            r#"{"messages":[{"content":[{"type":"tool_use","input":{"source":{"type":"url"}}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"image","source":{"type":"base64","data":"url"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"search_result","source":"https://example.com"}]}]}"#,
            r#"{"tools":[{"name":"web_fetch","input_schema":{"properties":{"type":{"type":"url"}}}}]}"#,
            r#"{"messages":[{"role":"system","content":[{"type":"tool_addition","tool":{"type":"tool_definition",
                "definition":{"name":"web_fetch","input_schema":{"type":"object"}}}}]}]}"#,
            r#"{"tools":[{"type":"web_search_20250305"},{"type":"code_execution_20250825"}]}"#,
            r#"{"mcp_servers":[],"metadata":{"mcp_servers":[{}]},"max_tokens":1.5,"stream":true,"stop":null}"#,
            "",
            r"[]",
            r"7",
        ] {
            assert_eq!(found(body), None, "{body}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_request() {
        let deep = format!(r#"{{"messages":{}{}}}"#, "[".repeat(500), "]".repeat(500));
        for body in [" ", "{", "{}{}", "\u{feff}{}", "a=b", r#"{"tools":[{"type":"\ud800"}]}"#, &deep] {
            assert!(look(body.as_bytes()).is_err(), "{body}");
        }
        assert!(look(b"{\"messages\":\"\xff\"}").is_err());
        // Where nothing is looked at, anything may stand.
        let schema = format!(r#"{{"tools":[{{"input_schema":{}{}}}]}}"#, "[".repeat(500), "]".repeat(500));
        assert_eq!(found(&schema), None);
        assert_eq!(found(r#"{"metadata":"\ud800"}"#), None);
    }
}
