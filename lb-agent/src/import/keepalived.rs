//! keepalived's files, read into directives: a line is one, a block stands between braces, and `!` and `#`
//! begin comments. `include`, definitions (`$NAME=..`) and conditions (`@name`) are directives like any
//! others: nothing is followed or put in.

use std::iter::Peekable;
use std::str::Chars;

use super::directive::{Directive, SyntaxError, SyntaxFault, Tree};

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
}

/// # Errors
/// Where braces or quotation marks do not match.
pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Directive>, SyntaxError> {
    let mut tree = Tree::new(file);
    let mut words = Vec::new();
    // Of the first of the words.
    let mut first = 0;
    for (line, text) in (1..).zip(text.lines()) {
        let (text, goes_on) = match text.trim_end().strip_suffix('\\') {
            Some(text) => (text, true),
            None => (text, false),
        };
        for token in tokens(text).map_err(|fault| tree.fail(line, fault))? {
            match token {
                Token::Word(word) => {
                    first = if words.is_empty() { line } else { first };
                    words.push(word);
                }
                Token::Open if words.is_empty() => tree.open_last(line)?,
                Token::Open => tree.open(first, std::mem::take(&mut words))?,
                Token::Close => {
                    end(&mut tree, first, &mut words)?;
                    tree.close(line)?;
                }
            }
        }
        if !goes_on {
            end(&mut tree, first, &mut words)?;
        }
    }
    end(&mut tree, first, &mut words)?;
    tree.finish()
}

fn end(tree: &mut Tree, line: usize, words: &mut Vec<String>) -> Result<(), SyntaxError> {
    if words.is_empty() { Ok(()) } else { tree.add(line, std::mem::take(words)) }
}

/// The words of a command, as keepalived divides the text of a `script`. None where they are no words.
pub(super) fn command(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '"' | '\'' => words.push(quoted(c, &mut chars)?),
            c => words.push(bare(c, &mut chars, char::is_whitespace)),
        }
    }
    Some(words)
}

fn tokens(line: &str) -> Result<Vec<Token>, SyntaxFault> {
    let mut tokens = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '!' | '#' => break,
            '{' => Token::Open,
            '}' => Token::Close,
            '"' => Token::Word(quoted(c, &mut chars).ok_or(SyntaxFault::Quote)?),
            c if c.is_whitespace() => continue,
            c => Token::Word(bare(c, &mut chars, |c| c.is_whitespace() || "!#{}\"".contains(c))),
        });
    }
    Ok(tokens)
}

/// The rest of a word, up to its quotation mark. None where there is no such mark.
fn quoted(quote: char, chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut word = String::new();
    loop {
        match chars.next()? {
            c if c == quote => return Some(word),
            '\\' => match chars.next()? {
                c if c == quote || c == '\\' => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

/// The rest of a word that has begun with `first`. The braces of `${NAME}` are a part of it.
fn bare(first: char, chars: &mut Peekable<Chars<'_>>, ends: impl Fn(char) -> bool) -> String {
    let mut word = String::new();
    let mut last = '\0';
    let mut variable = false;
    let mut c = first;
    loop {
        variable = (variable && last != '}') || (c == '{' && last == '$');
        match c {
            '\\' => word.extend(chars.next()),
            c => word.push(c),
        }
        last = c;
        let next = |next: &char| {
            let of_variable = (*next == '{' && last == '$') || (*next == '}' && variable);
            of_variable || !ends(*next)
        };
        match chars.next_if(next) {
            Some(next) => c = next,
            None => return word,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(directives: &[Directive]) -> String {
        let each = directives.iter().map(|d| {
            let block = d.block.as_ref().map(|block| format!("{{{}}}", shown(block)));
            let arguments = d.arguments.join(",");
            format!("{}({arguments})@{}{}", d.name, d.place.line, block.unwrap_or_default())
        });
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lines_blocks_and_comments_are_told_apart() {
        for (text, expected) in [
            ("", ""),
            ("! Configuration File\n# for keepalived\n", ""),
            ("a b\nc\n", "a(b)@1 c()@2"),
            ("a {\n  b c # d\n}\ne", "a()@1{b(c)@2} e()@4"),
            ("a x\n{\n b\n}\n", "a(x)@1{b()@3}"),
            ("vrrp_instance VI_1{\n}", "vrrp_instance(VI_1)@1{}"),
            ("a { b c }\nd", "a()@1{b(c)@1} d()@2"),
            ("script \"/bin/x 'a b' { # !\"", "script(/bin/x 'a b' { # !)@1"),
            ("a b \\\n  c\nd", "a(b,c)@1 d()@3"),
            ("a ${X}y {\n}\n", "a(${X}y)@1{}"),
            ("pass a\\#b", "pass(a#b)@1"),
            ("@node1 priority 100\n$VIP=10.0.0.1", "@node1(priority,100)@1 $VIP=10.0.0.1()@2"),
        ] {
            let read = parse("f", text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(shown(&read), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_match_is_refused_with_its_line() {
        for (text, line, fault) in [
            ("a\nb {\nc\n", 2, SyntaxFault::NotClosed),
            ("a\n}\n", 2, SyntaxFault::ClosesNothing),
            ("a\nb \"c\n", 2, SyntaxFault::Quote),
            ("{", 1, SyntaxFault::NoName),
            ("a {\n}\n{\n}", 3, SyntaxFault::NoName),
            (&"a{\n".repeat(33), 33, SyntaxFault::TooDeep),
        ] {
            let error = parse("f", text).expect_err(text);
            assert_eq!((error.place.line, error.fault), (line, fault), "{text}");
        }
    }

    #[test]
    fn a_command_is_divided_at_its_blanks() {
        let divided = |text| command(text).map(|words| words.join("|"));
        assert_eq!(divided("killall -0 nginx").as_deref(), Some("killall|-0|nginx"));
        assert_eq!(divided("/bin/sh -c 'a \"b\" | c'").as_deref(), Some("/bin/sh|-c|a \"b\" | c"));
        assert_eq!(divided("/bin/sh -c 'a"), None);
        assert_eq!(divided(" ").as_deref(), Some(""));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in r#"([a-z \n{}"'\\#!$@é]|.){0,200}"#) {
            let _ = (parse("f", &text), command(&text));
        }
    }
}
