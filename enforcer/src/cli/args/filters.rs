//! The flags that choose flows, made from the table of conditions.

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::domain::flow_filter::{CONDITIONS, Condition, FlowFilter};

const NOT: &str = "not";
const HEADING: &str = "Filters";
/// Short forms of a condition: flag, its long form, the condition's key and value.
const VERSIONS: [(char, &str, &str); 2] = [('4', "ipv4", "4"), ('6', "ipv6", "6")];
const VERSION: &str = "ip-version";

/// Which flows are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(pub FlowFilter);

impl Args for Filters {
    fn augment_args(command: Command) -> Command {
        let command = command.next_help_heading(HEADING).arg(
            Arg::new(NOT)
                .long(NOT)
                .num_args(0)
                .default_missing_value("true")
                .action(ArgAction::Append)
                .help("Turn the next filter round: flows that it does not match"),
        );
        let command = CONDITIONS.iter().map(flag).fold(command, Command::arg);
        VERSIONS.iter().fold(command, |command, (short, long, version)| {
            let help = format!("Only IPv{version}");
            command.arg(Arg::new(*long).short(*short).long(*long).action(ArgAction::SetTrue).help(help))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(condition: &Condition) -> Arg {
    let flag = Arg::new(condition.key)
        .long(condition.key)
        .aliases(condition.aliases)
        .value_name(condition.value_name)
        .value_parser(ValueParser::string())
        .action(ArgAction::Append)
        .help(condition.doc);
    let flag = if condition.list { flag.value_delimiter(',') } else { flag };
    match condition.short {
        Some(short) => flag.short(short),
        None => flag,
    }
}

impl FromArgMatches for Filters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut filter = FlowFilter::default();
        let mut given: Vec<_> =
            CONDITIONS.iter().flat_map(|condition| occurrences(condition, matches)).collect();
        given.sort_by_key(|(place, ..)| *place);
        // A `--not` turns the first filter behind it round.
        let mut turned = vec![false; given.len()];
        for place in matches.indices_of(NOT).into_iter().flatten() {
            match given.iter().position(|(start, ..)| *start > place) {
                Some(next) => turned[next] = !turned[next],
                None => {
                    return Err(invalid(
                        "--not stands before no filter; write it before the one it turns round",
                    ));
                }
            }
        }
        for ((_, condition, values), turned) in given.into_iter().zip(turned) {
            for value in values {
                filter
                    .want(condition, !turned, &value)
                    .map_err(|problem| invalid(&format!("--{problem}")))?;
            }
        }
        for (_, flag, version) in VERSIONS.iter().filter(|(_, flag, _)| matches.get_flag(flag)) {
            filter.add(VERSION, version).map_err(|problem| invalid(&format!("--{flag}: {problem}")))?;
        }
        Ok(Self(filter))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Where each use of the flag stands on the command line, and its values.
fn occurrences(
    condition: &'static Condition,
    matches: &ArgMatches,
) -> Vec<(usize, &'static Condition, Vec<String>)> {
    let mut places = matches.indices_of(condition.key).into_iter().flatten();
    let uses = matches.get_occurrences::<String>(condition.key).into_iter().flatten();
    uses.filter_map(|values| {
        let values: Vec<String> = values.cloned().collect();
        let place = places.next()?;
        // The further values of the same use.
        for _ in 1..values.len() {
            places.next();
        }
        Some((place, condition, values))
    })
    .collect()
}

fn invalid(message: &str) -> Error {
    Error::raw(ErrorKind::ValueValidation, format!("{message}\n"))
}
