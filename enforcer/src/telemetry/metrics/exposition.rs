//! Series by metric, as text.

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as Distribution, LabelPair, Metric, MetricFamily, MetricType,
};

use super::histogram::Histogram;
use super::table::{Definition, Kind};

/// Series by metric, in the order of names.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    families: BTreeMap<&'static str, (&'static Definition, Vec<Metric>)>,
}

impl Exposition {
    /// Prometheus knows floating-point numbers only; above 2^53 they are no longer exact.
    #[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
    pub(super) fn add(&mut self, definition: &'static Definition, labels: &[&str], value: u64) {
        self.add_value(definition, labels, value as f64);
    }

    /// Adds a series of a counter or a gauge.
    pub(super) fn add_value(&mut self, definition: &'static Definition, labels: &[&str], value: f64) {
        let mut metric = labelled(definition, labels);
        if definition.kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.push(definition, metric);
    }

    /// Adds the series of a distribution: buckets, sum and count.
    #[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
    pub(super) fn add_histogram(
        &mut self,
        definition: &'static Definition,
        labels: &[&str],
        histogram: &Histogram,
    ) {
        let mut distribution = Distribution::default();
        let bucket = |(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        distribution.set_bucket(histogram.cumulative().map(bucket).collect());
        distribution.set_sample_count(histogram.count());
        distribution.set_sample_sum(histogram.microseconds as f64 / 1e6);
        let mut metric = labelled(definition, labels);
        metric.set_histogram(distribution);
        self.push(definition, metric);
    }

    fn push(&mut self, definition: &'static Definition, metric: Metric) {
        let family = self.families.entry(definition.name);
        family.or_insert_with(|| (definition, Vec::new())).1.push(metric);
    }

    /// The text.
    pub(super) fn encode(self) -> String {
        let families: Vec<MetricFamily> = self
            .families
            .into_values()
            .map(|(definition, metrics)| {
                let mut family = MetricFamily::default();
                family.set_name(definition.name.to_owned());
                family.set_help(definition.help.to_owned());
                family.set_field_type(match definition.kind {
                    Kind::Counter => MetricType::COUNTER,
                    Kind::Gauge => MetricType::GAUGE,
                    Kind::Histogram => MetricType::HISTOGRAM,
                });
                family.set_metric(metrics);
                family
            })
            .collect();
        // Families without a name or without series are what the encoder refuses, and there are none.
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

fn labelled(definition: &Definition, labels: &[&str]) -> Metric {
    debug_assert_eq!(definition.labels.len(), labels.len(), "{}", definition.name);
    let mut metric = Metric::default();
    let pairs = definition.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    metric.set_label(pairs.collect());
    metric
}
