// PushEx' clients in Node: `pushex` and several releases of `phoenix`, with `ws` below them.

import { createRequire } from 'node:module';

import WebSocket from 'ws';

// `pushex` and phoenix 1.4 look for a browser
globalThis.self ??= globalThis;
globalThis.window ??= globalThis;
globalThis.addEventListener ??= () => {};
globalThis.WebSocket = WebSocket;
// phoenix 1.4 forgets its heartbeat when it disconnects: nothing is to wait for that
const { setInterval } = globalThis;
globalThis.setInterval = (...all) => setInterval(...all).unref();

const require = createRequire(import.meta.url);

export const { Pushex } = require('pushex');

const libraries = { 1.4: require('phoenix14'), 1.7: require('phoenix17'), 1.8: require('phoenix18') };

/** Options of a socket that has the first serializer, which no library has by default. */
const first = {
  vsn: '1.0.0',
  encode: ({ topic, event, payload, ref }, done) => done(JSON.stringify({ topic, event, payload, ref })),
  decode: (text, done) => done({ join_ref: null, ...JSON.parse(text) }),
};

/** phoenix 1.4 cannot be told which serializer it has: its transport does. */
class FirstSerializer extends WebSocket {
  constructor(url, ...rest) {
    super(url.replace('vsn=2.0.0', 'vsn=1.0.0'), ...rest);
  }
}

/** Each release, with each serializer: how to make a socket at `url`. */
export const clients = Object.fromEntries(Object.entries(libraries).flatMap(([release, { Socket }]) => {
  const make = more => (url, options) => new Socket(url, { transport: WebSocket, reconnectAfterMs: () => 50, ...more, ...options });
  const old = release === '1.4' ? { transport: FirstSerializer } : {};
  return [[`phoenix ${release}, V2`, make({})], [`phoenix ${release}, V1`, make({ ...first, ...old })]];
}));

/** Where sockets of a slave open. */
export const socketUrl = slave => `ws://${slave}/push_socket`;

/** Disconnect for good; phoenix 1.4 would go on with its heartbeat, and keep the process. */
export async function disconnect(socket) {
  await new Promise(resolve => { socket.disconnect(resolve); });
  clearInterval(socket.heartbeatTimer);
}

/** Join; resolves with the response, or rejects with it. */
export function join(channel) {
  return new Promise((resolve, reject) => {
    channel.join().receive('ok', resolve).receive('error', reject).receive('timeout', () => reject(new Error('a join in vain')));
  });
}

/** The next event of a channel, or the next of that name: others may be on their way to a client that joins. */
export function next(channel, event) {
  return new Promise(resolve => {
    const ref = channel.on('msg', payload => {
      if (event && payload.event !== event) return;
      channel.off('msg', ref);
      resolve(payload);
    });
  });
}

/** Push over PushEx' API; what is answered. */
export async function push(server, body, headers = {}) {
  const answer = await fetch(`http://${server.master}/api/push`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  return answer.json();
}
