//! Help in Docker's layout: usage line, description, other spellings, aligned options.

use super::{Command, Flag, Group, Kind, go::quote};

/// Columns of text when no terminal says otherwise.
const COLUMNS_DEFAULT: usize = 80;

/// `Usage:  docker run [OPTIONS] IMAGE …`.
pub fn usage_line(program: &str, path: &str, usage: &str) -> String {
    let mut line = format!("Usage:  {program}");
    for part in [path, usage] {
        if !part.is_empty() {
            line.push(' ');
            line.push_str(part);
        }
    }
    line
}

/// The whole help of a command; `path` is how it was typed, without the program.
pub fn command(program: &str, path: &str, command: &Command) -> String {
    let mut text = usage_line(program, path, command.usage);
    text.push_str(&format!("\n\n{}\n", command.about));
    if !command.spellings.is_empty() {
        let spelled: Vec<String> =
            command.spellings.iter().map(|spelling| format!("{program} {spelling}")).collect();
        text.push_str(&format!("\nAliases:\n  {}\n", spelled.join(", ")));
    }
    let flags: Vec<&Flag> = command.all_flags().filter(|flag| flag.name != "help").collect();
    if flags.iter().any(|flag| !flag.hidden) {
        let all: Vec<&Flag> = command.all_flags().collect();
        text.push_str(&format!("\nOptions:\n{}", options(&all, columns())));
    }
    text
}

/// The help of a management command.
pub fn group(program: &str, group: &Group) -> String {
    let mut text =
        format!("Usage:  {program} {} COMMAND\n\n{}\n\nCommands:\n", group.name, group.about);
    let mut rows: Vec<_> =
        group.commands.iter().map(|command| (command.name, command.about)).collect();
    rows.sort_unstable();
    text.push_str(&table(&rows));
    text.push_str(&format!(
        "\nRun '{program} {} COMMAND --help' for more information on a command.\n",
        group.name
    ));
    text
}

/// Names and descriptions in two columns, the first at least eleven wide.
pub fn table(rows: &[(&str, &str)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default().max(11);
    rows.iter().map(|(name, about)| format!("  {name:width$} {about}\n")).collect()
}

/// The options, sorted by name, aligned and wrapped.
///
/// Source of the layout: pflag `FlagUsagesWrapped`.
pub fn options(flags: &[&Flag], columns: usize) -> String {
    let mut shown: Vec<&Flag> = flags.iter().copied().filter(|flag| !flag.hidden).collect();
    shown.sort_unstable_by_key(|flag| flag.name);
    let heads: Vec<String> = shown.iter().map(|flag| head(flag)).collect();
    let width = heads.iter().map(String::len).max().unwrap_or_default();
    let mut text = String::new();
    for (flag, head) in shown.iter().zip(&heads) {
        let about = format!("{}{}", flag.usage, default(flag));
        text.push_str(&format!("{head:width$}   {}\n", wrap(width + 3, columns - 1, &about)));
    }
    text
}

fn head(flag: &Flag) -> String {
    let mut head = match flag.short {
        Some(short) => format!("  -{short}, --{}", flag.name),
        None => format!("      --{}", flag.name),
    };
    let placeholder = flag.kind.placeholder();
    if !placeholder.is_empty() {
        head.push(' ');
        head.push_str(placeholder);
    }
    head
}

fn default(flag: &Flag) -> String {
    match (flag.kind, flag.default) {
        (_, "") | (Kind::Bool, "false") => String::new(),
        (Kind::Text, value) => format!(" (default {})", quote(value)),
        (_, value) => format!(" (default {value})"),
    }
}

fn columns() -> usize {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        Ok(_) | Err(_) => COLUMNS_DEFAULT,
    }
}

/// Folds `text` to `width`, indenting all lines but the first.
fn wrap(indent: usize, width: usize, text: &str) -> String {
    /// A last word may stick out this far rather than stand alone.
    const SLOP: usize = 5;
    /// Narrower text goes below its option instead of beside it.
    const NARROWEST: usize = 24;
    let (indent, start) = if width < indent + NARROWEST {
        (16, format!("\n{}", " ".repeat(16)))
    } else {
        (indent, String::new())
    };
    if width < indent + NARROWEST {
        return text.to_owned();
    }
    let room = width - indent - SLOP;
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = split_line(room, SLOP, rest);
        lines.push(line.replace('\n', &format!("\n{}", " ".repeat(indent))));
        rest = after;
    }
    start + &lines.join(&format!("\n{}", " ".repeat(indent)))
}

fn split_line(room: usize, slop: usize, text: &str) -> (&str, &str) {
    if room + slop > text.len() {
        return (text, "");
    }
    let mut end = room;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let at = match text[..end].rfind([' ', '\t', '\n']) {
        None | Some(0) => return (text, ""),
        Some(blank) => match text[..end].rfind('\n') {
            Some(line_end) if line_end > 0 => line_end,
            Some(_) | None => blank,
        },
    };
    (&text[..at], &text[at + 1..])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{super::flag, *};

    #[test]
    fn options_are_sorted_aligned_and_wrapped() {
        let flags = [
            flag("volume", Kind::List, "Bind mount a volume").s('v'),
            flag("all", Kind::Bool, "Show everything there is to show, and then some more of it")
                .s('a'),
            flag("pull", Kind::Text, "When").or("missing"),
            flag("last", Kind::Int, "Rows").or("-1"),
            flag("secret", Kind::Bool, "").hidden(),
        ];
        let flags: Vec<&Flag> = flags.iter().collect();
        expect![[r#"
            Options:
              -a, --all           Show everything there is to
                                  show, and then some more of it
                  --last int      Rows (default -1)
                  --pull string   When (default "missing")
              -v, --volume list   Bind mount a volume
        "#]]
        .assert_eq(&format!("Options:\n{}", options(&flags, 60)));
    }
}
