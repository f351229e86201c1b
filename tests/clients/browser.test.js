// Pages in a real browser: `/try` of development mode, and the browser example.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

import { jwt, repository, start, until } from './harness.js';

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
