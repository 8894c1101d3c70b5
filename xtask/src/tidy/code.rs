//! Rust source with its comments and literals blanked, so that a word found in it is code.

/// Returns `source` with every comment and the contents of every string, byte string and character
/// literal replaced by spaces. Line breaks stay, so line numbers are those of the source.
pub(super) fn only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => block_end(&chars, at),
            '"' => string_end(&chars, at),
            'r' | 'b' | 'c' if !follows_word(&chars, at) => match prefixed_end(&chars, at) {
                Some(end) => end,
                None => at,
            },
            '\'' => char_end(&chars, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(
                chars[at..end]
                    .iter()
                    .map(|&c| if c == '\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    out
}

/// The (1-based) lines of blanked code in which `word` stands as a whole word.
pub(super) fn lines_with(code: &str, word: &str) -> Vec<usize> {
    code.lines()
        .enumerate()
        .filter(|(_, line)| has_word(line, word))
        .map(|(index, _)| index + 1)
        .collect()
}

/// Whether `word` stands in `line` with no identifier character on either side.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The attributes in blanked code, each with the (1-based) line on which it begins.
pub(super) fn attributes(code: &str) -> Vec<(usize, &str)> {
    let begins = |start: usize| {
        let rest = code[start + 1..].trim_start();
        rest.strip_prefix('!')
            .map_or(rest, str::trim_start)
            .starts_with('[')
    };
    code.match_indices('#')
        .filter(|&(start, _)| begins(start))
        .map(|(start, _)| {
            let line = code[..start].matches('\n').count() + 1;
            (line, &code[start..brackets_end(code, start)])
        })
        .collect()
}

/// The end of what stands in the first square brackets from `start` on.
fn brackets_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[start..].char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return start + at + 1;
        }
    }
    code.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn follows_word(chars: &[char], at: usize) -> bool {
    at > 0 && is_word(chars[at - 1])
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..]
        .iter()
        .position(|&c| c == '\n')
        .map_or(chars.len(), |length| at + length)
}

/// The end of a block comment; they nest.
fn block_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a string whose opening quote is at `start`.
fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a literal that begins with `r`, `b`, `c`, `br` or `cr` at `start`, if one does.
fn prefixed_end(chars: &[char], start: usize) -> Option<usize> {
    let mut at = start;
    if matches!(chars[at], 'b' | 'c') {
        at += 1;
        match chars.get(at) {
            Some('"') => return Some(string_end(chars, at)),
            Some('\'') if chars[start] == 'b' => return char_end(chars, at),
            _ => {}
        }
    }
    if chars.get(at) != Some(&'r') {
        return None;
    }
    at += 1;
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        // A raw identifier such as r#type, or a plain word.
        return None;
    }
    at += 1;
    while at < chars.len() {
        let closes = chars[at] == '"'
            && chars[at + 1..]
                .iter()
                .take(hashes)
                .filter(|&&c| c == '#')
                .count()
                == hashes;
        if closes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(chars.len())
}

/// The end of a character literal at `start`; none where the quote begins a lifetime.
fn char_end(chars: &[char], start: usize) -> Option<usize> {
    match (chars.get(start + 1)?, chars.get(start + 2)) {
        ('\\', Some(_)) => {
            let close = chars[start + 3..].iter().position(|&c| c == '\'')?;
            Some(start + 3 + close + 1)
        }
        (_, Some('\'')) => Some(start + 3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        for (source, kept) in [
            ("a // todo!", "a"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("todo!", 'x', b'y')"#, "f(       ,    ,     )"),
            (r##"f(r#"a " b"#, c)"##, "f(          , c)"),
            (r#"f("a \" b", c)"#, "f(        , c)"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("let r#type = 'a';", "let r#type =    ;"),
            (r"'\'' + '\u{41}' x", "     +          x"),
            ("barber\"x\"", "barber"),
            ("a \"unfinished", "a"),
        ] {
            assert_eq!(only(source).trim_end(), kept, "{source}");
        }
    }

    #[test]
    fn lines_keep_their_numbers() {
        let code = only("/* one\ntwo */ unsafe {\n\"three\nfour\" }\nunsafe");
        assert_eq!(lines_with(&code, "unsafe"), [2, 5]);
    }

    #[test]
    fn attributes_are_whole_and_have_lines() {
        let code = "# ! [a]\nx[0]\n#[b(\n    c[d],\n)]\nr#type #[e";
        assert_eq!(
            attributes(code),
            [(1, "# ! [a]"), (3, "#[b(\n    c[d],\n)]"), (6, "#[e")]
        );
    }

    #[test]
    fn a_word_is_whole() {
        assert!(has_word("cfg(target_arch = )", "target_arch"));
        assert!(!has_word("my_target_arch_table", "target_arch"));
        assert!(has_word("todo!()", "todo!"));
    }
}
