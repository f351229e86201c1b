// Python's `pusher` (a backend) and `pysher` (a client) against a real server.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

import { repository, within } from './harness.js';
import { app, next, places, signedIn, stage, subscribed } from './pusher.js';

const python = process.env.PYTHON ?? 'python3';

/** One of the two libraries, as a process that takes commands and tells what comes of them, in order. */
function library(server, ...words) {
  const script = join(repository, 'tests', 'clients', 'python_pusher.py');
  const child = spawn(python, [script, ...words], {
    env: { ...process.env, PUSHER_APP: JSON.stringify(app), PYTHONWARNINGS: 'ignore' },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let complaints = '';
  child.stderr.on('data', text => { complaints += text; });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = new Promise(resolve => child.once('exit', resolve));
  server.beforeEnd(() => {
    child.stdin.end();
    return within('Python ends', ended);
  });
  const say = (...command) => child.stdin.write(`${JSON.stringify(command)}\n`);
  const hear = async () => {
    const { value, done } = await within(`a line of ${words.join(' ')}`, lines.next());
    if (done) throw new Error(`Python ended: ${complaints}`);
    return JSON.parse(value);
  };
  return {
    say,
    hear,
    /** A call of the backend. */
    ask: async (...command) => {
      say(...command);
      return hear();
    },
    /** The next thing that reaches the client, apart from pongs; pysher pings of its own accord. */
    event: async () => {
      for (;;) {
        const [event, ...rest] = await hear();
        if (event !== 'pusher:pong') return [event, ...rest];
      }
    },
  };
}

for (const [place, launch] of Object.entries(places)) {
  test(`${place}: a Python backend publishes and asks`, async t => {
    const { server, client } = await stage(t, launch);
    const { ask } = library(server, 'backend', server.master);
    const [ann, bob] = [client(0, 'ann'), client(1, '7')];
    const news = await subscribed(ann, 'news');
    await Promise.all([ann, bob].map(one => subscribed(one, 'presence-room')));

    let heard = next(news, 'hello');
    assert.deepEqual(await ask('trigger', ['news', 'more'], 'hello', { text: 'Grüße', n: 1 }), ['ok', {}]);
    assert.deepEqual(await heard, { text: 'Grüße', n: 1 });
    heard = next(news, 'batched');
    const batch = [{ channel: 'news', name: 'batched', data: { n: 2 } }, { channel: 'more', name: 'batched', data: 'x' }];
    assert.deepEqual(await ask('trigger_batch', batch), ['ok', {}]);
    assert.deepEqual(await heard, { n: 2 });

    // these sign the digest of an empty body
    assert.deepEqual(await ask('channels_info'), ['ok', { channels: { news: {}, 'presence-room': {} } }]);
    const presence = await ask('channels_info', 'presence-', ['user_count']);
    assert.deepEqual(presence, ['ok', { channels: { 'presence-room': { user_count: 2 } } }]);
    const room = await ask('channel_info', 'presence-room', ['user_count', 'subscription_count']);
    assert.deepEqual(room, ['ok', { occupied: true, user_count: 2, subscription_count: 2 }]);
    const [, { users }] = await ask('users_info', 'presence-room');
    assert.deepEqual(users.map(({ id }) => id).sort(), ['7', 'ann']);

    const [kind] = await ask('channels_info', null, ['user_count']);
    assert.equal(kind, 'PusherBadRequest');
    const large = await ask('trigger', 'news', 'large', 'x'.repeat(10_241));
    assert.equal(large[0], 'PusherBadStatus');
    assert.match(large[1], /exceeds the allowed maximum \(10240 bytes\)/);
  });

  test(`${place}: a Python backend sends to a user`, async t => {
    const { server, client } = await stage(t, launch);
    const { ask } = library(server, 'backend', server.master);
    const anns = await Promise.all([client(0, 'ann'), client(1, 'ann')].map(signedIn));
    for (const data of [{ text: 'Grüße', n: 1 }, 'plain']) {
      const heard = Promise.all(anns.map(ann => next(ann.user, 'hello')));
      assert.deepEqual(await ask('send_to_user', 'ann', 'hello', data), ['ok', {}]);
      assert.deepEqual(await heard, [data, data]);
    }
    assert.deepEqual(await ask('channels_info'), ['ok', { channels: {} }]);
    assert.deepEqual(await ask('send_to_user', 'nobody', 'hello', 1), ['ok', {}]);
  });

  test(`${place}: a Python backend disconnects a user`, async t => {
    const { server, client } = await stage(t, launch);
    const { ask } = library(server, 'backend', server.master);
    const anns = await Promise.all([client(0, 'ann'), client(1, 'ann')].map(signedIn));
    const bob = await signedIn(client(0, 'bob'));
    const gone = Promise.all(anns.map(ann => next(ann.connection, 'disconnected')));
    // it leaves the app out of the path
    assert.deepEqual(await ask('terminate_user_connections', 'ann'), ['ok', {}]);
    await gone;
    assert.deepEqual(await ask('terminate_user_connections', 'nobody'), ['ok', {}]);
    assert.equal(bob.connection.state, 'connected');
  });

  test(`${place}: pysher comes back if it is to`, async t => {
    const { server } = await stage(t, launch);
    const client = library(server, 'client', server.slaves[0], '7');
    const [established, , data] = await client.event();
    assert.equal(established, 'pusher:connection_established');
    const { socket_id: id } = JSON.parse(data);
    const answer = await fetch(`http://${server.master}/v1/apps/demo/sockets/${id}?reconnect=true`, { method: 'DELETE' });
    assert.equal(answer.status, 200);
    const [error, , why] = await client.event();
    assert.deepEqual([error, (typeof why === 'string' ? JSON.parse(why) : why).code], ['pusher:error', 4200]);
    assert.equal((await client.event())[0], 'pusher:connection_established');
  });

  test(`${place}: pysher hears, and is a member`, async t => {
    const { server, backend, client } = await stage(t, launch);
    const ann = await subscribed(client(0, 'ann'), 'presence-room');
    const { say, event } = library(server, 'client', server.slaves.at(-1), '42');
    const [first, , established] = await event();
    assert.equal(first, 'pusher:connection_established');
    assert.match(JSON.parse(established).socket_id, /^\d+\.\d+$/);

    const succeeded = 'pusher_internal:subscription_succeeded';
    const added = next(ann, 'pusher:member_added');
    for (const [channel, ...events] of [['news', 'hello'], ['private-desk', 'hello'], ['presence-room', 'client-wave']]) {
      say('subscribe', channel, ...events);
      const told = [await event(), await event()];
      assert.deepEqual(told.map(([what, where]) => [what, where]).sort(), [['bound', channel], [succeeded, channel]]);
      const [, , data] = told.find(([what]) => what === succeeded);
      const { presence } = JSON.parse(data);
      if (channel === 'presence-room') {
        assert.deepEqual(presence.ids.toSorted(), ['42', 'ann']);
        assert.deepEqual(presence.hash, { 42: { name: '42' }, ann: { name: 'ANN' } });
        assert.equal(presence.count, 2);
      } else {
        assert.deepEqual(JSON.parse(data), {});
      }
    }
    assert.deepEqual(await added, { id: '42', info: { name: '42' } });
    for (const channel of ['news', 'private-desk']) {
      await backend.trigger(channel, 'hello', { to: channel });
      assert.deepEqual(await event(), ['hello', channel, JSON.stringify({ to: channel })]);
    }
    ann.trigger('client-wave', { both: 'hands' });
    assert.deepEqual(await event(), ['client-wave', 'presence-room', { both: 'hands' }]);
    const answer = next(ann, 'client-answer');
    say('trigger', 'presence-room', 'client-answer', { ok: true });
    assert.deepEqual(await answer, { data: { ok: true }, user_id: '42' });
    const removed = next(ann, 'pusher:member_removed');
    say('unsubscribe', 'presence-room');
    assert.deepEqual(await removed, { id: '42', info: { name: '42' } });

    // its server goes away in order, and it comes back by itself; pusher-js, told to disconnect while it tries to come back,
    // would go on trying for ever
    ann.pusher.disconnect();
    await server.restart(server.slaves.length - 1);
    const [told, , { code }] = await event();
    assert.deepEqual([told, code], ['pusher:error', server.slaves.length > 1 ? 4200 : 4100]);
    for (;;) {
      const [what, , data] = await event();
      if (what === 'pusher:connection_established') break;
      // a slave that has only just found its bus
      assert.deepEqual([what, data.code], ['pusher:error', 4100], JSON.stringify(data));
    }
  });
}
