// A client as kanata-php/socket-conveyor-client 1.2.9 is one, which is in no registry: the same URL, the same frames in the
// same order, the same heartbeat. And a backend as the Laravel driver is one.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { WebSocket } from 'ws';

import { within } from './harness.js';

export const token = 'the server token of these tests';

/** Opens a socket and says what the stock client says. */
export class Conveyor {
  constructor(address, { token = null, channel, userId, query = '', protocols = [] } = {}) {
    this.frames = [];
    this.waiting = [];
    // no slash before the query
    this.socket = new WebSocket(`ws://${address}?token=${token === null ? '' : encodeURIComponent(token)}${query}`, protocols);
    this.socket.on('message', (data, isBinary) => {
      assert.equal(isBinary, false);
      // the stock client parses every frame, and hands on data and fd
      const { action, data: said, fd } = JSON.parse(data.toString());
      const frame = { action, data: said, fd };
      const next = this.waiting.shift();
      if (next) next(frame);
      else this.frames.push(frame);
    });
    this.ready = once(this.socket, 'open').then(async () => {
      if (userId) this.raw({ action: 'assoc-user-to-fd-action', userId });
      if (channel) this.raw({ action: 'channel-connect', channel, auth: token });
      this.heartbeat();
      const info = await this.next();
      assert.equal(info.action, 'connection-info');
      this.fd = JSON.parse(info.data).fd;
      assert.ok(Number.isSafeInteger(this.fd));
      return this;
    });
    this.ready.catch(() => {});
  }

  raw(words) {
    this.socket.send(JSON.stringify(words));
  }

  /** Every 10 s, as a binary message. */
  heartbeat() {
    this.socket.send(new Uint8Array([0x89, 0x00]));
  }

  send(data, action = 'base-action') {
    this.raw({ action, data });
  }

  next() {
    const frame = this.frames.shift();
    return frame ? Promise.resolve(frame) : within('a frame', new Promise(resolve => { this.waiting.push(resolve); }));
  }

  /** Nothing but its own words come next. */
  async isQuiet() {
    this.heartbeat();
    this.send('quiet?');
    assert.deepEqual(await this.next(), { action: 'base-action', data: 'quiet?', fd: this.fd });
  }

  close() {
    this.socket.terminate();
  }
}

/** The status with which a handshake is refused. */
export function refused(address, token) {
  const socket = new WebSocket(`ws://${address}?token=${encodeURIComponent(token)}`);
  return within('an answer', new Promise((resolve, reject) => {
    socket.once('open', () => reject(new Error('it was let in')));
    socket.once('unexpected-response', (_, response) => { resolve(response.statusCode); response.destroy(); });
    socket.on('error', () => {});
  }));
}

/** What the endpoints answer. */
export async function post(master, endpoint, body, by = token) {
  const url = `http://${master}/conveyor/${endpoint}?token=${encodeURIComponent(by)}`;
  const answer = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  return [answer.status, await answer.json()];
}
