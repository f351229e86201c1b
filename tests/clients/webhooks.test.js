// Webhooks against a real server, verified as the server libraries for Node and Python verify them.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { repository, start, until } from './harness.js';
import { app, places, stage, subscribed } from './pusher.js';

const python = process.env.PYTHON ?? 'python3';

/** What Python's library says of requests: their events, or nothing where it finds them forged. */
function validated(requests) {
  const commands = requests.map(({ headers, rawBody }) =>
    JSON.stringify(['validate_webhook', headers['x-pusher-key'], headers['x-pusher-signature'], rawBody]));
  const { stdout, stderr } = spawnSync(python, [join(repository, 'tests', 'clients', 'python_pusher.py'), 'backend', '127.0.0.1:1'], {
    env: { ...process.env, PUSHER_APP: JSON.stringify(app), PYTHONWARNINGS: 'ignore' },
    input: `${commands.join('\n')}\n`,
    encoding: 'utf8',
  });
  const answers = stdout.trim().split('\n').map(line => JSON.parse(line));
  assert.equal(answers.length, requests.length, stderr);
  return answers.map(([said, result]) => {
    assert.equal(said, 'ok');
    return result?.events ?? null;
  });
}

/** A certificate of its own for localhost, with its key. */
function certificate(folder, name) {
  const [key, cert] = ['key', 'cert'].map(kind => join(folder, `${name}.${kind}.pem`));
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', `/CN=${name}`,
    '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=critical,CA:FALSE', '-keyout', key, '-out', cert,
  ], { stdio: 'ignore' });
  return { file: cert, key: readFileSync(key), cert: readFileSync(cert) };
}

/** A backend that takes webhooks, and refuses the first of them; with TLS if it has a certificate. */
async function receiver(t, tls) {
  const requests = [];
  const server = (tls ? createSecureServer.bind(null, tls) : createServer)(async (request, response) => {
    let rawBody = '';
    for await (const piece of request.setEncoding('utf8')) rawBody += piece;
    const refused = requests.length === 0;
    requests.push({ headers: request.headers, rawBody, refused });
    response.writeHead(refused ? 500 : 200);
    response.end();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const origin = tls ? 'https://localhost' : 'http://127.0.0.1';
  return { requests, url: `${origin}:${server.address().port}/webhooks` };
}

for (const [place, launch] of Object.entries(places)) {
  test(`${place}: what happens is told once, and the libraries verify it`, async t => {
    const { requests, url } = await receiver(t);
    const more = `webhooks = [{ url = "${url}" }]\n[webhooks]\nallow_private = true`;
    const { server, client, backend } = await stage(t, launch, more);
    // counts come in their own time
    const events = () => requests.filter(({ refused }) => !refused).flatMap(request => backend.webhook(request).getEvents())
      .filter(({ name }) => name !== 'subscription_count');
    const told = wanted => until('it is told', wanted.map(event => JSON.stringify(event)).sort(), async () =>
      events().map(event => JSON.stringify(event, Object.keys(event).sort())).map(text => JSON.stringify(JSON.parse(text))).sort());
    const event = (name, channel, more = {}) => JSON.parse(JSON.stringify({ name, channel, ...more }, ['channel', 'data', 'event', 'name', 'socket_id', 'user_id']));

    const [ann, bob] = [client(0, 'ann'), client(1, '7')];
    await subscribed(ann, 'news');
    const [room] = await Promise.all([ann, bob].map(one => subscribed(one, 'presence-room')));
    const wanted = [
      event('channel_occupied', 'news'),
      event('channel_occupied', 'presence-room'),
      event('member_added', 'presence-room', { user_id: 'ann' }),
      event('member_added', 'presence-room', { user_id: '7' }),
    ];
    await told(wanted);
    room.trigger('client-typing', { text: 'Grüße' });
    wanted.push(event('client_event', 'presence-room', {
      data: '{"text":"Grüße"}', event: 'client-typing', socket_id: ann.connection.socket_id, user_id: 'ann',
    }));
    await told(wanted);
    ann.disconnect();
    bob.disconnect();
    wanted.push(
      event('channel_vacated', 'news'),
      event('channel_vacated', 'presence-room'),
      event('member_removed', 'presence-room', { user_id: 'ann' }),
      event('member_removed', 'presence-room', { user_id: '7' }),
    );
    await told(wanted);

    assert.ok(requests.every(request => backend.webhook(request).isValid()));
    assert.deepEqual(validated(requests), requests.map(request => backend.webhook(request).getEvents()));
    const forged = requests.map(request => ({ ...request, rawBody: request.rawBody.replace('presence-room', 'presence-r00m').replace('news', 'nevvs') }));
    assert.ok(forged.every(request => !backend.webhook(request).isValid()));
    assert.deepEqual(validated(forged), forged.map(() => null));

    const state = await (await fetch(`http://${server.master}/v1/apps/${app.key}/webhooks`)).json();
    assert.equal(state.webhooks.length, 1);
    assert.equal(state.webhooks[0].last_error.error, 'answered 500');
  });
}

test('a target with TLS is told if this machine trusts in its certificate, and only then', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'wellhead-webhooks-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [trusted, other] = ['trusted', 'other'].map(name => certificate(folder, name));
  const [good, bad] = [await receiver(t, trusted), await receiver(t, other)];
  const more = `webhooks = [{ url = "${good.url}", events = ["channel_occupied"] }, { url = "${bad.url}" }]\n[webhooks]\nallow_private = true`;
  const launch = (t, options) => start(t, { ...options, settings: { SSL_CERT_FILE: trusted.file } });
  const { server, client, backend } = await stage(t, launch, more);
  await subscribed(client(0, 'ann'), 'news');
  await until('it is told', ['channel_occupied'], async () =>
    good.requests.filter(({ refused }) => !refused).flatMap(request => backend.webhook(request).getEvents()).map(({ name }) => name));
  const state = async () => (await (await fetch(`http://${server.master}/v1/apps/${app.key}/webhooks`)).json()).webhooks[1];
  await until('it is not connected to', true, async () => /certificate/.test((await state()).last_error?.error ?? ''));
  assert.equal(bad.requests.length, 0);
});
