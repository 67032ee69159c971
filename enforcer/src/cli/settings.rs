//! The flags of `run`: one for each row of the configuration's table, so that they can't drift apart. Other commands have some of
//! them.

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use crate::config::{Config, SETTINGS, Setting, Value};

/// The settings that were given as flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingFlags(pub Vec<(&'static str, Value)>);

/// `--socket` is a global flag, because every client has it too.
pub(super) const GLOBAL: &str = "socket";

fn argument(setting: &'static Setting) -> Arg {
    let (first, rest) = setting.doc.split_first().map_or(("", &[][..]), |(first, rest)| (first.trim(), rest));
    let default = match setting.value(&Config::default()).plain() {
        absent if absent == "-" => "none".to_owned(),
        default => default,
    };
    let facts = format!("[env: {}] [default: {default}]", setting.environment());
    let long = rest.iter().fold(first.to_owned(), |text, line| format!("{text}{line}"));
    Arg::new(setting.key)
        .long(setting.key)
        .value_name(setting.value_name)
        .action(if setting.repeated { ArgAction::Append } else { ArgAction::Set })
        .help(format!("{first} {facts}"))
        .long_help(format!("{}\n\n{facts}", sentence(first, &long)))
        .help_heading("Settings")
}

/// The first line has no full stop of its own; one is put where the rest begins.
fn sentence(first: &str, long: &str) -> String {
    match long.strip_prefix(first) {
        Some("") | None => long.to_owned(),
        Some(rest) => format!("{first}.{rest}"),
    }
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().filter(|setting| setting.key != GLOBAL).map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SETTINGS.iter().filter(|setting| setting.key != GLOBAL).filter_map(|setting| {
            let mut values: Vec<String> = matches.get_many(setting.key)?.cloned().collect();
            let value = if setting.repeated { Value::List(values) } else { Value::Text(values.pop()?) };
            Some((setting.key, value))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The settings that say what policies mean, for who judges them without an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JudgingFlags(pub SettingFlags);

/// What policies mean depends on these.
const JUDGING: [&str; 1] = ["trust-domain"];

impl clap::Args for JudgingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().filter(|setting| JUDGING.contains(&setting.key)).map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for JudgingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = JUDGING
            .iter()
            .filter_map(|key| Some((*key, Value::Text(matches.get_one::<String>(key)?.clone()))));
        Ok(Self(SettingFlags(given.collect())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command as Verb};

    #[test]
    fn every_setting_is_a_flag_of_run_and_arrives() {
        for setting in SETTINGS {
            let flag = format!("--{}", setting.key);
            let cli = Cli::try_parse_from(["enforcer", "run", flag.as_str(), "some-value"]).unwrap();
            let Verb::Run(SettingFlags(flags)) = cli.command else { panic!("not run") };
            if setting.key == GLOBAL {
                assert_eq!(cli.global.socket, Some("some-value".into()));
            } else {
                assert_eq!(flags.len(), 1);
                assert_eq!(flags[0].0, setting.key);
            }
        }
    }

    #[test]
    fn lists_repeat_and_others_do_not() {
        let cli = Cli::try_parse_from(["enforcer", "run", "--policies", "/a", "--policies", "/b"]).unwrap();
        let Verb::Run(SettingFlags(flags)) = cli.command else { panic!("not run") };
        assert_eq!(flags, [("policies", Value::List(vec!["/a".into(), "/b".into()]))]);
        assert!(Cli::try_parse_from(["enforcer", "run", "--mode", "off", "--mode", "audit"]).is_err());
    }
}
