//! Temporary tokens: a backend has one made for a client that is to join one channel. The slave that issued it remembers it
//! and alone says what has become of it, so that one join uses it up, whichever slave the client is connected to. When that
//! slave has gone, its tokens are refused.
//!
//! A token is 32 hexadecimal digits, that is 128 bits: from the top the node that issued it (21), random bits (75), and a
//! keyed hash of both and the app (32). A forged one costs whoever gets it a hash, and no other node anything, but for one in
//! four thousand million; to be valid it would have to hit the random bits, too.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tokio::{sync::Semaphore, time::timeout};
use wellhead_proto::{
    action::TemporaryToken,
    bus::Bus,
    ids::{AppId, ChannelKey, ChannelName, NodeId},
    node_request::NodeRequest,
};

/// Tokens that a slave remembers, used or not, until their time is over: some 10 MiB.
const MOST: usize = 100_000;
/// Questions to other slaves that may be under way.
const QUESTIONS: usize = 256;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

const NODE_SHIFT: u32 = u128::BITS - NodeId::BITS;
const HASH: u32 = 32;

/// Issues temporary tokens, and judges them.
pub struct TemporaryTokens {
    node: NodeId,
    /// Has taken in the secret already.
    mac: Hmac<Sha256>,
    live: Mutex<LiveTokens>,
    questions: Semaphore,
}

#[derive(Default)]
struct LiveTokens {
    /// What each opens: a keyed hash of its channel, or none.
    tokens: HashMap<u128, (Duration, Option<u128>)>,
    /// In the order in which they were issued, with the time when each is over.
    order: VecDeque<(Duration, u128)>,
}

/// Why a temporary token opens nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenRefused {
    /// It is forged, used up, too old, for another channel, or its slave has gone.
    Invalid,
    /// The slave that issued it does not answer. The token may be used up.
    Unanswered,
}

impl TemporaryTokens {
    /// The tokens that `node` issues, in a cluster with this secret.
    pub fn new(node: NodeId, secret: &[u8]) -> Self {
        let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
        Self {
            node,
            mac: mac.chain_update(b"wellhead temporary token "),
            live: Mutex::default(),
            questions: Semaphore::new(QUESTIONS),
        }
    }

    /// A token for `channel`, or for none, that is valid for `ttl`; `None` if as many are remembered as there may be.
    pub fn mint(&self, app: &AppId, channel: Option<ChannelName>, ttl: Duration, now: Duration) -> Option<String> {
        let unsigned = u128::from(u32::from(self.node)) << NODE_SHIFT | (random() << HASH & !(u128::MAX << NODE_SHIFT));
        let token = unsigned | self.hash_of(unsigned, app);
        let opens = channel.map(|name| self.channel_hash(&ChannelKey { app: app.clone(), name }));
        let until = now.saturating_add(ttl);
        let mut live = self.live();
        live.sweep(now);
        if live.order.len() >= MOST {
            return None;
        }
        live.tokens.insert(token, (until, opens));
        live.order.push_back((until, token));
        Some(format!("{token:032x}"))
    }

    /// Is a token that this slave issued still valid?
    pub fn check_own(&self, token: &str, app: &AppId, now: Duration) -> bool {
        let Some((node, token)) = self.parse(token, app) else { return false };
        node == self.node && self.live().tokens.get(&token).is_some_and(|(until, _)| now < *until)
    }

    /// Does a token that this slave issued open `channel`? Then it is used up.
    pub fn spend_own(&self, token: &str, channel: &ChannelKey, now: Duration) -> bool {
        let Some((node, token)) = self.parse(token, &channel.app) else { return false };
        let wanted = self.channel_hash(channel);
        let mut live = self.live();
        let opens = |(until, opens): &(Duration, Option<u128>)| {
            now < *until && opens.is_some_and(|opens| bool::from(opens.to_ne_bytes().ct_eq(&wanted.to_ne_bytes())))
        };
        node == self.node && live.tokens.get(&token).is_some_and(opens) && live.tokens.remove(&token).is_some()
    }

    /// Is it still valid, whichever slave issued it?
    ///
    /// # Errors
    ///
    /// It is not, or nobody knows.
    pub async fn check(
        &self,
        bus: &dyn Bus,
        TemporaryToken(token): TemporaryToken,
        app: AppId,
        now: Duration,
    ) -> Result<(), TokenRefused> {
        let (issuer, _) = self.parse(&token, &app).ok_or(TokenRefused::Invalid)?;
        if issuer == self.node {
            return if self.check_own(&token, &app, now) { Ok(()) } else { Err(TokenRefused::Invalid) };
        }
        self.ask(bus, issuer, NodeRequest::CheckToken { token, app }).await
    }

    /// Does it open `channel`, whichever slave issued it? Then it is used up.
    ///
    /// # Errors
    ///
    /// It does not, or nobody knows.
    pub async fn spend(
        &self,
        bus: &dyn Bus,
        TemporaryToken(token): TemporaryToken,
        channel: ChannelKey,
        now: Duration,
    ) -> Result<(), TokenRefused> {
        let (issuer, _) = self.parse(&token, &channel.app).ok_or(TokenRefused::Invalid)?;
        if issuer == self.node {
            return if self.spend_own(&token, &channel, now) { Ok(()) } else { Err(TokenRefused::Invalid) };
        }
        self.ask(bus, issuer, NodeRequest::SpendToken { token, channel }).await
    }

    async fn ask(&self, bus: &dyn Bus, issuer: NodeId, request: NodeRequest) -> Result<(), TokenRefused> {
        let is_gone = {
            let state = bus.state();
            let state = state.borrow();
            state.roster_known && !state.slaves.contains(&issuer)
        };
        if is_gone {
            // and nobody else knows whether it was used
            return Err(TokenRefused::Invalid);
        }
        let Ok(Ok(_under_way)) = timeout(PATIENCE, self.questions.acquire()).await else {
            return Err(TokenRefused::Unanswered);
        };
        match bus.ask_about_token(issuer, request).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(TokenRefused::Invalid),
            Err(_) => Err(TokenRefused::Unanswered),
        }
    }

    /// Forget tokens whose time is over.
    pub fn sweep(&self, now: Duration) {
        self.live().sweep(now);
    }

    /// The node that issued `token`, and the token itself, if a node of this cluster issued it for `app`.
    fn parse(&self, token: &str, app: &AppId) -> Option<(NodeId, u128)> {
        let fits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if token.len() != 32 || !token.bytes().all(fits) {
            return None;
        }
        let token = u128::from_str_radix(token, 16).ok()?;
        let unsigned = token >> HASH << HASH;
        let shown = (token ^ unsigned) as u32;
        let is_signed = (self.hash_of(unsigned, app) as u32).to_ne_bytes().ct_eq(&shown.to_ne_bytes());
        let node = NodeId::try_from((token >> NODE_SHIFT) as u32).ok()?;
        bool::from(is_signed).then_some((node, token))
    }

    fn hash_of(&self, unsigned: u128, app: &AppId) -> u128 {
        let mac = self.mac.clone().chain_update(unsigned.to_be_bytes()).chain_update(app.as_str());
        first_bits(mac) >> (u128::BITS - HASH)
    }

    fn channel_hash(&self, channel: &ChannelKey) -> u128 {
        // no name holds this byte
        let mac = self.mac.clone().chain_update(channel.app.as_str()).chain_update([0xFF]);
        first_bits(mac.chain_update(channel.name.as_str()))
    }

    fn live(&self) -> MutexGuard<'_, LiveTokens> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveTokens {
    fn sweep(&mut self, now: Duration) {
        while let Some(&(until, token)) = self.order.front()
            && until <= now
        {
            self.order.pop_front();
            self.tokens.remove(&token);
        }
        // what a flood needed is given back
        if self.order.capacity() > 1_024 + 8 * self.order.len() {
            self.order.shrink_to(2 * self.order.len());
            self.tokens.shrink_to(2 * self.tokens.len());
        }
    }
}

fn first_bits(mac: Hmac<Sha256>) -> u128 {
    let hash = mac.finalize().into_bytes();
    u128::from_be_bytes(hash[..16].try_into().expect("a SHA-256 has 32 bytes"))
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has randomness");
    u128::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    const TTL: Duration = Duration::from_secs(60);
    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn node(no: u32) -> NodeId {
        NodeId::from_random(no)
    }

    fn app() -> AppId {
        "demo".parse().unwrap()
    }

    fn channel(name: &str) -> ChannelKey {
        ChannelKey { app: app(), name: name.parse().unwrap() }
    }

    fn tokens() -> TemporaryTokens {
        TemporaryTokens::new(node(7), b"secret")
    }

    fn mint(tokens: &TemporaryTokens, name: &str) -> String {
        tokens.mint(&app(), Some(name.parse().unwrap()), TTL, NOW).unwrap()
    }

    #[test]
    fn one_join_of_its_channel_uses_it_up_and_nothing_else_does() {
        let tokens = tokens();
        let token = mint(&tokens, "orders");
        assert!(token.len() == 32 && token.bytes().all(|byte| b"0123456789abcdef".contains(&byte)), "{token}");
        assert!(tokens.check_own(&token, &app(), NOW) && tokens.check_own(&token, &app(), NOW));
        assert!(!tokens.spend_own(&token, &channel("others"), NOW));
        assert!(tokens.spend_own(&token, &channel("orders"), NOW));
        assert!(!tokens.spend_own(&token, &channel("orders"), NOW) && !tokens.check_own(&token, &app(), NOW));
    }

    #[test]
    fn of_many_who_join_at_once_one_does() {
        let tokens = tokens();
        let token = mint(&tokens, "orders");
        let join = || (0..100).filter(|_| tokens.spend_own(&token, &channel("orders"), NOW)).count();
        let joined: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(join)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(joined, 1);
    }

    #[test]
    fn without_a_channel_it_opens_no_channel() {
        let tokens = tokens();
        let token = tokens.mint(&app(), None, TTL, NOW).unwrap();
        assert!(tokens.check_own(&token, &app(), NOW));
        for name in ["", "orders"] {
            assert!(!tokens.spend_own(&token, &channel(name), NOW));
        }
    }

    #[test]
    fn its_time_is_over_and_then_it_is_forgotten() {
        let tokens = tokens();
        let token = mint(&tokens, "orders");
        let last = NOW + TTL - Duration::from_millis(1);
        assert!(tokens.check_own(&token, &app(), last));
        assert!(
            !tokens.check_own(&token, &app(), NOW + TTL) && !tokens.spend_own(&token, &channel("orders"), NOW + TTL)
        );
        tokens.sweep(NOW + TTL);
        assert!(tokens.live().tokens.is_empty() && tokens.live().order.is_empty());
    }

    #[test]
    fn a_token_of_another_app_cluster_or_node_is_refused() {
        let tokens = tokens();
        let token = mint(&tokens, "orders");
        let other: AppId = "other".parse().unwrap();
        assert!(!tokens.check_own(&token, &other, NOW));
        assert!(!tokens.spend_own(&token, &ChannelKey { app: other, ..channel("orders") }, NOW));
        assert_eq!(TemporaryTokens::new(node(7), b"another").parse(&token, &app()), None);
        // another node knows whom to ask
        let elsewhere = TemporaryTokens::new(node(8), b"secret");
        assert_eq!(elsewhere.parse(&token, &app()).unwrap().0, node(7));
        assert!(!elsewhere.check_own(&token, &app(), NOW));
        for at in 0..32 {
            let turned = |digit: char| if digit == '0' { '1' } else { '0' };
            let forged: String =
                token.chars().enumerate().map(|(no, digit)| if no == at { turned(digit) } else { digit }).collect();
            assert_eq!(tokens.parse(&forged, &app()), None, "{at}");
        }
        for rubbish in ["", "x", &token.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A"), &"中".repeat(32)] {
            assert_eq!(tokens.parse(rubbish, &app()), None, "{rubbish}");
        }
    }

    #[test]
    fn no_two_are_alike_and_no_more_are_remembered_than_there_is_room_for() {
        let tokens = tokens();
        let minted: HashSet<_> = (0..MOST).map(|_| mint(&tokens, "orders")).collect();
        assert_eq!(minted.len(), MOST);
        assert_eq!(tokens.mint(&app(), None, TTL, NOW), None);
        assert!(tokens.mint(&app(), None, TTL, NOW + TTL).is_some(), "the others are over");
        assert_eq!(tokens.live().order.len(), 1);
    }
}
