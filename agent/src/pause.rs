//! How long to wait before something is tried again.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// Waits that double, each shortened by chance so that many do not come back at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Pause {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Pause {
    /// Begins at `first` and never waits longer than `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// Begins anew: it went well.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next wait: half of what it may be at least.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = self.next.min(self.most);
        self.next = whole.saturating_mul(2);
        let chance = RandomState::new().build_hasher().finish() % 1024;
        let half = whole / 2;
        half + half * u32::try_from(chance).unwrap_or_default() / 1024
    }

    /// Waits.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_vary() {
        let mut pause = Pause::new(Duration::from_millis(100), Duration::from_millis(350));
        for whole in [100, 200, 350, 350] {
            let wait = pause.next();
            let whole = Duration::from_millis(whole);
            assert!(whole / 2 <= wait && wait <= whole, "{wait:?} of {whole:?}");
        }
        pause.reset();
        assert!(pause.next() <= Duration::from_millis(100));
    }
}
