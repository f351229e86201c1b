// Starts the real server for a test: every port chosen by the kernel, keys made on the spot, ended with the test.

import { spawn } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const repository = fileURLToPath(new URL('../..', import.meta.url));
const binary = process.env.WELLHEAD_BIN ?? join(repository, 'target', 'debug', 'wellhead');
const PATIENCE = 20_000;

const keys = generateKeyPairSync('rsa', { modulusLength: 2048 });

/** A JWT for `user` of `app`, good for an hour. */
export function jwt(app, user, channels) {
  const part = value => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const gusher = { user_id: user, channels, app_key: app };
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

/** A server that lives as long as the test `t`. Without `settings` it knows our public key. */
export async function start(t, { development = false, settings = {}, toml = '' } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'wellhead-clients-'));
  writeFileSync(join(folder, 'public.pem'), keys.publicKey.export({ type: 'spki', format: 'pem' }));
  const config = join(folder, 'config.toml');
  writeFileSync(config, `${development ? '' : '[jwt]\npublic_keys = ["public.pem"]\n'}${toml}`);
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WELLHEAD_')));
  const child = spawn(binary, ['-c', config], {
    cwd: folder,
    env: {
      ...env,
      WELLHEAD_MASTER__LISTEN: '127.0.0.1:0',
      WELLHEAD_MASTER__ADMIN: '127.0.0.1:0',
      WELLHEAD_SLAVE__LISTEN: '127.0.0.1:0',
      WELLHEAD_LOG__FORMAT: 'json',
      ...settings,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise(resolve => child.once('exit', resolve));
  // hooks run in the order of their registration: whoever must be gone before the server is says so here
  const before = [];
  t.after(async () => {
    for (const leave of before) await leave();
    child.kill('SIGKILL');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  });
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', text => { printed += text; });
  const server = {};
  const log = [];
  const ready = new Promise((resolve, reject) => {
    createInterface({ input: child.stderr }).on('line', line => {
      log.push(line);
      const { message, role, address } = JSON.parse(line);
      if (role && address) server[role] = address;
      if (message === 'ready') resolve();
    });
    child.once('error', reject);
    child.once('exit', code => reject(new Error(`the server ended with ${code}:\n${log.join('\n')}`)));
  });
  await within('the server is ready', ready);
  return {
    ...server,
    folder,
    /** Do this before the server ends. */
    beforeEnd: leave => before.push(leave),
    printed: () => printed,
    /** Push with the v3 API; it must be accepted. */
    async push(app, channel, event, data) {
      const path = `/v1/apps/${encodeURIComponent(app)}/channels/${encodeURIComponent(channel)}/messages`;
      const answer = await fetch(`http://${server.master}${path}`, {
        method: 'POST',
        body: JSON.stringify({ event, data }),
      });
      if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
    },
    /** Names on a channel list or a user list, sorted. */
    async names(path) {
      const answer = await fetch(`http://${server.master}${path}`);
      return (await answer.json()).sort();
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
