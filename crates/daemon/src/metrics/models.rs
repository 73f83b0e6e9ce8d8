//! What the model gateway counted, at the moment of a scrape.

use super::collect::{Labels, counter, gauge};
use hostel_gateway::{BUCKETS_MICROS, Counters, Histogram};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::fmt::Error;

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, counters: &Counters) -> Result<(), Error> {
    let statuses: Vec<String> = counters.requests.keys().map(|kind| kind.status.to_string()).collect();
    let requests = counters.requests.iter().zip(&statuses).map(|((kind, count), status)| {
        let labels = vec![
            ("outcome", kind.outcome),
            ("status", status.as_str()),
            ("model", kind.model.as_str()),
            ("upstream", kind.upstream.as_str()),
        ];
        (labels, *count)
    });
    counter(encoder, "model_requests", "Requests to models that are over", requests.collect())?;
    let tokens = counters.tokens.iter().flat_map(|(model, tokens)| {
        let kinds = [
            ("input", tokens.input),
            ("output", tokens.output),
            ("cache_write_5m", tokens.cache_write_5m),
            ("cache_write_1h", tokens.cache_write_1h),
            ("cache_read", tokens.cache_read),
        ];
        kinds.map(|(kind, count)| (vec![("model", model.as_str()), ("kind", kind)], count))
    });
    counter(encoder, "model_tokens", "Tokens used", tokens.collect())?;
    let cost = labelled("model", &counters.cost_micros);
    counter(encoder, "model_cost_micros", "Money spent, in millionths of a US dollar", cost)?;
    let refused =
        counters.refusals.iter().map(|(reason, count)| (vec![("reason", *reason)], *count)).collect();
    counter(encoder, "model_refusals", "Requests that were not forwarded", refused)?;
    let retries = labelled("upstream", &counters.retries);
    counter(encoder, "model_retries", "Attempts beyond the first at the same upstream", retries)?;
    let failovers = labelled("upstream", &counters.failovers);
    counter(encoder, "model_failovers", "Times that the next upstream was tried", failovers)?;
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    let in_flight = vec![(Vec::new(), counters.in_flight as f64)];
    gauge(encoder, "model_in_flight", "Requests that are admitted and not over", in_flight)?;
    histogram(encoder, "model_admission", "From a request's arrival to its admission", &counters.admission)?;
    histogram(
        encoder,
        "model_first_byte",
        "From a request's arrival to the head of its answer",
        &counters.first_byte,
    )?;
    histogram(
        encoder,
        "model_duration",
        "From a request's arrival to the end of its answer",
        &counters.duration,
    )
}

fn labelled<'a>(label: &'static str, counts: &'a BTreeMap<String, u64>) -> Vec<(Labels<'a>, u64)> {
    counts.iter().map(|(name, count)| (vec![(label, name.as_str())], *count)).collect()
}

fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    histogram: &Histogram,
) -> Result<(), Error> {
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    let seconds = |micros: u64| micros as f64 / 1e6;
    let bounded = BUCKETS_MICROS.iter().zip(histogram.buckets).map(|(bound, count)| (seconds(*bound), count));
    let above = histogram.count - histogram.buckets.iter().sum::<u64>().min(histogram.count);
    let buckets: Vec<(f64, u64)> = bounded.chain([(f64::INFINITY, above)]).collect();
    let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    metric.encode_histogram::<NoLabelSet>(seconds(histogram.sum_micros), histogram.count, &buckets, None)
}
