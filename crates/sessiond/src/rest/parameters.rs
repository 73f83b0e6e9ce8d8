//! What may stand after the question mark: what the OpenAPI document names, and nothing else.

use super::problem::Problem;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

/// The names of each operation, by its path and method.
pub(super) type Known = Arc<HashMap<(String, Method), Vec<String>>>;

/// What a document names. Chats take what their clients send: they are made for those of others.
pub(super) fn known(document: &OpenApi) -> Known {
    let api = document.paths.paths.iter().filter(|(path, _)| path.starts_with("/api/"));
    let operations = api.flat_map(|(path, item)| {
        let of = [
            (Method::GET, &item.get),
            (Method::PUT, &item.put),
            (Method::POST, &item.post),
            (Method::DELETE, &item.delete),
            (Method::PATCH, &item.patch),
        ];
        of.into_iter()
            .filter_map(|(method, operation)| Some(((path.clone(), method), names(operation.as_ref()?))))
    });
    Arc::new(operations.collect())
}

fn names(operation: &Operation) -> Vec<String> {
    let parameters = operation.parameters.iter().flatten();
    let query = parameters.filter_map(|parameter| match parameter {
        RefOr::T(parameter) => (parameter.parameter_in == ParameterIn::Query).then(|| parameter.name.clone()),
        RefOr::Ref(_) => None,
    });
    query.collect()
}

/// Refuses parameters that an operation does not know.
pub(super) async fn refuse_unknown(State(known): State<Known>, request: Request, next: Next) -> Response {
    match unknown(&known, &request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn unknown(known: &Known, request: &Request) -> Option<Problem> {
    let path = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let names = known.get(&(path, method))?;
    let given = form_urlencoded::parse(request.uri().query()?.as_bytes());
    let (name, _) = given.into_iter().find(|(name, _)| !names.iter().any(|known| known == name))?;
    let shown: String = name.chars().take(100).collect();
    let expected = match names.as_slice() {
        [] => "this takes no parameters".to_owned(),
        names => format!("expected one of {}", names.join(", ")),
    };
    Some(Problem::invalid(&shown, format!("unknown parameter, {expected}")))
}
