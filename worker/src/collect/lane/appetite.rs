//! How many cells a request for grants takes along. A lane may hold thousands that are ready, of which the next
//! milliseconds allow a dozen: who always asks for all of them gathers and takes back most of them for nothing.

/// The most cells of one request.
const MOST: usize = 256;
/// Asked for beyond twice of what was granted last, so that a budget that opens is seen at once.
const MORE: usize = 16;

/// The next request's size.
#[derive(Debug)]
pub struct Appetite(usize);

impl Default for Appetite {
    fn default() -> Self {
        Appetite(MOST)
    }
}

impl Appetite {
    /// How many cells to ask for.
    pub fn cells(&self) -> usize {
        self.0
    }

    /// Learns from an answer that granted `granted` calls of `asked`. Where scopes were refused alone (`scoped`), the
    /// cells behind them draw from other limits: all of them may be served.
    pub fn learn(&mut self, asked: usize, granted: usize, scoped: bool) {
        self.0 = match scoped || granted >= asked {
            true => MOST,
            false => MOST.min(2 * granted + MORE),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_little_more_than_what_is_granted() {
        let mut appetite = Appetite::default();
        assert_eq!(appetite.cells(), 256);
        appetite.learn(256, 12, false);
        assert_eq!(appetite.cells(), 40);
        appetite.learn(40, 0, false);
        assert_eq!(appetite.cells(), 16);
    }

    #[test]
    fn who_got_everything_or_has_other_scopes_asks_for_all() {
        for (asked, granted, scoped) in [(16, 16, false), (40, 3, true), (256, 200, false)] {
            let mut appetite = Appetite(16);
            appetite.learn(asked, granted, scoped);
            assert_eq!(appetite.cells(), 256);
        }
    }
}
