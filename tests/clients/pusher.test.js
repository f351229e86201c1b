// pusher-js and the `pusher` library of Node against a real server, alone and as a cluster over NATS.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { doorTo, until, within } from './harness.js';
import { members, next, onePort, places, record, signedIn, stage, subscribed } from './pusher.js';

for (const [place, launch] of Object.entries(places)) {
  test(`${place}: an event arrives as it was triggered`, async t => {
    const { backend, client } = await stage(t, launch);
    const [ann, bob] = await Promise.all([client(0, 'ann'), client(1, 'bob')].map(one => subscribed(one, 'news')));
    for (const data of [{ n: 1, deep: [1, { two: null }] }, 'plain text', '', '12345678901234567890', 'Grüße, 世界 🎉', [1, 2]]) {
      const heard = Promise.all([next(ann, 'hello'), next(bob, 'hello')]);
      const answer = await backend.trigger('news', 'hello', data);
      assert.deepEqual([answer.status, await answer.json()], [200, {}]);
      // the library encodes what is no string, and the client decodes what is JSON
      const wanted = data === '12345678901234567890' ? Number(data) : data;
      assert.deepEqual(await heard, [wanted, wanted]);
    }
    const named = next(bob, 'App\\Events\\OrderShipped');
    await backend.trigger(['news', 'elsewhere'], 'App\\Events\\OrderShipped', { id: 7 });
    assert.deepEqual(await named, { id: 7 });
  });

  test(`${place}: batches, in order`, async t => {
    const { backend, client } = await stage(t, launch);
    const ann = client(1, 'ann');
    const [news, more] = [await subscribed(ann, 'news'), await subscribed(ann, 'more')];
    const heard = record(ann);
    const last = next(news, 'last');
    const events = [...Array(9).keys()].map(n => ({ channel: n % 2 ? 'more' : 'news', name: 'one', data: { n } }));
    const answer = await backend.triggerBatch([...events, { channel: 'news', name: 'last', data: 'over' }]);
    assert.deepEqual(await answer.json(), {});
    await last;
    assert.deepEqual(heard.filter(([name]) => name === 'one').map(([, { n }]) => n).filter(n => n % 2 === 0), [0, 2, 4, 6, 8]);
    const counted = await backend.triggerBatch([
      { channel: 'news', name: 'one', data: '', info: 'subscription_count' },
      { channel: 'more', name: 'one', data: '' },
      { channel: 'presence-none', name: 'one', data: '', info: 'user_count,subscription_count' },
    ]);
    const wanted = { batch: [{ subscription_count: 1 }, {}, { user_count: 0, subscription_count: 0 }] };
    assert.deepEqual(await counted.json(), wanted);
    await assert.rejects(backend.triggerBatch([...events, ...events]), { status: 400 });
    assert.equal(more.subscribed, true);
  });

  test(`${place}: whoever triggers can be left out`, async t => {
    const { backend, client } = await stage(t, launch);
    const clients = [client(0, 'ann'), client(1, 'bob')];
    const [ann, bob] = await Promise.all(clients.map(one => subscribed(one, 'news')));
    const [byAnn, byBob] = [record(ann), record(bob)];
    await backend.trigger('news', 'mine', 1, { socket_id: clients[0].connection.socket_id });
    await backend.trigger('news', 'nobodys', 2, { socket_id: '123.456' });
    await backend.triggerBatch([{ channel: 'news', name: 'batched', data: 3, socket_id: clients[1].connection.socket_id }]);
    const last = Promise.all([next(ann, 'last'), next(bob, 'last')]);
    await backend.trigger('news', 'last', 4);
    await last;
    assert.deepEqual(byAnn, [['nobodys', 2], ['batched', 3], ['last', 4]]);
    assert.deepEqual(byBob, [['mine', 1], ['nobodys', 2], ['last', 4]]);
  });

  test(`${place}: queries count the whole cluster`, async t => {
    const { backend, client, ask } = await stage(t, launch);
    const [ann, bob, other] = [client(0, 'ann'), client(1, 'bob'), client(1, 'ann')];
    await Promise.all([ann, bob, other].map(one => subscribed(one, 'presence-room')));
    await subscribed(ann, 'news');
    await subscribed(bob, 'news');
    await subscribed(bob, 'private-desk');
    assert.deepEqual(await ask('/channels'), { channels: { news: {}, 'presence-room': {}, 'private-desk': {} } });
    const presence = await ask('/channels', { filter_by_prefix: 'presence-', info: 'user_count' });
    assert.deepEqual(presence, { channels: { 'presence-room': { user_count: 2 } } });
    await assert.rejects(ask('/channels', { info: 'user_count' }), { status: 400 });
    const room = await ask('/channels/presence-room', { info: 'user_count,subscription_count' });
    assert.deepEqual(room, { occupied: true, user_count: 2, subscription_count: 3 });
    assert.deepEqual(await ask('/channels/nowhere'), { occupied: false });
    const { users } = await ask('/channels/presence-room/users');
    assert.deepEqual(users.map(({ id }) => id).sort(), ['ann', 'bob']);
    assert.deepEqual(await ask('/channels/presence-empty/users'), { users: [] });
    await assert.rejects(ask('/channels/news/users'), { status: 400 });
    const info = 'subscription_count,user_count';
    const answer = await backend.trigger(['news', 'presence-room'], 'hi', {}, { info });
    const counts = { news: { subscription_count: 2 }, 'presence-room': { subscription_count: 3, user_count: 2 } };
    assert.deepEqual(await answer.json(), { channels: counts });

    bob.unsubscribe('news');
    other.disconnect();
    await until('left', { occupied: true, user_count: 2, subscription_count: 2 }, () => ask('/channels/presence-room', { info }));
    await until('left', { occupied: true, subscription_count: 1 }, () => ask('/channels/news', { info: 'subscription_count' }));
  });

  test(`${place}: private channels open to whoever the backend signs for, and refusals are heard`, async t => {
    const { backend, client } = await stage(t, launch);
    const ann = client(0, 'ann');
    const desk = await subscribed(ann, 'private-desk');
    const heard = next(desk, 'order');
    await backend.trigger('private-desk', 'order', { id: 1 });
    assert.deepEqual(await heard, { id: 1 });

    // the backend says no
    const closed = await next(ann.subscribe('private-closed'), 'pusher:subscription_error');
    assert.deepEqual([closed.type, closed.status], ['AuthError', 403]);
    // it says yes, but with another secret
    const trouble = next(ann.connection, 'error');
    for (const name of ['private-forged', 'presence-forged']) {
      const { data, status, error, type } = await next(ann.subscribe(name), 'pusher:subscription_error');
      assert.deepEqual([data, status, type], [undefined, 401, 'AuthError']);
      assert.match(error, /^Invalid signature: Expected HMAC SHA256 hex digest of \d+\.\d+:(private|presence)-forged/);
    }
    const { data } = await trouble;
    assert.equal(data.code, null, 'in band, without a code');
    assert.match(data.message, /^Invalid signature/);
    assert.equal(ann.connection.state, 'connected');
    const still = next(desk, 'still');
    await backend.trigger('private-desk', 'still', 'here');
    assert.equal(await still, 'here');
  });

  test(`${place}: members come and go once each`, async t => {
    const { backend, client } = await stage(t, launch);
    const [first, second, third] = [client(0, 'ann'), client(1, '7'), client(1, 'ann')];
    const room = await subscribed(first, 'presence-room');
    assert.deepEqual([room.members.me, room.members.count], [{ id: 'ann', info: { name: 'ANN' } }, 1]);
    const events = [];
    room.bind('pusher:member_added', ({ id }) => events.push(`+${id}`));
    room.bind('pusher:member_removed', ({ id }) => events.push(`-${id}`));

    let added = next(room, 'pusher:member_added');
    const also = await subscribed(second, 'presence-room');
    assert.deepEqual(await added, { id: '7', info: { name: '7' } });
    const both = { ann: { name: 'ANN' }, 7: { name: '7' } };
    assert.deepEqual([members(room), members(also), String(also.members.myID)], [both, both, '7']);

    // ann a second time, elsewhere: nobody new
    const again = await subscribed(third, 'presence-room');
    assert.deepEqual([members(again), again.members.count], [both, 2]);
    let removed = next(room, 'pusher:member_removed');
    second.unsubscribe('presence-room');
    assert.deepEqual(await removed, { id: '7', info: { name: '7' } });
    added = next(again, 'pusher:member_added');
    const back = await subscribed(second, 'presence-room');
    await added;
    // one of ann's two goes, then the other
    third.disconnect();
    await until('one of three is gone', '2', async () => {
      const answer = await backend.get({ path: '/channels/presence-room', params: { info: 'subscription_count' } });
      return String((await answer.json()).subscription_count);
    });
    removed = next(back, 'pusher:member_removed');
    first.disconnect();
    assert.deepEqual(await removed, { id: 'ann', info: { name: 'ANN' } });
    assert.deepEqual(members(back), { 7: { name: '7' } });
    assert.deepEqual(events, ['+7', '-7', '+7']);
  });

  test(`${place}: client events reach everybody else`, async t => {
    const { client } = await stage(t, launch);
    const [ann, bob, eve] = [client(0, 'ann'), client(1, 'bob'), client(0, 'eve')];
    for (const name of ['private-desk', 'presence-room']) {
      const [mine, yours, hers] = await Promise.all([ann, bob, eve].map(one => subscribed(one, name)));
      const own = record(mine);
      const heard = Promise.all([next(yours, 'client-move'), next(hers, 'client-move')]);
      mine.trigger('client-move', { x: 1.50, to: ['b', null] });
      const wanted = (data, user) => (name.startsWith('presence-') ? { data, user_id: user } : data);
      assert.deepEqual(await heard, Array(2).fill(wanted({ x: 1.5, to: ['b', null] }, 'ann')));
      const answer = next(mine, 'client-reply');
      yours.trigger('client-reply', 'as text');
      assert.deepEqual(await answer, wanted('as text', 'bob'));
      assert.deepEqual(own, [['client-reply', 'as text']], 'not its own');
    }
    const trouble = next(ann.connection, 'error');
    ann.send_event('client-nope', {}, 'private-nowhere');
    const { data } = await trouble;
    assert.match(data.message, /not subscribed to channel private-nowhere/);
    assert.equal(ann.connection.state, 'connected');
  });

  test(`${place}: a user hears what is sent to them wherever they have signed in, and after coming back`, async t => {
    const { server, backend, client, ask } = await stage(t, launch);
    const [wsHost, wsPort] = (await doorTo(t, server.slaves[0])).split(':');
    const anns = [client(0, 'ann', { wsHost, wsPort }), client(1, 'ann')];
    const [bob, nobody] = [client(1, 'bob'), client(0, 'ann')];
    await Promise.all([...anns, bob].map(signedIn));
    assert.deepEqual(anns[0].user.user_data, { id: 'ann', user_info: { name: 'ANN' } });
    await subscribed(nobody, 'news');
    const others = [record(bob.user), record(nobody)];
    for (const data of [{ n: 1, text: 'Grüße' }, 'plain text', [null]]) {
      const heard = Promise.all(anns.map(ann => next(ann.user, 'hello')));
      const answer = await backend.sendToUser('ann', 'hello', data);
      assert.deepEqual([answer.status, await answer.json()], [200, {}]);
      assert.deepEqual(await heard, [data, data]);
    }
    // once each, and no such channel is listed
    const own = record(anns[1].user);
    const last = next(anns[1].user, 'last');
    await backend.sendToUser('ann', 'once', 1);
    await backend.sendToUser('nobody', 'once', 2);
    await backend.sendToUser('ann', 'last', 3);
    await last;
    assert.deepEqual(own, [['once', 1], ['last', 3]]);
    assert.deepEqual(await ask('/channels'), { channels: { news: {} } });

    // the library signs in anew by itself
    const away = next(anns[0].connection, 'connecting');
    const back = next(anns[0].connection, 'connected');
    await server.restart(0);
    await away;
    await back;
    await signedIn(anns[0]);
    const heard = next(anns[0].user, 'again');
    await until('the master sees both', ['ann', 'bob'], () => server.names('/api/demo/online'));
    await backend.sendToUser('ann', 'again', { back: true });
    assert.deepEqual(await heard, { back: true });
    assert.deepEqual(others, [[], []]);
  });

  test(`${place}: a user is disconnected for good, or to come back`, async t => {
    const { server, backend, client } = await stage(t, launch);
    const anns = await Promise.all([client(0, 'ann'), client(1, 'ann')].map(signedIn));
    const bob = await signedIn(client(1, 'bob'));
    const before = bob.connection.socket_id;
    for (const end of [
      () => backend.terminateUserConnections('ann'),
      () => fetch(`http://${server.master}/v1/apps/demo/users/ann/connections`, { method: 'DELETE' }),
    ]) {
      const errors = Promise.all(anns.map(ann => next(ann.connection, 'error')));
      const gone = Promise.all(anns.map(ann => next(ann.connection, 'disconnected')));
      const answer = await end();
      assert.deepEqual([answer.status, await answer.json()], [200, {}]);
      for (const { data } of await errors) assert.deepEqual(data, { code: 4009, message: 'You got disconnected by the app.' });
      await gone;
      // it has given up: only the page can connect it anew, and may
      for (const ann of anns) {
        assert.equal(ann.connection.state, 'disconnected');
        const back = next(ann.connection, 'connected');
        ann.connect();
        await back;
        await signedIn(ann);
      }
    }
    const ids = anns.map(ann => ann.connection.socket_id);
    const back = Promise.all(anns.map(ann => next(ann.connection, 'connected')));
    const answer = await fetch(`http://${server.master}/v1/apps/demo/users/ann/connections?reconnect=true`, { method: 'DELETE' });
    assert.deepEqual([answer.status, await answer.json()], [200, {}]);
    await back;
    await Promise.all(anns.map(signedIn));
    assert.ok(anns.every((ann, no) => ann.connection.socket_id !== ids[no]));
    const heard = Promise.all(anns.map(ann => next(ann.user, 'hello')));
    await until('the master sees both', ['ann', 'bob'], () => server.names('/api/demo/online'));
    await backend.sendToUser('ann', 'hello', 1);
    assert.deepEqual(await heard, [1, 1]);
    // one of the two by its id
    const gone = next(anns[0].connection, 'disconnected');
    await fetch(`http://${server.master}/v1/apps/demo/sockets/${anns[0].connection.socket_id}`, { method: 'DELETE' });
    await gone;
    assert.deepEqual([anns[1], bob].map(one => one.connection.state), ['connected', 'connected']);
    assert.equal(bob.connection.socket_id, before);
  });

  test(`${place}: who has signed in is a member by that name, and a forged sign-in is refused`, async t => {
    const { client } = await stage(t, launch);
    const [ann, bob] = [await signedIn(client(0, 'ann')), await signedIn(client(1, 'bob'))];
    const room = await subscribed(ann, 'presence-signed-in');
    assert.deepEqual(room.members.me, { id: 'ann', info: { name: 'ANN' } });
    const added = next(room, 'pusher:member_added');
    const also = await subscribed(bob, 'presence-signed-in');
    assert.deepEqual(await added, { id: 'bob', info: { name: 'BOB' } });
    assert.deepEqual(members(also), { ann: { name: 'ANN' }, bob: { name: 'BOB' } });

    const forged = client(0, 'forged');
    const trouble = next(forged.connection, 'error');
    forged.signin();
    const { data } = await trouble;
    assert.equal(data.code, 4009);
    assert.match(data.message, /^Connection not authorized: Invalid signature/);
    // the socket stays, as nobody's
    await subscribed(forged, 'news');
    assert.equal(forged.connection.state, 'connected');
  });

  test(`${place}: who watches users hears of their coming and going`, async t => {
    const { server, client, watcher } = await stage(t, launch, 'watchlist = true');
    const eve = watcher(1, 'eve', ['ann', 7, 'bob']);
    const heard = [];
    for (const name of ['online', 'offline']) {
      eve.user.watchlist.bind(name, event => {
        assert.equal(event.name, name);
        for (const user of [...event.user_ids].sort()) heard.push(`${name} ${user}`);
      });
    }
    const hears = wanted => until('heard', wanted, async () => heard.slice());
    await signedIn(eve);
    const all = ['offline 7', 'offline ann', 'offline bob'];
    await hears(all);
    const ann = await signedIn(client(0, 'ann'));
    all.push('online ann');
    await hears(all);
    const also = await signedIn(client(1, 'ann'));
    await signedIn(client(0, '7'));
    all.push('online 7');
    await hears(all);
    ann.disconnect();
    await until('one of two is gone', ['7', 'ann', 'eve'], () => server.names('/api/demo/online'));
    also.disconnect();
    all.push('offline ann');
    await hears(all);
    // after coming back it is told anew, and nothing is missing
    const back = next(eve.user.watchlist, 'online');
    eve.disconnect();
    await signedIn(client(1, 'bob'));
    eve.connect();
    assert.deepEqual((await back).user_ids.sort(), ['7', 'bob']);
  });

  test(`${place}: subscribers hear how many they are`, async t => {
    const { client, ask } = await stage(t, launch, 'subscription_count_event = true');
    const counts = [];
    const ann = client(0, 'ann').subscribe('news');
    ann.bind('pusher:subscription_count', ({ subscription_count: count }) => counts.push(count));
    await next(ann, 'pusher:subscription_count');
    const bob = client(1, 'bob');
    const both = next(bob.subscribe('news'), 'pusher:subscription_count');
    assert.deepEqual(await both, { subscription_count: 2 });
    await until('both are counted', [1, 2], async () => counts.slice());
    assert.equal(ann.subscriptionCount, 2);
    bob.disconnect();
    await until('one is left', [1, 2, 1], async () => counts.slice());
    assert.deepEqual(await ask('/channels/news', { info: 'subscription_count' }), { occupied: true, subscription_count: 1 });
    const member = await subscribed(client(1, 'cay'), 'presence-room');
    const heard = record(member);
    member.bind('pusher:subscription_count', count => heard.push(count));
    await subscribed(client(0, 'dan'), 'presence-room');
    await until('both are members', 2, async () => member.members.count);
    assert.deepEqual(heard, []);
  });

  test(`${place}: where connections must be authorized, others are closed for good`, async t => {
    const { client } = await stage(t, launch, 'authorized_connections = true\nauthorization_timeout = "2s"');
    const [silent, ann, bob] = [client(0, 'silent'), client(0, 'ann'), client(1, 'bob')];
    const ended = next(silent.connection, 'disconnected');
    await Promise.all([subscribed(silent, 'news'), signedIn(ann), subscribed(bob, 'private-desk')]);
    const { data } = await next(silent.connection, 'error');
    assert.deepEqual([data.code, data.message], [4009, 'Connection not authorized within timeout']);
    await ended;
    await new Promise(resolve => setTimeout(resolve, 2_000));
    assert.deepEqual([silent, ann, bob].map(one => one.connection.state), ['disconnected', 'connected', 'connected']);
  });

  test(`${place}: an encrypted channel, end to end`, async t => {
    const { server, backend, client } = await stage(t, launch);
    const [ann, bob] = [client(0, 'ann'), client(1, 'bob')];
    const [hers, his] = await Promise.all([ann, bob].map(one => subscribed(one, 'private-encrypted-safe')));
    const raw = next(ann.connection, 'message');
    const heard = Promise.all([next(hers, 'secret'), next(his, 'secret')]);
    await backend.trigger('private-encrypted-safe', 'secret', { word: 'sesame' });
    assert.deepEqual(await heard, Array(2).fill({ word: 'sesame' }));
    const { data } = await raw;
    assert.ok(!JSON.stringify(data).includes('sesame'), 'the server never sees it');
    assert.ok(data.nonce && data.ciphertext);
    const batched = next(his, 'secret');
    await backend.triggerBatch([{ channel: 'private-encrypted-safe', name: 'secret', data: 'batched' }]);
    assert.equal(await batched, 'batched');
    assert.deepEqual(await server.names('/api/demo/channels'), ['private-encrypted-safe']);
  });

  test(`${place}: a shutdown makes clients come back, and hear again`, async t => {
    const { server, backend, client } = await stage(t, launch);
    // without it, pusher-js would find nobody listening, and wait for 15 seconds
    const [wsHost, wsPort] = (await doorTo(t, server.slaves[0])).split(':');
    const ann = client(0, 'ann', { wsHost, wsPort });
    const room = await subscribed(ann, 'presence-room');
    const id = ann.connection.socket_id;
    const trouble = next(ann.connection, 'error');
    const away = next(ann.connection, 'connecting');
    const again = next(room, 'pusher:subscription_succeeded');
    await server.restart(0);
    // at once only where another slave takes it
    assert.equal((await trouble).data.code, server.slaves.length > 1 ? 4200 : 4100);
    await away;
    await again;
    assert.notEqual(ann.connection.socket_id, id);
    const heard = next(room, 'hello');
    await until('the master sees it', { occupied: true, user_count: 1 }, async () => {
      const answer = await backend.get({ path: '/channels/presence-room', params: { info: 'user_count' } });
      return answer.json();
    });
    await backend.trigger('presence-room', 'hello', 'again');
    assert.equal(await heard, 'again');
  });
}

test('one host and one port are enough for backends and pages', async t => {
  const { server, backend, client, echo, ask } = await stage(t, onePort);
  assert.equal(server.master, server.slave);
  const clients = [client(0, 'ann'), client(0, 'bob')];
  const [ann, bob] = await Promise.all(clients.map(one => subscribed(one, 'presence-room')));
  const laravel = echo(0, 'eve');
  const joined = laravel.join('room');
  await within('eve is there', new Promise(resolve => { joined.here(resolve); }));
  const info = 'user_count,subscription_count';
  assert.deepEqual(await ask('/channels/presence-room', { info }), { occupied: true, user_count: 3, subscription_count: 3 });

  const own = record(bob);
  const byEve = within('hello', new Promise(resolve => { joined.listen('.hello', resolve); }));
  const byAnn = next(ann, 'hello');
  await backend.trigger('presence-room', 'hello', { n: 1 }, { socket_id: clients[1].connection.socket_id });
  assert.deepEqual(await Promise.all([byAnn, byEve]), [{ n: 1 }, { n: 1 }]);
  const whisper = next(bob, 'client-move');
  ann.trigger('client-move', { x: 1 });
  assert.deepEqual(await whisper, { data: { x: 1 }, user_id: 'ann' });
  const batched = next(bob, 'batched');
  await backend.triggerBatch([{ channel: 'presence-room', name: 'batched', data: 'two' }]);
  assert.equal(await batched, 'two');
  assert.deepEqual(own, [['client-move', { x: 1 }], ['batched', 'two']]);

  // what push keys guard is closed there, to this machine, too, and nothing is left of development mode
  const refused = await fetch(`http://${server.master}/v1/apps/demo/channels`);
  assert.equal(refused.status, 401);
  assert.equal(server.printed(), '');
});

test('a wrong key makes clients give up', async t => {
  const { client, server } = await stage(t, places['one slave']);
  const right = client(0, 'ann');
  await next(right.connection, 'connected');
  const [host, port] = server.slave.split(':');
  const wrong = new right.constructor('nobody', { cluster: 'any', wsHost: host, wsPort: port, forceTLS: false, enabledTransports: ['ws'], enableStats: false });
  const states = [];
  wrong.connection.bind('state_change', ({ current }) => states.push(current));
  const trouble = next(wrong.connection, 'error');
  const over = next(wrong.connection, 'disconnected');
  const { error } = await trouble;
  assert.equal(error.data.code, 4001);
  assert.match(error.data.message, /nobody/);
  await over;
  assert.deepEqual(states.filter(state => state === 'connecting').length <= 1, true, states.join());
  assert.equal(wrong.connection.state, 'disconnected');
  await within('the right one is left alone', (async () => {
    right.send_event('pusher:ping', {});
    await next(right.connection, 'message');
  })());
});
