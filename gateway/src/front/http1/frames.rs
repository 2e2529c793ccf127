//! Where the frames of a WebSocket begin and end (RFC 6455, section 5.2).

/// Follows the frames that pass in one direction.
#[derive(Debug, Clone)]
pub(super) struct Frames {
    /// Bytes of the end of the HTTP header still to come; 0 once frames follow.
    heading: usize,
    header: [u8; 14],
    have: usize,
    left: u64,
}

const HEADER_END: &[u8; 4] = b"\r\n\r\n";

impl Frames {
    /// Frames from the first byte on.
    pub(super) fn new() -> Self {
        Self { heading: 0, header: [0; 14], have: 0, left: 0 }
    }

    /// Frames that follow an HTTP header.
    pub(super) fn after_header() -> Self {
        Self { heading: HEADER_END.len(), ..Self::new() }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.heading == 0 && self.have == 0 && self.left == 0
    }

    /// Takes note of bytes that have passed.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// How many of these bytes belong to what has begun: the next frame would begin after them.
    pub(super) fn until_boundary(&self, bytes: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut passed = 0;
        while passed < bytes.len() && !ahead.is_at_boundary() {
            passed += ahead.step(&bytes[passed..]);
        }
        passed
    }

    /// Passes at least one byte, and no more than to the next boundary.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.heading > 0 {
            let expected = HEADER_END[HEADER_END.len() - self.heading];
            self.heading = match bytes[0] {
                byte if byte == expected => self.heading - 1,
                b'\r' => HEADER_END.len() - 1,
                _ => HEADER_END.len(),
            };
            return 1;
        }
        if self.left > 0 {
            let passed = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.left -= passed as u64;
            return passed;
        }
        self.header[self.have] = bytes[0];
        self.have += 1;
        if self.have >= 2 && self.have == self.header_length() {
            self.left = self.payload_length();
            self.have = 0;
        }
        1
    }

    fn header_length(&self) -> usize {
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if self.header[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn payload_length(&self) -> u64 {
        let extended = |n: usize| self.header[2..2 + n].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        match self.header[1] & 0x7f {
            126 => extended(2),
            127 => extended(8),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_found_however_the_bytes_are_cut() {
        let mut stream = Vec::new();
        let mut ends = Vec::new();
        for (second, extended, payload) in [
            (5_u8, vec![], 5_usize),
            (0x80 | 3, vec![9, 9, 9, 9], 3),
            (126, vec![1, 0], 256),
            (0xfe, vec![0, 200, 1, 2, 3, 4], 200),
            (127, vec![0, 0, 0, 0, 0, 1, 0, 0], 65_536),
            (0, vec![], 0),
        ] {
            stream.extend([0x82, second]);
            stream.extend(extended);
            stream.resize(stream.len() + payload, 0x42);
            ends.push(stream.len());
        }
        for cut in [1, 2, 3, 7, 100, 70_000] {
            let mut frames = Frames::new();
            let mut at = 0;
            for piece in stream.chunks(cut) {
                let next = ends.iter().copied().find(|end| *end > at).unwrap_or(at);
                let expected = if ends.contains(&at) || at == 0 { 0 } else { piece.len().min(next - at) };
                assert_eq!(frames.until_boundary(piece), expected, "at {at}");
                frames.pass(piece);
                at += piece.len();
                assert_eq!(frames.is_at_boundary(), ends.contains(&at), "at {at}, cut {cut}");
            }
        }
    }

    #[test]
    fn the_header_of_the_switch_is_no_frame() {
        let mut frames = Frames::after_header();
        frames.pass(b"HTTP/1.1 101 x\r\na: b\r\r\n\r");
        assert!(!frames.is_at_boundary());
        frames.pass(b"\n");
        assert!(frames.is_at_boundary());
    }
}
