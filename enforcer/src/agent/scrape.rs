//! What monitoring reads: the kernel's counters and the agent's own numbers, at the moment of the scrape.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::{SharedKernel, lock};
use crate::config::Config;
use crate::domain::edges::Edges;
use crate::domain::names::Names;
use crate::telemetry::metrics::{AgentSample, Exporter, Gauges, KernelSample, Options};
use crate::telemetry::{self, Pipeline};

/// Everything that a scrape reads.
pub(super) struct Scrape {
    pub(super) kernel: SharedKernel,
    pub(super) names: watch::Receiver<Arc<Names>>,
    pub(super) gauges: watch::Receiver<Gauges>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) malformed: Arc<AtomicU64>,
    pub(super) exporter: Exporter,
    pub(super) started: Instant,
}

/// An exporter as it is configured.
pub(super) fn exporter(config: &Config) -> Exporter {
    Exporter::new(Options {
        series: usize::try_from(config.metrics_series).unwrap_or(usize::MAX),
        labels: config.metrics_labels.clone(),
        name_labels: config.metrics_name_labels.clone(),
    })
}

impl Scrape {
    pub(super) fn text(&self) -> String {
        let sample = self
            .sample()
            .inspect_err(|error| tracing::warn!("a scrape without the kernel's counters: {error}"));
        // Names after counters: a number that was counted has its name by now.
        let names = Arc::clone(&self.names.borrow());
        let gauges = self.gauges.borrow().clone();
        let malformed = self.malformed.load(Ordering::Relaxed);
        let agent = AgentSample {
            names: &names,
            gauges: &gauges,
            read: self.pipeline.counts(),
            malformed,
            now: self.started.elapsed(),
        };
        self.exporter.render(sample.as_ref().ok(), agent)
    }

    /// Reads who talks with whom.
    pub(super) fn edges(
        self: Arc<Self>,
        config: &Config,
    ) -> Arc<dyn Fn() -> Result<Edges, String> + Send + Sync> {
        let labels = config.metrics_name_labels.clone();
        Arc::new(move || {
            let read = || {
                let kernel = lock(&self.kernel);
                Ok((kernel.counters()?, kernel.traffic()?))
            };
            let (counters, traffic) = read().map_err(|error: crate::kernel::Error| error.to_string())?;
            let names = Arc::clone(&self.names.borrow());
            Ok(telemetry::edges(&counters, &traffic, &names, &labels))
        })
    }

    fn sample(&self) -> Result<KernelSample, crate::kernel::Error> {
        let kernel = lock(&self.kernel);
        Ok(KernelSample {
            counters: kernel.counters()?,
            traffic: kernel.traffic()?,
            latency: kernel.latency()?,
            stats: kernel.stats()?,
            hooks: kernel.attached_hooks(),
            runs: kernel.runs(),
        })
    }
}
