//! Reads under change: the kernel asks itself for verdicts, bindings and addresses whose answers follow from the question,
//! while tables are swapped and bindings and addresses come, change and go.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use enforcer::domain::table::{PolicyTable, ProtocolPorts, Sections};
use enforcer::kernel::Scheduled;
use enforcer_common::abi::identity::{AddressEntry, Binding};
use enforcer_common::abi::policy::{Plane, key};
use enforcer_common::address::Address;
use enforcer_common::churn::{
    Churn, Draw, FIRST_CGROUP, KEYS, MEMBERS, PORTS, PREFIX, class, identity, port_class, word,
};
use enforcer_common::id::{Generation, IdentityId, RuleId};
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Tier, Word};

use crate::bpf::{self, PinnedMap};
use crate::direct::Direct;
use crate::world::World;

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Look-ups at least: verdicts, bindings and addresses.
    pub lookups: u64,
    /// Swaps of tables at least.
    pub swaps: u64,
}

impl Plan {
    /// What the environment asks for (`ENFORCER_CHURN_LOOKUPS`, `ENFORCER_CHURN_SWAPS`), else this.
    #[must_use]
    pub fn or_environment(self) -> Self {
        let number = |name: &str, default| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
            Err(_) => default,
        };
        Self {
            lookups: number("ENFORCER_CHURN_LOOKUPS", self.lookups),
            swaps: number("ENFORCER_CHURN_SWAPS", self.swaps),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Found {
    /// What the kernel found, all runs together.
    pub sum: Churn,
    /// Tables published.
    pub swaps: u64,
    /// Changes of bindings and addresses.
    pub changes: u64,
    /// How long it took.
    pub took: Duration,
}

impl Found {
    /// Look-ups of every kind.
    pub fn lookups(&self) -> u64 {
        lookups(&self.sum)
    }

    /// What must be 0, by name.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        let sum = &self.sum;
        let faults = [
            ("missing", sum.missing),
            ("mixed", sum.mixed),
            ("torn", sum.torn),
            ("wrong", sum.wrong),
            ("backwards", sum.backwards),
            ("unbound", sum.unbound),
            ("misbound", sum.misbound),
            ("refused", sum.refused),
            ("unplaced", sum.unplaced),
            ("misplaced", sum.misplaced),
        ];
        faults.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

fn lookups(churn: &Churn) -> u64 {
    churn.asked + churn.bound + churn.placed
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sum, swaps, changes, took } = self;
        write!(
            f,
            "{} verdicts, {} bindings, {} addresses across {swaps} swaps ({} seen between two questions) and {changes} \
             other changes in {:.1} s: ",
            sum.asked,
            sum.bound,
            sum.placed,
            sum.swapped,
            took.as_secs_f64()
        )?;
        let faults = self.faults();
        if faults.is_empty() {
            return write!(f, "0 wrong, torn, missing or of mixed generations");
        }
        write!(f, "{faults:?}")?;
        if sum.sample[0] != 0 {
            let [random, generation, enforced, hypothetical] = sum.sample;
            let expected = word(generation, &Draw::new(random), false).0;
            write!(
                f,
                "; one of generation {generation}: expected {expected:#x}, found {enforced:#x} and {hypothetical:#x}"
            )?;
        }
        Ok(())
    }
}

/// Questions of one run: few enough that a swap, which waits until all running programs have ended, is not held up.
const QUESTIONS: u64 = 2_000;

/// Between two rounds of changes.
const PAUSE: Duration = Duration::from_micros(100);

/// Asks and changes until both numbers are reached.
pub fn run(plan: Plan) -> Found {
    let world = World::new("churn");
    let mut direct = Direct::start(&world);
    let program = direct.kernel().program("churn").unwrap_or_else(|error| panic!("{error}"));
    let start = Instant::now();
    let first = direct.next_generation();
    publish(&mut direct, first);
    let pins = direct.pins().to_path_buf();
    fill(&pins);
    let (over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut swaps, mut generation) = (0, first);
    let (sums, changes) = std::thread::scope(|scope| {
        let changers: Vec<_> = (0..2)
            .map(|number| {
                scope.spawn({
                    let (pins, over) = (&pins, &over);
                    move || change(pins, number, over)
                })
            })
            .collect();
        let askers: Vec<_> = (1..=2)
            .map(|seed| {
                scope.spawn({
                    let (program, over, asked) = (&program, &over, &asked);
                    move || ask(program, seed, first, over, asked)
                })
            })
            .collect();
        // A panic must not leave the others running.
        let ended = EndsAll(&over);
        while swaps < plan.swaps || asked.load(Ordering::Relaxed) < plan.lookups {
            generation += 1;
            publish(&mut direct, generation);
            swaps += 1;
        }
        drop(ended);
        let changes: u64 = changers.into_iter().map(|it| it.join().expect("no panic")).sum();
        let sums: Vec<Churn> = askers.into_iter().map(|it| it.join().expect("no panic")).collect();
        (sums, changes)
    });
    let took = start.elapsed();
    empty(&pins);
    direct.skip_generations(generation);
    let mut sum = blank(0, 0);
    for one in &sums {
        assert!(one.generation <= generation, "generation {} was never published", one.generation);
        add(&mut sum, one);
    }
    Found { sum, swaps, changes, took }
}

/// Tells all threads to end when dropped.
struct EndsAll<'a>(&'a AtomicBool);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn publish(direct: &mut Direct, generation: u64) {
    direct
        .kernel()
        .publish(&[Scheduled::always(&table(generation))])
        .unwrap_or_else(|error| panic!("{error}"));
}

/// The table of a generation, by the rule that the kernel checks.
pub fn table(generation: u64) -> PolicyTable {
    let mut entries = Vec::new();
    for subject in 0..MEMBERS {
        for peer in 0..2 * MEMBERS {
            for bits in 0..8_u32 {
                let (port, ingress, hypothetical) = (bits & 1, (bits >> 1) & 1, bits >> 2 == 1);
                let draw = Draw { subject, peer, port, ingress, binding: 0, prefix: 0 };
                let plane = if hypothetical { Plane::Hypothetical } else { Plane::Enforced };
                let (own, other) = (class(generation, subject), class(generation, peer));
                let port = port_class(generation, port).into();
                entries.push((
                    key(plane, ingress == 1, own, other, port),
                    word(generation, &draw, hypothetical),
                ));
            }
        }
    }
    let ports = (0..).zip(PORTS).map(|(index, port)| (port, port, port_class(generation, index))).collect();
    let first = IdentityId::FIRST_WORKLOAD.0;
    let classes = (0..first + MEMBERS).map(|id| id.checked_sub(first).map_or(0, |id| class(generation, id)));
    let sections = Sections {
        generation: Generation(generation),
        hypothetical: true,
        sockets: false,
        default: Word::allow(Tier::Default, Reason::AllowedByDefault, RuleId::NONE),
        protocols: BTreeMap::from([(6, ProtocolPorts::Ranges(ports))]),
        identities: classes.collect(),
        entries,
        addresses: (MEMBERS..2 * MEMBERS).map(|peer| (Address::v4(peer), class(generation, peer))).collect(),
    };
    PolicyTable::build(&sections).expect("a small table")
}

/// Has the kernel ask until it is over.
fn ask(program: &OwnedFd, seed: u64, generation: u64, over: &AtomicBool, asked: &AtomicU64) -> Churn {
    let mut sum = blank(seed, generation);
    while !over.load(Ordering::Relaxed) {
        let mut packet = words(&blank(sum.random, sum.generation));
        let (code, _) =
            bpf::test_run(program.as_fd(), packet.as_flattened_mut(), 1).expect("run the program");
        assert_eq!(code, 0, "1: it could not read the packet, 2: it could not write it");
        let one = churn(&packet);
        assert_eq!(one.asked, QUESTIONS, "every question is asked");
        add(&mut sum, &one);
        asked.fetch_add(lookups(&one), Ordering::Relaxed);
    }
    sum
}

fn blank(random: u64, generation: u64) -> Churn {
    churn(&{
        let mut words = [[0; 8]; size_of::<Churn>() / 8];
        // The order of the fields.
        words[0] = random.to_ne_bytes();
        words[1] = QUESTIONS.to_ne_bytes();
        words[2] = generation.to_ne_bytes();
        words
    })
}

type Words = [[u8; 8]; size_of::<Churn>() / 8];

fn words(churn: &Churn) -> Words {
    // SAFETY: both are exactly these bytes; a shared struct has no padding.
    unsafe { std::mem::transmute::<Churn, Words>(*churn) }
}

fn churn(words: &Words) -> Churn {
    // SAFETY: as above, and every bit pattern is a valid value.
    unsafe { std::mem::transmute::<Words, Churn>(*words) }
}

fn add(sum: &mut Churn, one: &Churn) {
    sum.random = one.random;
    sum.generation = sum.generation.max(one.generation);
    sum.backwards += one.backwards;
    sum.asked += one.asked;
    sum.swapped += one.swapped;
    sum.missing += one.missing;
    sum.mixed += one.mixed;
    sum.torn += one.torn;
    sum.wrong += one.wrong;
    sum.bound += one.bound;
    sum.unbound += one.unbound;
    sum.misbound += one.misbound;
    sum.refused += one.refused;
    sum.placed += one.placed;
    sum.unplaced += one.unplaced;
    sum.misplaced += one.misplaced;
    if sum.sample[0] == 0 {
        sum.sample = one.sample;
    }
}

/// The two maps that change in place.
struct Maps {
    bindings: PinnedMap,
    addresses: PinnedMap,
}

/// Key of the prefix trie: bits, then the address.
#[repr(C)]
#[derive(Clone, Copy)]
struct Prefix {
    bits: u32,
    address: [u8; 16],
}

impl Maps {
    fn open(pins: &Path) -> Self {
        let open = |name| PinnedMap::open(&pins.join(name)).expect("a pinned map");
        Self { bindings: open("BINDINGS"), addresses: open("ADDRESSES") }
    }

    fn set(&self, number: u32, version: u32) {
        let identity = identity(number, version);
        let cgroup = FIRST_CGROUP + u64::from(number);
        let binding = Binding::new(cgroup, identity, u64::MAX, identity);
        self.bindings.set(&cgroup, &binding).expect("a binding");
        let entry = AddressEntry { high: PREFIX, low: number.into(), prefix: 128, identity };
        self.addresses.set(&prefix(number), &entry).expect("an address");
    }

    fn remove(&self, number: u32) {
        self.bindings.remove(&(FIRST_CGROUP + u64::from(number))).expect("no binding");
        self.addresses.remove(&prefix(number)).expect("no address");
    }
}

fn prefix(number: u32) -> Prefix {
    Prefix { bits: 128, address: Address { high: PREFIX, low: number.into() }.bytes() }
}

/// Those with even numbers, which stay.
fn fill(pins: &Path) {
    let maps = Maps::open(pins);
    (0..KEYS).step_by(2).for_each(|number| maps.set(number, 0));
}

fn empty(pins: &Path) {
    let maps = Maps::open(pins);
    (0..KEYS).for_each(|number| maps.remove(number));
}

/// Changes what stays, and has the others come and go, until it is over. Of two changers each has keys of its own.
fn change(pins: &Path, changer: u32, over: &AtomicBool) -> u64 {
    let maps = Maps::open(pins);
    let (mut version, mut changes) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        version += 1;
        for number in (0..KEYS).filter(|number| (number >> 1) & 1 == changer) {
            if number & 1 == 1 && version & 1 == 0 {
                maps.remove(number);
            } else {
                maps.set(number, version);
            }
            changes += 2;
        }
        // Those who ask, and who swaps, need the processors too.
        std::thread::sleep(PAUSE);
    }
    changes
}
