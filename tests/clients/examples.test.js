// The examples run as they are, each pair of them: one listens, one pushes.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { jwt, repository, start, within } from './harness.js';

const pushKey = 'the key of the examples';
const python = process.env.PYTHON ?? 'python3';
const node = [process.execPath, ...(Number(process.versions.node.split('.')[0]) < 22 ? ['--experimental-websocket'] : [])];
const example = name => join(repository, 'examples', name);

const listeners = { 'subscribe.mjs': node, 'subscribe.py': [python] };
const pushers = { 'push.sh': ['sh'], 'push.mjs': node, 'push.py': [python] };

function environment(server) {
  return {
    ...process.env,
    NODE_NO_WARNINGS: '1',
    WELLHEAD_MASTER: `http://${server.master}`,
    WELLHEAD_SLAVE: `http://${server.slave}`,
    WELLHEAD_PUSH_KEY: pushKey,
    WELLHEAD_JWT: jwt('demo', 'ann', ['*']),
  };
}

for (const [listener, [command, ...options]] of Object.entries(listeners)) {
  test(`${listener} prints what every pusher pushes`, async t => {
    const sha256 = createHash('sha256').update(pushKey).digest('hex');
    const server = await start(t, { toml: `[[push_keys]]\nname = "examples"\nsha256 = "${sha256}"\n` });
    const env = environment(server);
    const child = spawn(command, [...options, example(listener), 'news', 'a/b'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    t.after(() => child.kill('SIGKILL'));
    let complaints = '';
    child.stderr.on('data', text => { complaints += text; });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const line = async () => {
      const { value, done } = await within(`a line of ${listener}`, lines.next());
      if (done) throw new Error(`${listener} ended: ${complaints}`);
      return value;
    };
    while (!/subscribed to .*a\/b/.test(await line()));
    for (const [pusher, [command, ...options]] of Object.entries(pushers)) {
      const push = (...words) => promisify(execFile)(command, [...options, example(pusher), ...words], { env });
      const { stdout } = await push();
      assert.match(stdout, /"channel":"news","event":"hello"/, pusher);
      assert.match(await line(), /^news hello \{"text": ?"It works"\}$/, pusher);
      await push('a/b', 'two words', 'plain text & more');
      assert.equal(await line(), 'a/b two words "plain text & more"', pusher);
      const refused = promisify(execFile)(command, [...options, example(pusher)], { env: { ...env, WELLHEAD_PUSH_KEY: '' } });
      await assert.rejects(refused, { code: pusher === 'push.sh' ? 22 : 1 }, `${pusher} without a key`);
    }
    // what is pushed to a user has nothing around it, and may be any JSON
    for (const data of ['null', '7', '"text"', '["a"]', '{"x":1}', '{"event":"hi"}']) {
      const path = '/v1/apps/demo/users/ann/messages';
      const headers = { Authorization: `Bearer ${pushKey}`, 'Content-Type': 'application/json' };
      const pushed = await fetch(`http://${server.master}${path}`, { method: 'POST', headers, body: `{"data":${data}}` });
      assert.equal(pushed.status, 200);
      assert.equal(await line(), `(to you) ${data}`, listener);
    }
  });
}
