//! nginx's files, read into directives: words, quotation marks, `;`, braces, comments (as
//! `ngx_conf_read_token` takes them). `include` is a directive like any other: nothing is followed.

use std::iter::Peekable;
use std::str::Chars;

use super::directive::{Directive, SyntaxError, SyntaxFault, Tree};

/// # Errors
/// Where braces, quotation marks or semicolons do not match.
pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Directive>, SyntaxError> {
    let mut tree = Tree::new(file);
    let mut reader = Reader { chars: text.chars().peekable(), line: 1 };
    let mut words = Vec::new();
    // Of the first of the words.
    let mut line = 1;
    while let Some(c) = reader.next() {
        let at = reader.line;
        let word = match c {
            '#' => {
                reader.skip_comment();
                continue;
            }
            c if c.is_whitespace() => continue,
            ';' | '{' if words.is_empty() => return Err(tree.fail(at, SyntaxFault::NoName)),
            ';' => {
                tree.add(line, std::mem::take(&mut words))?;
                continue;
            }
            '{' => {
                tree.open(line, std::mem::take(&mut words))?;
                continue;
            }
            '}' if words.is_empty() => {
                tree.close(at)?;
                continue;
            }
            '}' => return Err(tree.fail(line, SyntaxFault::NotEnded)),
            '"' | '\'' => reader.quoted(c, &tree)?,
            c => reader.bare(c),
        };
        line = if words.is_empty() { at } else { line };
        words.push(word);
    }
    if !words.is_empty() {
        return Err(tree.fail(line, SyntaxFault::NotEnded));
    }
    tree.finish()
}

struct Reader<'t> {
    chars: Peekable<Chars<'t>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn skip_comment(&mut self) {
        while self.chars.next_if(|c| *c != '\n').is_some() {}
    }

    /// The rest of a word that has begun with `first`. The brace of `${name}` is a part of it.
    fn bare(&mut self, first: char) -> String {
        let mut word = String::new();
        let mut last = first;
        self.push(first, &mut word);
        while let Some(&c) = self.chars.peek() {
            if c.is_whitespace() || c == ';' || (c == '{' && last != '$') {
                break;
            }
            self.next();
            self.push(c, &mut word);
            last = c;
        }
        word
    }

    /// Adds a character; a backslash takes the next one as it is, and stays unless that is special.
    fn push(&mut self, c: char, word: &mut String) {
        if c != '\\' {
            word.push(c);
            return;
        }
        match self.next() {
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(escaped @ ('"' | '\'' | '\\')) => word.push(escaped),
            Some(other) => word.extend(['\\', other]),
            None => word.push('\\'),
        }
    }

    fn quoted(&mut self, quote: char, tree: &Tree) -> Result<String, SyntaxError> {
        let line = self.line;
        let mut word = String::new();
        loop {
            match self.next() {
                None => return Err(tree.fail(line, SyntaxFault::Quote)),
                Some(c) if c == quote => break,
                Some(c) => self.push(c, &mut word),
            }
        }
        match self.chars.peek() {
            Some(&c) if !c.is_whitespace() && !";{)".contains(c) => {
                Err(tree.fail(self.line, SyntaxFault::Glued))
            }
            _ => Ok(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `name(argument,..)@line{children}`.
    fn shown(directives: &[Directive]) -> String {
        let each = directives.iter().map(|d| {
            let block = d.block.as_ref().map(|block| format!("{{{}}}", shown(block)));
            let arguments = d.arguments.join(",");
            format!("{}({arguments})@{}{}", d.name, d.place.line, block.unwrap_or_default())
        });
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_blocks_and_comments_are_told_apart() {
        for (text, expected) in [
            ("", ""),
            ("a;b c;", "a()@1 b(c)@1"),
            ("# no;\na # { comment\n b\n ;", "a(b)@2"),
            ("a{b{c;}d;}", "a()@1{b()@1{c()@1} d()@1}"),
            ("a 'x y' \"z;\" ;", "a(x y,z;)@1"),
            ("log 'one '\n    'two';\nnext;", "log(one ,two)@1 next()@3"),
            ("a ${b}c$d{e;}", "a(${b}c$d)@1{e()@1}"),
            ("a \\; b\\{ 'it\\'s' c\\\\;", "a(\\;,b\\{,it's,c\\)@1"),
            ("a b#c;", "a(b#c)@1"),
            ("map $x $y { ~^a\\d b; }", "map($x,$y)@1{~^a\\d(b)@1}"),
        ] {
            let read = parse("f", text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(shown(&read), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_match_is_refused_with_its_line() {
        for (text, line, fault) in [
            ("a;\nb {\nc;\n", 2, SyntaxFault::NotClosed),
            ("a;\n}\n", 2, SyntaxFault::ClosesNothing),
            ("a;\nb 'c;\n", 2, SyntaxFault::Quote),
            (";", 1, SyntaxFault::NoName),
            ("a;\n{", 2, SyntaxFault::NoName),
            ("a {\n b\n}", 2, SyntaxFault::NotEnded),
            ("a;\nb", 2, SyntaxFault::NotEnded),
            ("a 'b'c;", 1, SyntaxFault::Glued),
            (&"a{".repeat(33), 1, SyntaxFault::TooDeep),
        ] {
            let error = parse("f", text).expect_err(text);
            assert_eq!((error.place.line, error.fault), (line, fault), "{text}");
        }
        let error = parse("/etc/nginx.conf", "a {").expect_err("no end");
        assert!(error.to_string().starts_with("/etc/nginx.conf:1: the block"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in r#"([a-z \n;{}'"\\#$é]|.){0,200}"#) {
            let _ = parse("f", &text);
        }
    }
}
