// Print what is pushed: node subscribe.mjs [CHANNEL…]
// Node 22 has WebSocket built in; Node 20 needs --experimental-websocket.

const { WELLHEAD_SLAVE = 'http://127.0.0.1:8888', WELLHEAD_APP = 'demo', WELLHEAD_JWT } = process.env;
const channels = process.argv.length > 2 ? process.argv.slice(2) : ['news'];
if (!WELLHEAD_JWT) throw new Error('WELLHEAD_JWT is not set: a server in development mode prints one');

/** A JWT for a token that is good for a minute, however often; a client that comes back later asks for a fresh one. */
async function token() {
  const answer = await fetch(`${WELLHEAD_SLAVE}/v1/auth`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ jwt: WELLHEAD_JWT }),
  });
  if (!answer.ok) throw new Error(`the JWT is refused (${answer.status})`);
  return (await answer.json()).token;
}

async function connect() {
  const url = new URL(`/v1/apps/${encodeURIComponent(WELLHEAD_APP)}/ws`, WELLHEAD_SLAVE.replace(/^http/, 'ws'));
  url.searchParams.set('token', await token());
  const socket = new WebSocket(url);
  socket.onopen = () => {
    socket.send(JSON.stringify({ event: 'gusher.multi_subscribe', data: { multi_channel: channels } }));
  };
  socket.onmessage = ({ data: text }) => {
    // what is pushed to a user or a socket comes without anything around it: any JSON, null among it
    const { channel, event, data } = Object(JSON.parse(text));
    if (event === 'gusher.multi_subscribe_succeeded') console.log('subscribed to', channels.join(', '));
    else if (event === 'gusher.multi_subscribe_error') console.log('not allowed:', channels.join(', '));
    else if (channel !== undefined && event !== undefined) console.log(channel, event, JSON.stringify(data));
    else console.log('(to you)', text);
  };
  socket.onclose = ({ code, reason }) => {
    console.error(`closed (${code} ${reason}), coming back`);
    setTimeout(again, 1_000);
  };
}

function again() {
  connect().catch(error => {
    console.error(error.message);
    setTimeout(again, 1_000);
  });
}

await connect();
