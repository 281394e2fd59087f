//! Progress of pull, push, load and import: one line a layer, redrawn on a terminal.
//!
//! On a terminal with fewer lines than layers, those that have scrolled away are not redrawn, and a
//! text that does not fit into its line is cut, so that no line takes another's place.
//!
//! Source of the layout: moby `pkg/jsonmessage`.

use api::{
    client::Response,
    progress::{Message, Progress},
};

use super::units::human_size;
use crate::{
    failure::Failure,
    terminal::{self, Output, Size},
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
    let live = terminal::moves_cursor(output);
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
        // Asked each time: the user may change the terminal's size.
        let screen = live.then(|| terminal::size_of(output));
        terminal::write(output, board.draw(&message, screen).as_bytes())?;
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
pub struct Board {
    lines: Vec<String>,
}

impl Board {
    /// The text that shows a message; `screen` is the terminal's size, None where there is no terminal.
    pub fn draw(&mut self, message: &Message, screen: Option<Size>) -> String {
        let live = screen.is_some();
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
            if screen.is_some_and(|screen| down >= screen.rows) {
                return String::new();
            }
            if live {
                text.push_str(&format!("\x1b[{down}A"));
            }
        } else {
            self.lines.clear();
        }
        text.push_str(&body(message, screen));
        if live && down > 0 {
            text.push_str(&format!("\x1b[{down}B"));
        }
        text
    }
}

fn body(message: &Message, screen: Option<Size>) -> String {
    let id = match message.id.as_str() {
        "" => String::new(),
        id => format!("{id}: "),
    };
    if !message.stream.is_empty() {
        return format!("{id}{}", message.stream);
    }
    match (screen, &message.progress_detail) {
        (Some(screen), Some(progress)) => {
            let line = format!("{id}{} {}", message.status, bar(progress, screen.columns));
            let line: String = line.trim_end().chars().take(screen.columns).collect();
            format!("\x1b[2K\r{line}\r")
        }
        // Without a terminal only what ends with a word is told.
        (None, Some(progress)) if progress.current > 0 || progress.total > 0 => String::new(),
        (None, Some(_)) | (_, None) => format!("{id}{}\n", message.status),
    }
}

fn bar(progress: &Progress, columns: usize) -> String {
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
    if columns > 110 {
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
        assert_eq!(board.draw(&message, None), "");
        message.status = "Pull complete".to_owned();
        message.progress_detail = Some(Progress::default());
        assert_eq!(board.draw(&message, None), "abc: Pull complete\n");
        assert_eq!(board.draw(&Message::status("Status: done"), None), "Status: done\n");
    }

    #[test]
    fn on_a_terminal_a_layer_keeps_its_line() {
        let mut board = Board::default();
        let mut message = Message::status("Downloading");
        message.id = "abc".to_owned();
        message.progress_detail = Some(Progress { current: 5, total: 10, ..Progress::default() });
        let wide = Some(Size { rows: 24, columns: 120 });
        let text = board.draw(&message, wide);
        assert!(text.starts_with("\n\x1b[1A\x1b[2K\rabc: Downloading [====="), "{text:?}");
        assert!(text.ends_with("5B/10B\r\x1b[1B"), "{text:?}");
        message.status = "Mounted from a/repository".to_owned();
        message.progress_detail = Some(Progress::default());
        let narrow = Some(Size { rows: 2, columns: 16 });
        assert_eq!(board.draw(&message, narrow), "\x1b[1A\x1b[2K\rabc: Mounted fro\r\x1b[1B");
        // One more line, and the first is out of sight.
        message.id = "def".to_owned();
        assert!(board.draw(&message, narrow).starts_with('\n'));
        message.id = "abc".to_owned();
        assert_eq!(board.draw(&message, narrow), "");
    }
}
