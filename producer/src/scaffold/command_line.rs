//! Splits a command line that somebody copied, from a Unix shell or from Windows' `cmd`, into its words.

/// The words of the first command in `text`; `None` where a quote is not closed.
pub(super) fn words(text: &str) -> Option<Vec<String>> {
    let of_cmd = text.contains("^\"") || text.lines().any(|line| line.trim_end().ends_with('^'));
    let text = match of_cmd {
        true => without_carets(text),
        false => text.to_owned(),
    };
    Splitting {
        chars: text.chars().peekable(),
    }
    .all()
}

/// `cmd` takes the character behind a caret as it is; at a line's end the caret goes with the break.
fn without_carets(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '^' => match chars.next() {
                Some('\r' | '\n') => plain.push(' '),
                Some(next) => plain.push(next),
                None => {}
            },
            c => plain.push(c),
        }
    }
    plain
}

struct Splitting<'t> {
    chars: std::iter::Peekable<std::str::Chars<'t>>,
}

impl Splitting<'_> {
    fn all(mut self) -> Option<Vec<String>> {
        let mut words = Vec::new();
        while let Some(c) = self.chars.peek().copied() {
            match c {
                c if c.is_whitespace() => {
                    self.chars.next();
                }
                // What follows belongs to another program or to a file.
                '|' | '>' | '<' | ';' => break,
                _ => {
                    let (word, bare) = self.word()?;
                    if bare && matches!(word.as_str(), "&" | "&&") {
                        break;
                    }
                    // Only a line break that was escaped.
                    if !(bare && word.is_empty()) {
                        words.push(word);
                    }
                }
            }
        }
        Some(words)
    }

    /// One word, and whether it had no quotes.
    fn word(&mut self) -> Option<(String, bool)> {
        let (mut word, mut bare) = (String::new(), true);
        while let Some(c) = self.chars.peek().copied() {
            if c.is_whitespace() {
                break;
            }
            self.chars.next();
            match c {
                '\'' => {
                    bare = false;
                    self.single(&mut word)?;
                }
                '"' => {
                    bare = false;
                    self.double(&mut word)?;
                }
                '$' if self.chars.peek() == Some(&'\'') => {
                    bare = false;
                    self.chars.next();
                    self.ansi(&mut word)?;
                }
                '\\' => self.escaped(&mut word),
                c => word.push(c),
            }
        }
        Some((word, bare))
    }

    fn escaped(&mut self, word: &mut String) {
        match self.chars.next() {
            Some('\r') => {
                self.chars.next_if_eq(&'\n');
            }
            Some('\n') | None => {}
            Some(c) => word.push(c),
        }
    }

    fn single(&mut self, word: &mut String) -> Option<()> {
        loop {
            match self.chars.next()? {
                '\'' => return Some(()),
                c => word.push(c),
            }
        }
    }

    fn double(&mut self, word: &mut String) -> Option<()> {
        loop {
            match self.chars.next()? {
                '"' => return Some(()),
                '\\' => match self.chars.next()? {
                    '\n' => {}
                    c @ ('"' | '\\' | '$' | '`') => word.push(c),
                    c => word.extend(['\\', c]),
                },
                c => word.push(c),
            }
        }
    }

    /// `$'...'`, as browsers write texts with quotes or other signs in them.
    fn ansi(&mut self, word: &mut String) -> Option<()> {
        let mut units: Vec<u16> = Vec::new();
        loop {
            let mut unit = None;
            let c = match self.chars.next()? {
                '\'' => None,
                '\\' => match self.chars.next()? {
                    'n' => Some('\n'),
                    't' => Some('\t'),
                    'r' => Some('\r'),
                    'b' => Some('\u{8}'),
                    'f' => Some('\u{c}'),
                    'x' => char::from_u32(self.hex(2)?),
                    'u' => {
                        unit = u16::try_from(self.hex(4)?).ok();
                        None
                    }
                    c => Some(c),
                },
                c => Some(c),
            };
            if let Some(unit) = unit {
                units.push(unit);
                continue;
            }
            word.push_str(&String::from_utf16_lossy(&units));
            units.clear();
            match c {
                Some(c) => word.push(c),
                None => return Some(()),
            }
        }
    }

    fn hex(&mut self, most: usize) -> Option<u32> {
        let mut value = None;
        for _ in 0..most {
            let Some(digit) = self.chars.peek().and_then(|c| c.to_digit(16)) else {
                break;
            };
            self.chars.next();
            value = Some(value.unwrap_or(0) * 16 + digit);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn splits(text: &str, expected: &[&str]) {
        assert_eq!(words(text).expect("it splits"), expected, "{text}");
    }

    #[test]
    fn quotes_of_every_kind() {
        splits(
            "a 'b c' \"d \\\"e\\\" \\n\" f\\ g ''",
            &["a", "b c", "d \"e\" \\n", "f g", ""],
        );
        splits(
            r#"$'it\'s \u0021\ud83d\ude00\n'x '$'"#,
            &["it's !\u{1f600}\nx", "$"],
        );
        assert_eq!(words("curl 'a"), None);
        assert_eq!(words("curl $'a\\"), None);
    }

    #[test]
    fn lines_go_on_and_commands_end() {
        splits("a \\\n  -b \\\r\n c", &["a", "-b", "c"]);
        splits("a 'x?b=1&c=2' y&z | jq . > out", &["a", "x?b=1&c=2", "y&z"]);
        splits("a && b", &["a"]);
    }

    #[test]
    fn a_line_of_cmd() {
        splits(
            "curl ^\"https://a/x?b=1^&c=2^\" ^\r\n  -H ^\"a: ^\\^\"q^\\^\"^\"",
            &["curl", "https://a/x?b=1&c=2", "-H", "a: \"q\""],
        );
    }
}
