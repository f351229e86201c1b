//! Queries of a thread, and pushes to patterns, which are answered too. Long ones get one slice each time the thread
//! has served its sockets, in turn.

use std::time::Instant;

use smallvec::SmallVec;
use tokio::sync::oneshot;
use wellhead_proto::{
    channel::PatternSet,
    command::PublishMatching,
    event::Event,
    ids::{AppId, ChannelName, UserId},
    matcher::Matcher,
    query::{NameHashes, SocketTags, SocketsQuery, name_hash},
};

use super::{QueuedPush, Shard, SocketNo};
use crate::{
    backlog::Permit,
    registry::{
        message::{PendingAnswer, RunningQuery},
        shard::users::WaitingForCommand,
        survey::{Found, SLICE, Survey},
    },
};

/// A query in progress.
pub(super) enum QueryTask {
    Survey(Survey),
    Push(PatternPush),
}

/// A push to every channel that a pattern matches.
pub(super) struct PatternPush {
    app: AppId,
    matcher: Option<Matcher>,
    within: PatternSet,
    event: Event,
    since: Instant,
    /// The last channel that was looked at.
    after: Option<ChannelName>,
    matched: NameHashes,
    permit: Permit,
    reply: oneshot::Sender<NameHashes>,
}

/// What a regular expression costs, next to a channel that gets the push.
const SEARCH: usize = 1;
const PUSH: usize = 4;

impl Shard {
    /// Answer a question; for a push to a pattern, push.
    pub fn ask(&mut self, question: RunningQuery, permit: Permit) {
        if self.is_held() {
            self.waiting.push_back(WaitingForCommand::Question(question, permit));
        } else {
            self.begin(question, permit);
        }
    }

    /// The first slice at once, if this turn has room for it: most questions need no more.
    pub(super) fn begin(&mut self, question: RunningQuery, permit: Permit) {
        let index = &mut self.index;
        let survey = match question {
            RunningQuery::Publish(PendingAnswer { query, reply }) => {
                let push = self.push(&query, permit, reply);
                return self.pursue_next(QueryTask::Push(push));
            }
            RunningQuery::Sockets(PendingAnswer { query, reply }) => {
                // fails only if nobody waits for it any more
                return drop(reply.send(self.sockets_on(&query)));
            }
            RunningQuery::Names(PendingAnswer { query, reply }) => {
                Survey::list(&query.app, &query.of, Found::names(reply), index)
            }
            RunningQuery::Count(PendingAnswer { query, reply }) => {
                Survey::list(&query.app, &query.of, Found::hashes(reply), index)
            }
            RunningQuery::States(PendingAnswer { query, reply }) => Survey::states(query, reply),
            RunningQuery::Members(PendingAnswer { query, reply }) => Survey::members(&query, reply, index),
            RunningQuery::Grants(PendingAnswer { query, reply }) => Survey::grants(&query, reply, index),
            RunningQuery::Stats(PendingAnswer { reply, .. }) => Survey::stats(reply, index),
        };
        self.pursue_next(QueryTask::Survey(survey));
    }

    /// So many of the sockets of a channel as are asked for; a glance at each of the others.
    fn sockets_on(&mut self, query: &SocketsQuery) -> SocketTags {
        let SocketsQuery { app, channel, dialect, most } = query;
        let Some(local_channel) = self.index.local_channel(app, channel) else { return SocketTags::new() };
        let is_meant =
            |encoding| dialect.as_ref().is_none_or(|name| self.encodings.at(encoding).dialect.name() == name);
        let meant: SmallVec<[bool; 8]> = (0..self.encodings.len()).map(|no| is_meant(no as u8)).collect();
        let there = self.index.sockets_from(local_channel, 0);
        let there = there.filter(|(_, _, local_socket)| meant[usize::from(local_socket.encoding)]);
        let tagged = there.take(*most as usize).map(|(_, no, local_socket)| {
            (local_socket.id, self.index.tag(no, local_channel).unwrap_or_default().to_owned())
        });
        let found: SocketTags = tagged.collect();
        self.spent += 1 + self.index.occupied(local_channel) / SLICE;
        found
    }

    fn push(&mut self, push: &PublishMatching, permit: Permit, reply: oneshot::Sender<NameHashes>) -> PatternPush {
        let PublishMatching { app, pattern, within, event } = push;
        PatternPush {
            app: app.clone(),
            matcher: self.patterns.get_or_insert_ref(pattern, || Matcher::compile(pattern).ok()).clone(),
            within: PatternSet::new(within),
            event: event.clone(),
            since: Instant::now(),
            after: None,
            matched: NameHashes::new(),
            permit,
            reply,
        }
    }

    fn pursue_next(&mut self, task: QueryTask) {
        self.questions.push_back(task);
        if self.spent < self.chunk {
            self.pursue();
        }
    }

    /// One slice of the question whose turn it is.
    pub(super) fn pursue(&mut self) {
        let Some(mut task) = self.questions.pop_front() else { return };
        let over = match &mut task {
            QueryTask::Survey(survey) => survey.look(&mut self.index, &self.members),
            QueryTask::Push(push) => self.push_on(push),
        };
        if !over {
            // it was a whole slice
            self.spent += self.chunk;
            return self.questions.push_back(task);
        }
        self.spent += 1;
        match task {
            QueryTask::Survey(survey) => survey.answer(),
            // fails only if nobody waits for it any more
            QueryTask::Push(push) => drop(push.reply.send(push.matched)),
        }
    }

    /// A socket comes to a channel while questions are under way.
    pub(super) fn note_join(&mut self, local_socket: SocketNo, channel: &ChannelName) {
        for task in &mut self.questions {
            if let QueryTask::Survey(survey) = task {
                survey.note_join(self.index.app_of(local_socket), self.index.user_of(local_socket), channel);
            }
        }
    }

    /// Push to the next channels that match. `true` if those were the last.
    fn push_on(&mut self, push: &mut PatternPush) -> bool {
        let (mut local_channels, mut over) = (Vec::new(), true);
        match &push.matcher {
            None => {}
            Some(Matcher::Literal(name)) => {
                let name = ChannelName::try_from(name.as_str()).ok();
                local_channels.extend(name.and_then(|name| self.index.local_channel(&push.app, &name)));
            }
            Some(matcher) => {
                let prefix = if let Matcher::Prefix(prefix) = matcher { prefix } else { "" };
                let (mut left, mut last) = (SLICE * PUSH, push.after.as_ref());
                for (name, local_channel) in self.index.channels(&push.app, prefix, push.after.as_ref()) {
                    if left == 0 {
                        over = false;
                        break;
                    }
                    last = Some(name);
                    let matches = matcher.matches(name.as_str());
                    left = left.saturating_sub(if matches { PUSH } else { SEARCH });
                    if matches {
                        local_channels.push(local_channel);
                    }
                }
                push.after = last.cloned();
            }
        }
        local_channels.retain(|&local_channel| {
            self.index.occupied(local_channel) > 0 && push.within.allows(self.index.name_of(local_channel))
        });
        for local_channel in local_channels {
            let channel = self.index.name_of(local_channel).clone();
            push.matched.insert(name_hash(channel.as_str()));
            let permit = Some(push.permit.another());
            self.publish(local_channel, QueuedPush::new(channel, push.event.clone(), None, permit, push.since));
        }
        over
    }
}

impl QueryTask {
    /// A user opens a socket while the question is under way.
    pub(super) fn note(&mut self, app: &AppId, user: &UserId) {
        if let Self::Survey(survey) = self {
            survey.note(app, user);
        }
    }
}
