//! One client, from the side of the broker: its greeting, what it says, its end.

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

use super::{BrokerShared, ClientId};
use crate::bus::local::{
    frame::{ToBroker, ToClient, VERSION, codec, max_frame},
    outbound::Outbound,
    socket,
};

/// How long a client may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long the client may go on once our last frame is written, and how long that may take.
const PARTING: Duration = Duration::from_secs(30);
/// How many subjects a client may listen to: every slot of channels and of users, and a few more.
const MAX_LISTENS: usize = 2 * (1 << 16) + 64;

type BrokerFrames = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;

/// How a client ended.
enum ClientEnd {
    Goodbye,
    Lost,
    Refused(String),
}

/// Serve a client to its end.
pub(super) async fn serve(shared: Arc<BrokerShared>, stream: UnixStream) {
    match socket::is_one_of_us(&stream) {
        Ok(true) => {}
        Ok(false) => return warn!("a process of another user was turned away from the local bus"),
        Err(error) => return warn!(error:% = error; "a process was turned away from the local bus: {error}"),
    }
    let (read, mut write) = stream.into_split();
    let mut frames = FramedRead::new(read, codec(0));
    let (node, heartbeat) = match timeout(HANDSHAKE, greet(&mut frames, &mut write)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(why)) => return warn!(error = why.as_str(); "a process was turned away from the local bus: {why}"),
        Err(_) => return warn!("a process was turned away from the local bus: it said nothing"),
    };
    frames.decoder_mut().set_max_frame_length(max_frame(shared.limits.message));

    let out = Arc::new(Outbound::new(shared.limits.queue));
    out.push_urgent(ToClient::Welcome { version: VERSION, payload: shared.welcome.clone() }.frame());
    // no await from here to the first frame: what is told of this node and what it says keep their order
    let id = shared.routes().connect(node, out.clone());
    info!(node_id:% = node; "node {node} is on the local bus");
    shared.watcher.came(node, heartbeat);

    let end = {
        let said = listen(&shared, id, &out, &mut frames);
        tokio::pin!(said);
        tokio::select! {
            end = &mut said => end,
            () = write_all(&out, &mut write) => {
                // it reads our last frame, and ends; until then it is heard
                timeout(PARTING, said).await.unwrap_or(ClientEnd::Lost)
            }
        }
    };
    let last = shared.routes().disconnect(id);
    match end {
        ClientEnd::Goodbye => return info!(node_id:% = node; "node {node} left the local bus"),
        ClientEnd::Lost => info!(node_id:% = node; "node {node} is gone from the local bus"),
        ClientEnd::Refused(why) => warn!(node_id:% = node, error = why.as_str(); "node {node} is hung up on: {why}"),
    }
    if last {
        shared.watcher.lost(node);
    }
}

/// Who is it, and does it speak as we do?
async fn greet(frames: &mut BrokerFrames, write: &mut OwnedWriteHalf) -> Result<(NodeId, Bytes), String> {
    let frame = match frames.next().await {
        Some(Ok(frame)) => frame.freeze(),
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("it hung up at once".to_owned()),
    };
    match ToBroker::parse(frame).map_err(|error| error.to_string())? {
        ToBroker::Hello { version: VERSION, node, heartbeat } => Ok((node, heartbeat)),
        ToBroker::Hello { version, .. } => {
            let welcome = ToClient::Welcome { version: VERSION, payload: Bytes::new() }.frame();
            // it may be gone already, and then need not know
            let _ = write.write_all(&welcome.head).await;
            Err(format!(
                "it speaks version {version} of the local bus and this master version {VERSION}; run the same release"
            ))
        }
        _ => Err("it did not say who it is".to_owned()),
    }
}

/// Carry out what the client sends, until its connection ends.
async fn listen(shared: &BrokerShared, id: ClientId, out: &Outbound, frames: &mut BrokerFrames) -> ClientEnd {
    loop {
        let frame = match frames.next().await {
            Some(Ok(frame)) => frame.freeze(),
            Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                return ClientEnd::Refused(error.to_string());
            }
            Some(Err(_)) | None => return ClientEnd::Lost,
        };
        match ToBroker::parse(frame) {
            Ok(ToBroker::Send(subject, message)) if message.len() <= shared.limits.message => {
                shared.route(subject, &message).await;
            }
            Ok(ToBroker::Send(_, message)) => return ClientEnd::Refused(format!("it sent {} bytes", message.len())),
            Ok(ToBroker::Listen(subject)) => {
                if !shared.routes().listen(id, subject, MAX_LISTENS) {
                    return ClientEnd::Refused(format!("it listens to more than {MAX_LISTENS} subjects"));
                }
            }
            Ok(ToBroker::Unlisten(subject)) => shared.routes().unlisten(id, subject),
            Ok(ToBroker::Ping(number)) => {
                // a Pong has no room of its own: it stands behind what was sent before it. Who asks and asks without
                // reading is as slow as any other
                if out.push(ToClient::Pong(number).frame()).is_err() {
                    shared.cut_off(&mut shared.routes(), id);
                }
            }
            Ok(ToBroker::Goodbye) => return ClientEnd::Goodbye,
            Ok(ToBroker::Hello { .. }) => return ClientEnd::Refused("it said hello twice".to_owned()),
            Err(error) => return ClientEnd::Refused(error.to_string()),
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
        // a client that takes nothing more may still say why
        _ = out.write_to(write) => {}
        () = write_last => {}
    }
    let _ = write.shutdown().await;
}
