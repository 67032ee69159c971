//! Diagnostics as rustc shows them: the message, the line with a caret, what to write instead.

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use crate::domain::command::PolicyFile;
use crate::domain::policy::diagnostic::{Diagnostic, Location, Severity};

/// Renders diagnostics of these files for a terminal, with a blank line after each.
///
/// Files are found by index; a diagnostic whose text is not there, or is too long to look at, is rendered as its one
/// line.
pub fn render(files: &[PolicyFile], diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut rendered = String::new();
    for diagnostic in diagnostics {
        match group(files, diagnostic) {
            Some(group) => rendered.push_str(&renderer.render(&[group])),
            None => rendered.push_str(&diagnostic.to_string()),
        }
        rendered.push_str("\n\n");
    }
    rendered
}

fn group<'d>(files: &'d [PolicyFile], diagnostic: &'d Diagnostic) -> Option<Group<'d>> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.slug());
    let here = diagnostic.location.file;
    let primary = (&diagnostic.location, diagnostic.label.as_str(), AnnotationKind::Primary);
    let mut places = vec![primary];
    let mut elsewhere = Vec::new();
    for (location, label) in &diagnostic.related {
        let place = (location, label.as_str(), AnnotationKind::Context);
        if location.file == here { places.push(place) } else { elsewhere.push(place) }
    }
    let mut group = title.element(snippet(files, &places)?);
    for place in elsewhere {
        group = group.element(snippet(files, &[place])?);
    }
    Some(match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    })
}

/// Longest text of a snippet in bytes: a line of a megabyte helps nobody, and the renderer takes its time for it.
const LONGEST: usize = 1 << 16;

type Place<'d> = (&'d Location, &'d str, AnnotationKind);

/// A snippet of one file that shows all these places.
fn snippet<'d>(files: &'d [PolicyFile], places: &[Place<'d>]) -> Option<Snippet<'d, Annotation<'d>>> {
    let file = files.get(places.first()?.0.file)?;
    // Only the lines in question: the renderer looks at all it is given, and a file may be long.
    let first = places.iter().map(|(location, ..)| location).min_by_key(|location| location.start)?;
    let last = places.iter().map(|(location, ..)| location.end).max()?;
    let start = file.text.get(..first.start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let end = last + file.text.get(last..)?.find('\n').unwrap_or(file.text.len() - last);
    let annotations = places.iter().map(|(location, label, kind)| {
        let annotation = kind.span(location.start - start..location.end - start);
        if label.is_empty() { annotation } else { annotation.label(*label) }
    });
    let text = file.text.get(start..end).filter(|text| text.len() <= LONGEST)?;
    let snippet = Snippet::source(text).line_start(first.line).path(file.name.as_str());
    Some(snippet.annotations(annotations))
}
