// Laravel Echo against a real server, as a Laravel application sets it up for Reverb.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { within } from './harness.js';
import { places, stage } from './pusher.js';

/** What `listen` hands to its callback next. */
const heard = (what, listen) => within(what, new Promise(resolve => { listen(resolve); }));

for (const [place, launch] of Object.entries(places)) {
  test(`${place}: events of a Laravel application`, async t => {
    const { backend, echo } = await stage(t, launch);
    const ann = echo(1, 'ann');
    const orders = ann.channel('orders');
    await heard('subscribed', orders.subscribed.bind(orders));
    // a class, and a name of its own choosing
    const shipped = heard('shipped', done => orders.listen('OrderShipped', done));
    await backend.trigger('orders', 'App\\Events\\OrderShipped', { order: { id: 7 } });
    assert.deepEqual(await shipped, { order: { id: 7 } });
    const named = heard('named', done => orders.listen('.order.paid', done));
    await backend.trigger('orders', 'order.paid', { order: { id: 8 } }, { socket_id: '1.1' });
    assert.deepEqual(await named, { order: { id: 8 } });

    // toOthers(): the browser tells its socket id, the backend leaves it out
    const bob = echo(0, 'bob').channel('orders');
    await heard('subscribed', bob.subscribed.bind(bob));
    const own = [];
    orders.listenToAll(name => own.push(name));
    const byBob = heard('by the others', done => bob.listen('.moved', done));
    await backend.trigger('orders', 'moved', {}, { socket_id: ann.socketId() });
    await byBob;
    const last = heard('last', done => orders.listen('.last', done));
    await backend.trigger('orders', 'last', {});
    await last;
    assert.deepEqual(own, ['.last']);
  });

  test(`${place}: private channels, whispers, and a refusal that is heard`, async t => {
    const { backend, echo } = await stage(t, launch);
    const desks = [echo(0, 'ann'), echo(1, 'bob')].map(one => one.private('desk.1'));
    await Promise.all(desks.map(desk => heard('subscribed', desk.subscribed.bind(desk))));
    const typing = heard('whisper', done => desks[1].listenForWhisper('typing', done));
    desks[0].whisper('typing', { name: 'Ann' });
    assert.deepEqual(await typing, { name: 'Ann' });
    const event = heard('event', done => desks[1].listen('.moved', done));
    await backend.trigger('private-desk.1', 'moved', { to: 2 });
    assert.deepEqual(await event, { to: 2 });

    const eve = echo(1, 'eve');
    const closed = eve.private('closed');
    assert.equal((await heard('error', closed.error.bind(closed))).status, 403);
    const forged = eve.private('forged');
    assert.deepEqual((({ type, status }) => [type, status])(await heard('error', forged.error.bind(forged))), ['AuthError', 401]);
  });

  test(`${place}: here, joining, leaving, with the numbers of Laravel's users`, async t => {
    const { echo } = await stage(t, launch);
    const first = echo(0, '1');
    const room = first.join('room.1');
    assert.deepEqual(await heard('here', room.here.bind(room)), [{ name: '1' }]);
    const joining = heard('joining', done => room.joining(done));
    const second = echo(1, '2');
    const other = second.join('room.1');
    const here = await heard('here', other.here.bind(other));
    assert.deepEqual(here.map(({ name }) => name).sort(), ['1', '2']);
    assert.deepEqual(await joining, { name: '2' });
    const typing = heard('whisper', done => room.listenForWhisper('typing', done));
    other.whisper('typing', { on: true });
    assert.deepEqual(await typing, { on: true });
    const leaving = heard('leaving', done => room.leaving(done));
    second.leave('room.1');
    assert.deepEqual(await leaving, { name: '2' });
  });
}
