//! One channel, many sockets.

use super::{Contender, Workload, WorkloadSetup, measure::*};
use crate::load::{Job, LoadWork};

/// Sockets, bytes, deliveries in a full run, and whether a quick run has it.
const SHAPES: [(usize, usize, u64, bool); 5] = [
    (1_000, 100, 200_000, false),
    (5_000, 100, 600_000, true),
    (10_000, 100, 600_000, false),
    (1_000, 1024, 200_000, false),
    (5_000, 1024, 300_000, true),
];

/// All fan-outs, one and eight pushes under way.
pub fn all(setup: &WorkloadSetup) -> Vec<Workload> {
    let mut all = Vec::new();
    for (sockets, size, deliveries, in_quick) in SHAPES {
        if setup.quick && !in_quick {
            continue;
        }
        let is_main = size == 100;
        let (thousands, bytes) = (sockets / 1000, if is_main { "100 B" } else { "1 KB" });
        let short = format!("{thousands}k-{}", if is_main { "100b" } else { "1kb" });
        let deliveries = if setup.quick { deliveries / 3 } else { deliveries };
        let pushes = deliveries / sockets as u64;
        // those that the figures to reach are about go first, then the others of the same work
        let mut contenders = vec![Contender::Write, Contender::Wellhead];
        if is_main {
            contenders.push(Contender::Textbook);
            if sockets > 1_000 {
                contenders.extend(&setup.others);
            }
        }
        let rounds = if is_main { setup.rounds } else { setup.rounds.min(2) };
        let goals =
            |ratio| if sockets > 1_000 && is_main { [&[Goal::Ratio(ratio)], &AHEAD[..]].concat() } else { Vec::new() };
        all.push(Workload {
            rounds,
            ..setup.workload(
                &format!("fanout-{short}-1"),
                &format!("{thousands}k sockets × {bytes}, one under way"),
                &contenders,
                Job { sockets, size, work: LoadWork::Windowed { pushes, window: 1, batch: 1 }, ..setup.plain.clone() },
                vec![cpu_per_million(&goals(1.10)), user_per_million(), delivered_per_second(&[]), latency("p50", &[])],
            )
        });
        let pushes = if is_main { pushes * 4 } else { pushes * 2 };
        contenders[0] = Contender::Coalesce;
        all.push(Workload {
            rounds,
            ..setup.workload(
                &format!("fanout-{short}-8"),
                &format!("{thousands}k sockets × {bytes}, eight under way"),
                &contenders,
                Job { sockets, size, work: LoadWork::Windowed { pushes, window: 8, batch: 1 }, ..setup.plain.clone() },
                vec![
                    cpu_per_million(&goals(1.13)),
                    user_per_million(),
                    delivered_per_second(if sockets > 1_000 && is_main {
                        &[Goal::RatioAtLeast(1.0 / 1.13)]
                    } else {
                        &[]
                    }),
                    latency("p50", &[]),
                ],
            )
        });
    }
    all
}
