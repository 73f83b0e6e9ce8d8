//! The OpenAPI document, and a page for people.

use super::problem::ProblemBody;
use super::reply::Done;
use axum::Json;
use axum::response::{Html, IntoResponse, Response};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Required,
    ResponseBuilder, Type,
};
use utoipa::{PartialSchema as _, ToSchema as _};

/// Puts in what holds of every operation: parameters of paths, problems, tokens.
pub(super) fn finish(mut document: OpenApi) -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    document.info = InfoBuilder::new()
        .title("Hostel sessions")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Agent sessions in sandboxes: create, talk, watch, stop."))
        .license(Some(license))
        .build();
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            operation.parameters.get_or_insert_default().extend(parameters(path));
            // Nothing is as good as an empty object, and where that says too little it is refused.
            if let Some(RefOr::T(body)) = &mut operation.request_body
                && body.content.contains_key("application/json")
            {
                body.required = Some(Required::False);
            }
            operation.responses.responses.insert("default".to_owned(), RefOr::T(problem()));
            shorten(operation);
        }
    }
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert(ProblemBody::name().into_owned(), ProblemBody::schema());
    // The last frame of a message's stream.
    components.schemas.insert(Done::name().into_owned(), Done::schema());
    let bearer = Http::builder().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    // With or without: a server on loopback may have no tokens.
    document.security =
        Some(vec![SecurityRequirement::default(), SecurityRequirement::new("token", Vec::<String>::new())]);
    document
}

/// The parameters that a path has in braces.
fn parameters(path: &str) -> Vec<RefOr<Parameter>> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let text = || ObjectBuilder::new().schema_type(Type::String).build();
    names
        .map(|name| {
            RefOr::T(
                ParameterBuilder::new()
                    .name(name)
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .schema(Some(text()))
                    .build(),
            )
        })
        .collect()
}

fn problem() -> utoipa::openapi::Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemBody::name()))).build();
    ResponseBuilder::new()
        .description("Why it was refused (RFC 9457)")
        .content("application/problem+json", body)
        .build()
}

/// The first line of a handler's comment is its summary; what stands below tells more.
fn shorten(operation: &mut Operation) {
    if operation.description == operation.summary {
        operation.description = None;
    }
}

/// The document.
pub(super) async fn serve(document: OpenApi) -> Response {
    Json(document).into_response()
}

/// A page for people who come by with a browser.
pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}
