//! A build's progress on a terminal, redrawn in place.
//!
//! A drawing is a list of lines; the next one moves up over them and writes them anew. While the
//! build runs, only as many are shown as the screen holds; the last drawing shows all.

use super::board::{Board, Vertex, seconds};
use super::palette::Palette;

/// Lines of a running command's output that are shown.
const LOG_LINES: usize = 6;

/// Whether more is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Running,
    Finished,
    Failed,
}

#[derive(Debug, Default)]
pub struct Tty {
    lines: usize,
    palette: Palette,
}

impl Tty {
    pub fn new(palette: Palette) -> Tty {
        Tty { lines: 0, palette }
    }

    /// What to print to replace the last drawing.
    pub fn redraw(
        &mut self,
        board: &Board,
        phase: Phase,
        now_ms: u64,
        size: (usize, usize),
    ) -> String {
        let (rows, columns) = size;
        let palette = &self.palette;
        let mut lines = vec![head(board, phase, now_ms, columns, palette)];
        let block = |vertex| block(vertex, phase, now_ms, columns, palette);
        let mut blocks: Vec<Vec<String>> = board.vertices.iter().map(block).collect();
        if phase == Phase::Running {
            let room = rows.saturating_sub(2).max(3);
            // The oldest that are done give way to what still goes on.
            let mut total: usize = blocks.iter().map(Vec::len).sum();
            for (vertex, block) in board.vertices.iter().zip(&mut blocks) {
                if total > room && vertex.ended_ms.is_some() {
                    total -= block.len();
                    block.clear();
                }
            }
        }
        lines.extend(blocks.into_iter().flatten());
        let mut text = String::from("\x1b[?25l");
        if self.lines > 0 {
            text.push_str(&format!("\x1b[{}A", self.lines));
        }
        for line in &lines {
            text.push_str(&format!("\r\x1b[2K{line}\n"));
        }
        // A shorter drawing leaves no rest of a longer one.
        if lines.len() < self.lines {
            text.push_str("\x1b[0J");
        }
        text.push_str("\x1b[?25h");
        self.lines = lines.len();
        text
    }
}

fn head(board: &Board, phase: Phase, now_ms: u64, columns: usize, palette: &Palette) -> String {
    let began = board.began_ms.unwrap_or(now_ms);
    let count = format!("({}/{})", board.done_count(), board.vertices.len());
    let mut left = format!("[+] Building {} {count}", seconds(began, now_ms));
    if phase != Phase::Running {
        left.push_str(" FINISHED");
    }
    let line = pad(&left, "tug:default", columns);
    match phase {
        Phase::Running => line,
        Phase::Finished => Palette::paint(&palette.run, &line),
        Phase::Failed => Palette::paint(&palette.error, &line),
    }
}

fn block(
    vertex: &Vertex,
    phase: Phase,
    now_ms: u64,
    columns: usize,
    palette: &Palette,
) -> Vec<String> {
    let end = vertex.ended_ms.unwrap_or(now_ms);
    let mark = match (&vertex.error, vertex.is_cached) {
        (Some(_), _) if vertex.is_cancelled() => "CANCELED ",
        (Some(_), _) => "ERROR ",
        (None, true) => "CACHED ",
        (None, false) => "",
    };
    let line = pad(&format!(" => {mark}{}", vertex.name), &seconds(vertex.began_ms, end), columns);
    let colour = match (&vertex.error, vertex.ended_ms) {
        (Some(_), _) if vertex.is_cancelled() => &palette.cancel,
        (Some(_), _) => &palette.error,
        (None, Some(_)) => &palette.run,
        (None, None) => "",
    };
    let mut lines = vec![Palette::paint(colour, &line)];
    for status in &vertex.statuses {
        let end = status.ended_ms.or(vertex.ended_ms).unwrap_or(now_ms);
        let text = pad(&format!(" => => {}", status.text), &seconds(status.began_ms, end), columns);
        let colour = if vertex.ended_ms.is_some() { palette.run.as_str() } else { "" };
        lines.push(Palette::paint(colour, &text));
    }
    if vertex.ended_ms.is_none() && phase == Phase::Running {
        let skip = vertex.log.len().saturating_sub(LOG_LINES);
        for (_, line) in &vertex.log[skip..] {
            let clean: String = line.chars().filter(|letter| !letter.is_control()).collect();
            lines.push(fit(&format!(" => => # {clean}"), columns));
        }
    }
    lines
}

/// Left and right text at the two edges, the left one shortened when it must.
fn pad(left: &str, right: &str, columns: usize) -> String {
    let right_width = right.chars().count();
    let room = columns.saturating_sub(right_width + 1);
    let left = fit(left, room);
    let gap = columns.saturating_sub(left.chars().count() + right_width);
    format!("{left}{}{right}", " ".repeat(gap))
}

fn fit(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(3)).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use api::trace::Trace;
    use expect_test::expect;

    use super::*;

    fn board() -> Board {
        let mut board = Board::default();
        for trace in [
            Trace::Started { vertex: 1, name: "[internal] load build context".into(), at_ms: 1000 },
            Trace::Status {
                vertex: 1,
                text: "transferring context: 2B".into(),
                is_done: true,
                at_ms: 1020,
            },
            Trace::Done { vertex: 1, is_cached: false, error: None, at_ms: 1050 },
            Trace::Started { vertex: 2, name: "[1/2] FROM busybox".into(), at_ms: 1050 },
            Trace::Done { vertex: 2, is_cached: true, error: None, at_ms: 1050 },
        ] {
            board.apply(&trace);
        }
        board
    }

    #[test]
    fn a_finished_build_shows_each_step_with_its_time() {
        let text = Tty::default().redraw(&board(), Phase::Finished, 1900, (24, 60));
        let plain: String = text
            .replace("\x1b[?25l", "")
            .replace("\x1b[?25h", "")
            .replace("\r\x1b[2K", "")
            .replace("\x1b[34m", "")
            .replace("\x1b[0m", "");
        expect![[r#"
            [+] Building 0.9s (2/2) FINISHED                 tug:default
             => [internal] load build context                       0.1s
             => => transferring context: 2B                         0.0s
             => CACHED [1/2] FROM busybox                           0.0s
        "#]]
        .assert_eq(&plain);
    }

    #[test]
    fn a_build_that_ended_badly_says_so_without_colours_too() {
        let mut board = board();
        board.apply(&Trace::Started { vertex: 3, name: "[2/2] RUN x".into(), at_ms: 1050 });
        for trace in board.cancelled(1900) {
            board.apply(&trace);
        }
        let text = Tty::new(Palette::new(true, None)).redraw(&board, Phase::Failed, 1900, (24, 60));
        assert!(text.contains("(3/3) FINISHED") && text.contains(" => CANCELED [2/2]"), "{text}");
        assert!(!text.contains("m") || !text.contains("\x1b[3"), "{text:?}");
        assert!(board.failed().is_none());
    }

    #[test]
    fn the_next_drawing_goes_over_the_last() {
        let mut tty = Tty::default();
        tty.redraw(&board(), Phase::Running, 1100, (24, 60));
        assert!(tty.redraw(&board(), Phase::Running, 1200, (24, 60)).contains("\x1b[4A"));
    }
}
