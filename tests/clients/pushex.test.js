// npm `pushex`, and phoenix 1.4 to 1.8 in both serializers, against a real server.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { jwt, start, startCluster, until, within } from './harness.js';
import { Pushex, clients, disconnect, join, next, push, socketUrl } from './phoenix.js';

const places = { 'one process': start, 'two slaves over NATS': startCluster };
const toml = '[pushex]\npublic = ["news"]\n';

/** A socket that is closed with the test. */
function opened(server, make, slave, options) {
  const socket = make(socketUrl(slave), options);
  server.beforeEnd(() => disconnect(socket));
  socket.connect();
  return socket;
}

for (const [place, launch] of Object.entries(places)) {
  test(`${place}: each client joins, hears, crashes, leaves`, async t => {
    const server = await launch(t, { toml });
    const token = jwt('demo', 'ann', ['room-*']);
    let number = 0;
    for (const [name, make] of Object.entries(clients)) {
      number += 1;
      const socket = opened(server, make, server.slaves[number % server.slaves.length], { params: { token } });
      const room = socket.channel('room-1', {});
      assert.deepEqual(await within(`${name} joins`, join(room)), {}, name);
      // what is public needs no permission, and what is neither is refused
      const news = socket.channel('news', {});
      await within(`${name} joins news`, join(news));
      const secret = socket.channel('secret', {});
      await assert.rejects(within(`${name} is refused`, join(secret)), { reason: 'unauthorized' }, name);
      await new Promise(resolve => { secret.leave().receive('ok', resolve); });

      const event = `hello ${number}`;
      const heard = Promise.all([next(room, event), next(news, event)]);
      const data = { n: number, deep: [null, 'Grüße'] };
      assert.deepEqual(await push(server, { channel: ['room-1', 'news', 'room-1'], data, event }), { channel: ['room-1', 'news'], data, event });
      assert.deepEqual(await within(`${name} hears`, heard), [{ data, event }, { data, event }], name);

      // PushEx has no handler for what clients say: the channel crashes, and its client joins anew
      const crashed = new Promise(resolve => { room.onError(resolve); });
      const again = new Promise(resolve => { room.joinPush.receive('ok', resolve); });
      room.push('say', {});
      await within(`${name} crashes`, crashed);
      await within(`${name} is back`, again);
      await until(`${name} hears again`, true, async () => {
        const once = Promise.race([next(room), new Promise(resolve => { setTimeout(resolve, 100, null); })]);
        await push(server, { channel: 'room-1', data: 'again', event: 'hello' });
        return (await once)?.data === 'again';
      });

      await within(`${name} leaves`, new Promise(resolve => { room.leave().receive('ok', resolve); }));
      const last = next(news, `last ${number}`);
      await push(server, { channel: ['room-1', 'news'], data: 'last', event: `last ${number}` });
      assert.equal((await within(`${name} hears the last`, last)).data, 'last', name);
    }
  });

  test(`${place}: pushex subscribes before it connects, hears, and comes back after a restart`, async t => {
    const server = await launch(t, {});
    const pushex = new Pushex(socketUrl(server.slaves[0]), {
      getParams: () => Promise.resolve({ token: jwt('demo', 'ann', ['*']) }),
      socketReconnectAlgorithm: () => 50,
    });
    server.beforeEnd(() => disconnect(pushex.getSocket()));
    const heard = [];
    const news = pushex.subscribe('news');
    news.bind('hello', (data, event) => heard.push([event, data]));
    news.bind('*', (data, event) => heard.push(['*', event, data]));
    await pushex.connect();
    const users = () => server.names('/api/demo/online/bychannel/news');
    await until('it is on the channel', ['ann'], users);
    await push(server, { channel: 'news', data: { n: 1 }, event: 'hello' });
    await push(server, { channel: 'news', data: null, event: 'other' });
    const expected = [['hello', { n: 1 }], ['*', 'hello', { n: 1 }], ['*', 'other', null]];
    await until('it hears', expected, () => heard);

    await server.restart(0);
    await until('it is back', ['ann'], users);
    await push(server, { channel: 'news', data: 2, event: 'hello' });
    await until('it hears again', [...expected, ['hello', 2], ['*', 'hello', 2]], () => heard);
    await within('it leaves', pushex.unsubscribe('news'));
    await until('it has left', [], users);
  });
}

test('phoenix 1.8 shows its token as a subprotocol', async t => {
  const server = await start(t);
  for (const name of ['phoenix 1.8, V2', 'phoenix 1.8, V1']) {
    const socket = opened(server, clients[name], server.slave, { authToken: jwt('demo', 'ann', ['room']) });
    const room = socket.channel('room', {});
    await within(`${name} joins`, join(room));
    const heard = next(room);
    await push(server, { channel: 'room', data: 1, event: 'e' });
    assert.deepEqual(await within(`${name} hears`, heard), { data: 1, event: 'e' });
  }
});

test('without a token a client joins what is public, and without public channels it stays outside', async t => {
  const server = await start(t, { toml });
  const make = clients['phoenix 1.7, V2'];
  const socket = opened(server, make, server.slave, {});
  await within('it joins', join(socket.channel('news', {})));
  await assert.rejects(within('it is refused', join(socket.channel('room', {}))), { reason: 'unauthorized' });

  const closed = await start(t);
  const outside = make(socketUrl(closed.slave), {});
  const refused = new Promise(resolve => { outside.onError(resolve); });
  outside.connect();
  await within('it is refused', refused);
  outside.disconnect();
});

test('every client comes back after a drain', async t => {
  const server = await start(t);
  const rooms = [];
  for (const make of Object.values(clients)) {
    const room = opened(server, make, server.slave, { params: { token: jwt('demo', 'ann', ['*']) } }).channel('room', {});
    await join(room);
    rooms.push(room);
  }
  await server.restart(0);
  const heard = rooms.map(room => {
    const payloads = [];
    room.on('msg', ({ data }) => payloads.push(data));
    return payloads;
  });
  await until('all are back', rooms.map(() => true), async () => {
    await push(server, { channel: 'room', data: 'back', event: 'e' });
    return heard.map(payloads => payloads.includes('back'));
  });
});

test('the example of the documentation, as it is printed there', async t => {
  const server = await start(t, { development: true });
  const body = '{\n    "channel": ["test", "test2", "test"],\n    "data": "data",\n    "event": "woohoo"\n  }';
  const { stdout } = await promisify(execFile)('curl', ['-s', '-i', '-X', 'POST', `http://${server.master}/api/push`, '-H', 'content-type: application/json', '-d', body]);
  const [head, answer] = stdout.split('\r\n\r\n');
  assert.equal(answer, '{"channel":["test","test2"],"data":"data","event":"woohoo"}');
  const [status, ...headers] = head.split('\r\n');
  assert.equal(status, 'HTTP/1.1 200 OK');
  const shown = Object.fromEntries(headers.map(line => line.split(': ')));
  assert.deepEqual(Object.keys(shown).sort(), ['cache-control', 'content-length', 'content-type', 'date', 'x-request-id']);
  assert.equal(shown['cache-control'], 'max-age=0, private, must-revalidate');
  assert.equal(shown['content-length'], '59');
  assert.equal(shown['content-type'], 'application/json; charset=utf-8');
});

test('a user who is disconnected stays away where its release of phoenix does so after 1000', async t => {
  const server = await start(t);
  const releases = { 'phoenix 1.7, V2': 'ann', 'phoenix 1.4, V2': 'bob', 'phoenix 1.8, V2': 'eve' };
  const codes = [];
  for (const [name, user] of Object.entries(releases)) {
    const socket = opened(server, clients[name], server.slave, { params: { token: jwt('demo', user, ['*']) } });
    socket.onClose(({ code }) => codes.push([user, code]));
    await join(socket.channel('room', {}));
  }
  const online = () => server.names('/api/demo/online');
  const end = async (user, query = '') => {
    const gone = codes.length + 1;
    const answer = await fetch(`http://${server.master}/v1/apps/demo/users/${user}/connections${query}`, { method: 'DELETE' });
    assert.equal(answer.status, 200);
    await until(`${user} is closed`, gone, () => codes.length);
  };
  await until('all are there', ['ann', 'bob', 'eve'], online);
  await end('ann', '?reconnect=true');
  await until('ann is back', ['ann', 'bob', 'eve'], online);
  // ann first: whoever comes back does so as soon as the others
  for (const user of ['ann', 'bob', 'eve']) await end(user);
  await until('the others are back', ['bob', 'eve'], online);
  assert.deepEqual(codes, [['ann', 1001], ['ann', 1000], ['bob', 1000], ['eve', 1000]]);
});
