//! Recognising the keys that detach a client from a container.
//!
//! Bytes of a beginning match are held back until the sequence is complete (they are swallowed) or
//! broken (they are passed on).
//!
//! Source: moby `pkg/... term/proxy.go` for the behaviour; the default is ctrl-p ctrl-q.

/// A search for one sequence in a stream of keys.
#[derive(Debug)]
pub struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
}

/// Whether the sequence was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typed {
    Input,
    Detach,
}

impl DetachKeys {
    /// Looks for `sequence`; an empty one is never found.
    pub fn new(sequence: Vec<u8>) -> DetachKeys {
        DetachKeys { sequence, matched: 0 }
    }

    /// Passes the input in `bytes` on to `out`, up to the end of the sequence.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Typed {
        if self.sequence.is_empty() {
            out.extend_from_slice(bytes);
            return Typed::Input;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.matched == 0 {
                // Between two first keys there is nothing to look at byte by byte.
                let first = rest.iter().position(|byte| *byte == self.sequence[0]);
                let (plain, keys) = rest.split_at(first.unwrap_or(rest.len()));
                out.extend_from_slice(plain);
                rest = keys;
            }
            let Some((&byte, after)) = rest.split_first() else { break };
            rest = after;
            if byte == self.sequence[self.matched] {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    self.matched = 0;
                    return Typed::Detach;
                }
                continue;
            }
            // What was held back was input after all, but its end may begin the sequence anew.
            let mut held = self.sequence[..self.matched].to_vec();
            held.push(byte);
            let keep = (0..held.len())
                .rev()
                .find(|&keep| held.ends_with(&self.sequence[..keep]))
                .unwrap_or(0);
            out.extend_from_slice(&held[..held.len() - keep]);
            self.matched = keep;
        }
        Typed::Input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_keys_detach_and_are_swallowed() {
        check(b"\x10\x11", &[b"ls\n\x10\x11rest"], b"ls\n", Typed::Detach);
    }

    #[test]
    fn keys_may_arrive_one_by_one() {
        check(b"\x10\x11", &[b"a", b"\x10", b"\x11"], b"a", Typed::Detach);
    }

    #[test]
    fn a_broken_sequence_is_input() {
        check(b"\x10\x11", &[b"\x10", b"x\x11"], b"\x10x\x11", Typed::Input);
    }

    #[test]
    fn a_sequence_may_begin_inside_a_broken_one() {
        check(b"aab", &[b"aaa", b"b"], b"a", Typed::Detach);
        check(b"\x10\x11", &[b"\x10\x10\x11"], b"\x10", Typed::Detach);
    }

    #[test]
    fn without_keys_everything_is_input() {
        check(b"", &[b"\x10\x11"], b"\x10\x11", Typed::Input);
    }

    #[track_caller]
    fn check(sequence: &[u8], typed: &[&[u8]], input: &[u8], end: Typed) {
        let mut keys = DetachKeys::new(sequence.to_vec());
        let (mut out, mut last) = (Vec::new(), Typed::Input);
        for bytes in typed {
            last = keys.feed(bytes, &mut out);
        }
        assert_eq!((out.as_slice(), last), (input, end));
    }
}
