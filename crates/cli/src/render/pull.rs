//! Progress of pull, push, load and import: one line a layer, redrawn on a terminal.
//!
//! Source of the layout: moby `pkg/jsonmessage`.

use api::{
    client::Response,
    progress::{Message, Progress},
};

use super::units::human_size;
use crate::{
    failure::Failure,
    terminal::{self, Output},
};

/// Shows a progress stream to its end; `aux` sees the messages that are meant for programs.
///
/// # Errors
/// The stream's own error, or a broken connection.
pub async fn show(
    mut response: Response,
    output: Output,
    mut aux: impl FnMut(&serde_json::Value),
) -> Result<(), Failure> {
    let live = match output {
        Output::Stdout => terminal::stdout_is_terminal(),
        Output::Stderr => terminal::stderr_is_terminal(),
    };
    let mut board = Board::default();
    while let Some(message) = response.next_json::<Message>().await? {
        if let Some(value) = &message.aux {
            aux(value);
            continue;
        }
        if let Some(error) = &message.error_detail {
            return Err(Failure::new(error.message.clone()));
        }
        if !message.error.is_empty() {
            return Err(Failure::new(message.error));
        }
        terminal::write(output, board.draw(&message, live).as_bytes());
    }
    Ok(())
}

/// Waits for a stream's end without showing it.
///
/// # Errors
/// As [`show`].
pub async fn discard(mut response: Response) -> Result<(), Failure> {
    while let Some(message) = response.next_json::<Message>().await? {
        if let Some(error) = message.error_detail {
            return Err(Failure::new(error.message));
        }
    }
    Ok(())
}

/// Which identifier stands on which line.
#[derive(Default)]
struct Board {
    lines: Vec<String>,
}

impl Board {
    fn draw(&mut self, message: &Message, live: bool) -> String {
        let progress = message.progress_detail.as_ref();
        let mut text = String::new();
        let mut down = 0;
        if !message.id.is_empty() && (progress.is_some() || !message.progress.is_empty()) {
            let known = self.lines.iter().position(|id| *id == message.id);
            let line = known.unwrap_or_else(|| {
                self.lines.push(message.id.clone());
                if live {
                    text.push('\n');
                }
                self.lines.len() - 1
            });
            down = self.lines.len() - line;
            if live {
                text.push_str(&format!("\x1b[{down}A"));
            }
        } else {
            self.lines.clear();
        }
        text.push_str(&body(message, live));
        if live && down > 0 {
            text.push_str(&format!("\x1b[{down}B"));
        }
        text
    }
}

fn body(message: &Message, live: bool) -> String {
    let bar = message.progress_detail.as_ref().map(bar).unwrap_or_default();
    let mut text = String::new();
    let end = if live && message.stream.is_empty() && message.progress_detail.is_some() {
        text.push_str("\x1b[2K\r");
        "\r"
    } else if !bar.is_empty() {
        return text;
    } else {
        ""
    };
    if !message.id.is_empty() {
        text.push_str(&format!("{}: ", message.id));
    }
    if live && !bar.is_empty() {
        text.push_str(&format!("{} {bar}{end}", message.status));
    } else if !message.stream.is_empty() {
        text.push_str(&format!("{}{end}", message.stream));
    } else {
        text.push_str(&format!("{}{end}\n", message.status));
        if live && !end.is_empty() {
            // The cursor moves down by itself when the line is one of several.
            text.pop();
        }
    }
    text
}

fn bar(progress: &Progress) -> String {
    if progress.current <= 0 && progress.total <= 0 {
        return String::new();
    }
    let amount = |value: i64| {
        if progress.units.is_empty() {
            human_size(value as f64)
        } else {
            format!("{value} {}", progress.units)
        }
    };
    if progress.total <= 0 {
        return format!("{:>8}", amount(progress.current));
    }
    let filled =
        usize::try_from((progress.current * 50 / progress.total).clamp(0, 50)).unwrap_or(50);
    let mut text = String::new();
    if terminal::columns() > 110 {
        text.push_str(&format!("[{}>{}] ", "=".repeat(filled), " ".repeat(50 - filled)));
    }
    if !progress.hide_counts {
        text.push_str(&format!("{:>8}", amount(progress.current)));
        if progress.current <= progress.total {
            text.push_str(&format!("/{}", amount(progress.total)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_only_milestones_are_printed() {
        let mut board = Board::default();
        let mut message = Message::status("Downloading");
        message.id = "abc".to_owned();
        message.progress_detail = Some(Progress { current: 5, total: 10, ..Progress::default() });
        assert_eq!(board.draw(&message, false), "");
        message.status = "Pull complete".to_owned();
        message.progress_detail = Some(Progress::default());
        assert_eq!(board.draw(&message, false), "abc: Pull complete\n");
        assert_eq!(board.draw(&Message::status("Status: done"), false), "Status: done\n");
    }

    #[test]
    fn on_a_terminal_a_layer_keeps_its_line() {
        let mut board = Board::default();
        let mut message = Message::status("Downloading");
        message.id = "abc".to_owned();
        message.progress_detail = Some(Progress { current: 5, total: 10, ..Progress::default() });
        let text = board.draw(&message, true);
        assert!(text.starts_with("\n\x1b[1A\x1b[2K\rabc: Downloading"), "{text:?}");
        assert!(text.ends_with("\r\x1b[1B"), "{text:?}");
    }
}
