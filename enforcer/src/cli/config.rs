//! `enforcer config`

use super::Answer;
use super::args::{self, ObjectFormat, Output};
use super::context::Context;
use super::render::{diagnostic, json, lists, quote};
use super::settings::SettingFlags;
use crate::config::{self, Error};

pub(super) fn config(context: &mut Context, verb: args::Config) -> anyhow::Result<Answer> {
    match verb {
        args::Config::Default => {
            context.screen.data(&config::default_document())?;
            Ok(Answer::Yes)
        }
        args::Config::Show { flags, output: Output { format } } => show(context, flags, format),
        args::Config::Check => check(context),
    }
}

fn show(context: &mut Context, flags: SettingFlags, format: ObjectFormat) -> anyhow::Result<Answer> {
    let loaded = context.config(flags)?;
    let text = match format {
        ObjectFormat::Table => lists::settings(&loaded),
        ObjectFormat::Json => json::settings(&loaded)?,
    };
    context.screen.data(&text)?;
    Ok(Answer::Yes)
}

/// What is wrong is the answer here, so it goes to stdout.
fn check(context: &mut Context) -> anyhow::Result<Answer> {
    let (text, answer) = match context.load(SettingFlags::default()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                context.screen.warn(warning);
            }
            let text = match loaded.file {
                Some(file) => format!("{} is valid\n", quote(&file.display().to_string())),
                None => format!("there is no {}; the defaults hold\n", config::DEFAULT_FILE),
            };
            (text, Answer::Yes)
        }
        Err(Error::Document { file, diagnostics }) => {
            let color = context.screen.data_in_color();
            (diagnostic::render(&[file], &diagnostics, color), Answer::No)
        }
        Err(error @ Error::Values(_)) => (format!("{error}\n"), Answer::No),
        Err(error @ Error::Read { .. }) => return Err(error.into()),
    };
    context.screen.data(&text)?;
    Ok(answer)
}
