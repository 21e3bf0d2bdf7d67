//! What is written as a text, in the document about the HTTP API.

use std::borrow::Cow;

use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::files::Sha256;
use crate::schedule::SkipReason;
use crate::{Timestamp, TraceParent};

fn text(what: &str, format: Option<KnownFormat>) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(what));
    let object: Object = text.format(format.map(SchemaFormat::KnownFormat)).build();
    RefOr::T(Schema::Object(object))
}

macro_rules! text {
    ($name:ident, $what:literal, $format:expr) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                text($what, $format)
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    };
}

text!(Timestamp, "A time, in UTC", Some(KnownFormat::DateTime));
text!(TraceParent, "A span, as the header `traceparent` of W3C Trace Context", None);
text!(Sha256, "A digest, in hexadecimal digits", None);
text!(SkipReason, "Why an occurrence was skipped", None);
