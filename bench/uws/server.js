// uWebSockets.js with the least that the bench's generator needs: a GET opens a socket, a frame on it names a channel, a POST
// to a channel goes out to its sockets as it came in. No credentials, and no JSON but for that one frame.

"use strict";

const uws = require("uwebsockets");

const JOINED = '{"event":"gusher.subscribe_succeeded"}';

const app = uws.App();

app.ws("/v1/apps/:app/ws", {
  compression: uws.DISABLED,
  idleTimeout: 0,
  sendPingsAutomatically: false,
  maxBackpressure: 4 << 20,
  message: (socket, message) => {
    socket.subscribe(JSON.parse(Buffer.from(message).toString()).data.channel);
    socket.send(JOINED);
  },
});

app.post("/v1/apps/:app/channels/:channel/messages", (response, request) => {
  const channel = request.getParameter(1);
  let body;
  response.onAborted(() => {});
  response.onData((part, isLast) => {
    if (isLast) {
      app.publish(channel, body ? Buffer.concat([body, Buffer.from(part)]) : part);
      response.end("ok");
    } else {
      // a part is valid during this call only
      body = Buffer.concat([body ?? Buffer.alloc(0), Buffer.from(part)]);
    }
  });
});

app.listen("127.0.0.1", 0, uws.LIBUS_LISTEN_EXCLUSIVE_PORT, (listener) => {
  if (!listener) {
    process.exit(1);
  }
  const address = `127.0.0.1:${uws.us_socket_local_port(listener)}`;
  const lines = ["master", "slave"].map((role) => ({ message: "uWebSockets.js listens", role, address }));
  for (const line of [...lines, { message: "ready" }]) {
    process.stderr.write(`${JSON.stringify(line)}\n`);
  }
});
