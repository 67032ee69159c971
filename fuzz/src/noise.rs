//! Inputs that resemble what they are made of, and are broken in a few places.

/// Where inputs come from.
#[derive(Debug)]
pub(crate) struct Noise {
    state: u64,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

/// Changes of one input, at most.
const CHANGES: usize = 5;
/// Bytes of an input, at most.
const LONGEST: usize = 4_096;

impl Noise {
    pub(crate) fn new(seed: u64, seeds: &[Vec<u8>], words: &[Vec<u8>]) -> Self {
        // Something has to be there to begin with.
        let seeds = if seeds.is_empty() { vec![vec![0]] } else { seeds.to_vec() };
        Self { state: seed, seeds, words: words.to_vec() }
    }

    /// The next input.
    pub(crate) fn input(&mut self) -> Vec<u8> {
        let mut input = self.seed();
        for _ in 0..=self.below(CHANGES) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let rest = input.len() - at;
        let some = at + self.below(rest.min(64) + 1);
        match self.below(8) {
            0 if rest > 0 => input[at] ^= 1 << self.below(8),
            1 if rest > 0 => input[at] = self.byte(),
            2 => input.insert(at, self.byte()),
            3 => drop(input.drain(at..some)),
            4 => {
                let copy = input[at..some].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, copy);
            }
            5 if !self.words.is_empty() => {
                let word = self.below(self.words.len());
                input.splice(at..some, self.words[word].clone());
            }
            6 => {
                let other = self.seed();
                let from = self.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            _ => input.truncate(at),
        }
    }

    fn seed(&mut self) -> Vec<u8> {
        let at = self.below(self.seeds.len());
        self.seeds[at].clone()
    }

    /// Any byte, and often one at an edge.
    fn byte(&mut self) -> u8 {
        let [any, edge, ..] = self.next().to_le_bytes();
        [any, 0, 0xff, 0x7f, any, b'\n', b' ', any][usize::from(edge) % 8]
    }

    /// A number below `end`, 0 if there is none.
    fn below(&mut self, end: usize) -> usize {
        let number = self.next() >> 33;
        usize::try_from(number).unwrap_or_default().checked_rem(end).unwrap_or_default()
    }

    /// splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_noise_and_all_of_it_differs() {
        let (seeds, words) = ([b"kind: A\n".to_vec(), b"spec: {}\n".to_vec()], [b"kind".to_vec()]);
        let inputs = |seed| {
            let mut noise = Noise::new(seed, &seeds, &words);
            (0..1_000).map(|_| noise.input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
        let different: BTreeSet<_> = inputs(7).into_iter().collect();
        assert!(different.len() > 700, "{}", different.len());
        assert!(different.iter().all(|input| input.len() <= LONGEST));
    }
}
