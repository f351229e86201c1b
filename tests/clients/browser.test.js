// Pages in a real browser: `/try` of development mode, and the browser example.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

import { jwt, repository, start, until } from './harness.js';

const pusherJs = join(repository, 'tests', 'clients', 'node_modules', 'pusher-js', 'dist', 'web', 'pusher.js');
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
let browser;

before(async () => {
  assert.ok(existsSync(executablePath), `${executablePath} is missing: install Debian's package chromium`);
  browser = await chromium.launch({
    executablePath,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
});

after(() => browser?.close());

async function open(t, url) {
  const page = await browser.newPage();
  t.after(() => page.close());
  page.setDefaultTimeout(20_000);
  const troubles = [];
  page.on('pageerror', error => troubles.push(String(error)));
  page.on('console', message => { if (message.type() === 'error') troubles.push(message.text()); });
  await page.goto(url);
  return { page, troubles };
}

test('/try shows a push that it made, and one that somebody else made', async t => {
  const server = await start(t, { development: true });
  const { page, troubles } = await open(t, `http://${server.master}/try`);
  await page.getByText('Subscribed to news').waitFor();
  await page.locator('#data').fill('{"text":"from the page","n":12345678901234567890}');
  await page.locator('#push button').click();
  await page.getByText('The master took it.').waitFor();
  await page.locator('#list li', { hasText: 'from the page' }).waitFor();

  await server.push('demo', 'news', 'greeting', '<img src=x onerror=alert(1)>');
  await page.locator('#list li', { hasText: '<img src=x onerror=alert(1)>' }).waitFor();
  assert.equal(await page.locator('#list img').count(), 0, 'what arrives is text, never markup');

  await page.locator('#channel').fill('other place');
  await page.locator('#subscribe button').click();
  await page.getByText('other place').first().waitFor();
  await server.push('demo', 'other place', 'hi', 7);
  await page.locator('#list li', { hasText: 'hi' }).first().waitFor();
  assert.deepEqual(troubles, [], 'neither errors nor violations of its content security policy');
});

test('/try comes back by itself after its socket was closed', async t => {
  const server = await start(t, { development: true });
  const { page } = await open(t, `http://${server.master}/try`);
  await page.getByText('Subscribed to news').waitFor();
  await page.evaluate('socket.close()');
  await page.getByText('not connected, trying again').waitFor();
  await page.locator('#state.good').waitFor();
  await until('it is on the channel again', ['news'], () => server.names('/api/demo/channels'));
  await server.push('demo', 'news', 'back', 'welcome back');
  await page.locator('#list li', { hasText: 'welcome back' }).waitFor();
});

test('/try tells how many a push reached, leaves channels, and pushes to a user', async t => {
  const server = await start(t, { development: true });
  const { page, troubles } = await open(t, `http://${server.master}/try`);
  await page.getByText('Subscribed to news').waitFor();
  await page.locator('#push button').click();
  await page.getByText('Reached 1 socket.').waitFor();
  await page.getByLabel('Unsubscribe from news').click();
  await page.getByText('Subscribed to nothing.').waitFor();
  await until('the server knows', [], () => server.names('/api/demo/channels'));
  await page.locator('#push button').click();
  await page.getByText('Reached 0 sockets.').waitFor();
  await page.locator('#kind').selectOption('users');
  for (const data of ['7', 'null', '{"text":"to you"}', 'plain text']) {
    await page.locator('#data').fill(data);
    await page.locator('#push button').click();
    await page.locator('#list li', { hasText: data }).first().waitFor();
  }
  await page.getByText('Reached 1 user.').waitFor();
  assert.deepEqual(troubles, []);
});

test('/try gets a new token when the server was restarted, and is on its channels again', async t => {
  const server = await start(t, { development: true });
  const { page } = await open(t, `http://${server.master}/try`);
  await page.getByText('Subscribed to news').waitFor();
  await page.locator('#channel').fill('sport');
  await page.locator('#subscribe button').click();
  await until('it is on both', ['news', 'sport'], () => server.names('/api/demo/channels'));
  const token = await page.locator('body').getAttribute('data-token');
  await server.restart();
  await until('it is on both again', ['news', 'sport'], () => server.names('/api/demo/channels'));
  assert.notEqual(await page.locator('body').getAttribute('data-token'), token);
});

test("/try speaks Pusher's protocol, signs as a backend does, and whispers", async t => {
  const server = await start(t, { development: true });
  const { page, troubles } = await open(t, `http://${server.master}/try`);
  const { page: other } = await open(t, `http://${server.master}/try`);
  for (const tab of [page, other]) {
    await tab.getByRole('tab', { name: 'Pusher' }).click();
    for (const channel of ['news', 'private-desk', 'presence-room']) {
      await tab.locator('#pusher-channel').fill(channel);
      await tab.locator('#pusher-subscribe button').first().click();
      await tab.locator("#pusher-channels").getByLabel(`Unsubscribe from ${channel}`).waitFor();
    }
  }
  await page.locator('#publish button').click();
  // both tabs of both pages: each is on news as a gusher client, too
  await page.getByText('The master took it. Reached 4 sockets.').waitFor();
  await other.locator('#list li', { hasText: 'It works' }).first().waitFor();
  await page.locator('#pusher-to').fill('private-desk');
  await page.locator('#pusher-event').fill('client-wave');
  await page.locator('#publish button').click();
  await other.locator('#list li', { hasText: 'client-wave' }).waitFor();
  assert.equal(await page.locator('#list li', { hasText: 'client-wave' }).count(), 0, 'not to the one who said it');
  await other.getByLabel('Unsubscribe from presence-room').click();
  await page.locator('#list li', { hasText: 'member_removed' }).waitFor();
  assert.deepEqual(troubles, []);
});

test('/try shows one push in a client of each dialect, through any API', async t => {
  const server = await start(t, { development: true });
  const { page, troubles } = await open(t, `http://${server.master}/try`);
  await page.getByRole('tab', { name: 'All four' }).click();
  const dialects = ['gusher', 'pusher', 'pushex', 'conveyor'];
  const allAreOn = channel => Promise.all(dialects.map(name => page.locator(`#all-${name}-state.good`, { hasText: `on ${channel}` }).waitFor()));
  const pushThrough = async (api, word) => {
    await page.locator('#all-api').selectOption(api);
    await page.locator('#all-data').fill(word);
    await page.locator('#all-push button').click();
    for (const name of dialects) await page.locator(`#all-${name}-list li`, { hasText: word }).waitFor();
  };
  await allAreOn('shared');
  for (const api of dialects) await pushThrough(api, `by-${api}`);
  for (const name of dialects) assert.equal(await page.locator(`#all-${name}-list li`).count(), 4, `${name}: each once`);
  // a client in the language of each dialect
  const last = name => page.locator(`#all-${name}-list li`, { hasText: 'by-pushex' }).textContent();
  assert.deepEqual(JSON.parse(await last('gusher')), { channel: 'shared', event: 'hello', data: 'by-pushex' });
  assert.deepEqual(JSON.parse(await last('pusher')), { event: 'hello', channel: 'shared', data: '"by-pushex"' });
  assert.deepEqual(JSON.parse(await last('pushex')), ['1', null, 'shared', 'msg', { data: 'by-pushex', event: 'hello' }]);
  assert.deepEqual(JSON.parse(await last('conveyor')), { action: 'broadcast-action', data: 'by-pushex' });

  await page.locator('#all-channel').fill('elsewhere');
  await page.locator('#all-subscribe button').click();
  await allAreOn('elsewhere');
  await until('all have left the channel before', ['elsewhere', 'news'], () => server.names('/api/demo/channels'));
  await pushThrough('conveyor', 'moved');
  // markup is text here, too
  await server.push('demo', 'elsewhere', 'greeting', '<img src=x onerror=alert(1)>');
  for (const name of dialects) await page.locator(`#all-${name}-list li`, { hasText: 'onerror' }).waitFor();
  assert.equal(await page.locator('#all img').count(), 0);
  assert.deepEqual(troubles, [], 'neither errors nor violations of its content security policy');
});

test('a page with pusher-js is back soon after a restart of a lone server', async t => {
  const toml = '[[apps.listed]]\nkey = "demo"\nid = "1"\nsecret = "a secret of this test"\n';
  const server = await start(t, { toml });
  const site = createServer((request, response) => {
    const script = request.url === '/pusher.js';
    response.setHeader('Content-Type', script ? 'text/javascript' : 'text/html');
    response.end(script ? readFileSync(pusherJs) : '<!doctype html><link rel="icon" href="data:,"><script src="/pusher.js"></script>');
  });
  await once(site.listen(0, '127.0.0.1'), 'listening');
  t.after(() => { site.closeAllConnections(); site.close(); });
  const { page } = await open(t, `http://127.0.0.1:${site.address().port}/`);
  const [wsHost, wsPort] = server.slave.split(':');
  await page.evaluate(({ wsHost, wsPort }) => {
    window.states = [];
    const client = new Pusher('demo', { cluster: 'any', wsHost, wsPort, forceTLS: false, enabledTransports: ['ws'], enableStats: false });
    client.connection.bind('state_change', ({ current }) => window.states.push([current, Date.now()]));
    client.subscribe('news').bind('pusher:subscription_succeeded', () => window.states.push(['subscribed', Date.now()]));
  }, { wsHost, wsPort });
  const times = state => page.evaluate(wanted => window.states.filter(([name]) => name === wanted).map(([, at]) => at), state);
  await until('it is on its channel', 1, async () => (await times('subscribed')).length);
  const began = Date.now();
  await server.restart(0, 300);
  await until('it is on its channel again', 2, async () => (await times('subscribed')).length);
  const took = (await times('subscribed'))[1] - began;
  t.diagnostic(`back on its channel ${took} ms after SIGTERM, with a start 300 ms after it`);
  // after one refused try it would wait for 15 seconds
  assert.ok(took < 10_000, `${took} ms: ${JSON.stringify(await page.evaluate('states'))}`);
});

test('the browser example exchanges its JWT from a page of any origin and hears a push', async t => {
  const server = await start(t);
  const page = pathToFileURL(join(repository, 'examples', 'browser.html'));
  page.hash = new URLSearchParams({ slave: `http://${server.slave}`, app: 'demo', channel: 'news', jwt: jwt('demo', 'ann', ['*']) });
  const { page: tab, troubles } = await open(t, page.href);
  await tab.getByText('subscribed to news').waitFor();
  await server.push('demo', 'news', 'hello', { text: 'to the browser' });
  await tab.locator('#arrived li', { hasText: 'to the browser' }).waitFor();
  // without anything around it, and any JSON
  const body = JSON.stringify({ data: null });
  await fetch(`http://${server.master}/v1/apps/demo/users/ann/messages`, { method: 'POST', body });
  await tab.locator('#arrived li', { hasText: '(to you) null' }).waitFor();
  assert.deepEqual(troubles, []);
});
