//! `image ls --tree`: images with their platforms below them.
//!
//! ```text
//! IMAGE            ID             DISK USAGE   CONTENT SIZE   EXTRA
//! name:tag         0123456789ab        2.2MB         1.19MB   U
//! ├─ linux/amd64   …
//! └─ linux/arm64   …                                               faint where it is not here
//! ```
//! Colour only on a terminal. Source: docker/cli 28.2 `cli/command/image/tree.go`.

use api::image::{ManifestSummary, Summary};

use crate::{
    failure::Failure,
    render::units::{ellipsis, short_id, table_size},
    terminal,
};

const WARNING: &str =
    "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.";

/// Between columns.
const GAP: usize = 3;
/// Of all columns but the first: id, disk usage, content size, extra.
const WIDTHS: [usize; 4] = [12, 10, 12, 5];
const COLUMNS_DEFAULT: usize = 80;
const COLUMNS_LEAST: usize = 20;

/// Whether the output may have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Colours,
}

impl Paint {
    fn with(self, colours: &str, text: &str) -> String {
        match self {
            Paint::Colours if !text.is_empty() => format!("{colours}{text}\x1b[0m"),
            Paint::Colours | Paint::Plain => text.to_owned(),
        }
    }
}

const HEADER: &str = "\x1b[39m\x1b[1m";
const NAME: &str = "\x1b[34m\x1b[1m";
const NORMAL: &str = "\x1b[39m";
const FAINT: &str = "\x1b[39m\x1b[2m";
const IN_USE: &str = "\x1b[38;5;0m\x1b[48;5;14m";

/// Prints the images. What a list can show and a tree cannot is refused before.
pub fn print(images: &[Summary]) {
    let columns = terminal::size().map_or(COLUMNS_DEFAULT, |(_, columns)| columns.into());
    let paint = match terminal::takes_colours(terminal::Output::Stdout) {
        true => Paint::Colours,
        false => Paint::Plain,
    };
    terminal::out(&render(images, paint, columns.max(COLUMNS_LEAST)));
}

/// # Errors
/// When a flag is given that a tree does not know.
pub fn refuse(given: impl Fn(&str) -> bool) -> Result<(), Failure> {
    let flags = [
        ("quiet", "quiet"),
        ("no-trunc", "no-trunc"),
        ("digests", "show-digest"),
        ("format", "format"),
    ];
    match flags.into_iter().find(|(name, _)| given(name)) {
        Some((_, shown)) => {
            Err(Failure::new(format!("--{shown} is not yet supported with --tree")))
        }
        None => Ok(()),
    }
}

/// What stands beside a name or a platform.
struct Details {
    id: String,
    disk: String,
    content: String,
    is_used: bool,
}

struct Branch {
    platform: String,
    is_here: bool,
    details: Details,
}

struct Tree {
    names: Vec<String>,
    details: Details,
    branches: Vec<Branch>,
}

impl Tree {
    fn of(image: &Summary) -> Tree {
        let manifests = image.manifests.iter().flatten();
        let branches: Vec<Branch> = manifests.clone().filter_map(branch).collect();
        let content: i64 = manifests.map(|manifest| manifest.size.content).sum();
        let mut names: Vec<String> =
            image.repo_tags.iter().filter(|name| *name != "<none>:<none>").cloned().collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let details = Details {
            id: short_id(&image.id).to_owned(),
            disk: table_size(image.size as f64),
            content: table_size(content as f64),
            is_used: image.containers > 0 || branches.iter().any(|branch| branch.details.is_used),
        };
        Tree { names, details, branches }
    }

    /// The columns that its names and platforms take. Docker's client counts the bytes of the lines
    /// before a platform, not their columns, and so do we.
    fn width(&self) -> usize {
        let names = self.names.iter().map(|name| name.chars().count());
        let branches = self.branches.iter().map(|branch| branch.platform.len() + "└─ ".len());
        let untagged = if self.names.is_empty() { UNTAGGED.len() } else { 0 };
        names.chain(branches).max().unwrap_or_default().max(untagged)
    }
}

const UNTAGGED: &str = "<untagged>";

fn branch(manifest: &ManifestSummary) -> Option<Branch> {
    let image = manifest.image_data.as_ref().filter(|_| manifest.kind == "image")?;
    let part = |name: &str| image.platform[name].as_str().filter(|part| !part.is_empty());
    let parts = ["os", "architecture", "variant"].into_iter().filter_map(part);
    Some(Branch {
        platform: parts.collect::<Vec<_>>().join("/"),
        is_here: manifest.available,
        details: Details {
            id: short_id(&manifest.id).to_owned(),
            disk: table_size(manifest.size.total as f64),
            content: table_size(manifest.size.content as f64),
            is_used: !image.containers.is_empty(),
        },
    })
}

fn render(images: &[Summary], paint: Paint, columns: usize) -> String {
    let trees: Vec<Tree> = images.iter().map(Tree::of).collect();
    let others: usize = WIDTHS.iter().map(|width| width + GAP).sum();
    let widest = trees.iter().map(Tree::width).max().unwrap_or_default().max("IMAGE".len());
    let width = widest.min(columns.saturating_sub(others)).max("IMAGE".len());
    let is_spaced = trees.iter().any(|tree| !tree.branches.is_empty());
    let mut text = format!("{}\n{}\n\n", paint.with("\x1b[93m", WARNING), legend(paint, columns));
    text.push_str(&left(paint.with(HEADER, "IMAGE"), 5, width));
    for (title, width) in ["ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"].into_iter().zip(WIDTHS) {
        text.push_str(&" ".repeat(GAP));
        text.push_str(&left(paint.with(HEADER, title), title.len(), width));
    }
    text.push('\n');
    for tree in &trees {
        text.push_str(&tree_lines(tree, paint, width));
        if is_spaced {
            text.push('\n');
        }
    }
    text
}

fn tree_lines(tree: &Tree, paint: Paint, width: usize) -> String {
    let mut text = String::new();
    let cell = |colours: &str, words: &str| {
        let words = ellipsis(words, width);
        left(paint.with(colours, &words), words.chars().count(), width)
    };
    match tree.names.split_last() {
        None => text.push_str(&cell(FAINT, UNTAGGED)),
        Some((last, others)) => {
            for name in others {
                // Nothing stands beside these, so they have the whole line.
                text.push_str(&paint.with(NAME, name));
                text.push('\n');
            }
            text.push_str(&cell(NAME, last));
        }
    }
    text.push_str(&cells(&tree.details, NORMAL, paint));
    for (place, branch) in tree.branches.iter().enumerate() {
        let mark = if place + 1 == tree.branches.len() { "└─" } else { "├─" };
        let colours = if branch.is_here { NORMAL } else { FAINT };
        text.push_str(&cell(colours, &format!("{mark} {}", branch.platform)));
        text.push_str(&cells(&branch.details, colours, paint));
    }
    text
}

/// The columns after the name, and the end of the line.
fn cells(details: &Details, colours: &str, paint: Paint) -> String {
    let [id, disk, content, extra] = WIDTHS;
    let gap = " ".repeat(GAP);
    let right = |text: &str, width: usize| {
        format!("{}{}", " ".repeat(width.saturating_sub(text.len())), paint.with(colours, text))
    };
    let (chip, chip_width) = match (details.is_used, paint) {
        (true, Paint::Colours) => (paint.with(IN_USE, " U "), 3),
        (true, Paint::Plain) => ("U".to_owned(), 1),
        (false, _) => (String::new(), 0),
    };
    format!(
        "{gap}{}{gap}{}{gap}{}{gap}{}\n",
        left(paint.with(colours, &details.id), details.id.len(), id),
        right(&details.disk, disk),
        right(&details.content, content),
        left(chip, chip_width, extra)
    )
}

/// Pads a text that takes `taken` columns.
fn left(text: String, taken: usize, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(taken)))
}

/// What the marks in the last column mean, at the right.
fn legend(paint: Paint, columns: usize) -> String {
    let (text, taken) = match paint {
        Paint::Plain => ("Info ->  U In Use ".to_owned(), 18),
        Paint::Colours => (
            format!(
                "\x1b[1m\x1b[106m\x1b[30mi\x1b[0m \x1b[96mInfo → \x1b[0m {IN_USE} U \x1b[0m In Use "
            ),
            21,
        ),
    };
    format!("{}{text}", " ".repeat(columns.saturating_sub(taken)))
}

#[cfg(test)]
mod tests {
    use api::image::{ManifestImage, ManifestSize};
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    fn manifest(architecture: &str, content: i64, total: i64) -> ManifestSummary {
        ManifestSummary {
            id: format!("sha256:{architecture}{}", "0".repeat(64)),
            available: content > 0,
            size: ManifestSize { total, content },
            kind: "image".to_owned(),
            image_data: Some(ManifestImage {
                platform: json!({"architecture": architecture, "os": "linux"}),
                containers: vec!["one".to_owned(); usize::from(content > 0)],
                ..ManifestImage::default()
            }),
            ..ManifestSummary::default()
        }
    }

    fn images() -> Vec<Summary> {
        let image = |tags: &[&str]| Summary {
            id: "sha256:0123456789abcdef".to_owned(),
            repo_tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            size: 2_200_000,
            ..Summary::default()
        };
        let mut both = image(&["foo:latest", "registry.example/group/foo:v1"]);
        both.manifests =
            Some(vec![manifest("amd64", 1_190_000, 3_390_000), manifest("arm64", 0, 0)]);
        vec![both, image(&[])]
    }

    #[test]
    fn platforms_stand_below_their_image() {
        let text = render(&images(), Paint::Plain, 100).replace(" \n", "~\n");
        expect![[r#"
            WARNING: This is an experimental feature. The output may change and shouldn't be depended on.
                                                                                              Info ->  U In Use~

            IMAGE                           ID             DISK USAGE   CONTENT SIZE   EXTRA
            registry.example/group/foo:v1
            foo:latest                      0123456789ab        2.2MB         1.19MB   U   ~
            ├─ linux/amd64                  amd640000000       3.39MB         1.19MB   U   ~
            └─ linux/arm64                  arm640000000           0B             0B       ~

            <untagged>                      0123456789ab        2.2MB             0B       ~

        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn what_is_not_here_is_faint_on_a_terminal() {
        let text = render(&images(), Paint::Colours, 100);
        assert!(text.contains("\x1b[39m\x1b[2m└─ linux/arm64\x1b[0m"), "{text:?}");
        assert!(text.contains("\x1b[38;5;0m\x1b[48;5;14m U \x1b[0m  \n"), "{text:?}");
        let narrow = render(&images(), Paint::Plain, 60);
        assert!(narrow.contains("foo:late…"), "{narrow}");
    }
}
