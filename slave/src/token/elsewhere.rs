//! References that other slaves issued: they are asked, with so many questions under way at a time.

use std::time::Duration;

use tokio::time::timeout;
use wellhead_proto::{
    ids::{AppId, NodeId},
    jwt::BadToken,
    node_request::Bearer,
};

use crate::Shared;

/// How long a reference waits until it is asked for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a reference stands for that `issuer` issued: that one is asked, if it is there. [`Tokens::redeem`] let it pass,
/// so it is no forgery, and nobody has answered before that it stands for nothing.
///
/// # Errors
///
/// It stands for nothing, or the issuer does not say.
///
/// [`Tokens::redeem`]: super::Tokens::redeem
pub async fn ask_issuer(shared: &Shared, issuer: NodeId, token: String, app: &AppId) -> Result<Bearer, BadToken> {
    let is_gone = {
        let state = shared.bus.state();
        let state = state.borrow();
        state.roster_known && !state.slaves.contains(&issuer)
    };
    if is_gone {
        // and took its references with it
        return Err(BadToken::Used);
    }
    let lookups = &shared.tokens.lookups;
    let Ok(Ok(_under_way)) = timeout(PATIENCE, lookups.acquire()).await else {
        return Err(BadToken::Unanswered);
    };
    match shared.bus.redeem(issuer, token.clone(), app.clone()).await {
        Ok(Some(bearer)) => {
            // one of another app was not used up
            if bearer.app == *app {
                shared.tokens.redeemed_elsewhere(&token, true);
            }
            Ok(bearer)
        }
        Ok(None) => {
            shared.tokens.redeemed_elsewhere(&token, false);
            Err(BadToken::Used)
        }
        Err(_) => Err(BadToken::Unanswered),
    }
}
