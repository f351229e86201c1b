//! One link, from the side of the exchange: its greeting, what it says, its end.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use log::{info, warn};
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use wellhead_proto::ids::NodeId;

use super::{LinkId, Shared};
use crate::bus::local::{
    frame::{ToExchange, ToLink, VERSION, codec, max_frame},
    outbound::Outbound,
    socket,
};

/// How long a link may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long the link may go on once our last frame is written, and how long that may take.
const PARTING: Duration = Duration::from_secs(30);
/// How many subjects a link may listen to: every slot, and a few more.
const MAX_LISTENS: usize = (1 << 16) + 64;

type Frames = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;

/// How a link ended.
enum End {
    Goodbye,
    Lost,
    Refused(String),
}

/// Serve a link to its end.
pub(super) async fn serve(shared: Arc<Shared>, stream: UnixStream) {
    match socket::is_one_of_us(&stream) {
        Ok(true) => {}
        Ok(false) => return warn!("a process of another user was turned away from the local bus"),
        Err(error) => return warn!(error:% = error; "a process was turned away from the local bus: {error}"),
    }
    let (read, mut write) = stream.into_split();
    let mut frames = FramedRead::new(read, codec(0));
    let (node, beat) = match timeout(HANDSHAKE, greet(&mut frames, &mut write)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(why)) => return warn!(error = why.as_str(); "a process was turned away from the local bus: {why}"),
        Err(_) => return warn!("a process was turned away from the local bus: it said nothing"),
    };
    frames.decoder_mut().set_max_frame_length(max_frame(shared.limits.message));

    let out = Arc::new(Outbound::new(shared.limits.queue));
    out.push_urgent(ToLink::Welcome { version: VERSION, payload: shared.welcome.clone() }.frame());
    // no await from here to the first frame: what is told of this node and what it says keep their order
    let id = shared.routes().plug(node, out.clone());
    info!(node_id:% = node; "node {node} is on the local bus");
    shared.porter.came(node, beat);

    let end = {
        let said = listen(&shared, id, &out, &mut frames);
        tokio::pin!(said);
        tokio::select! {
            end = &mut said => end,
            () = write_all(&out, &mut write) => {
                // it reads our last frame, and ends; until then it is heard
                timeout(PARTING, said).await.unwrap_or(End::Lost)
            }
        }
    };
    let last = shared.routes().unplug(id);
    match end {
        End::Goodbye => return info!(node_id:% = node; "node {node} left the local bus"),
        End::Lost => info!(node_id:% = node; "node {node} is gone from the local bus"),
        End::Refused(why) => warn!(node_id:% = node, error = why.as_str(); "node {node} is hung up on: {why}"),
    }
    if last {
        shared.porter.lost(node);
    }
}

/// Who is it, and does it speak as we do?
async fn greet(frames: &mut Frames, write: &mut OwnedWriteHalf) -> Result<(NodeId, Bytes), String> {
    let frame = match frames.next().await {
        Some(Ok(frame)) => frame.freeze(),
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("it hung up at once".to_owned()),
    };
    match ToExchange::parse(frame).map_err(|error| error.to_string())? {
        ToExchange::Hello { version: VERSION, node, beat } => Ok((node, beat)),
        ToExchange::Hello { version, .. } => {
            let welcome = ToLink::Welcome { version: VERSION, payload: Bytes::new() }.frame();
            // it may be gone already, and then need not know
            let _ = write.write_all(&welcome.head).await;
            Err(format!(
                "it speaks version {version} of the local bus and this master version {VERSION}; run the same release"
            ))
        }
        _ => Err("it did not say who it is".to_owned()),
    }
}

/// Obey what the link says, until it ends.
async fn listen(shared: &Shared, id: LinkId, out: &Outbound, frames: &mut Frames) -> End {
    loop {
        let frame = match frames.next().await {
            Some(Ok(frame)) => frame.freeze(),
            Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                return End::Refused(error.to_string());
            }
            Some(Err(_)) | None => return End::Lost,
        };
        match ToExchange::parse(frame) {
            Ok(ToExchange::Send(subject, message)) if message.len() <= shared.limits.message => {
                shared.route(subject, &message).await;
            }
            Ok(ToExchange::Send(_, message)) => return End::Refused(format!("it sent {} bytes", message.len())),
            Ok(ToExchange::Listen(subject)) => {
                if !shared.routes().listen(id, subject, MAX_LISTENS) {
                    return End::Refused(format!("it listens to more than {MAX_LISTENS} subjects"));
                }
            }
            Ok(ToExchange::Unlisten(subject)) => shared.routes().unlisten(id, subject),
            Ok(ToExchange::Ping(number)) => {
                // a Pong has no room of its own: it stands behind what was sent before it. Who asks and asks without
                // reading is as slow as any other
                if out.push(ToLink::Pong(number).frame()).is_err() {
                    shared.cut_off(&mut shared.routes(), id);
                }
            }
            Ok(ToExchange::Goodbye) => return End::Goodbye,
            Ok(ToExchange::Hello { .. }) => return End::Refused("it said hello twice".to_owned()),
            Err(error) => return End::Refused(error.to_string()),
        }
    }
}

/// Write what is queued up to the last frame. Gives up if that one does not leave.
async fn write_all(out: &Outbound, write: &mut OwnedWriteHalf) {
    let write_last = async {
        out.ended().await;
        tokio::time::sleep(PARTING).await;
    };
    tokio::select! {
        // a link that takes nothing more may still say why
        _ = out.write_to(write) => {}
        () = write_last => {}
    }
    let _ = write.shutdown().await;
}
