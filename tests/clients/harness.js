// Starts the real server for a test: every port chosen by the kernel, keys made on the spot, ended with the test.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const repository = fileURLToPath(new URL('../..', import.meta.url));
const binary = process.env.WELLHEAD_BIN ?? join(repository, 'target', 'debug', 'wellhead');
const PATIENCE = 20_000;

const keys = generateKeyPairSync('rsa', { modulusLength: 2048 });

/** A JWT for `user` of `app`, good for an hour. */
export function jwt(app, user, channels, remotes) {
  const part = value => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const gusher = { user_id: user, channels, app_key: app, remotes };
  const text = `${part({ alg: 'RS256', typ: 'JWT' })}.${part({ gusher, exp })}`;
  return `${text}.${sign('RSA-SHA256', Buffer.from(text), keys.privateKey).toString('base64url')}`;
}

/** `promise`, in time. */
export function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${PATIENCE} ms in vain: ${what}`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A folder with our public key and a configuration. */
function place({ development, toml }) {
  const folder = mkdtempSync(join(tmpdir(), 'wellhead-clients-'));
  writeFileSync(join(folder, 'public.pem'), keys.publicKey.export({ type: 'spki', format: 'pem' }));
  writeFileSync(join(folder, 'config.toml'), `${development ? '' : '[jwt]\npublic_keys = ["public.pem"]\n'}${toml}`);
  return folder;
}

/** A process of ours in `folder`, once it is ready: the addresses of its roles, and how to end it. */
async function launch(folder, settings = {}, ...words) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WELLHEAD_')));
  const child = spawn(binary, ['-c', join(folder, 'config.toml'), ...words], {
    cwd: folder,
    env: {
      ...env,
      WELLHEAD_MASTER__LISTEN: '127.0.0.1:0',
      WELLHEAD_MASTER__ADMIN: '127.0.0.1:0',
      WELLHEAD_SLAVE__LISTEN: '127.0.0.1:0',
      WELLHEAD_SLAVE__ADMIN: '127.0.0.1:0',
      WELLHEAD_LOG__FORMAT: 'json',
      ...settings,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise(resolve => child.once('exit', resolve));
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', text => { printed += text; });
  const node = {
    printed: () => printed,
    /** End it with a signal; its exit code. */
    end: signal => {
      child.kill(signal);
      return within(`it ends on ${signal}`, ended);
    },
  };
  const log = [];
  const ready = new Promise((resolve, reject) => {
    createInterface({ input: child.stderr }).on('line', line => {
      log.push(line);
      // why it does not start is said in plain words
      if (!line.startsWith('{')) return;
      const { message, role, address } = JSON.parse(line);
      // one address may be that of both roles
      for (const each of role === 'standalone' ? ['standalone', 'master', 'slave'] : [role]) if (each && address) node[each] = address;
      if (message === 'ready') resolve();
    });
    child.once('error', reject);
    child.once('exit', code => reject(new Error(`the server ended with ${code}:\n${log.join('\n')}`)));
  });
  try {
    await within('the server is ready', ready);
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  return node;
}

/** What backends do with a master, over gusher's API. */
function backend(master) {
  return {
    /** Push with the v3 API; it must be accepted. */
    async push(app, channel, event, data) {
      const path = `/v1/apps/${encodeURIComponent(app)}/channels/${encodeURIComponent(channel)}/messages`;
      const answer = await fetch(`http://${master}${path}`, { method: 'POST', body: JSON.stringify({ event, data }) });
      if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
    },
    /** Push to a user; it must be accepted. */
    async pushToUser(app, user, data) {
      const path = `/v1/apps/${encodeURIComponent(app)}/users/${encodeURIComponent(user)}/messages`;
      const answer = await fetch(`http://${master}${path}`, { method: 'POST', body: JSON.stringify({ data }) });
      if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
    },
    /** Names on a channel list or a user list, sorted. */
    async names(path) {
      const answer = await fetch(`http://${master}${path}`);
      return (await answer.json()).sort();
    },
  };
}

/** What is to be done before the processes of a test end. Hooks run in the order of their registration. */
function ending(t, folder, end) {
  const before = [];
  t.after(async () => {
    for (const leave of before) await leave();
    await end();
    rmSync(folder, { recursive: true, force: true });
  });
  return leave => before.push(leave);
}

/** A server that lives as long as the test `t`. Without `development` it knows our public key. */
export async function start(t, { development = false, settings = {}, toml = '' } = {}) {
  const folder = place({ development, toml });
  const nodes = [];
  const beforeEnd = ending(t, folder, () => Promise.all(nodes.map(node => node.end('SIGKILL'))));
  const server = await launch(folder, settings);
  nodes.push(server);
  return {
    ...server,
    folder,
    /** Do this before the server ends. */
    beforeEnd,
    ...backend(server.master),
    /** Where clients may connect. */
    slaves: [server.slave],
    /** End the server in order and start it anew at the same address; once it has ended, or so many ms after the signal. */
    async restart(_, pause) {
      const [before] = nodes;
      const ended = before.end('SIGTERM');
      await (pause === undefined ? ended : new Promise(resolve => { setTimeout(resolve, pause); }));
      nodes[0] = await launch(folder, {
        ...settings,
        ...(server.standalone
          ? { WELLHEAD_STANDALONE__LISTEN: server.standalone }
          : { WELLHEAD_SLAVE__LISTEN: server.slave, WELLHEAD_MASTER__LISTEN: server.master }),
      });
      assert.equal(await ended, 0);
    },
  };
}

/** A NATS server on a port of its own. */
async function natsServer() {
  // Debian's place is not on everybody's path
  const debian = '/usr/sbin/nats-server';
  const child = spawn(existsSync(debian) ? debian : 'nats-server', ['-a', '127.0.0.1', '-p', '-1'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const listens = new Promise((resolve, reject) => {
    child.once('error', reject);
    createInterface({ input: child.stderr }).on('line', line => {
      const [, address] = /client connections on (127\.0\.0\.1:\d+)/.exec(line) ?? [];
      if (address) resolve(address);
    });
  });
  const ended = new Promise(resolve => child.once('exit', resolve));
  return {
    address: await within('nats-server listens', listens),
    end: signal => {
      child.kill(signal);
      return ended;
    },
  };
}

/** A master and two slaves on a NATS server of their own, which live as long as the test `t`. */
export async function startCluster(t, { toml = '' } = {}) {
  const folder = place({ toml });
  const nodes = [];
  const nats = await natsServer();
  const beforeEnd = ending(t, folder, () => Promise.all([...nodes, nats].map(node => node.end('SIGKILL'))));
  const settings = { WELLHEAD_CLUSTER__BUS: `nats://${nats.address}`, WELLHEAD_CLUSTER__SECRET: 'shared by the nodes of this test' };
  for (const role of ['master', 'slave', 'slave']) nodes.push(await launch(folder, settings, role));
  const [master, ...slaves] = nodes;
  for (const { admin } of nodes) {
    await until('every node knows all', true, async () => {
      const ready = await fetch(`http://${admin}/readyz`);
      const metrics = await (await fetch(`http://${admin}/metrics`)).text();
      return ready.ok && /^wellhead_roster_nodes(\{.*\})? 3(\.0)?$/m.test(metrics);
    });
  }
  return {
    master: master.master,
    folder,
    beforeEnd,
    ...backend(master.master),
    slaves: slaves.map(({ slave }) => slave),
    /** End a slave in order and start it anew at the same address. */
    async restart(number) {
      assert.equal(await slaves[number].end('SIGTERM'), 0);
      const node = await launch(folder, { ...settings, WELLHEAD_SLAVE__LISTEN: slaves[number].slave }, 'slave');
      nodes[1 + number] = node;
      slaves[number] = node;
    },
  };
}

/** Ask again and again until the answer is the wanted one. */
export async function until(what, wanted, ask) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const answer = await ask();
    if (JSON.stringify(answer) === JSON.stringify(wanted)) return;
    if (Date.now() > deadline) throw new Error(`${what}: wanted ${JSON.stringify(wanted)}, last was ${JSON.stringify(answer)}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

/** A door in front of `address`, as a load balancer is: who comes while nobody listens there is kept waiting. */
export async function doorTo(t, address) {
  const [host, port] = address.split(':');
  const open = new Set();
  const door = createServer(client => {
    open.add(client);
    client.on('error', () => client.destroy()).on('close', () => open.delete(client));
    const knock = () => {
      const server = connect({ host, port });
      let through = false;
      server.once('connect', () => {
        through = true;
        client.pipe(server).pipe(client);
      });
      server.on('error', () => {
        if (through) client.destroy();
        else if (!client.destroyed) setTimeout(knock, 20);
      });
      client.on('close', () => server.destroy());
    };
    knock();
  });
  await new Promise(resolve => { door.listen(0, '127.0.0.1', resolve); });
  t.after(() => {
    door.close();
    for (const client of open) client.destroy();
  });
  return `127.0.0.1:${door.address().port}`;
}
