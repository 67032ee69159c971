//! Every way round the hooks that was thought of: none leaks with all hooks, and each leaks without those that close it.
//!
//! What leaks is what the sniffer at the other end saw, or the neighbour, never what an errno said. Lines that begin with
//! `BYPASS ` are the cells of the matrix that `cargo xtask bypass` prints.

mod known;
mod row;
mod scenes;
mod stage;
mod table;

use std::collections::BTreeSet;
use std::time::Instant;

use enforcer::kernel::lsm;
use enforcer_tests::agent::Agent;
use enforcer_tests::bypass::sniffer::Packet;
use enforcer_tests::bypass::{Family, vectors};
use enforcer_tests::patience;
use enforcer_tests::world::World;

use self::known::{LISTED, UNTRIED};
use self::row::{Hooks, Mutation, Privilege, Probe, Row};
use self::stage::{Stage, attempt};
use crate::registry::{Test, skip};

pub(crate) const TESTS: &[Test] = &[
    ("nothing_leaks", nothing_leaks),
    ("everything_leaks_without_its_hooks", everything_leaks_without_its_hooks),
    ("what_closes_it_is_enough", what_closes_it_is_enough),
    ("what_is_listed_is_told", what_is_listed_is_told),
    ("the_catalogue_is_complete", the_catalogue_is_complete),
];

/// The numbers of the catalogue.
const CATALOGUE: [std::ops::RangeInclusive<u8>; 3] = [1..=46, 50..=71, 80..=96];

fn rows() -> impl Iterator<Item = &'static Row> {
    table::ROWS.iter().flat_map(|rows| rows.iter())
}

/// What came of one probe.
#[derive(Debug)]
struct Leak {
    packets: Vec<Packet>,
    /// How often the neighbour was reached.
    reached: u64,
    /// What the probe got otherwise.
    got: u64,
    /// What the last call returned.
    errno: i32,
}

impl Leak {
    fn count(&self) -> u64 {
        self.packets.len() as u64 + self.reached + self.got
    }

    fn text(&self) -> String {
        let Self { packets, reached, got, errno } = self;
        let first = packets.first().map(|packet| format!("; the first was {packet}")).unwrap_or_default();
        format!(
            "{} packets, {reached} at the neighbour, {got} otherwise, errno {errno}{first}",
            packets.len()
        )
    }
}

/// One probe. `wanted`: whether a leak is waited for.
fn measure(stage: &mut Stage, row: &Row, who: Privilege, family: Family, wanted: bool) -> Leak {
    stage.wanted = wanted;
    stage.quiet();
    let before = stage.reached();
    let (got, errno) = match row.probe {
        Probe::Vector(name) => {
            let answer = attempt(&stage.who(who).puppet, name, family);
            (u64::try_from(answer.value).unwrap_or(0), answer.errno)
        }
        Probe::Scene(run) => (run(stage, who, family), 0),
    };
    let mut leak = Leak { packets: stage.leaks(), reached: stage.reached() - before, got, errno };
    let deadline = Instant::now() + patience::seconds(8);
    while wanted && leak.count() == 0 && Instant::now() < deadline {
        leak.packets.extend(stage.leaks());
        leak.reached = stage.reached() - before;
    }
    leak
}

/// Every cell that this kernel can have; the others are told with their reasons.
fn cells(row: &'static Row, is_told: bool) -> Vec<(Privilege, Family)> {
    let all = row.privileges.iter().flat_map(|who| row.families.iter().map(move |family| (*who, *family)));
    let has = |(who, family): &(Privilege, Family)| match (row.needs)(*family) {
        Ok(()) => true,
        Err(reason) => {
            if is_told {
                tell(row, *who, *family, None, &reason);
            }
            false
        }
    };
    all.filter(has).collect()
}

fn tell(row: &Row, who: Privilege, family: Family, leaked: Option<u64>, note: &str) {
    let cell = serde_json::json!({
        "row": row.number,
        "name": row.name,
        "closed_by": row.closed_by(),
        "privilege": who.label(),
        "family": family.label(),
        "leaked": leaked,
        "note": note,
    });
    println!("BYPASS {cell}");
}

fn nothing_leaks() {
    let mut stage = Stage::new("bypass");
    let mut leaks = Vec::new();
    for who in [Privilege::Root, Privilege::Nobody] {
        stage.ordinary(who, "before anything was tried");
    }
    for row in rows() {
        for (who, family) in cells(row, true) {
            let leak = measure(&mut stage, row, who, family, false);
            let title = row.title(who, family);
            let listed = listed(&stage, row);
            tell(row, who, family, Some(leak.count()), listed.map_or("", |listed| listed.reason));
            if leak.count() > 0 && listed.is_none() {
                leaks.push(format!("{title}: {}", leak.text()));
            }
            stage.ordinary(who, &format!("after {title}"));
        }
    }
    assert!(leaks.is_empty(), "{} leaks that nobody listed:\n{}", leaks.len(), leaks.join("\n"));
}

fn everything_leaks_without_its_hooks() {
    let mut stage = Stage::new("mutation");
    let mut tight = Vec::new();
    for hooks in sets() {
        let off: Vec<_> = hooks.last.iter().chain(hooks.before).copied().collect();
        stage.switch_off(&off);
        for row in rows().filter(|row| closing(row) == Some(hooks)) {
            for (who, family) in cells(row, false) {
                let leak = measure(&mut stage, row, who, family, true);
                if leak.count() == 0 {
                    let title = row.title(who, family);
                    tight.push(format!("{title} without {}: {}", off.join(", "), leak.text()));
                }
            }
        }
        stage.switch_on();
    }
    assert!(tight.is_empty(), "{} probes prove nothing:\n{}", tight.len(), tight.join("\n"));
}

/// The hooks of the table's last column are enough, whatever becomes of those before them.
fn what_closes_it_is_enough() {
    let mut stage = Stage::new("alone");
    let mut leaks = Vec::new();
    for hooks in sets() {
        stage.switch_off(hooks.before);
        for row in rows().filter(|row| closing(row) == Some(hooks)) {
            for (who, family) in cells(row, false) {
                let leak = measure(&mut stage, row, who, family, false);
                if leak.count() > 0 && listed(&stage, row).is_none() {
                    let title = row.title(who, family);
                    leaks.push(format!("{title} without {}: {}", hooks.before.join(", "), leak.text()));
                }
            }
        }
        stage.switch_on();
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}

fn listed(stage: &Stage, row: &Row) -> Option<&'static known::Listed> {
    LISTED.iter().find(|listed| listed.covers(row, |hook| stage.has(hook)))
}

fn closing(row: &Row) -> Option<Hooks> {
    match row.mutation {
        Mutation::Without(hooks) => Some(hooks),
        Mutation::Never(_) => None,
    }
}

/// Every set of hooks that closes something.
fn sets() -> BTreeSet<Hooks> {
    rows().filter_map(closing).collect()
}

/// What is known to leak is what `enforcer status --unguarded` says.
fn what_is_listed_is_told() {
    let world = World::new("told");
    let agent = Agent::start(&world);
    let output = agent.cli(&["status", "--unguarded", "-o", "json"]);
    if output.stderr.contains("unexpected argument") {
        skip("this version has no `status --unguarded`");
    }
    let text = output.expect_ok();
    for listed in LISTED {
        let Some(vector) = listed.vector else { continue };
        let is_attached = |hook| world.pins().join(format!("link_{hook}")).exists();
        // What is attached and perhaps never called is told too.
        let is_closed = listed.unless.is_some_and(|hook| is_attached(hook) && lsm::calls_bpf() == Ok(true));
        assert_eq!(text.contains(&format!("\"{vector}\"")), !is_closed, "{vector} in {text}");
    }
}

fn the_catalogue_is_complete() {
    for number in CATALOGUE.into_iter().flatten() {
        let tried = rows().any(|row| row.number == number);
        let told = UNTRIED.iter().any(|(untried, _)| *untried == number);
        assert!(tried != told, "row {number} is tried ({tried}), or it is told why not ({told})");
    }
    for row in rows() {
        if let Probe::Vector(name) = row.probe {
            assert!(vectors::exists(name), "no vector {name}");
        }
        if let Mutation::Never(reason) = row.mutation {
            assert!(!reason.is_empty(), "{}", row.name);
        }
    }
    for listed in LISTED {
        assert!(rows().any(|row| listed.is_about(row)), "nothing tries what is listed: {}", listed.reason);
    }
}
