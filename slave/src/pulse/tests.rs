use wellhead_proto::units::Span;

use super::*;

const RHYTHM: Rhythm = Rhythm { ping: 50, pong: 20, idle: None, stall: 300 };

/// A thread that beats once a second, unless it stands still.
#[derive(Default)]
struct Thread {
    clock: Clock,
    now: Duration,
}

impl Thread {
    /// The next beat, on time.
    fn beat(&mut self) -> Now {
        self.beat_after(BEAT)
    }

    fn beat_after(&mut self, span: Duration) -> Now {
        self.now += span;
        self.clock.beat(self.now)
    }

    fn beats(&mut self, pulse: &mut Pulse, heard: &[bool], rhythm: &Rhythm) -> Vec<Verdict> {
        heard.iter().map(|&heard| pulse.beat(self.beat(), heard, false, rhythm)).collect()
    }
}

#[test]
fn who_answers_pings_lives() {
    use Verdict::{Ping, Well};
    let heard = [false, false, false, false, false, true, false, false, false, false, true];
    let expected = [Well, Well, Well, Well, Ping, Well, Well, Well, Well, Ping, Well];
    assert_eq!(Thread::default().beats(&mut Pulse::default(), &heard, &RHYTHM), expected);
}

#[test]
fn who_does_not_is_dead_after_the_timeout() {
    use Verdict::{Dead, Ping, Well};
    // what came before the ping is no answer to it
    let heard = [true, true, true, true, true, false, false];
    let verdicts = Thread::default().beats(&mut Pulse::default(), &heard, &RHYTHM);
    assert_eq!(verdicts, [Well, Well, Well, Well, Ping, Well, Dead]);
}

#[test]
fn who_does_not_answer_is_dead_even_if_pings_are_due_more_often() {
    use Verdict::{Dead, Ping, Well};
    let rhythm = Rhythm { ping: 10, pong: 30, ..RHYTHM };
    let verdicts = Thread::default().beats(&mut Pulse::default(), &[false; 4], &rhythm);
    assert_eq!(verdicts, [Ping, Well, Well, Dead]);
}

#[test]
fn only_who_neither_asks_nor_subscribes_is_idle() {
    let rhythm = Rhythm { idle: Some(30), ping: 1_000, ..RHYTHM };
    let (mut thread, mut pulse) = (Thread::default(), Pulse::default());
    assert_eq!(pulse.beat(thread.beat(), false, true, &rhythm), Verdict::Well);
    assert_eq!(thread.beats(&mut pulse, &[false, false], &rhythm), [Verdict::Well; 2]);
    pulse.note_action();
    let verdicts = thread.beats(&mut pulse, &[true; 4], &rhythm);
    assert_eq!(verdicts, [Verdict::Well, Verdict::Well, Verdict::Well, Verdict::Idle]);
}

#[test]
fn a_socket_that_has_just_come_is_not_idle() {
    let rhythm = Rhythm { idle: Some(10), ..RHYTHM };
    assert_eq!(Pulse::default().beat(Thread::default().beat(), false, false, &rhythm), Verdict::Well);
}

#[test]
fn after_standing_still_everybody_has_a_whole_timeout_again() {
    use Verdict::{Dead, Idle, Ping, Well};
    let still = Duration::from_secs(20);
    let (mut thread, mut pulse) = (Thread::default(), Pulse::default());
    assert_eq!(thread.beats(&mut pulse, &[false; 6], &RHYTHM), [Well, Well, Well, Well, Ping, Well]);
    assert_eq!(pulse.beat(thread.beat_after(still), false, false, &RHYTHM), Well, "nothing has been read yet");
    // beats that were missed and are made up for in a burst, as some timers do
    for _ in 0..20 {
        assert_eq!(pulse.beat(thread.beat_after(Duration::ZERO), false, false, &RHYTHM), Well);
    }
    assert_eq!(thread.beats(&mut pulse, &[false, false], &RHYTHM), [Well, Dead], "two seconds after it went on");

    let mut answers = Pulse::default();
    thread.beats(&mut answers, &[false; 5], &RHYTHM);
    assert_eq!(answers.beat(thread.beat_after(still), false, false, &RHYTHM), Well);
    assert_eq!(thread.beats(&mut answers, &[true, false], &RHYTHM), [Ping, Well], "it was due all the while");

    let rhythm = Rhythm { idle: Some(30), ping: 1_000, ..RHYTHM };
    let mut idle = Pulse::default();
    thread.beats(&mut idle, &[false; 2], &rhythm);
    assert_eq!(idle.beat(thread.beat_after(still), false, false, &rhythm), Well);
    assert_eq!(thread.beats(&mut idle, &[false; 3], &rhythm), [Well, Well, Idle]);

    let behind = thread.beat();
    assert!(!RHYTHM.is_stalled(thread.beat_after(10 * still), behind.at), "it may have been read all the while");
    for _ in 0..29 {
        assert!(!RHYTHM.is_stalled(thread.beat(), behind.at));
    }
    assert!(RHYTHM.is_stalled(thread.beat(), behind.at));
}

#[test]
fn spans_are_those_of_the_settings() {
    let rhythm = Rhythm::new(&Settings::default(), &Limits::default());
    assert_eq!((rhythm.ping, rhythm.pong, rhythm.idle, rhythm.stall), (540, 100, None, 300));
    let settings = Settings { idle_timeout: Span::seconds(u64::MAX / 2_000), ..Settings::default() };
    let rhythm = Rhythm::new(&settings, &Limits::default());
    let mut thread = Thread::default();
    let verdicts = thread.beats(&mut Pulse::default(), &[true; 3], &rhythm);
    assert_eq!(verdicts, [Verdict::Well; 3], "a span beyond all time never ends");
}
