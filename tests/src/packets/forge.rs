//! Packets that are right, almost right, and not right at all.

use enforcer_common::packet::Family;
use proptest::prelude::Rng;

/// Makes packets out of random numbers.
#[derive(Debug)]
pub struct Forge<R>(pub R);

/// Protocols with ports, without, unknown ones and extension headers.
const PROTOCOLS: [u8; 18] = [6, 6, 6, 17, 17, 136, 132, 33, 1, 58, 50, 59, 47, 135, 0, 43, 51, 255];
const EXTENSIONS: [u8; 7] = [60, 60, 43, 44, 44, 51, 0];

impl<R: Rng> Forge<R> {
    /// One packet, and the family that it is read as, which is mostly its own.
    pub fn packet(&mut self) -> (Vec<u8>, Family) {
        let family = if self.one_in(2) { Family::V4 } else { Family::V6 };
        let mut packet = match self.below(10) {
            0 => self.noise(family),
            _ if family == Family::V4 => self.v4(),
            _ => self.v6(),
        };
        if self.one_in(2) {
            for _ in 0..=self.below(3) {
                self.spoil(&mut packet);
            }
        }
        let read_as = match family {
            Family::V4 if self.one_in(50) => Family::V6,
            Family::V6 if self.one_in(50) => Family::V4,
            right => right,
        };
        (packet, read_as)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0.next_u32() as usize % bound
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn byte(&mut self) -> u8 {
        self.0.next_u32().to_be_bytes()[0]
    }

    fn pick(&mut self, from: &[u8]) -> u8 {
        from[self.below(from.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    fn noise(&mut self, family: Family) -> Vec<u8> {
        let length = self.below(120);
        let mut noise = self.bytes(length);
        if let Some(first) = noise.first_mut() {
            *first = (*first & 0xf) | if family == Family::V4 { 0x40 } else { 0x60 };
        }
        noise
    }

    /// A transport header with what it carries. Seldom more than the length fields can say.
    fn segment(&mut self, protocol: u8) -> Vec<u8> {
        let length = if self.one_in(3_000) { 65_500 + self.below(100) } else { self.below(40) };
        if protocol != 6 {
            return self.bytes(length);
        }
        let mut segment = self.bytes(20);
        let words = 5 + self.pick(&[0, 0, 0, 3, 5, 10]);
        segment[12] = (words << 4) | (segment[12] & 0xf);
        segment.resize(usize::from(words) * 4 + length, 1);
        segment
    }

    fn v4(&mut self) -> Vec<u8> {
        let options = usize::from(self.pick(&[0, 0, 0, 0, 1, 3, 10]));
        let protocol = self.pick(&PROTOCOLS);
        let segment = self.segment(protocol);
        let length = 20 + options * 4 + segment.len();
        let mut packet = self.bytes(20 + options * 4);
        packet[0] = 0x45 + u8::try_from(options).expect("ten at most");
        packet[2..4].copy_from_slice(&length_field(length));
        let offset = self.pick(&[0, 0, 0, 0, 0, 1, 0x1f]);
        packet[6] = self.pick(&[0, 0x40, 0x40, 0x20, 0xc0]) | offset;
        packet[7] = if offset == 0 && !self.one_in(8) { 0 } else { self.byte() };
        packet[9] = protocol;
        packet.extend(segment);
        packet
    }

    fn v6(&mut self) -> Vec<u8> {
        let chain: Vec<u8> = (0..self.pick(&[0, 0, 0, 1, 1, 2, 3, 5, 6, 7, 9]))
            .map(|index| if index == 0 && self.one_in(3) { 0 } else { self.pick(&EXTENSIONS) })
            .collect();
        let protocol = self.pick(&PROTOCOLS);
        let mut payload = vec![];
        for (index, kind) in chain.iter().enumerate() {
            let next = chain.get(index + 1).copied().unwrap_or(protocol);
            payload.extend(self.extension(*kind, next));
        }
        payload.extend(self.segment(protocol));
        let mut packet = self.bytes(40);
        packet[0] = 0x60 | (packet[0] & 0xf);
        packet[4..6].copy_from_slice(&length_field(payload.len()));
        packet[6] = chain.first().copied().unwrap_or(protocol);
        if self.one_in(50) {
            let at = self.pick(&[8, 24]).into();
            packet[at..at + 10].fill(0);
            packet[at + 10..at + 12].fill(0xff);
        }
        packet.extend(payload);
        packet
    }

    fn extension(&mut self, kind: u8, next: u8) -> Vec<u8> {
        let units = self.pick(&[0, 0, 0, 1, 2]);
        let size = match kind {
            44 => 8,
            51 => (usize::from(units) + 3) * 4,
            _ => (usize::from(units) + 1) * 8,
        };
        let mut header = self.bytes(size);
        header[0] = next;
        header[1] = if kind == 51 { units + 1 } else { units };
        if kind == 44 {
            header[2] = self.pick(&[0, 0, 0, 0, 0, 1, 0xff]);
            header[3] = self.pick(&[0, 1, 1, 6, 8, 0xff]);
        }
        if kind == 0 && self.one_in(2) {
            header[2..4].copy_from_slice(&[0xc2, 4]);
        }
        header
    }

    /// Makes one thing wrong, mostly.
    fn spoil(&mut self, packet: &mut Vec<u8>) {
        if packet.is_empty() {
            return;
        }
        let at = self.below(packet.len().min(100));
        match self.below(6) {
            0 => packet[at] ^= 1 << self.below(8),
            1 => packet[at] = self.byte(),
            2 => packet[at] = self.pick(&[0, 1, 4, 5, 6, 17, 43, 44, 51, 60, 0x7f, 0xff]),
            3 => packet.truncate(at),
            4 => {
                let more = self.below(20);
                packet.extend(self.bytes(more));
            }
            // The length field of either family, by a little.
            _ => {
                let field = if packet[0] >> 4 == 4 { 3 } else { 5 };
                if let Some(low) = packet.get_mut(field) {
                    *low = low.wrapping_add(self.pick(&[1, 2, 8, 20, 0xff, 0xfe, 0xf8]));
                }
            }
        }
    }
}

/// 0 where the field is too small.
fn length_field(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(0).to_be_bytes()
}
