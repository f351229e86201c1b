// pusher-js, the gusher browser client, npm `pushex`, phoenix and a Conveyor client in one channel.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Conveyor, post, token as conveyorToken } from './conveyor.js';
import { gusherClient, next as nextOfGusher, token } from './gusher.js';
import { jwt, until, within } from './harness.js';
import { Pushex, clients as phoenixClients, join, push, socketUrl } from './phoenix.js';
import { next, places, record, signedIn, stage, subscribed } from './pusher.js';

for (const [place, launch] of Object.entries(places)) {
  test(`${place}: both clients hear both backends, and each other's counts`, async t => {
    const { server, backend, client, ask } = await stage(t, launch);
    const ann = client(0, 'ann');
    const news = await subscribed(ann, 'news');
    const desk = await subscribed(ann, 'private-desk');
    const room = await subscribed(ann, 'presence-room');
    const joined = record(room);

    const slave = server.slaves.at(-1);
    const gusher = gusherClient(server, slave, await token(slave, ['*']));
    const channels = gusher.subscribes(['news', 'private-desk', 'presence-room']);
    const there = Promise.all(Object.values(channels).map(one => nextOfGusher(one, 'gusher.multi_subscribe_succeeded')));
    gusher.connect();
    await there;

    // Pusher's backend
    let heard = Promise.all([next(news, 'hello'), nextOfGusher(channels.news, 'hello')]);
    await backend.trigger('news', 'hello', { n: 1, text: 'Grüße' });
    assert.deepEqual(await heard, [{ n: 1, text: 'Grüße' }, { n: 1, text: 'Grüße' }]);
    heard = Promise.all([next(desk, 'hello'), nextOfGusher(channels['private-desk'], 'hello')]);
    await backend.trigger('private-desk', 'hello', 'plain text');
    assert.deepEqual(await heard, ['plain text', 'plain text']);
    // gusher's backend
    heard = Promise.all([next(news, 'hello'), nextOfGusher(channels.news, 'hello')]);
    await server.push('demo', 'news', 'hello', { n: 2, deep: [null] });
    assert.deepEqual(await heard, [{ n: 2, deep: [null] }, { n: 2, deep: [null] }]);
    // Pusher's clients among themselves
    const said = nextOfGusher(channels['private-desk'], 'client-typing');
    desk.trigger('client-typing', { on: true });
    assert.deepEqual(await said, { on: true });

    // gusher's client is on the channel, and no member of it
    const info = 'user_count,subscription_count';
    assert.deepEqual(await ask('/channels/presence-room', { info }), { occupied: true, user_count: 1, subscription_count: 2 });
    assert.deepEqual(await server.names('/api/demo/online/bychannel/presence-room'), ['ann', 'gus']);
    const last = next(room, 'last');
    await backend.trigger('presence-room', 'last', 1);
    await last;
    assert.deepEqual(joined, [['last', 1]]);
    ann.unsubscribe('presence-room');
    await until('ann has left', ['gus'], () => server.names('/api/demo/online/bychannel/presence-room'));
  });

  test(`${place}: every client receives every push, through any API, in one order`, async t => {
    const { server, backend, client, ask } = await stage(t, launch, `[conveyor]\ntoken = "${conveyorToken}"\n`);
    const slave = number => server.slaves[number % server.slaves.length];
    const heard = { gusher: [], pusher: [], pushex: [], phoenix: [], conveyor: [] };
    const pia = jwt('demo', 'pia', ['*']);

    const gusher = gusherClient(server, slave(1), await token(slave(1), ['*']));
    const { news } = gusher.subscribes(['news']);
    for (const event of ['hello', 'message']) news.bind(event, data => heard.gusher.push([event, data]));
    const there = nextOfGusher(news, 'gusher.multi_subscribe_succeeded');
    gusher.connect();
    await there;
    const ofPusher = await subscribed(client(0, 'ann'), 'news');
    for (const event of ['hello', 'message']) ofPusher.bind(event, data => heard.pusher.push([event, data]));
    const pushex = new Pushex(socketUrl(slave(1)), { getParams: () => Promise.resolve({ token: pia }) });
    server.beforeEnd(() => pushex.disconnect());
    pushex.subscribe('news').bind('*', (data, event) => heard.pushex.push([event, data]));
    await pushex.connect();
    const phoenix = phoenixClients['phoenix 1.8, V2'](socketUrl(slave(0)), { params: { token: jwt('demo', 'phil', ['*']) } });
    server.beforeEnd(() => new Promise(resolve => { phoenix.disconnect(resolve); }));
    phoenix.connect();
    const room = phoenix.channel('news', {});
    room.on('msg', ({ event, data }) => heard.phoenix.push([event, data]));
    await within('phoenix joins', join(room));
    const conveyor = new Conveyor(slave(1), { token: conveyorToken, channel: 'news' });
    t.after(() => conveyor.close());
    await within('Conveyor is open', conveyor.ready);
    await conveyor.isQuiet();

    await until('all are there', ['', 'gus', 'phil', 'pia'], () => server.names('/api/demo/online/bychannel/news'));
    assert.deepEqual(await ask('/channels/news', { info: 'subscription_count' }), { occupied: true, subscription_count: 5 });
    assert.deepEqual(await server.names('/api/demo/online'), ['gus', 'phil', 'pia']);

    const expected = [];
    const ofConveyor = [];
    for (const data of [{ n: 1, text: 'Grüße' }, 'plain text', [1, [null]], 7, true, '{"broken']) {
      const text = typeof data === 'string' ? data : JSON.stringify(data);
      const pushes = {
        gusher: () => server.push('demo', 'news', 'hello', data),
        pusher: () => backend.trigger('news', 'hello', data),
        pushex: () => push(server, { channel: 'news', event: 'hello', data }),
        conveyor: () => post(server.master, 'message', { channel: 'news', message: text }),
      };
      for (const [api, pushed] of Object.entries(pushes)) {
        await pushed();
        expected.push([api === 'conveyor' ? 'message' : 'hello', data]);
        // a backend of these two publishes text
        ofConveyor.push(api === 'pusher' || api === 'conveyor' ? text : data);
      }
    }
    for (const who of ['gusher', 'pusher', 'pushex', 'phoenix']) await until(`${who} receives all`, expected, () => heard[who]);
    for (const data of ofConveyor) assert.deepEqual(await conveyor.next(), { action: 'broadcast-action', data, fd: undefined });

    // what a client of Conveyor says
    conveyor.send({ said: 'by a client' }, 'broadcast-action');
    expected.push(['message', { said: 'by a client' }]);
    for (const who of ['gusher', 'pusher', 'pushex', 'phoenix']) await until(`${who} receives it`, expected, () => heard[who]);
    assert.deepEqual(await conveyor.next(), { action: 'broadcast-action', data: { said: 'by a client' }, fd: conveyor.fd });
    await conveyor.isQuiet();
  });

  test(`${place}: a user of a JWT and one who has signed in are one`, async t => {
    const { server, backend, client } = await stage(t, launch);
    const ann = await signedIn(client(0, 'gus'));
    const slave = server.slaves.at(-1);
    const gusher = gusherClient(server, slave, await token(slave, ['*']));
    const { news } = gusher.subscribes(['news']);
    const there = nextOfGusher(news, 'gusher.multi_subscribe_succeeded');
    gusher.connect();
    await there;
    let heard = next(ann.user, 'hello');
    const answer = await backend.sendToUser('gus', 'hello', { n: 1 });
    assert.equal(answer.status, 200);
    assert.deepEqual(await heard, { n: 1 });
    heard = next(ann.user, 'told');
    await server.pushToUser('demo', 'gus', { event: 'told', data: { n: 2 } });
    assert.deepEqual(await heard, { n: 2 });
    assert.deepEqual(await server.names('/api/demo/online'), ['gus']);
  });
}
