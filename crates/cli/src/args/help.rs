//! Help in Docker's layout: usage line, description, other spellings, aligned options.

use super::{Command, Flag, Group, Kind, go::quote};

/// Columns of text when no terminal says otherwise.
const COLUMNS_DEFAULT: usize = 80;

/// `Usage:  docker run [OPTIONS] IMAGE …`.
pub fn usage_line(program: &str, path: &str, usage: &str) -> String {
    let usage = usage.replace("{program}", program);
    let mut line = format!("Usage:  {program}");
    for part in [path, &usage] {
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
    text.push_str(&format!("\n\n{}\n", command.about.replace("{program}", program)));
    text.push_str(&notice(program, path));
    let spelled = spellings(path, command);
    if !spelled.is_empty() {
        let spelled: Vec<String> =
            spelled.iter().map(|spelling| format!("{program} {spelling}")).collect();
        text.push_str(&format!("\nAliases:\n  {}\n", spelled.join(", ")));
    }
    let flags: Vec<&Flag> = command.all_flags().filter(|flag| !flag.hidden).collect();
    let (own, dockers): (Vec<&Flag>, Vec<&Flag>) = flags.into_iter().partition(|flag| flag.own);
    for (heading, flags) in [("Options", dockers), ("Tug's own options", own)] {
        if !flags.is_empty() {
            let none = |_: &Flag| None;
            text.push_str(&format!("\n{heading}:\n{}", options(&flags, columns(), none)));
        }
    }
    text
}

/// Every full spelling of a command, where there are several.
fn spellings(path: &str, command: &Command) -> Vec<String> {
    if !command.spellings.is_empty() || command.aliases.is_empty() {
        return command.spellings.iter().map(|&spelling| spelling.to_owned()).collect();
    }
    let parent = path.rsplit_once(' ').map_or(String::new(), |(parent, _)| format!("{parent} "));
    let aliases = command.aliases.iter().map(|alias| format!("{parent}{alias}"));
    std::iter::once(path.to_owned()).chain(aliases).collect()
}

/// Docker marks the commands of a group as experimental, each by its full name.
fn notice(program: &str, path: &str) -> String {
    if path.split(' ').next() != Some("manifest") {
        return String::new();
    }
    format!(
        "\nEXPERIMENTAL:\n  {program} {path} is an experimental feature.\n  \
         Experimental features provide early access to product functionality. These\n  \
         features may change between releases without warning, or can be removed from a\n  \
         future release. Learn more about experimental features in our documentation:\n  \
         https://docs.docker.com/go/experimental/\n"
    )
}

/// The help of a management command; `path` is its full name.
pub fn group(program: &str, path: &str, group: &Group) -> String {
    let about = if group.long.is_empty() { group.about } else { group.long };
    let mut text =
        format!("Usage:  {program} {path} COMMAND\n\n{}\n", about.replace("{program}", program));
    text.push_str(&notice(program, path));
    let names = group.groups.iter().map(|group| group.name);
    let names = names.chain(group.commands.iter().map(|command| command.name));
    let names = names.filter(|name| !group.hidden.contains(name));
    let width = width(names);
    if !group.groups.is_empty() {
        let rows = group.groups.iter().map(|group| (group.name.to_owned(), group.about.to_owned()));
        text.push_str(&format!("\nManagement Commands:\n{}", table(width, rows.collect())));
    }
    let rows = group.commands.iter().filter(|command| !group.hidden.contains(&command.name));
    let rows = rows.map(|command| (command.name.to_owned(), short(command.about)));
    text.push_str(&format!("\nCommands:\n{}", table(width, rows.collect())));
    text.push_str(&format!(
        "\nRun '{program} {path} COMMAND --help' for more information on a command.\n"
    ));
    text
}

/// The first line of a command's description, without what it goes on to say.
pub fn short(about: &str) -> String {
    match about.split_once('\n') {
        Some((first, _)) => first.trim_end_matches('.').to_owned(),
        None => about.split_once(". You").map_or(about, |(first, _)| first).to_owned(),
    }
}

/// The width of the first column: at least eleven.
pub fn width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(str::len).max().unwrap_or_default().max(11)
}

/// Names and descriptions in two columns, sorted by name. A name may bear a mark.
pub fn table(width: usize, mut rows: Vec<(String, String)>) -> String {
    rows.sort_unstable();
    rows.iter().map(|(name, about)| format!("  {name:width$} {about}\n")).collect()
}

/// The options, sorted by name, aligned and wrapped. `known` gives defaults that are known only now.
///
/// Source of the layout: pflag `FlagUsagesWrapped`.
pub fn options(flags: &[&Flag], columns: usize, known: impl Fn(&Flag) -> Option<String>) -> String {
    let mut shown: Vec<&Flag> = flags.iter().copied().filter(|flag| !flag.hidden).collect();
    shown.sort_unstable_by_key(|flag| flag.name);
    let heads: Vec<String> = shown.iter().map(|flag| head(flag)).collect();
    let width = heads.iter().map(String::len).max().unwrap_or_default();
    let mut text = String::new();
    for (flag, head) in shown.iter().zip(&heads) {
        let default = match known(flag) {
            Some(value) => format!(" (default {})", quote(&value)),
            None => default(flag),
        };
        let about = format!("{}{default}", flag.usage);
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

/// Docker's client measures the terminal on stdin.
pub fn columns() -> usize {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
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
        .assert_eq(&format!("Options:\n{}", options(&flags, 60, |_| None)));
    }
}
