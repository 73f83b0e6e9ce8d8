//! The REST API. Every handler asks the [`SessionHost`](hostel_session::SessionHost) and shows what it says.

mod app;
mod chat;
mod control;
mod describe;
mod events;
mod exec;
mod export;
mod files;
mod guard;
mod health;
mod input;
mod messages;
mod parameters;
mod permissions;
mod problem;
mod reply;
mod sessions;
mod socket;
mod sse;
mod turn;

pub(crate) use app::App;
pub(crate) use control::GRACE_MS;
pub(crate) use guard::guarded;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Every route, without guards.
pub(crate) fn router(app: App) -> Router {
    let (routes, document) = described().split_for_parts();
    let document = describe::finish(document);
    let known = parameters::known(&document);
    routes
        .layer(middleware::from_fn_with_state(known, parameters::refuse_unknown))
        .route("/api/openapi.json", get(move || describe::serve(document)))
        .route("/", get(describe::page))
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .with_state(app)
}

/// The OpenAPI document of the server, as it is served.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    describe::finish(described().into_openapi())
}

fn described() -> OpenApiRouter<App> {
    // What takes as long as it takes limits itself; all else has to answer soon.
    let slow = OpenApiRouter::new()
        .routes(routes!(messages::send))
        .routes(routes!(exec::exec))
        .routes(routes!(files::read, files::write))
        .routes(routes!(control::stop))
        .routes(routes!(control::interrupt))
        .routes(routes!(chat::begin))
        .routes(routes!(chat::send));
    let quick = OpenApiRouter::new()
        .routes(routes!(sessions::create, sessions::list))
        .routes(routes!(sessions::statistics))
        .routes(routes!(sessions::get, sessions::update, sessions::delete))
        .routes(routes!(sessions::terminate))
        .routes(routes!(sessions::load))
        .routes(routes!(sessions::unload))
        .routes(routes!(messages::queue))
        .routes(routes!(messages::cancel))
        .routes(routes!(messages::get))
        .routes(routes!(events::events))
        .routes(routes!(socket::open))
        .routes(routes!(control::status))
        .routes(routes!(control::force_kill))
        .routes(routes!(permissions::list))
        .routes(routes!(permissions::answer))
        .routes(routes!(files::list))
        .routes(routes!(files::workspace))
        .routes(routes!(export::export))
        .routes(routes!(chat::get))
        .routes(routes!(health::health))
        .routes(routes!(health::alive))
        .layer(middleware::from_fn(guard::answer_soon));
    slow.merge(quick)
}
