// A client that says what Conveyor's stock JavaScript client says, its callers, and the `pusher` library of Node against its
// Pusher mode; alone and as a cluster over NATS.

import assert from 'node:assert/strict';
import { createHmac, createHash } from 'node:crypto';
import { test } from 'node:test';

import { Conveyor, post, refused, token } from './conveyor.js';
import { within } from './harness.js';
import { app, next, places, stage, subscribed } from './pusher.js';

const settings = `stale_timestamp_status = 400
[apps.listed.limits]
event_data = "10000B"
[conveyor]
token = "${token}"
presence = true
`;

for (const [place, launch] of Object.entries(places)) {
  test(`${place}: a client with a temporary token joins its channel, and the next one does not`, async t => {
    const { server } = await conveyor(t, launch);
    const sent = [200, { success: 'Message sent successfully!' }];
    assert.deepEqual(await post(server.master, 'message', { channel: 'orders.1', message: 'x' }), [404, { error: 'Channel not found!' }]);
    const [status, { auth }] = await post(server.master, 'auth', { channel: 'orders.1' });
    assert.equal(status, 200);
    assert.match(auth, /^[0-9a-f]{32}$/);
    const ann = client(t, server, 0, { token: auth, channel: 'orders.1', userId: 7, protocols: ['socketconveyor.com'] });
    await within('it is open', ann.ready);
    assert.equal(ann.socket.protocol, 'socketconveyor.com');
    const { action, data } = await ann.next();
    assert.equal(action, 'channel-connect');
    const presence = { fd: ann.fd, event: 'channel-presence', channel: 'orders.1', fds: [ann.fd], userIds: { [ann.fd]: 7 } };
    assert.deepEqual(JSON.parse(data), presence);
    assert.deepEqual(await post(server.master, 'message', { channel: 'orders.1', message: 'order updated' }), sent);
    assert.deepEqual(await ann.next(), { action: 'broadcast-action', data: 'order updated', fd: undefined });
    // an automatic reconnect with the same token cannot come in
    assert.equal(await refused(server.slaves.at(-1), auth), 401);
    assert.deepEqual(await post(server.master, 'auth', {}, auth), [401, { error: 'Unauthorized!' }]);
    await ann.isQuiet();
  });

  test(`${place}: broadcasts, fan-outs and echoes reach whom they are for`, async t => {
    const { server } = await conveyor(t, launch);
    const on = (slave, channel) => client(t, server, slave, { token, channel });
    const ann = on(0, 'room');
    await within('it is open', ann.ready);
    assert.equal((await ann.next()).action, 'channel-connect');
    const [bob, eve] = [on(1, 'room'), on(1)];
    await Promise.all([bob, eve].map(one => within('it is open', one.ready)));
    for (const one of [ann, bob]) assert.equal(JSON.parse((await one.next()).data).fds.length, 2);
    ann.send({ n: 1 }, 'broadcast-action');
    for (const one of [ann, bob]) assert.deepEqual(await one.next(), { action: 'broadcast-action', data: { n: 1 }, fd: ann.fd });
    eve.send('outside', 'broadcast-action');
    assert.deepEqual(await eve.next(), { action: 'broadcast-action', data: 'outside', fd: eve.fd });
    bob.raw({ action: 'fanout-action', data: 'all', auth: token });
    for (const one of [ann, bob, eve]) assert.deepEqual(await one.next(), { action: 'fanout-action', data: 'all', fd: bob.fd });
    eve.raw({ action: 'channel-connect', channel: 'room', auth: 'wrong' });
    assert.deepEqual(await eve.next(), { action: 'channel-connect', data: 'Failed to connect to channel', fd: eve.fd });
    await Promise.all([ann, bob, eve].map(one => one.isQuiet()));
  });

  test(`${place}: the Pusher library and Pusher's clients share the channel`, async t => {
    const { server, backend, client: pusher } = await conveyor(t, launch);
    const ann = client(t, server, 0, { token, channel: 'news' });
    await within('it is open', ann.ready);
    assert.equal((await ann.next()).action, 'channel-connect');
    const bob = await subscribed(pusher(1, 'bob'), 'news');
    await backend.trigger('news', 'OrderShipped', { id: 1 });
    assert.deepEqual(await ann.next(), { action: 'broadcast-action', data: '{"id":1}', fd: undefined });
    const heard = next(bob, 'message');
    await post(server.master, 'message', { channel: 'news', message: '{"id":2}' });
    assert.deepEqual(await heard, { id: 2 });
    assert.equal((await ann.next()).data, '{"id":2}');
    const said = next(bob, 'message');
    ann.send('hello', 'broadcast-action');
    assert.equal(await said, 'hello');
    // the limits of Conveyor's Pusher mode
    await assert.doesNotReject(backend.trigger('news', 'e', 'x'.repeat(10_000)));
    await assert.rejects(backend.trigger('news', 'e', 'x'.repeat(10_001)));
    const answers = [['17', 700, 400], ['17', 0, 200], ['99', 0, 401]].map(async ([id, age, status]) => {
      assert.equal((await signed(server.master, id, age)).status, status);
    });
    await Promise.all(answers);
  });
}

/** A server or a cluster with Conveyor's token. */
const conveyor = (t, launch) => stage(t, launch, settings);

function client(t, server, slave, options) {
  const made = new Conveyor(server.slaves[slave % server.slaves.length], options);
  t.after(() => made.close());
  return made;
}

/** A signed request that is so many seconds old. */
function signed(master, id, age) {
  const body = JSON.stringify({ name: 'e', channel: 'news', data: '1' });
  const path = `/apps/${id}/events`;
  const md5 = createHash('md5').update(body).digest('hex');
  const at = Math.floor(Date.now() / 1000) - age;
  const query = `auth_key=${app.key}&auth_timestamp=${at}&auth_version=1.0&body_md5=${md5}`;
  const signature = createHmac('sha256', app.secret).update(`POST\n${path}\n${query}`).digest('hex');
  return fetch(`http://${master}${path}?${query}&auth_signature=${signature}`, { method: 'POST', body });
}
