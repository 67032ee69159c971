//! Metrics, rules and dashboards against a real Prometheus, which scrapes the real daemon under load.
//!
//! Every line it prints is something it has just seen. A line that is not as it should be is marked and makes the run
//! fail; everything it made is removed in any case.

mod boards;
mod coverage;
mod prometheus;
mod promql;
mod stage;
mod tool;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use enforcer::telemetry::metrics::METRICS;

use self::boards::{Board, Chosen, Question};
use self::prometheus::Prometheus;
use self::stage::Stage;
use crate::demo::screen::Screen;
use crate::patience;

/// How long the load runs before the first question: two windows of a rate.
const WARM_UP: Duration = Duration::from_secs(12);
/// The exit code for a kernel that can't run the programs.
const CANNOT: u8 = 3;
/// The whole of it must not take longer.
const LIMIT: Duration = Duration::from_secs(90);

/// Does all of it.
pub fn run() -> ExitCode {
    let start = Instant::now();
    let mut screen = Screen::standard();
    if !nix::unistd::Uid::effective().is_root() {
        screen
            .fault("this needs root, because it loads kernel programs: `cargo xtask telemetry` asks for it");
        return ExitCode::from(2);
    }
    let no_tree = enforcer::config::cgroup_root(None).err().map(|error| error.to_string());
    let no_programs = || enforcer::kernel::probe::programs().err().map(|error| error.to_string());
    if let Some(reason) = no_tree.or_else(no_programs) {
        screen.fault(&reason);
        return ExitCode::from(CANNOT);
    }
    let told = catch_unwind(AssertUnwindSafe(|| all(&mut screen)));
    if told.is_err() {
        screen.fault("it could not go on, see above; everything it made is removed");
        return ExitCode::FAILURE;
    }
    let time = start.elapsed();
    screen.state(time < LIMIT, &format!("all of it took less than {} s", LIMIT.as_secs()));
    screen.end(time, false)
}

fn faults(screen: &Screen, texts: &[String]) {
    for text in texts {
        screen.fault(text);
    }
}

/// `deploy/` of the sources.
fn deploy() -> PathBuf {
    let sources = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os("ENFORCER_DEPLOY").map_or_else(sources, PathBuf::from).join("deploy")
}

fn all(screen: &mut Screen) {
    screen.title("enforcer: what Prometheus and Grafana see");
    screen.chapter("Files");
    files(screen);
    let boards = boards::all(&deploy().join("grafana"));
    let mut stage = Stage::new();
    stage.agent.run();
    let server = Prometheus::start(&stage.world, &deploy().join("prometheus"));
    screen.chapter("A daemon, a load, a Prometheus");
    screen.fact("prometheus", &format!("process {}, it scrapes every second", server.pid()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // However this ends, the load does.
        let _end = EndOf(&done);
        stage.hold();
        stage.apply(stage::FIRST);
        let load = scope.spawn(|| stage.load(&done));
        std::thread::sleep(WARM_UP / 2);
        stage.apply(stage::SECOND);
        std::thread::sleep(WARM_UP / 2);
        scraped(screen, &stage, &server);
        ask(screen, &boards, &server);
        explains(screen, &server);
        revoked(screen, &stage, &server);
        rules(screen, &server);
        wrong_names(screen, &boards, &server);
        done.store(true, Ordering::SeqCst);
        let calls = load.join().expect("the load does not panic");
        exact(screen, &server, &calls);
        gone(screen, &stage, &server);
    });
    fewer(screen, &mut stage);
}

/// Ends the load when it goes.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What can be said of files without a server.
fn files(screen: &mut Screen) {
    let folder = deploy().join("prometheus");
    let file = |name: &str| folder.join(name).display().to_string();
    for (arguments, what) in [
        (vec!["check", "config", &file("scrape.yaml")], "scrape.yaml"),
        (vec!["check", "rules", "--lint-fatal", &file("rules.yaml")], "rules.yaml"),
        (vec!["test", "rules", &file("rules.test.yaml")], "rules.test.yaml"),
    ] {
        let told = tool::promtool(&arguments, None);
        screen.state(told.is_ok(), &format!("promtool {} {}: {what}", arguments[0], arguments[1]));
        told.unwrap_or_else(|text| screen.fault(&text));
    }
    let problems = coverage::problems(&deploy());
    screen.state(
        problems.is_empty(),
        &format!("each of the {} metrics is asked for, or left out for a reason that is told", METRICS.len()),
    );
    faults(screen, &problems);
}

/// What the daemon gives, as Prometheus takes it.
fn scraped(screen: &mut Screen, stage: &Stage, server: &Prometheus) {
    let (_, text) = stage.agent.get("/metrics").expect("the daemon answers");
    let told = tool::promtool(&["check", "metrics"], Some(&text));
    screen.state(told.is_ok(), "promtool check metrics: what the daemon gives");
    told.unwrap_or_else(|text| screen.fault(&text));
    let up = server.value("min(up{job=\"enforcer\"})");
    screen.state(up == Some(1.0), "Prometheus scrapes it");
    let missing = METRICS.iter().filter(|metric| server.names(metric.name).is_empty());
    let missing: Vec<String> = missing.map(|metric| format!("nothing of {}", metric.name)).collect();
    screen.state(missing.is_empty(), &format!("Prometheus has all {} metrics", METRICS.len()));
    faults(screen, &missing);
}

/// Every query of every dashboard, with everything chosen and with single values chosen.
fn ask(screen: &mut Screen, boards: &[Board], server: &Prometheus) {
    screen.chapter("Dashboards: every query is answered");
    for board in boards {
        let mut empty = Vec::new();
        let questions = board.questions();
        for choice in [Chosen::All, Chosen::Some] {
            for question in &questions {
                if let Err(why) = server.answers(question, choice) {
                    empty.push(format!(
                        "{} / {} ({choice:?}): {why}\n    {}",
                        board.title, question.place, question.query
                    ));
                }
            }
        }
        let count = questions.len();
        screen.state(empty.is_empty(), &format!("{:<28} {count} queries", board.title));
        faults(screen, &empty);
    }
}

/// A denied edge comes with the command that explains it.
fn explains(screen: &mut Screen, server: &Prometheus) {
    let expected = "enforcer policy explain --from shop/web --to data/db:5432/TCP";
    let commands = server.labels(&question("Denied edges A"), "explain");
    screen.state(commands.iter().any(|it| it == expected), &format!("a denied edge says `{expected}`"));
    screen.state(
        commands.len() > 1 && commands.iter().all(|it| it.starts_with("enforcer policy explain ")),
        "and so does each",
    );
}

/// Connections that a policy forbade have ended, and that is told. An end that got the other's reset first is not destroyed.
fn revoked(screen: &mut Screen, stage: &Stage, server: &Prometheus) {
    let destroyed = server.count("sum(enforcer_sockets_destroyed_total)");
    let holds = stage.lost() == stage::HELD && (stage::HELD..=2 * stage::HELD).contains(&destroyed);
    screen.state(
        holds,
        &format!("{} connections were forbidden and ended: {destroyed} sockets destroyed", stage::HELD),
    );
}

/// Rules as the server evaluates them, and their runbooks.
fn rules(screen: &mut Screen, server: &Prometheus) {
    screen.chapter("Rules");
    let runbooks = std::fs::read_to_string(deploy().join("../docs/runbooks.md")).unwrap_or_default();
    let rules = server.rules();
    let problems: Vec<String> = rules.iter().filter_map(|rule| rule.problem(server, &runbooks)).collect();
    let alerts = rules.iter().filter(|rule| rule.is_alert()).count();
    screen.state(
        problems.is_empty() && alerts > 0 && alerts < rules.len(),
        &format!(
            "{alerts} alerts with severity, texts and a runbook, {} recordings with values",
            rules.len() - alerts
        ),
    );
    faults(screen, &problems);
}

/// The checks above find what they are there for.
fn wrong_names(screen: &mut Screen, boards: &[Board], server: &Prometheus) {
    let questions: Vec<Question> = boards.iter().flat_map(Board::questions).collect();
    let question = questions
        .iter()
        .find(|question| !question.is_variable() && promql::metrics(&question.query).len() == 1)
        .expect("a dashboard with a query of one metric");
    let misspelt = question.misspelt();
    let unknown = coverage::unknown(&misspelt.query);
    screen.state(unknown.len() == 1, "a misspelt metric is found by its name");
    screen.state(server.answers(&misspelt, Chosen::All).is_err(), "and by the empty answer");
}

/// What Prometheus says in the end is what was done.
fn exact(screen: &mut Screen, server: &Prometheus, calls: &stage::Calls) {
    screen.chapter("Numbers: what was done, and what Prometheus says of it");
    screen.note(&format!("  {:<36} {:>6} {:>9}", "", "done", "counted"));
    for (what, query, done) in calls.expected() {
        let mut counted = BTreeSet::new();
        let limit = patience::seconds(8);
        let start = Instant::now();
        while !counted.contains(&done) && start.elapsed() < limit {
            counted.insert(server.count(&query));
            std::thread::sleep(Duration::from_millis(200));
        }
        screen.numbers(what, done, server.count(&query));
    }
    let question = question("Denied edges A");
    let edge = [("source", "web"), ("destination", "db")];
    screen.numbers("web -> db   in the table of edges", calls.rounds(), server.row(&question, &edge));
}

/// The question of this place.
fn question(place: &str) -> Question {
    let boards = boards::all(&deploy().join("grafana"));
    let mut questions = boards.iter().flat_map(Board::questions);
    questions.find(|question| question.place == place).unwrap_or_else(|| panic!("no panel {place}"))
}

/// A workload that is taken away is no longer one to the agent, which is what its series expire by.
fn gone(screen: &mut Screen, stage: &Stage, server: &Prometheus) {
    const GONE: &str = "sum(enforcer_identity{type=\"gone\"})";
    let before = server.count(GONE);
    stage.leave();
    let start = Instant::now();
    while server.count(GONE) == before && start.elapsed() < patience::seconds(8) {
        std::thread::sleep(Duration::from_millis(200));
    }
    screen.state(
        server.count(GONE) == before + 1,
        "a workload that is gone leaves an identity that nobody has",
    );
}

/// A daemon that may tell few series, and then by namespace alone, tells the same sums.
fn fewer(screen: &mut Screen, stage: &mut Stage) {
    const VERDICTS: &str = "enforcer_policy_verdicts_total";
    screen.chapter("Fewer series, the same sums");
    let told = |stage: &Stage| {
        let metrics = stage.agent.metrics();
        let rows = metrics.into_iter().filter(|(name, _)| name.starts_with(VERDICTS));
        let (names, counts): (Vec<String>, Vec<f64>) = rows.unzip();
        let expired = stage.agent.metrics();
        let expired =
            expired.get(&format!("enforcer_metrics_expired_total{{metric=\"{VERDICTS}\"}}")).copied();
        (names, counts.iter().sum::<f64>() + expired.unwrap_or_default())
    };
    let (all, sum) = told(stage);
    stage.restart(&[("metrics-series", "9")]);
    let (few, same) = told(stage);
    let overflow = few.iter().filter(|name| name.contains("policy=\"_overflow\"")).count();
    let holds = few.len() - overflow == 3 && (1..=6).contains(&overflow) && is_same(same, sum);
    screen.state(
        holds,
        &format!(
            "metrics-series: 9, of {} series 3 are told apart, {overflow} say _overflow, sum {same}",
            all.len()
        ),
    );
    stage.restart(&[("metrics-labels", "[namespace]")]);
    let (by_namespace, same) = told(stage);
    let named =
        by_namespace.iter().any(|name| name.contains("source=\"web\"") || name.contains("port=\"8081\""));
    let holds = !named && by_namespace.len() < all.len() && is_same(same, sum);
    screen.state(holds, &format!("metrics-labels: [namespace], {} series, sum {same}", by_namespace.len()));
}

/// Counts are whole numbers.
fn is_same(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.5
}
