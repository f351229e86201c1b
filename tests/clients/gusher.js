// `@xpomelox/gusher`, a browser client that real pages of gusher.cluster use, at home in Node.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import WebSocket from 'ws';

import { jwt, within } from './harness.js';

// what the client expects of a browser
globalThis.window = globalThis;
globalThis.WebSocket = WebSocket;
globalThis.localStorage = {};
const { Gusher } = createRequire(import.meta.url)('@xpomelox/gusher');

/** A connection token for these channels of the app `demo`. */
export async function token(slave, channels, user = 'gus') {
  const body = new URLSearchParams({ jwt: jwt('demo', user, channels) });
  const answer = await fetch(`http://${slave}/gcs/auth`, { method: 'POST', body });
  assert.equal(answer.status, 200);
  return (await answer.json()).token;
}

/** A client that is not connected yet, and leaves before `server` ends. */
export function gusherClient(server, slave, token, options = {}) {
  const gusher = new Gusher('demo', { url: `ws://${slave}/gcs/ws/demo`, token, ...options });
  server.beforeEnd(() => {
    // a client that is told to leave does not come back; one whose server vanished would
    gusher.bind('error', () => {});
    gusher.disconnect();
  });
  return gusher;
}

/** The next event of that name on a client or a channel. */
export const next = (emitter, event) => within(event, new Promise(resolve => {
  const heard = data => {
    emitter.unbind(event, heard);
    resolve(data);
  };
  emitter.bind(event, heard);
}));
