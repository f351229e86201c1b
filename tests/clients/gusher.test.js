// `@xpomelox/gusher`, a browser client that real pages of gusher.cluster use, run in Node against a real server.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { gusherClient, next, token as tokenOf } from './gusher.js';
import { jwt, start, until, within } from './harness.js';

const token = (server, channels) => tokenOf(server.slave, channels, 'ann');
const client = (server, token, options) => gusherClient(server, server.slave, token, options);

test('auth, multi-subscribe in groups of ten, push', async t => {
  const server = await start(t);
  const gusher = client(server, await token(server, ['room-*', 'news']));
  const names = [...Array(25).keys()].map(number => `room-${number}`);
  const channels = gusher.subscribes([...names, 'news']);
  const joined = Promise.all(names.map(name => next(channels[name], 'gusher.multi_subscribe_succeeded')));
  gusher.connect();
  await joined;
  await until('channels', [...names, 'news'].sort(), () => server.names('/api/demo/channels'));

  for (const name of ['room-0', 'room-17', 'news']) {
    const heard = next(channels[name], 'hello');
    await server.push('demo', name, 'hello', { text: `for ${name}`, deep: [1, { two: null }] });
    assert.deepEqual(await heard, { text: `for ${name}`, deep: [1, { two: null }] });
  }

  const everything = next(gusher, '*');
  await server.push('demo', 'news', 'plain', 'just text');
  assert.deepEqual(await everything, { channel: 'news', event: 'plain', data: 'just text' });
});

test('a later subscribe and unsubscribe, and a refusal', async t => {
  const server = await start(t);
  const gusher = client(server, await token(server, ['news']));
  const connected = next(gusher, 'connected');
  gusher.connect();
  await connected;

  const granted = next(gusher, 'gusher.subscribe_succeeded');
  const news = gusher.subscribe('news');
  assert.deepEqual(await granted, { channel: 'news' });
  const heard = next(news, 'hi');
  await server.push('demo', 'news', 'hi', 1);
  assert.equal(await heard, 1);

  const refused = next(gusher, 'gusher.subscribe_error');
  gusher.subscribe('secret');
  assert.deepEqual(await refused, { channel: 'secret' });

  const left = next(gusher, 'gusher.unsubscribe_succeeded');
  gusher.unsubscribe('news');
  assert.deepEqual(await left, { channel: 'news' });
  assert.deepEqual(await server.names('/api/demo/channels'), []);
});

test('pushes to a user and new permissions arrive', async t => {
  const server = await start(t);
  const gusher = client(server, await token(server, ['news']));
  const connected = next(gusher, 'connected');
  gusher.connect();
  await connected;
  const form = (path, data) => fetch(`http://${server.master}${path}`, { method: 'POST', body: new URLSearchParams({ data }) });

  const direct = next(gusher, 'mail');
  await form('/api/push/user/demo/ann', '{"event":"mail","data":{"unread":3}}');
  assert.deepEqual(await direct, { unread: 3 });

  const added = next(gusher, 'gusher.addchannel');
  await form('/api/add/channel/user/demo/ann', 'extra');
  assert.deepEqual(await added, { channel: 'extra' });
  const granted = next(gusher, 'gusher.subscribe_succeeded');
  gusher.subscribe('extra');
  assert.deepEqual(await granted, { channel: 'extra' });

  const reloaded = next(gusher, 'gusher.reloadchannel');
  await form('/api/reload/channel/user/demo/ann', '["other"]');
  assert.deepEqual(await reloaded, { channels: ['other'] });
  assert.deepEqual(await server.names('/api/demo/channels'), []);
});

test('it comes back by itself with the same token and hears again', async t => {
  const server = await start(t);
  const gusher = client(server, await token(server, ['*']), { reconnection: true, reconnectionDelay: 20 });
  const news = gusher.subscribe('news');
  let joined = next(news, 'gusher.multi_subscribe_succeeded');
  gusher.connect();
  await joined;
  for (let round = 0; round < 3; round += 1) {
    joined = next(news, 'gusher.multi_subscribe_succeeded');
    const retried = next(gusher, 'retry');
    // the network breaks: no close frame
    gusher.connection.connection.socket.terminate();
    await retried;
    await joined;
    const heard = next(news, 'again');
    await server.push('demo', 'news', 'again', round);
    assert.equal(await heard, round);
  }
});

test('an event of its own making is refused with a close frame, not a dropped connection', async t => {
  const server = await start(t);
  const gusher = client(server, await token(server, ['*']));
  const news = gusher.subscribe('news');
  const joined = next(news, 'gusher.multi_subscribe_succeeded');
  gusher.connect();
  await joined;
  const closed = next(gusher, 'closed');
  news.trigger('mine', { some: 'data' });
  const { code, wasClean } = await closed;
  assert.equal(code, 1008);
  assert.equal(wasClean, true);
});

test('who is disconnected by the app stays away, unless the page has switched reconnecting on', async t => {
  const server = await start(t);
  const end = query => fetch(`http://${server.master}/v1/apps/demo/users/ann/connections${query}`, { method: 'DELETE' });
  const stays = client(server, await token(server, ['news']));
  const comes = client(server, await token(server, ['news']), { reconnection: true, reconnectionDelay: 20 });
  for (const [query, code] of [['', 1008], ['?reconnect=true', 1001]]) {
    const connected = Promise.all([stays, comes].map(one => next(one, 'connected')));
    stays.connect();
    if (code === 1008) comes.connect();
    await connected;
    const closed = Promise.all([stays, comes].map(one => next(one, 'closed')));
    const back = next(comes, 'connected');
    assert.equal((await end(query)).status, 200);
    for (const event of await closed) assert.equal(event.code, code);
    // the library asks for no code
    await back;
    assert.deepEqual([stays, comes].map(one => one.connection.state), ['closed', 'connected']);
    if (code === 1008) {
      comes.connection.connection.socket.close();
      await next(comes, 'closed');
    }
  }
});

test('remote commands reach the backend, which can tell who signed them', async t => {
  const secret = 'the secret of these tests';
  const posted = [];
  const backend = createServer(async (request, response) => {
    let body = '';
    for await (const piece of request) body += piece;
    posted.push({ signature: request.headers['x-wellhead-signature'], key: request.headers['x-wellhead-key'], body });
    response.writeHead(posted.length > 1 ? 500 : 204).end();
    backend.emit('posted');
  });
  await once(backend.listen(0, '127.0.0.1'), 'listening');
  t.after(() => { backend.closeAllConnections(); backend.close(); });
  const remote = `remote = { url = "http://127.0.0.1:${backend.address().port}/commands" }`;
  const app = `[webhooks]\nallow_private = true\n[[apps.listed]]\nkey = "demo"\nid = "1"\nsecret = "${secret}"\n${remote}\n`;
  const server = await start(t, { toml: app });
  const gusher = client(server, jwt('demo', 'ann', ['news'], { cmd: true, no: false }));
  const connected = next(gusher, 'connected');
  gusher.connect();
  await connected;
  const send = command => gusher.connection.send('gusher.remote', { remote: command, uid: 'x', payload: { text: 'Grüße' } });

  let refused = next(gusher, 'gusher.remote_error');
  send('no');
  assert.deepEqual(await refused, { remote: 'no', msg: null });
  const arrived = once(backend, 'posted');
  send('cmd');
  await within('a command', arrived);
  const [{ signature, key, body }] = posted;
  assert.equal(signature, createHmac('sha256', secret).update(body).digest('hex'));
  assert.equal(key, 'demo');
  const { socket_id: id, ...rest } = JSON.parse(body);
  assert.match(id, /^[0-9a-f-]{36}$/);
  assert.deepEqual(rest, { user_id: 'ann', uid: 'x', app_key: 'demo', remote: 'cmd', data: { text: 'Grüße' } });
  // the backend says no from the second one on; the first may still be under way here, which is an error as well
  refused = next(gusher, 'gusher.remote_error');
  send('cmd');
  assert.deepEqual(await refused, { remote: 'cmd', msg: null });
});
