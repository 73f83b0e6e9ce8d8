//! What the health service says of us (`grpc.health.v1`).

use hostel_proto::v1::file_service_server::SERVICE_NAME as FILES;
use hostel_proto::v1::network_service_server::SERVICE_NAME as NETWORKS;
use hostel_proto::v1::node_service_server::SERVICE_NAME as NODE;
use hostel_proto::v1::pool_service_server::SERVICE_NAME as POOLS;
use hostel_proto::v1::process_service_server::SERVICE_NAME as PROCESSES;
use hostel_proto::v1::sandbox_service_server::SERVICE_NAME as SANDBOXES;
use hostel_proto::v1::secret_service_server::SERVICE_NAME as SECRETS;
use hostel_proto::v1::template_service_server::SERVICE_NAME as TEMPLATES;
use hostel_proto::v1::usage_service_server::SERVICE_NAME as USAGE;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Our services, and the whole.
const SERVED: [&str; 10] =
    [SANDBOXES, PROCESSES, FILES, TEMPLATES, NODE, POOLS, NETWORKS, USAGE, SECRETS, ""];

/// The names of our services, and of the one that says how they are.
pub(crate) fn services() -> impl Iterator<Item = &'static str> {
    SERVED.into_iter().filter(|name| !name.is_empty()).chain(["grpc.health.v1.Health"])
}

/// All is well.
pub(crate) async fn serving(health: &HealthReporter) {
    for service in SERVED {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
}

/// It is over. Whoever watches is told and let go: their streams would keep the daemon until its patience ends.
pub(crate) async fn over(health: &mut HealthReporter) {
    for service in SERVED {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
        // For whoever asks on a connection that is still there.
        health.set_service_status(service, ServingStatus::NotServing).await;
    }
}
