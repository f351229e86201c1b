//! Questions to a thread, and pushes to patterns, which are answered too. Long ones get one slice each time the thread has
//! served its sockets, in turn.

use std::{collections::HashSet, sync::Arc, time::Instant};

use tokio::sync::oneshot;
use wellhead_proto::{
    channel::PatternSet,
    event::Event,
    ids::{AppId, ChannelName, UserId},
    matcher::Matcher,
    query::{Ask, Census, name_hash},
};

use super::{Floor, Push, SeatNo};
use crate::{
    backlog::Ticket,
    registry::{
        floor::users::Waiting,
        presence::{SLICE, Survey},
    },
};

/// A question under way.
pub(super) struct Question {
    task: Task,
    reply: oneshot::Sender<Census>,
}

enum Task {
    Survey(Survey),
    Push(PatternPush),
}

/// A push to every channel that a pattern matches.
struct PatternPush {
    app: AppId,
    matcher: Option<Matcher>,
    within: PatternSet,
    event: Event,
    since: Instant,
    /// The last channel that was looked at.
    after: Option<ChannelName>,
    matched: HashSet<u64>,
    ticket: Ticket,
}

/// What a regular expression costs, next to a channel that gets the push.
const SEARCH: usize = 1;
const PUSH: usize = 4;

impl Floor {
    /// Answer a question; for a push to a pattern, push.
    pub fn ask(&mut self, ask: Arc<Ask>, ticket: Ticket, reply: oneshot::Sender<Census>) {
        if self.is_held() {
            self.waiting.push_back(Waiting::Ask(ask, ticket, reply));
        } else {
            self.begin(ask, ticket, reply);
        }
    }

    /// The first slice at once, if this turn has room for it: most questions need no more.
    pub(super) fn begin(&mut self, ask: Arc<Ask>, ticket: Ticket, reply: oneshot::Sender<Census>) {
        let task = match &*ask {
            Ask::PublishMatching { app, pattern, within, event } => Task::Push(PatternPush {
                app: app.clone(),
                matcher: self.patterns.get_or_insert_ref(pattern, || Matcher::compile(pattern).ok()).clone(),
                within: PatternSet::new(within),
                event: event.clone(),
                since: Instant::now(),
                after: None,
                matched: HashSet::new(),
                ticket,
            }),
            _ => Task::Survey(Survey::new(ask, &mut self.index)),
        };
        self.questions.push_back(Question { task, reply });
        if self.spent < self.chunk {
            self.pursue();
        }
    }

    /// One slice of the question whose turn it is.
    pub(super) fn pursue(&mut self) {
        let Some(Question { mut task, reply }) = self.questions.pop_front() else { return };
        let over = match &mut task {
            Task::Survey(survey) => survey.look(&mut self.index, &self.members),
            Task::Push(push) => self.push_on(push),
        };
        if !over {
            // it was a whole slice
            self.spent += self.chunk;
            return self.questions.push_back(Question { task, reply });
        }
        self.spent += 1;
        // fails only if nobody waits for it any more
        let _ = reply.send(match task {
            Task::Survey(survey) => survey.answer(),
            Task::Push(push) => Census::Hashes(push.matched),
        });
    }

    /// A socket comes to a channel while questions are under way.
    pub(crate) fn note_join(&mut self, seat: SeatNo, channel: &ChannelName) {
        for question in &mut self.questions {
            if let Task::Survey(survey) = &mut question.task {
                survey.note_join(self.index.app_of(seat), self.index.user_of(seat), channel);
            }
        }
    }

    /// Push to the next channels that match. `true` if those were the last.
    fn push_on(&mut self, push: &mut PatternPush) -> bool {
        let (mut rooms, mut over) = (Vec::new(), true);
        match &push.matcher {
            None => {}
            Some(Matcher::Literal(name)) => {
                let name = ChannelName::try_from(name.as_str()).ok();
                rooms.extend(name.and_then(|name| self.index.room(&push.app, &name)));
            }
            Some(matcher) => {
                let prefix = if let Matcher::Prefix(prefix) = matcher { prefix } else { "" };
                let (mut left, mut last) = (SLICE * PUSH, push.after.as_ref());
                for (name, room) in self.index.channels(&push.app, prefix, push.after.as_ref()) {
                    if left == 0 {
                        over = false;
                        break;
                    }
                    last = Some(name);
                    let matches = matcher.matches(name.as_str());
                    left = left.saturating_sub(if matches { PUSH } else { SEARCH });
                    if matches {
                        rooms.push(room);
                    }
                }
                push.after = last.cloned();
            }
        }
        rooms.retain(|&room| self.index.occupied(room) > 0 && push.within.allows(self.index.name_of(room)));
        for room in rooms {
            let channel = self.index.name_of(room).clone();
            push.matched.insert(name_hash(channel.as_str()));
            let ticket = Some(push.ticket.another());
            self.publish(room, Push::new(channel, push.event.clone(), None, ticket, push.since));
        }
        over
    }
}

impl Question {
    /// A user opens a socket while the question is under way.
    pub(super) fn note(&mut self, app: &AppId, user: &UserId) {
        if let Task::Survey(survey) = &mut self.task {
            survey.note(app, user);
        }
    }
}
