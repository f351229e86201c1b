// --- all: a client of each dialect on one channel, which shows its frames as they come, and a push through any API

const frame = (...parts) => JSON.stringify(parts.length > 1 ? parts : parts[0]);

/** Each client: where it connects, what it says first, when it is on the channel, what it answers; the rest are events. */
const clients = {
  gusher: {
    path: () => `/v1/apps/${encodeURIComponent(app)}/ws?token=${encodeURIComponent(token)}`,
    joins: channel => [frame({ event: 'gusher.subscribe', data: { channel } })],
    is: ({ event }) => event === 'gusher.subscribe_succeeded',
  },
  pusher: {
    path: () => `${sockets}?protocol=7&client=try`,
    joins: channel => [frame({ event: 'pusher:subscribe', data: { channel } })],
    is: ({ event }) => event === 'pusher_internal:subscription_succeeded',
    answers: ({ event }) => event === 'pusher:ping' && frame({ event: 'pusher:pong', data: {} }),
    skips: ({ event }) => event.startsWith('pusher:'),
  },
  pushex: {
    path: () => `/push_socket/websocket?vsn=2.0.0&token=${encodeURIComponent(token)}`,
    joins: channel => [frame('1', '1', channel, 'phx_join', {})],
    is: ([, ref, , event]) => event === 'phx_reply' && ref === '1',
    beat: frame(null, 'beat', 'phoenix', 'heartbeat', {}),
    skips: ([, , topic]) => topic === 'phoenix',
  },
  conveyor: {
    path: () => `/?token=${encodeURIComponent(conveyor)}`,
    // who joins is not told: what it says to itself comes back after that
    joins: channel => [
      frame({ action: 'channel-connect', channel, auth: conveyor }),
      frame({ action: 'base-action', data: 'joined' }),
    ],
    is: ({ action }) => action === 'base-action',
    skips: ({ action }) => action === 'connection-info',
  },
};

/** Each API: what it takes to push. */
const apis = {
  gusher: (channel, event, data) => post(
    `/v1/apps/${encodeURIComponent(app)}/channels/${encodeURIComponent(channel)}/messages`,
    `{"event":${frame(event)},"data":${data.json}}`,
  ),
  pusher: (channel, event, data) => signed('POST', '/events', {}, frame({ name: event, channel, data: data.text })),
  pushex: (channel, event, data) => post('/api/push', `{"channel":${frame(channel)},"event":${frame(event)},"data":${data.json}}`),
  conveyor: (channel, _, data) => post(
    `/conveyor/message?token=${encodeURIComponent(conveyor)}`,
    frame({ channel, message: data.text }),
  ),
};

async function post(path, body) {
  const key = $('key').value ? { Authorization: 'Bearer ' + $('key').value } : {};
  const answer = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json', ...key }, body });
  if (!answer.ok) throw new Error(`${answer.status}: ${(await answer.text()).slice(0, 500)}`);
}

const sharedChannel = () => $('all-channel').value;
const opened = {};

function attach(name) {
  const { path, joins, is, answers, beat, skips } = clients[name];
  const socket = new WebSocket(`ws://${slave}${path()}`);
  opened[name] = socket;
  const status = (text, kind) => {
    $(`all-${name}-state`).textContent = text;
    $(`all-${name}-state`).className = 'state ' + kind;
  };
  const beats = beat && setInterval(() => socket.readyState === WebSocket.OPEN && socket.send(beat), 30000);
  status('connecting…', '');
  socket.onopen = () => joins(sharedChannel()).forEach(text => socket.send(text));
  socket.onmessage = ({ data: text }) => {
    const message = JSON.parse(text);
    const answer = answers?.(message);
    if (answer) socket.send(answer);
    else if (is(message)) status(`on ${sharedChannel()}`, 'good');
    else if (!skips?.(message)) {
      $(`all-${name}-list`).prepend(Object.assign(document.createElement('li'), { textContent: text }));
      while ($(`all-${name}-list`).children.length > 20) $(`all-${name}-list`).lastChild.remove();
    }
  };
  socket.onclose = async () => {
    clearInterval(beats);
    // another one has taken its place: the channel was changed
    if (opened[name] !== socket) return;
    status('not connected, trying again…', 'bad');
    await renewed();
    setTimeout(attach, 2000, name);
  };
}

/** All of them, anew, on the channel that was chosen. */
function attachAll() {
  for (const name of Object.keys(clients)) {
    const before = opened[name];
    attach(name);
    before?.close();
  }
}

$('all-subscribe').addEventListener('submit', submit => {
  submit.preventDefault();
  attachAll();
});

$('all-push').addEventListener('submit', async submit => {
  submit.preventDefault();
  const api = $('all-api').value;
  try {
    const data = { text: $('all-data').value, json: typed('all-data') };
    await apis[api](sharedChannel(), $('all-event').value, data);
    said('all-said', `The master took it, by ${$('all-api').selectedOptions[0].textContent}.`);
  } catch (error) {
    said('all-said', String(error.message ?? error), true);
  }
});
