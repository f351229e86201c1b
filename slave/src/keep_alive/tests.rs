use wellhead_proto::units::Span;

use super::*;

const RHYTHM: KeepAliveConfig = KeepAliveConfig { ping: 50, pong: 20, idle: None, silence: None, stall: 300 };

/// A thread that ticks once a second, unless it stands still.
#[derive(Default)]
struct TestThread {
    clock: ThreadClock,
    now: Duration,
}

impl TestThread {
    /// The next tick, on time.
    fn beat(&mut self) -> Now {
        self.beat_after(BEAT)
    }

    fn beat_after(&mut self, span: Duration) -> Now {
        self.now += span;
        self.clock.tick(self.now)
    }

    fn beats(&mut self, keep_alive: &mut KeepAlive, heard: &[bool], config: &KeepAliveConfig) -> Vec<KeepAliveVerdict> {
        heard.iter().map(|&heard| keep_alive.tick(self.beat(), heard, false, config)).collect()
    }
}

#[test]
fn who_answers_pings_lives() {
    use KeepAliveVerdict::{Ping, Well};
    let heard = [false, false, false, false, false, true, false, false, false, false, true];
    let expected = [Well, Well, Well, Well, Ping, Well, Well, Well, Well, Ping, Well];
    assert_eq!(TestThread::default().beats(&mut KeepAlive::default(), &heard, &RHYTHM), expected);
}

#[test]
fn who_does_not_is_dead_after_the_timeout() {
    use KeepAliveVerdict::{Dead, Ping, Well};
    // what came before the ping is no answer to it
    let heard = [true, true, true, true, true, false, false];
    let verdicts = TestThread::default().beats(&mut KeepAlive::default(), &heard, &RHYTHM);
    assert_eq!(verdicts, [Well, Well, Well, Well, Ping, Well, Dead]);
}

#[test]
fn who_does_not_answer_is_dead_even_if_pings_are_due_more_often() {
    use KeepAliveVerdict::{Dead, Ping, Well};
    let config = KeepAliveConfig { ping: 10, pong: 30, ..RHYTHM };
    let verdicts = TestThread::default().beats(&mut KeepAlive::default(), &[false; 4], &config);
    assert_eq!(verdicts, [Ping, Well, Well, Dead]);
}

#[test]
fn only_who_neither_asks_nor_subscribes_is_idle() {
    let config = KeepAliveConfig { idle: Some(30), ping: 1_000, ..RHYTHM };
    let (mut thread, mut keep_alive) = (TestThread::default(), KeepAlive::default());
    assert_eq!(keep_alive.tick(thread.beat(), false, true, &config), KeepAliveVerdict::Well);
    assert_eq!(thread.beats(&mut keep_alive, &[false, false], &config), [KeepAliveVerdict::Well; 2]);
    keep_alive.note_action();
    let verdicts = thread.beats(&mut keep_alive, &[true; 4], &config);
    assert_eq!(
        verdicts,
        [KeepAliveVerdict::Well, KeepAliveVerdict::Well, KeepAliveVerdict::Well, KeepAliveVerdict::Idle]
    );
}

#[test]
fn a_socket_that_has_just_come_is_not_idle() {
    let config = KeepAliveConfig { idle: Some(10), ..RHYTHM };
    assert_eq!(KeepAlive::default().tick(TestThread::default().beat(), false, false, &config), KeepAliveVerdict::Well);
}

#[test]
fn after_standing_still_everybody_has_a_whole_timeout_again() {
    use KeepAliveVerdict::{Dead, Idle, Ping, Well};
    let still = Duration::from_secs(20);
    let (mut thread, mut keep_alive) = (TestThread::default(), KeepAlive::default());
    assert_eq!(thread.beats(&mut keep_alive, &[false; 6], &RHYTHM), [Well, Well, Well, Well, Ping, Well]);
    assert_eq!(keep_alive.tick(thread.beat_after(still), false, false, &RHYTHM), Well, "nothing has been read yet");
    // ticks that were missed and are made up for in a burst, as some timers do
    for _ in 0..20 {
        assert_eq!(keep_alive.tick(thread.beat_after(Duration::ZERO), false, false, &RHYTHM), Well);
    }
    assert_eq!(thread.beats(&mut keep_alive, &[false, false], &RHYTHM), [Well, Dead], "two seconds after it went on");

    let mut answers = KeepAlive::default();
    thread.beats(&mut answers, &[false; 5], &RHYTHM);
    assert_eq!(answers.tick(thread.beat_after(still), false, false, &RHYTHM), Well);
    assert_eq!(thread.beats(&mut answers, &[true, false], &RHYTHM), [Ping, Well], "it was due all the while");

    let config = KeepAliveConfig { idle: Some(30), ping: 1_000, ..RHYTHM };
    let mut idle = KeepAlive::default();
    thread.beats(&mut idle, &[false; 2], &config);
    assert_eq!(idle.tick(thread.beat_after(still), false, false, &config), Well);
    assert_eq!(thread.beats(&mut idle, &[false; 3], &config), [Well, Well, Idle]);

    let behind = thread.beat();
    assert!(!RHYTHM.is_stalled(thread.beat_after(10 * still), behind.at), "it may have been read all the while");
    for _ in 0..29 {
        assert!(!RHYTHM.is_stalled(thread.beat(), behind.at));
    }
    assert!(RHYTHM.is_stalled(thread.beat(), behind.at));
}

#[test]
fn spans_are_those_of_the_settings() {
    let config = KeepAliveConfig::new(&Settings::default(), &Limits::default());
    assert_eq!((config.ping, config.pong, config.idle, config.stall), (540, 100, None, 300));
    let settings = Settings { idle_timeout: Span::seconds(u64::MAX / 2_000), ..Settings::default() };
    let config = KeepAliveConfig::new(&settings, &Limits::default());
    let mut thread = TestThread::default();
    let verdicts = thread.beats(&mut KeepAlive::default(), &[true; 3], &config);
    assert_eq!(verdicts, [KeepAliveVerdict::Well; 3], "a span beyond all time never ends");
}

#[test]
fn who_may_be_silent_for_a_time_is_idle_after_it_and_never_pinged() {
    use KeepAliveVerdict::{Idle, Well};
    let config = RHYTHM.with_silence(Some(Duration::from_secs(3)));
    let heard = [false, false, true, false, false, false];
    let (mut thread, mut keep_alive) = (TestThread::default(), KeepAlive::default());
    assert_eq!(thread.beats(&mut keep_alive, &heard, &config), [Well, Well, Well, Well, Well, Idle]);
    // a subscription does not help, and neither do what it asks for and what is only heard differ
    let mut keep_alive = KeepAlive::default();
    let tick = |keep_alive: &mut KeepAlive, now| keep_alive.tick(now, false, true, &config);
    let verdicts: Vec<_> = (0..9)
        .map(|second| {
            if second == 4 {
                keep_alive.note_action();
            }
            tick(&mut keep_alive, thread.beat())
        })
        .collect();
    assert_eq!(verdicts, [Well, Well, Well, Idle, Well, Well, Well, Idle, Idle]);
}
