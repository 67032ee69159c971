//! Rust text without its strings and comments, cut into words with line numbers.
//!
//! A lexer of this size cannot be fooled by a word in a string, and needs no parser to keep up with
//! the language.

use std::collections::HashSet;

/// A word or a mark; `::` is one mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// Counted from one.
    pub(super) line: usize,
    /// Inside an item marked `#[cfg(test)]`.
    pub(super) test: bool,
}

/// One file.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Relative to the top of the checkout, with `/`.
    pub(super) path: String,
    pub(super) raw: Vec<String>,
    /// The same lines with strings and comments blanked.
    pub(super) code: Vec<String>,
    pub(super) tokens: Vec<Token>,
    /// Modules in files of their own that are declared for tests only.
    test_modules: Vec<String>,
    /// The whole file is test code.
    pub(super) test: bool,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let stripped = strip(text);
        let mut tokens = tokenize(&stripped);
        let test_modules = mark_tests(&mut tokens);
        Self {
            path: path.to_owned(),
            raw: text.lines().map(str::to_owned).collect(),
            code: stripped.lines().map(str::to_owned).collect(),
            tokens,
            test_modules,
            // The suite's crate, a crate's integration tests, and fuzz targets, whose panic is a finding.
            test: ["tests/", "fuzz/"].iter().any(|folder| path.starts_with(folder))
                || path.contains("/tests/"),
        }
    }

    /// Tokens of the product itself.
    pub(super) fn product(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|token| !self.test && !token.test)
    }

    /// The tokens from `at` on, as text.
    pub(super) fn follows(&self, at: usize, texts: &[&str]) -> bool {
        let rest = self.tokens.get(at..).unwrap_or_default();
        rest.len() >= texts.len() && rest.iter().zip(texts).all(|(token, text)| token.text == *text)
    }

    /// Lines with code on them between two lines, both included.
    pub(super) fn code_lines(&self, first: usize, last: usize) -> usize {
        let lines = self.code.iter().take(last).skip(first.saturating_sub(1));
        lines.filter(|line| !line.trim().is_empty()).count()
    }

    /// The module's path below `src`, with `/` and without `mod`: `cli/render`.
    pub(super) fn module(&self) -> Option<(&str, String)> {
        let (package, inner) = self.path.split_once("/src/")?;
        let inner = inner.strip_suffix(".rs")?;
        Some((package, inner.strip_suffix("/mod").unwrap_or(inner).to_owned()))
    }
}

/// A file whose `mod` line stands under `#[cfg(test)]` is test code although nothing in it says so.
pub(super) fn mark_test_files(mut sources: Vec<Source>) -> Vec<Source> {
    let mut stems = HashSet::new();
    for source in &sources {
        let stem = source.path.strip_suffix(".rs").unwrap_or(&source.path);
        let (folder, file) = stem.rsplit_once('/').unwrap_or(("", stem));
        let home = if ["mod", "lib", "main"].contains(&file) { folder } else { stem };
        stems.extend(source.test_modules.iter().map(|module| format!("{home}/{module}")));
    }
    for source in &mut sources {
        let path = source.path.clone();
        let below =
            |stem: &String| path.strip_prefix(stem.as_str()).is_some_and(|rest| rest.starts_with(['.', '/']));
        source.test |= stems.iter().any(below);
    }
    sources
}

/// Blanks strings, characters and comments; line breaks stay where they are.
fn strip(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let at = |index: usize| letters.get(index).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut index = 0;
    while index < letters.len() {
        let end = match (at(index), at(index + 1)) {
            ('/', '/') => skip_while(&letters, index, |letter| letter != '\n'),
            ('/', '*') => block_comment(&letters, index),
            ('"', _) => string(&letters, index),
            ('r', '"' | '#') if !is_word(before(&letters, index)) || before(&letters, index) == 'b' => {
                raw_string(&letters, index)
            }
            ('\'', '\\') => skip_while(&letters, index + 3, |letter| letter != '\'') + 1,
            // A lifetime has no closing mark two letters on.
            ('\'', _) if at(index + 2) == '\'' => index + 3,
            _ => index,
        };
        if end == index {
            out.push(at(index));
            index += 1;
            continue;
        }
        let end = end.min(letters.len());
        // A literal leaves a mark behind, so that what stood around it does not become neighbours.
        out.push(if at(index) == '/' { ' ' } else { '"' });
        out.extend(letters[index..end].iter().filter(|letter| **letter == '\n'));
        index = end;
    }
    out
}

fn before(letters: &[char], index: usize) -> char {
    index.checked_sub(1).and_then(|index| letters.get(index)).copied().unwrap_or('\0')
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn skip_while(letters: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    let rest = letters.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|letter| wanted(**letter)).count()
}

fn block_comment(letters: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut index = from;
    while index < letters.len() {
        match (letters.get(index), letters.get(index + 1)) {
            (Some('/'), Some('*')) => (depth, index) = (depth + 1, index + 2),
            (Some('*'), Some('/')) => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

fn string(letters: &[char], from: usize) -> usize {
    let mut index = from + 1;
    while let Some(letter) = letters.get(index) {
        match letter {
            '\\' => index += 2,
            '"' => return index + 1,
            _ => index += 1,
        }
    }
    index
}

/// `r"..."`, `r#"..."#`; `r#word` is a name and stays.
fn raw_string(letters: &[char], from: usize) -> usize {
    let open = skip_while(letters, from + 1, |letter| letter == '#');
    if letters.get(open) != Some(&'"') {
        return from;
    }
    let marks = open - from - 1;
    let mut index = open + 1;
    while index < letters.len() {
        if letters.get(index) == Some(&'"') {
            let close = skip_while(letters, index + 1, |letter| letter == '#');
            if close - index > marks {
                return index + 1 + marks;
            }
        }
        index += 1;
    }
    index
}

fn tokenize(stripped: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (number, line) in stripped.lines().enumerate() {
        let mut letters = line.chars().peekable();
        while let Some(letter) = letters.next() {
            if letter.is_whitespace() {
                continue;
            }
            let mut text = String::from(letter);
            if is_word(letter) {
                while let Some(next) = letters.next_if(|next| is_word(*next)) {
                    text.push(next);
                }
            } else if letter == ':'
                && let Some(next) = letters.next_if_eq(&':')
            {
                text.push(next);
            }
            tokens.push(Token { text, line: number + 1, test: false });
        }
    }
    tokens
}

/// Marks every item under `#[cfg(test)]`; returns the names of modules declared there without a body.
fn mark_tests(tokens: &mut [Token]) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut modules = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let here = tokens.iter().skip(index).map(|token| token.text.as_str());
        if !here.take(MARK.len()).eq(MARK) {
            index += 1;
            continue;
        }
        let end = item_end(tokens, index + MARK.len());
        let item = &tokens[index..end];
        if let [.., module, name, semicolon] = item
            && module.text == "mod"
            && semicolon.text == ";"
        {
            modules.push(name.text.clone());
        }
        for token in &mut tokens[index..end] {
            token.test = true;
        }
        index = end;
    }
    modules
}

/// One past the item that starts at `from`: its `;`, or the brace that closes its body.
pub(super) fn item_end(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(from) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.text == "}" {
                    return index + 1;
                }
            }
            ";" if depth == 0 => return index + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let source = Source::new("enforcer/src/x.rs", text);
        source.tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn strings_and_comments_are_no_words() {
        assert_eq!(words("a(\"x \\\" y\") // z"), "a ( \" )");
        assert_eq!(words("a /* b /* c */ d */ e"), "a e");
        assert_eq!(words("a(r#\"x \" y\"#, br\"z\")"), "a ( \" , b \" )");
        assert_eq!(words("let x: &'a str = '\\''; '\"'"), "let x : & ' a str = \" ; \"");
        assert_eq!(words("use crate::r#type;"), "use crate :: r # type ;");
    }

    #[test]
    fn line_numbers_survive_long_strings() {
        let source = Source::new("x.rs", "a(\"1\n2\n3\");\nb");
        assert_eq!(source.tokens.last().map(|token| token.line), Some(4));
    }

    #[test]
    fn test_items_are_marked() {
        let source = Source::new("x.rs", "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}");
        let product: Vec<_> = source.product().map(|token| token.text.as_str()).collect();
        assert_eq!(product.join(" "), "fn a ( ) { } fn c ( ) { }");
    }

    #[test]
    fn files_of_test_modules_are_test_code() {
        let sources = mark_test_files(vec![
            Source::new("enforcer/src/domain/mod.rs", "#[cfg(test)]\nmod oracle;"),
            Source::new("enforcer/src/domain/oracle.rs", ""),
            Source::new("enforcer/src/domain/oracle/deep.rs", ""),
            Source::new("enforcer/src/domain/oracles.rs", ""),
        ]);
        assert_eq!(sources.iter().map(|source| source.test).collect::<Vec<_>>(), [false, true, true, false]);
    }
}
