//! Numbers of audit log and flow history.

use super::exposition::Exposition;
use super::table as m;
use crate::domain::audit::Kind;
use crate::telemetry::{audit, history};

/// One series for each kind, those that are 0 included.
pub(super) fn write(
    exposition: &mut Exposition,
    audit: Option<&audit::Status>,
    history: Option<&history::Status>,
) {
    if let Some(audit) = audit {
        exposition.add(m::AUDIT_WRITABLE, &[], u64::from(audit.problem.is_none()));
        for kind in Kind::ALL {
            let count =
                |of: &std::collections::BTreeMap<Kind, u64>| of.get(&kind).copied().unwrap_or_default();
            exposition.add(m::AUDIT_RECORDS, &[kind.label()], count(&audit.written));
            exposition.add(m::AUDIT_LOST, &[kind.label()], count(&audit.lost));
        }
    }
    if let Some(history) = history {
        exposition.add(m::HISTORY_WRITABLE, &[], u64::from(history.problem.is_none()));
        for (outcome, count) in
            [("written", history.written), ("merged", history.merged), ("failed", history.failures)]
        {
            exposition.add(m::HISTORY_SAMPLES, &[outcome], count);
        }
        exposition.add(m::HISTORY_SET_ASIDE, &[], history.set_aside);
        exposition.add(m::HISTORY_BYTES, &[], history.size);
    }
}
