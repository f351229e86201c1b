// What the tests with Pusher's libraries share: an app, an endpoint that signs as its backend would, clients that listen.

import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { once } from 'node:events';
import Echo from 'laravel-echo';

import { start, startCluster, within } from './harness.js';

const require = createRequire(import.meta.url);
// the build for Node knows encrypted channels
const Client = require('pusher-js');
const Backend = require('pusher');

export const app = { appId: '17', key: 'demo', secret: 'the secret of these tests' };
export const masterKey = Buffer.alloc(32, 'wellhead').toString('base64');

const toml = `
[[apps.listed]]
key = "${app.key}"
id = "${app.appId}"
secret = "${app.secret}"
client_events = true
`;

/** Where every test runs. */
export const places = { 'one slave': start, 'two slaves over NATS': startCluster };

/** As a tutorial has it: an app, one host and one port for backends and pages, and no other key. */
export const onePort = (t, options) =>
  start(t, { ...options, development: true, settings: { WELLHEAD_STANDALONE__LISTEN: '127.0.0.1:0' } });

function backend(address, options = {}) {
  const [host, port] = address.split(':');
  return new Backend({ ...app, host, port, useTLS: false, encryptionMasterKeyBase64: masterKey, ...options });
}

/** An endpoint such as an application has: it signs for whom the request says it is. */
async function authority(t, sign) {
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const piece of request) body += piece;
    const form = Object.fromEntries(new URLSearchParams(body));
    const answer = sign(form);
    response.writeHead(answer ? 200 : 403, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(answer ?? { message: 'not you' }));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}/pusher/auth`;
}

/** A server or a cluster with an app, which may have more settings, its backend, and clients of it. */
export async function stage(t, launch, more = '') {
  const server = await launch(t, { toml: `${toml}${more}\n` });
  const signer = backend(server.master);
  const forger = backend(server.master, { secret: 'another secret' });
  const endpoint = await authority(t, ({ socket_id: socket, channel_name: channel, user, watchlist }) => {
    if (channel === undefined) {
      // a sign-in; the library puts a forged one together like any other
      const by = user.startsWith('forged') ? forger : signer;
      const data = { id: user, user_info: { name: user.toUpperCase() } };
      return by.authenticateUser(socket, watchlist ? { ...data, watchlist: JSON.parse(watchlist) } : data);
    }
    // who has signed in need not be told who it is
    if (channel.includes('signed-in')) return signer.authorizeChannel(socket, channel);
    if (channel.includes('closed')) return undefined;
    // as Laravel does, with a number
    const member = { user_id: /^\d+$/.test(user) ? Number(user) : user, user_info: { name: user.toUpperCase() } };
    const by = channel.includes('forged') ? forger : signer;
    return by.authorizeChannel(socket, channel, channel.startsWith('presence-') ? member : undefined);
  });
  const options = (slave, user) => {
    const [wsHost, wsPort] = server.slaves[slave % server.slaves.length].split(':');
    return {
      wsHost,
      wsPort,
      forceTLS: false,
      enabledTransports: ['ws'],
      enableStats: false,
      channelAuthorization: { endpoint, transport: 'ajax', params: { user } },
      userAuthentication: { endpoint, transport: 'ajax', params: { user } },
    };
  };
  const leaves = client => {
    server.beforeEnd(() => client.disconnect());
    return client;
  };
  return {
    server,
    endpoint,
    backend: signer,
    /** A client of that slave, as pusher-js has it. */
    client: (slave, user, more = {}) => leaves(new Client(app.key, { cluster: 'any', ...options(slave, user), ...more })),
    /** The same, of a user who watches others. */
    watcher: (slave, user, watchlist) => {
      const params = { user, watchlist: JSON.stringify(watchlist) };
      const more = { userAuthentication: { endpoint, transport: 'ajax', params } };
      return leaves(new Client(app.key, { cluster: 'any', ...options(slave, user), ...more }));
    },
    /** The same under Laravel Echo. */
    echo: (slave, user) => leaves(new Echo({ broadcaster: 'reverb', key: app.key, Pusher: Client, ...options(slave, user) })),
    /** What the HTTP API answers to a query. */
    async ask(path, params = {}) {
      const answer = await signer.get({ path, params });
      return answer.json();
    },
  };
}

const happens = (emitter, event) => new Promise(resolve => {
  const heard = (data, metadata) => {
    emitter.unbind(event, heard);
    resolve(metadata?.user_id === undefined ? data : { data, user_id: metadata.user_id });
  };
  emitter.bind(event, heard);
});

/** The next event of that name on a client, a channel or a connection; with its sender, if it tells one. */
export const next = (emitter, event) => within(event, happens(emitter, event));

/** Subscribe; the channel, once the client is on it. */
export async function subscribed(client, name) {
  const channel = client.subscribe(name);
  const refused = happens(channel, 'pusher:subscription_error').then(error => {
    throw new Error(`${name}: ${JSON.stringify(error)}`);
  });
  await within(`on ${name}`, Promise.race([happens(channel, 'pusher:subscription_succeeded'), refused]));
  return channel;
}

/** Everything that reaches `emitter` from now on, as pairs, apart from Pusher's own. */
export function record(emitter) {
  const heard = [];
  emitter.bind_global((event, data) => {
    if (!event.startsWith('pusher:')) heard.push([event, data]);
  });
  return heard;
}

/** The members of a presence channel as its client knows them, by id. */
export function members(channel) {
  const found = {};
  channel.members.each(({ id, info }) => { found[id] = info; });
  return found;
}

/** Sign in, unless it does by itself; the client, once it is that user and on that user's channel. */
export async function signedIn(client) {
  client.signin();
  await within('signed in', client.user.signinDonePromise);
  const channel = client.user.serverToUserChannel;
  if (!channel.subscribed) await next(channel, 'pusher:subscription_succeeded');
  return client;
}
