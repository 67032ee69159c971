//! Series of workloads that come and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use enforcer_common::abi::flow::{FlowKey, Outcome, Traffic, TrafficKey};
use enforcer_common::abi::identity::Role;
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::Direction;
use proptest::prelude::*;

use super::super::ReadCounts;
use super::super::metrics::{AgentSample, Exporter, Gauges, KernelSample, Options};
use super::{WEB, names};
use crate::domain::SeriesLabel;
use crate::domain::names::Names;

/// The verdicts' share of ten series.
const PLACES: usize = 3;

struct Scene {
    exporter: Exporter,
    names: Names,
    rows: BTreeMap<u32, u64>,
    now: u64,
    ready: bool,
}

impl Scene {
    /// Nobody has counted anything, and that was told once.
    fn new(series: usize) -> Self {
        let mut scene = Self::untold(series);
        scene.look();
        scene
    }

    /// Nothing was told yet.
    fn untold(series: usize) -> Self {
        let options =
            Options { series, labels: SeriesLabel::ALL.to_vec(), name_labels: vec!["app".to_owned()] };
        Self {
            exporter: Exporter::new(options),
            names: Names::default(),
            rows: BTreeMap::new(),
            now: 0,
            ready: true,
        }
    }

    /// `identity` calls the world so often.
    fn count(&mut self, identity: u32, calls: u64) {
        *self.rows.entry(identity).or_default() += calls;
    }

    fn is_there(&mut self, identity: u32, is: bool) {
        let names = names();
        let of = |id| names.workloads.get(&IdentityId(id)).cloned().unwrap_or_default();
        let key = names.identities.get(&IdentityId(WEB)).cloned().unwrap();
        if !self.names.identities.contains_key(&IdentityId(identity)) {
            let mut key = (*key).clone();
            key.labels.0.insert("app".to_owned(), format!("w{identity}"));
            self.names.identities.insert_mut(IdentityId(identity), Arc::new(key));
        }
        if is {
            self.names.workloads.insert_mut(IdentityId(identity), of(WEB));
        } else {
            self.names.workloads.remove_mut(&IdentityId(identity));
        }
    }

    /// Series of verdicts by source, or by `_overflow`; and what has expired.
    fn look(&mut self) -> (BTreeMap<String, u64>, u64) {
        let base = FlowKey {
            subject: 0,
            peer: IdentityId::WORLD.0,
            rule: 0,
            port: 80,
            protocol: 6,
            reason: Reason::AllowedByDefault as u8,
            direction: Direction::Egress as u8,
            outcome: Outcome::Forwarded as u8,
            reserved: 0,
        };
        let counters =
            self.rows.iter().map(|(subject, count)| (FlowKey { subject: *subject, ..base }, *count));
        let kernel = KernelSample { counters: counters.collect(), ..KernelSample::default() };
        let text = self.text(&kernel);
        let mut series = BTreeMap::new();
        let mut expired = 0;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("enforcer_policy_verdicts_total{") {
                let (labels, count) = rest.rsplit_once("} ").unwrap();
                let source = labels.split("source=\"").nth(1).unwrap().split('"').next().unwrap();
                let name = if source.is_empty() { "_overflow" } else { source };
                series.insert(name.to_owned(), count.parse().unwrap());
            }
            if let Some(count) = line
                .strip_prefix(r#"enforcer_metrics_expired_total{metric="enforcer_policy_verdicts_total"} "#)
            {
                expired = count.parse().unwrap();
            }
        }
        (series, expired)
    }

    fn text(&self, kernel: &KernelSample) -> String {
        let agent = AgentSample {
            names: &self.names,
            gauges: &Gauges { ready: self.ready, ..Gauges::default() },
            read: ReadCounts::default(),
            malformed: 0,
            now: Duration::from_secs(self.now),
        };
        self.exporter.render(Some(kernel), agent)
    }
}

fn told(series: &[(&str, u64)]) -> BTreeMap<String, u64> {
    series.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn a_series_expires_a_minute_after_the_end_of_its_workload() {
    let mut scene = Scene::new(10);
    for identity in [300, 301] {
        scene.is_there(identity, true);
        scene.count(identity, 7);
    }
    assert_eq!(scene.look(), (told(&[("w300", 7), ("w301", 7)]), 0));
    scene.now = 1_000;
    assert_eq!(scene.look(), (told(&[("w300", 7), ("w301", 7)]), 0), "quiet, but there");
    scene.is_there(300, false);
    scene.now = 1_030;
    scene.count(300, 2);
    assert_eq!(scene.look(), (told(&[("w300", 9), ("w301", 7)]), 0), "what it did last");
    scene.now = 1_089;
    assert_eq!(scene.look(), (told(&[("w300", 9), ("w301", 7)]), 0));
    scene.now = 1_090;
    assert_eq!(scene.look(), (told(&[("w301", 7)]), 9));
}

#[test]
fn a_series_that_comes_back_begins_at_zero() {
    let mut scene = Scene::new(10);
    scene.is_there(300, true);
    scene.count(300, 7);
    scene.look();
    scene.is_there(300, false);
    scene.now = 61;
    assert_eq!(scene.look(), (told(&[]), 7));
    scene.is_there(300, true);
    assert_eq!(scene.look(), (told(&[]), 7), "there again, and it has done nothing");
    scene.count(300, 1);
    assert_eq!(scene.look(), (told(&[("w300", 1)]), 7));
}

#[test]
fn what_is_left_of_earlier_workloads_is_no_series_of_a_new_agent() {
    let mut scene = Scene::untold(10);
    scene.count(300, 7);
    scene.is_there(300, false);
    scene.is_there(301, true);
    scene.count(301, 1);
    assert_eq!(scene.look(), (told(&[("w301", 1)]), 7));
}

#[test]
fn nobody_is_gone_as_long_as_the_agent_does_not_know_everybody() {
    let mut scene = Scene::untold(10);
    scene.ready = false;
    scene.count(300, 7);
    scene.is_there(300, false);
    assert_eq!(scene.look(), (told(&[("w300", 7)]), 0), "its file is not read yet");
    scene.now = 600;
    assert_eq!(scene.look(), (told(&[("w300", 7)]), 0));
    scene.ready = true;
    scene.is_there(300, true);
    scene.count(301, 2);
    scene.is_there(301, false);
    assert_eq!(scene.look(), (told(&[("w300", 7)]), 2), "now it is known who was there before");
    scene.ready = false;
    scene.is_there(300, false);
    scene.now = 700;
    assert_eq!(scene.look().0, told(&[("w300", 7)]), "its file can't be read");
}

#[test]
fn a_place_that_is_free_again_is_given_to_whom_the_overflow_had() {
    let mut scene = Scene::new(10);
    for identity in 300..300 + u32::try_from(PLACES).unwrap() {
        scene.is_there(identity, true);
        scene.count(identity, 10);
    }
    scene.look();
    scene.is_there(400, true);
    scene.count(400, 3);
    assert_eq!(scene.look().0.get("_overflow"), Some(&3));
    scene.is_there(300, false);
    scene.now = 61;
    let (series, expired) = scene.look();
    assert_eq!((series.get("w300"), series.get("_overflow"), expired), (None, Some(&3), 10));
    scene.count(400, 5);
    let (series, _) = scene.look();
    assert_eq!((series.get("w400"), series.get("_overflow")), (Some(&5), Some(&3)), "nothing is told twice");
}

#[test]
fn open_connections_are_told_whatever_has_expired() {
    let mut scene = Scene::new(100);
    scene.is_there(300, true);
    let row = |opened, closed| {
        let key = TrafficKey {
            subject: 300,
            peer: IdentityId::WORLD.0,
            port: 443,
            protocol: 6,
            role: Role::Client as u8,
            reserved: 0,
        };
        KernelSample {
            traffic: vec![(key, Traffic { opened, closed, ..Traffic::NONE })],
            ..KernelSample::default()
        }
    };
    let line = |text: &str, metric: &str| {
        text.lines()
            .find(|line| line.starts_with(metric))
            .map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
    };
    scene.text(&row(5, 3));
    scene.is_there(300, false);
    scene.now = 61;
    assert_eq!(line(&scene.text(&row(5, 3)), "enforcer_connections_opened_total"), None);
    // Its last two connections end after all.
    let text = scene.text(&row(5, 5));
    assert_eq!(line(&text, "enforcer_connections_active").as_deref(), Some("0"));
    assert_eq!(line(&text, "enforcer_connections_closed_total").as_deref(), Some("2"));
    assert_eq!(
        line(&text, r#"enforcer_metrics_expired_total{metric="enforcer_connections_closed_total"}"#)
            .as_deref(),
        Some("3")
    );
}

#[derive(Clone, Debug)]
enum Happening {
    Counts(u32, u64),
    Comes(u32),
    Goes(u32),
    Passes(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let who = 300..312_u32;
    prop_oneof![
        (who.clone(), 1..50_u64).prop_map(|(who, count)| Happening::Counts(who, count)),
        who.clone().prop_map(Happening::Comes),
        who.prop_map(Happening::Goes),
        (1..70_u64).prop_map(Happening::Passes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever comes and goes: the sum is what was counted, no counter falls while it is told, and the budget holds.
    #[test]
    fn nothing_is_lost_and_nothing_falls(happenings in proptest::collection::vec(happening(), 1..60)) {
        let mut scene = Scene::new(10);
        let mut before: (BTreeMap<String, u64>, u64) = Default::default();
        let mut sum = 0;
        for happening in happenings {
            match happening {
                Happening::Counts(who, count) => {
                    if !scene.names.identities.contains_key(&IdentityId(who)) {
                        scene.is_there(who, true);
                    }
                    scene.count(who, count);
                    sum += count;
                }
                Happening::Comes(who) => scene.is_there(who, true),
                Happening::Goes(who) => scene.is_there(who, false),
                Happening::Passes(seconds) => scene.now += seconds,
            }
            let now = scene.look();
            prop_assert_eq!(now.0.values().sum::<u64>() + now.1, sum);
            prop_assert!(now.1 >= before.1);
            prop_assert!(now.0.keys().filter(|name| *name != "_overflow").count() <= PLACES);
            for (name, count) in &before.0 {
                prop_assert!(now.0.get(name).is_none_or(|now| now >= count), "{} fell", name);
            }
            prop_assert!(!before.0.contains_key("_overflow") || now.0.contains_key("_overflow"));
            before = now;
        }
    }
}
