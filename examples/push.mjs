// Push one event: node push.mjs [CHANNEL [EVENT [DATA]]]
// This is the v3 API, JSON.

const { WELLHEAD_MASTER = 'http://127.0.0.1:7777', WELLHEAD_APP = 'demo', WELLHEAD_PUSH_KEY } = process.env;
const [channel = 'news', event = 'hello', text = '{"text":"It works"}'] = process.argv.slice(2);

let data = text;
try {
  data = JSON.parse(text);
} catch {
  // plain text, then
}

const path = `/v1/apps/${encodeURIComponent(WELLHEAD_APP)}/channels/${encodeURIComponent(channel)}/messages`;
const answer = await fetch(WELLHEAD_MASTER + path, {
  method: 'POST',
  headers: {
    'Content-Type': 'application/json',
    ...(WELLHEAD_PUSH_KEY && { Authorization: `Bearer ${WELLHEAD_PUSH_KEY}` }),
  },
  body: JSON.stringify({ event, data }),
});
console.log(await answer.text());
if (!answer.ok) process.exitCode = 1;
