//! Random lives of a cluster of three slaves and three masters in this process, held against a plain model: whoever is
//! there is told exactly, what must arrive does, and nothing else.
//!
//! `WELLHEAD_MODEL_SEEDS` says how many lives are lived (1,000), `WELLHEAD_MODEL_SEED` which one alone. A seed fixes what is
//! done and how long messages take; which of two things that happen at once comes first is the machine's matter.

mod asking;
mod place;
mod plain;
mod world;

use std::{
    cell::Cell,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt;

/// Lives that are lived at once on a thread: most of their time is waiting.
const AT_ONCE: usize = 24;
/// Lives before a thread begins anew, for the nodes of lives past still beat.
const BEFORE_ANEW: u64 = 96;

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(10);
/// A thread that was so late at once may have nodes that ask anew who is there: see `STOOD_STILL` of a node's membership.
const STOOD_STILL: Duration = Duration::from_secs(1);
/// By then they know.
const SOON_AFTER: Duration = Duration::from_secs(2);

thread_local! {
    /// How late this thread has been, all in all: it shares the machine with whatever else runs.
    static LAG: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// When it last looked.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// When it last went on after it had stood still.
    static WENT_ON: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// That, up to now: other tasks may run before the one that looks.
fn lag() -> Duration {
    LAG.get() + LOOKED.get().map_or(Duration::ZERO, |looked| looked.elapsed().saturating_sub(LOOK))
}

/// Did it stand still a moment ago?
fn stood_still() -> bool {
    WENT_ON.get().is_some_and(|went_on| went_on.elapsed() < SOON_AFTER)
}

async fn watch_lag() {
    loop {
        let looked = Instant::now();
        LOOKED.set(Some(looked));
        actix_rt::time::sleep(LOOK).await;
        let late = looked.elapsed().saturating_sub(LOOK);
        LAG.set(LAG.get() + late);
        if late >= STOOD_STILL {
            WENT_ON.set(Some(Instant::now()));
        }
    }
}

#[test]
fn random_lives_agree_with_the_model() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, last) = match number("WELLHEAD_MODEL_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("WELLHEAD_MODEL_SEEDS").unwrap_or(1_000)),
    };
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let deeds = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(2, usize::from).min(8);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while next.load(Ordering::Relaxed) < last && failed.lock().expect("no panic").is_empty() {
                    let taken = next.fetch_add(BEFORE_ANEW, Ordering::Relaxed);
                    actix_rt::System::new().block_on(async {
                        actix_rt::spawn(watch_lag());
                        let lives = futures_util::stream::iter(taken..last.min(taken + BEFORE_ANEW));
                        let lives = lives.map(|seed| async move { (seed, actix_rt::spawn(world::live(seed)).await) });
                        let mut lives = lives.buffer_unordered(AT_ONCE);
                        while let Some((seed, lived)) = lives.next().await {
                            match lived {
                                Ok(done) => drop(deeds.fetch_add(done, Ordering::Relaxed)),
                                Err(_) => failed.lock().expect("no panic").push(seed),
                            }
                        }
                    });
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "seeds {failed:?} failed; WELLHEAD_MODEL_SEED={} replays the first", failed[0]);
    eprintln!("{} lives, {} deeds, {:?}", last - first, deeds.into_inner(), began.elapsed());
}
