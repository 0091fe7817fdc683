//! A Rust file as the rules see it: its place among the modules and the paths that it names.
//!
//! This is no parser. Comments and literals are taken out, the rest is split into words and signs,
//! and `use` trees are spelled out. That is enough for paths, which is all that the rules need.

use std::path::Path;

/// A file of the package.
pub(crate) struct Source {
    file: String,
    module: Vec<String>,
    paths: Vec<Named>,
    is_async: bool,
    code_lines: usize,
}

/// A path that the code names.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// Its parts; those of the package's own modules begin at the root.
    pub(crate) parts: Vec<String>,
    /// Whether it is of this package.
    pub(crate) local: bool,
    /// Whether it stands in an inline `mod tests`, or in a file of tests.
    pub(crate) in_tests: bool,
}

impl Source {
    /// Reads a file; `file` is its path from the root of the package.
    pub(crate) fn read(file: &Path, text: &str) -> Self {
        let module = Self::module(file);
        let bare = without_comments_and_literals(text);
        let words = words(&bare);
        let reader = Reader { module: &module, words: &words, at: 0, inline: Vec::new(), depth: 0 };
        let (paths, is_async) = reader.read();
        let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let code = text.get(..tests).unwrap_or(text);
        let code_lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        Self { file: file.display().to_string(), module, paths, is_async, code_lines }
    }

    /// The modules that lead to a file: none for the root of the library.
    pub(crate) fn module(file: &Path) -> Vec<String> {
        let inside = file.strip_prefix("src").unwrap_or(file).with_extension("");
        let parts = inside.iter().filter_map(|part| part.to_str().map(str::to_owned));
        let module: Vec<_> = parts.collect();
        if module == ["lib"] { Vec::new() } else { module }
    }

    /// The file, from the root of the package.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The top-level module it belongs to.
    pub(crate) fn top(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }

    /// Every path that it names.
    pub(crate) fn paths(&self) -> &[Named] {
        &self.paths
    }

    /// Whether it has asynchronous code outside of tests.
    pub(crate) fn is_async(&self) -> bool {
        self.is_async
    }

    /// Lines that are neither blank nor tests.
    pub(crate) fn code_lines(&self) -> usize {
        self.code_lines
    }
}

/// The text with a space in place of each comment, and empty literals.
fn without_comments_and_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest)
        } else if first == 'r' && !out.ends_with(is_word) {
            raw_string(rest).unwrap_or(0)
        } else if first == '\'' {
            character(rest)
        } else {
            0
        };
        if skipped > 0 {
            out.push(' ');
            rest = rest.get(skipped..).unwrap_or("");
        } else {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or("");
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a raw string that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let marks = text.chars().skip(1).take_while(|char| *char == '#').count();
    let body = text.get(1 + marks..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(marks));
    body.find(&end).map(|at| 1 + marks + 1 + at + end.len())
}

/// The length of a character that begins here; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => {
            chars.find(|(_, char)| *char == '\'').map_or(0, |(at, _)| at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Words, `::` and single signs.
fn words(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = if is_word(first) {
            rest.find(|char| !is_word(char)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (word, next) = rest.split_at(len);
        found.push(word);
        rest = next.trim_start();
    }
    found
}

/// Walks over the words and remembers in which inline module it is.
struct Reader<'a> {
    module: &'a [String],
    words: &'a [&'a str],
    at: usize,
    inline: Vec<(String, usize)>,
    depth: usize,
}

impl Reader<'_> {
    fn read(mut self) -> (Vec<Named>, bool) {
        let (mut paths, mut is_async) = (Vec::new(), false);
        while let Some(word) = self.words.get(self.at).copied() {
            match word {
                // `use<'a>` in a bound names no path.
                "use" if self.words.get(self.at + 1) != Some(&"<") => {
                    self.at += 1;
                    let mut trees = Vec::new();
                    self.tree(&mut Vec::new(), &mut trees);
                    paths.extend(trees.into_iter().map(|parts| self.named(parts)));
                    continue;
                }
                "mod" if self.words.get(self.at + 2) == Some(&"{") => {
                    let name = self.words.get(self.at + 1).map_or("", |name| name);
                    self.inline.push((name.to_owned(), self.depth));
                }
                "{" => self.depth += 1,
                "}" => {
                    self.depth = self.depth.saturating_sub(1);
                    self.inline.retain(|(_, depth)| *depth < self.depth);
                }
                "async" | "await" => is_async |= !self.in_tests(),
                _ if word.starts_with(is_word) => {
                    let parts = self.path();
                    if parts.len() > 1 {
                        paths.push(self.named(parts));
                    }
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
        (paths, is_async)
    }

    fn in_tests(&self) -> bool {
        let inline = self.inline.iter().map(|(name, _)| name);
        self.module.iter().chain(inline).any(|name| name == "tests")
    }

    /// Takes a path.
    fn path(&mut self) -> Vec<String> {
        let mut parts = Vec::new();
        while let Some(word) = self.words.get(self.at).filter(|word| word.starts_with(is_word)) {
            parts.push((*word).to_owned());
            self.at += 1;
            if self.words.get(self.at) != Some(&"::") {
                break;
            }
            self.at += 1;
        }
        parts
    }

    /// Takes one branch of a `use` tree.
    fn tree(&mut self, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        if self.words.get(self.at) == Some(&"::") {
            self.at += 1;
        }
        let path = self.path();
        let len = before.len();
        before.extend(path);
        if self.words.get(self.at) == Some(&"{") {
            while !matches!(self.words.get(self.at), Some(&"}") | None) {
                self.at += 1;
                self.tree(before, found);
            }
            self.at += 1;
        } else {
            found.push(before.clone());
            while !matches!(self.words.get(self.at), Some(&("," | ";" | "}")) | None) {
                self.at += 1;
            }
        }
        before.truncate(len);
    }

    /// The path from the root of the package, where it is of the package.
    fn named(&self, parts: Vec<String>) -> Named {
        let in_tests = self.in_tests();
        let inline = self.inline.iter().map(|(name, _)| name.clone());
        let mut here: Vec<String> = self.module.iter().cloned().chain(inline).collect();
        let climbs = parts.iter().take_while(|part| *part == "super" || *part == "self").count();
        let local = match parts.first().map(String::as_str) {
            Some("crate" | "flotilla") => {
                return Named { parts: parts[1..].to_vec(), local: true, in_tests };
            }
            Some("super" | "self") => {
                let up = parts.iter().take(climbs).filter(|part| *part == "super").count();
                here.truncate(here.len().saturating_sub(up));
                true
            }
            _ => return Named { parts, local: false, in_tests },
        };
        here.extend(parts.into_iter().skip(climbs));
        Named { parts: here, local, in_tests }
    }
}
