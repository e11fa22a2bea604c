// Node's client of HTTP/2: node client.mjs URL CA NAME. Writes what it saw as JSON.
import { connect } from "node:http2";
import { readFileSync } from "node:fs";
import { once } from "node:events";

const [url, ca, servername] = process.argv.slice(2);
const session = connect(url, { ca: readFileSync(ca), servername });
await once(session, "remoteSettings");

function pinged() {
  return new Promise((resolve) => session.ping((error) => resolve(error === null)));
}

async function ask(headers, body) {
  const stream = session.request(headers, { endStream: body === undefined });
  if (body !== undefined) stream.end(body);
  const [answer] = await once(stream, "response");
  let size = 0;
  stream.on("data", (data) => (size += data.length));
  stream.resume();
  await once(stream, "end");
  return { status: answer[":status"], length: answer["content-length"], size, via: answer.via };
}

async function echo(text) {
  const stream = session.request(
    { ":method": "CONNECT", ":protocol": "websocket", ":path": "/echo", "sec-websocket-version": "13" },
    { endStream: false },
  );
  const [answer] = await once(stream, "response");
  const payload = Buffer.from(text);
  stream.write(Buffer.concat([Buffer.from([0x81, 0x80 | payload.length, 0, 0, 0, 0]), payload]));
  let seen = Buffer.alloc(0);
  for await (const data of stream) {
    seen = Buffer.concat([seen, data]);
    if (seen.includes(payload)) break;
  }
  return { status: answer[":status"], echoed: seen.includes(payload) };
}

async function abandon() {
  const stream = session.request({ ":path": "/last.png?never" });
  stream.resume();
  await pinged(); // so the request is there
  stream.close(8);
  await once(stream, "close");
  return stream.rstCode;
}

const bodies = Array.from({ length: 40 }, (_, number) => Buffer.alloc(number * 5000, number));
const told = {
  protocol: session.alpnProtocol,
  connect: session.remoteSettings.enableConnectProtocol,
  ping: await pinged(),
  page: (await ask({ ":path": "/" })).status,
  head: await ask({ ":path": "/", ":method": "HEAD" }),
  posts: await Promise.all(bodies.map((body) => ask({ ":path": "/closed", ":method": "POST" }, body))),
  abandoned: await abandon(),
  websocket: await echo("hello"),
  after: (await ask({ ":path": "/" })).status,
};
session.close();
await once(session, "close");
console.log(JSON.stringify(told));
