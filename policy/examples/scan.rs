//! How long it takes to look for secrets: `cargo run --release -p policy --example scan`.
#![expect(clippy::print_stdout, reason = "it prints figures")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use policy::fence::Fence;
use policy::secret::Finder;
use serde_json::json;

/// The median of many runs.
fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..2001)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let words = "The quick brown fox asks at https://example.org/a?b=c whether task 4711 of risk-management is done; see <b>page</b> 12. ";
    let text = words.repeat(19 * 1024 / words.len());
    let secrets: Vec<String> = (0..17)
        .map(|n| format!("the secret number {n} of the gateway"))
        .collect();
    let finder = Finder::new(secrets.iter().map(String::as_str));
    let arguments = json!({ "text": text });
    let fence = Fence::new("4k0v7q2m9x1b8t3z", "the server `wiki`");
    let copy = median(|| drop(black_box(text.replace('\u{0}', ""))));
    println!(
        "{} bytes of ordinary text, {} forms, {} secrets held",
        text.len(),
        policy::secret::forms().count(),
        secrets.len()
    );
    for (what, time) in [
        ("copied", copy),
        (
            "looked through for secrets",
            median(|| {
                black_box(finder.holds(&text));
            }),
        ),
        (
            "masked",
            median(|| drop(black_box(finder.mask_text(&text)))),
        ),
        (
            "as arguments, also decoded",
            median(|| drop(black_box(finder.find(&arguments)))),
        ),
        (
            "fenced",
            median(|| drop(black_box(fence.around(&text, true)))),
        ),
    ] {
        let micros = time.as_nanos() / 100;
        println!("{what:30} {:>6}.{} µs", micros / 10, micros % 10);
    }
}
