//! How many cells a request for grants takes along. A lane may hold thousands that are ready, of which the next
//! milliseconds allow a dozen: who always asks for all of them gathers and takes back most of them for nothing.

/// The most cells of one request.
const MOST: usize = 256;
/// Asked for beyond twice of what was granted last, so that a budget that opens is seen at once.
const MORE: usize = 16;

/// The next request's size.
#[derive(Debug)]
pub struct Appetite {
    cells: usize,
    /// Calls granted by requests that were followed at once by another one.
    so_far: usize,
}

impl Default for Appetite {
    fn default() -> Self {
        Appetite {
            cells: MOST,
            so_far: 0,
        }
    }
}

impl Appetite {
    /// How many cells to ask for.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// Learns from an answer that granted `granted` calls of `asked`. Who got all of them asks again at once, so the
    /// next time one request asks for what both were granted. Where scopes were refused alone (`scoped`), the cells
    /// behind them draw from other limits: all of them may be served.
    pub fn learn(&mut self, asked: usize, granted: usize, scoped: bool) {
        let at_once = self.so_far + granted;
        (self.cells, self.so_far) = match scoped || granted >= asked {
            true => (MOST, if scoped { 0 } else { at_once }),
            false => (MOST.min(2 * at_once + MORE), 0),
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
            let mut appetite = Appetite::default();
            appetite.learn(16, 0, false);
            appetite.learn(asked, granted, scoped);
            assert_eq!(appetite.cells(), 256);
        }
    }

    #[test]
    fn what_two_requests_in_a_row_brought_is_asked_for_in_one_the_next_time() {
        let mut appetite = Appetite::default();
        appetite.learn(256, 1, false);
        assert_eq!(appetite.cells(), 18);
        appetite.learn(18, 18, false);
        appetite.learn(256, 82, false);
        assert_eq!(appetite.cells(), 216);
        appetite.learn(216, 3, false);
        assert_eq!(appetite.cells(), 22);
    }
}
