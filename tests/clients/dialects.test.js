// pusher-js and the gusher browser client in one channel.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { gusherClient, next as nextOfGusher, token } from './gusher.js';
import { until } from './harness.js';
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
