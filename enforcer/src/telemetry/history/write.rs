//! From samples to rows.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use enforcer_common::abi::flow::Traffic;
use enforcer_common::id::{IdentityId, RuleId};
use rusqlite::{Connection, Transaction, params};

use super::super::names;
use super::{Sample, Settings, database};
use crate::domain::counted::{Carrier, Counted, Edge, Epoch};
use crate::domain::names::Names;

/// Samples between two looks at age and size.
const PRUNE: u64 = 6;
/// Rows that are removed at once for their age. A clock that jumps ahead and back costs no more than that.
const PRUNED: i64 = 20_000;

/// See the module.
pub(super) struct Writer {
    settings: Settings,
    database: Option<Database>,
    /// A database that was damaged, as long as nobody took it away.
    damaged: Option<(PathBuf, String)>,
    pub(super) set_aside: u64,
    pub(super) size: u64,
    samples: u64,
}

struct Database {
    connection: Connection,
    flows: Counted<Edge, u64>,
    traffic: Counted<Carrier, Traffic>,
    /// What the names of these numbers were when they were written.
    ends: HashMap<u32, String>,
    rules: HashMap<u32, String>,
}

impl Writer {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, database: None, damaged: None, set_aside: 0, size: 0, samples: 0 }
    }

    /// What was damaged, until somebody has looked at it and taken it away.
    pub(super) fn damage(&mut self) -> Option<String> {
        self.damaged.take_if(|(path, _)| !path.exists());
        self.damaged.as_ref().map(|(_, problem)| problem.clone())
    }

    /// Adds a sample. What fails has changed nothing, and is in the next one.
    pub(super) fn write(&mut self, sample: &Sample, names: &Names) -> Result<(), String> {
        match self.try_write(sample, names) {
            Ok(()) => Ok(()),
            Err(error) if database::is_damage(&error) => {
                self.database = None;
                self.begin_anew(&error, sample)?;
                self.try_write(sample, names).map_err(|error| self.problem(&error))
            }
            Err(error) => {
                // Also so that what is known of the names is read again.
                self.database = None;
                Err(self.problem(&error))
            }
        }
    }

    fn problem(&self, error: &rusqlite::Error) -> String {
        format!(
            "the flow history {} can't be written, its counts wait in the kernel: {error}",
            self.settings.path.display()
        )
    }

    fn begin_anew(&mut self, error: &rusqlite::Error, sample: &Sample) -> Result<(), String> {
        let path = &self.settings.path;
        let aside = database::set_aside(path, sample.at.seconds).map_err(|io| {
            format!("the flow history {} is damaged ({error}) and can't be set aside: {io}", path.display())
        })?;
        let problem = format!(
            "the flow history {} was damaged ({error}) and a new one begun; what is left of it is in {}: look at it, and \
             take it away when it is of no use",
            path.display(),
            aside.display()
        );
        tracing::error!("{problem}");
        self.damaged = Some((aside, problem));
        self.set_aside += 1;
        Ok(())
    }

    fn try_write(&mut self, sample: &Sample, names: &Names) -> rusqlite::Result<()> {
        let database = match &mut self.database {
            Some(database) => database,
            None => self.database.insert(Database::open(&self.settings)?),
        };
        database.add(sample, names)?;
        if self.samples.is_multiple_of(PRUNE) {
            database.prune(&self.settings, sample.at.seconds)?;
        }
        self.samples += 1;
        self.size = database.size()?;
        Ok(())
    }
}

impl Database {
    fn open(settings: &Settings) -> rusqlite::Result<Self> {
        let connection = database::open(&settings.path)?;
        let (flows, traffic) = (seen_flows(&connection)?, seen_traffic(&connection)?);
        Ok(Self { connection, flows, traffic, ends: HashMap::new(), rules: HashMap::new() })
    }

    fn add(&mut self, sample: &Sample, names: &Names) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let (epoch, rows) = &sample.verdicts;
        let flows: Vec<(Edge, u64)> = rows.iter().map(|(key, total)| (Edge::from(*key), *total)).collect();
        forget(&transaction, "flows", self.flows.enter(epoch), epoch)?;
        add_flows(&transaction, &self.flows, &flows, sample.at.seconds)?;
        let (epoch, rows) = &sample.traffic;
        let traffic: Vec<(Carrier, Traffic)> =
            rows.iter().map(|(key, total)| (Carrier::from(*key), *total)).collect();
        forget(&transaction, "traffic", self.traffic.enter(epoch), epoch)?;
        add_traffic(&transaction, &self.traffic, &traffic, sample.at.seconds)?;
        let (there, there_too): (HashSet<Edge>, HashSet<Carrier>) = (
            flows.iter().map(|(edge, _)| *edge).collect(),
            traffic.iter().map(|(carrier, _)| *carrier).collect(),
        );
        let gone = self.flows.gone(|edge| there.contains(edge));
        let gone_too = self.traffic.gone(|carrier| there_too.contains(carrier));
        forget_rows(&transaction, &gone, &gone_too)?;
        let ends = ends(&flows, &traffic, names);
        let rules = flows.iter().map(|(edge, _)| edge.rule).collect::<HashSet<u32>>();
        let rules: HashMap<u32, String> = rules.into_iter().map(|id| (id, rule(id, names))).collect();
        name(&transaction, "ends", &self.ends, &ends)?;
        name(&transaction, "rules", &self.rules, &rules)?;
        transaction.commit()?;
        // Only now: what was rolled back was not seen.
        for edge in &gone {
            self.flows.forget(edge);
        }
        for carrier in &gone_too {
            self.traffic.forget(carrier);
        }
        for (edge, total) in flows {
            self.flows.take(edge, total);
        }
        for (carrier, total) in traffic {
            self.traffic.take(carrier, total);
        }
        (self.ends, self.rules) = (ends, rules);
        Ok(())
    }

    /// Removes what is too old, and the oldest of what is too much.
    fn prune(&mut self, settings: &Settings, now: i64) -> rusqlite::Result<()> {
        let age = i64::try_from(settings.age.as_secs()).unwrap_or(i64::MAX);
        let oldest = now.saturating_sub(age).div_euclid(60);
        for table in ["flows", "traffic"] {
            let key = if table == "flows" {
                "minute, subject, peer, rule, port, protocol, reason, direction, outcome"
            } else {
                "minute, subject, peer, port, protocol, role"
            };
            let statement = format!(
                "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE minute < ?1 ORDER BY minute LIMIT ?2)"
            );
            self.connection.execute(&statement, params![oldest, PRUNED])?;
        }
        while self.size()? > settings.size {
            let (first, last): (Option<i64>, Option<i64>) = self.connection.query_row(
                "SELECT min(minute), max(minute) FROM (SELECT minute FROM flows UNION ALL SELECT minute FROM traffic)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            let (Some(first), Some(last)) = (first, last) else { break };
            // A tenth of the time that it spans; at last the only minute.
            let until = first + (last - first) / 10;
            for table in ["flows", "traffic"] {
                self.connection
                    .execute(&format!("DELETE FROM {table} WHERE minute <= ?1"), params![until])?;
            }
            self.give_back()?;
        }
        self.connection.execute("DELETE FROM ends WHERE id NOT IN (SELECT subject FROM flows UNION SELECT peer FROM flows UNION SELECT subject FROM traffic UNION SELECT peer FROM traffic)", [])?;
        self.connection.execute("DELETE FROM rules WHERE id NOT IN (SELECT rule FROM flows)", [])?;
        (self.ends, self.rules) = (HashMap::new(), HashMap::new());
        self.give_back()
    }

    /// Gives free pages back to the file system.
    fn give_back(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")
    }

    fn size(&self) -> rusqlite::Result<u64> {
        let value = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let used = value("page_count")? - value("freelist_count")?;
        Ok(u64::try_from(used.saturating_mul(value("page_size")?)).unwrap_or(0))
    }
}

/// Forgets what was seen of another map, and notes which one is looked at.
fn forget(transaction: &Transaction<'_>, what: &str, is_new: bool, epoch: &Epoch) -> rusqlite::Result<()> {
    if is_new {
        transaction.execute(&format!("DELETE FROM seen_{what}"), [])?;
        let value = format!("{}:{}", epoch.boot_id, epoch.map);
        transaction.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![what, value])?;
    }
    Ok(())
}

/// Forgets rows that the maps do not have any more.
fn forget_rows(transaction: &Transaction<'_>, flows: &[Edge], traffic: &[Carrier]) -> rusqlite::Result<()> {
    let mut forget = transaction.prepare(
        "DELETE FROM seen_flows WHERE (subject, peer, rule, port, protocol, reason, direction, outcome) = \
         (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for Edge { subject, peer, rule, port, protocol, reason, direction, outcome } in flows {
        forget.execute(params![subject, peer, rule, port, protocol, reason, direction, outcome])?;
    }
    let mut forget = transaction.prepare(
        "DELETE FROM seen_traffic WHERE (subject, peer, port, protocol, role) = (?1, ?2, ?3, ?4, ?5)",
    )?;
    for Carrier { subject, peer, port, protocol, role } in traffic {
        forget.execute(params![subject, peer, port, protocol, role])?;
    }
    Ok(())
}

fn epoch(connection: &Connection, what: &str) -> rusqlite::Result<Epoch> {
    let mut statement = connection.prepare("SELECT value FROM meta WHERE key = ?1")?;
    let mut rows = statement.query([what])?;
    let Some(row) = rows.next()? else { return Ok(Epoch::default()) };
    let value: String = row.get(0)?;
    let parsed = value
        .rsplit_once(':')
        .and_then(|(boot_id, map)| Some(Epoch { boot_id: boot_id.to_owned(), map: map.parse().ok()? }));
    Ok(parsed.unwrap_or_default())
}

fn add_flows(
    transaction: &Transaction<'_>,
    seen: &Counted<Edge, u64>,
    rows: &[(Edge, u64)],
    now: i64,
) -> rusqlite::Result<()> {
    let mut add = transaction.prepare(
        "INSERT INTO flows VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11) ON CONFLICT DO UPDATE SET \
         verdicts = verdicts + excluded.verdicts, first = min(first, excluded.first), last = max(last, excluded.last)",
    )?;
    let mut note = transaction
        .prepare("INSERT OR REPLACE INTO seen_flows VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    for (edge, total) in rows {
        let Some(added) = seen.added(edge, *total) else { continue };
        let Edge { subject, peer, rule, port, protocol, reason, direction, outcome } = *edge;
        let minute = now.div_euclid(60);
        add.execute(params![
            minute,
            subject,
            peer,
            rule,
            port,
            protocol,
            reason,
            direction,
            outcome,
            whole(added),
            now
        ])?;
        note.execute(params![
            subject,
            peer,
            rule,
            port,
            protocol,
            reason,
            direction,
            outcome,
            whole(*total)
        ])?;
    }
    Ok(())
}

fn add_traffic(
    transaction: &Transaction<'_>,
    seen: &Counted<Carrier, Traffic>,
    rows: &[(Carrier, Traffic)],
    now: i64,
) -> rusqlite::Result<()> {
    let mut add = transaction.prepare(
        "INSERT INTO traffic VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13) ON CONFLICT DO UPDATE \
         SET opened = opened + excluded.opened, closed = closed + excluded.closed, \
         packets_sent = packets_sent + excluded.packets_sent, packets_received = packets_received + \
         excluded.packets_received, bytes_sent = bytes_sent + excluded.bytes_sent, \
         bytes_received = bytes_received + excluded.bytes_received, first = min(first, excluded.first), \
         last = max(last, excluded.last)",
    )?;
    let mut note =
        transaction.prepare("INSERT OR REPLACE INTO seen_traffic VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for (carrier, total) in rows {
        let Some(added) = seen.added(carrier, *total) else { continue };
        let Carrier { subject, peer, port, protocol, role } = *carrier;
        add.execute(params![
            now.div_euclid(60),
            subject,
            peer,
            port,
            protocol,
            role,
            whole(added.opened),
            whole(added.closed),
            whole(added.packets_sent),
            whole(added.packets_received),
            whole(added.bytes_sent),
            whole(added.bytes_received),
            now,
        ])?;
        note.execute(params![subject, peer, port, protocol, role, bytes(total)])?;
    }
    Ok(())
}

/// `SQLite` has signed numbers; no counter gets so far.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn words(total: &Traffic) -> [u64; 8] {
    [
        total.opened,
        total.closed,
        total.packets_sent,
        total.packets_received,
        total.bytes_sent,
        total.bytes_received,
        total.retransmits,
        total.rtt_microseconds,
    ]
}

fn bytes(total: &Traffic) -> Vec<u8> {
    words(total).iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn total(bytes: &[u8]) -> Option<Traffic> {
    let mut words = bytes.chunks_exact(8).map(|word| word.try_into().map(u64::from_le_bytes));
    let mut next = || words.next()?.ok();
    Some(Traffic {
        opened: next()?,
        closed: next()?,
        packets_sent: next()?,
        packets_received: next()?,
        bytes_sent: next()?,
        bytes_received: next()?,
        retransmits: next()?,
        rtt_microseconds: next()?,
    })
}

fn seen_flows(connection: &Connection) -> rusqlite::Result<Counted<Edge, u64>> {
    let mut statement = connection.prepare("SELECT * FROM seen_flows")?;
    let rows = statement.query_map([], |row| {
        let edge = Edge {
            subject: row.get(0)?,
            peer: row.get(1)?,
            rule: row.get(2)?,
            port: row.get(3)?,
            protocol: row.get(4)?,
            reason: row.get(5)?,
            direction: row.get(6)?,
            outcome: row.get(7)?,
        };
        Ok((edge, u64::try_from(row.get::<_, i64>(8)?).unwrap_or(0)))
    })?;
    let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(Counted::new(epoch(connection, "flows")?, rows))
}

fn seen_traffic(connection: &Connection) -> rusqlite::Result<Counted<Carrier, Traffic>> {
    let mut statement = connection.prepare("SELECT * FROM seen_traffic")?;
    let rows = statement.query_map([], |row| {
        let carrier = Carrier {
            subject: row.get(0)?,
            peer: row.get(1)?,
            port: row.get(2)?,
            protocol: row.get(3)?,
            role: row.get(4)?,
        };
        Ok((carrier, total(&row.get::<_, Vec<u8>>(5)?).unwrap_or(Traffic::NONE)))
    })?;
    let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(Counted::new(epoch(connection, "traffic")?, rows))
}

/// Every end that is spoken of, as JSON.
fn ends(flows: &[(Edge, u64)], traffic: &[(Carrier, Traffic)], names: &Names) -> HashMap<u32, String> {
    let ids = flows.iter().flat_map(|(edge, _)| [edge.subject, edge.peer]);
    let ids = ids.chain(traffic.iter().flat_map(|(carrier, _)| [carrier.subject, carrier.peer]));
    let ids: HashSet<u32> = ids.collect();
    let json = |id: u32| {
        // A number without a name now had one when it was counted, and may have it in the database.
        let is_named = id < IdentityId::FIRST_WORKLOAD.0 || names.identities.contains_key(&IdentityId(id));
        is_named.then(|| serde_json::to_string(&names::endpoint(names, id, 0)).unwrap_or_default())
    };
    ids.into_iter().filter_map(|id| Some((id, json(id)?))).collect()
}

fn rule(id: u32, names: &Names) -> String {
    let rule = names::rule(names, RuleId(id));
    rule.and_then(|rule| serde_json::to_string(&rule).ok()).unwrap_or_default()
}

fn name(
    transaction: &Transaction<'_>,
    table: &str,
    known: &HashMap<u32, String>,
    now: &HashMap<u32, String>,
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare(&format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2)"))?;
    for (id, text) in now.iter().filter(|(id, text)| !text.is_empty() && known.get(*id) != Some(*text)) {
        statement.execute(params![id, text])?;
    }
    Ok(())
}
