// The part of the browsers' WebSocket that worker.mjs needs, for Node before 22: a client of RFC 6455 on http's upgrade.

import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import https from "node:https";

const MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const [CONTINUATION, TEXT, , , , , , , CLOSE, PING, PONG] = Array.from({ length: 11 }, (_, code) => code);
const ABNORMAL = 1006;
// An ant pings; a connection that is silent for longer is dead.
const SILENCE_MS = 90_000;

export class NodeSocket {
  readyState = 0;
  onopen = () => {};
  onmessage = () => {};
  onerror = () => {};
  onclose = () => {};
  #stream = null;
  #received = Buffer.alloc(0);
  #parts = [];
  #code = ABNORMAL;
  #reason = "";

  constructor(url) {
    const key = randomBytes(16).toString("base64");
    const target = new URL(url.replace(/^ws/, "http"));
    const headers = { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key };
    const request = (target.protocol === "https:" ? https : http).request(target, { headers });
    request.on("upgrade", (response, stream, head) => {
      const expected = createHash("sha1").update(key + MAGIC).digest("base64");
      if (response.headers["sec-websocket-accept"] !== expected) return stream.destroy();
      this.#open(stream, head);
    });
    request.on("response", (response) => {
      response.resume();
      this.#end(`the server answers ${response.statusCode}`);
    });
    request.on("error", (error) => this.#end(error.message));
    request.end();
  }

  send(text) {
    this.#write(TEXT, Buffer.from(text));
  }

  close(code = 1000) {
    if (this.readyState !== 1) return;
    this.readyState = 2;
    const body = Buffer.alloc(2);
    body.writeUInt16BE(code);
    this.#write(CLOSE, body);
  }

  #open(stream, head) {
    this.#stream = stream;
    this.readyState = 1;
    stream.setNoDelay(true);
    stream.setTimeout(SILENCE_MS, () => stream.destroy());
    stream.on("data", (data) => this.#receive(data));
    stream.on("error", () => {});
    stream.on("close", () => this.#end());
    this.onopen();
    if (head.length) this.#receive(head);
  }

  #end(reason = this.#reason) {
    if (this.readyState === 3) return;
    this.readyState = 3;
    if (this.#stream === null) this.onerror(new Error(reason));
    this.onclose({ code: this.#code, reason });
  }

  #receive(data) {
    this.#received = Buffer.concat([this.#received, data]);
    for (let frame = this.#nextFrame(); frame !== null; frame = this.#nextFrame()) this.#take(frame);
  }

  /** Returns the next whole frame and takes it from what was received; null where there is none yet. */
  #nextFrame() {
    const buffer = this.#received;
    if (buffer.length < 2) return null;
    let [length, start] = [buffer[1] & 0x7f, 2];
    const extra = length === 126 ? 2 : length === 127 ? 8 : 0;
    if (buffer.length < start + extra) return null;
    if (extra === 2) length = buffer.readUInt16BE(start);
    if (extra === 8) length = Number(buffer.readBigUInt64BE(start));
    start += extra;
    if (buffer.length < start + length) return null;
    this.#received = buffer.subarray(start + length);
    return { isLast: (buffer[0] & 0x80) !== 0, code: buffer[0] & 0x0f, body: buffer.subarray(start, start + length) };
  }

  #take({ isLast, code, body }) {
    if (code === PING) this.#write(PONG, body);
    else if (code === CLOSE) this.#takeClose(body);
    else if (code === TEXT || code === CONTINUATION) {
      this.#parts.push(body);
      if (!isLast) return;
      const text = Buffer.concat(this.#parts).toString();
      this.#parts = [];
      this.onmessage({ data: text });
    }
  }

  #takeClose(body) {
    if (body.length >= 2) this.#code = body.readUInt16BE();
    this.#reason = body.subarray(2).toString();
    if (this.readyState === 1) this.#write(CLOSE, body.subarray(0, 2));
    this.readyState = 2;
    this.#stream.end();
  }

  #write(code, body) {
    if (this.#stream === null || this.#stream.destroyed) return;
    const extra = body.length < 126 ? 0 : body.length < 65536 ? 2 : 8;
    const frame = Buffer.alloc(6 + extra + body.length);
    frame[0] = 0x80 | code;
    frame[1] = 0x80 | (extra === 0 ? body.length : extra === 2 ? 126 : 127);
    if (extra === 2) frame.writeUInt16BE(body.length, 2);
    if (extra === 8) frame.writeBigUInt64BE(BigInt(body.length), 2);
    const mask = randomBytes(4);
    mask.copy(frame, 2 + extra);
    for (let at = 0; at < body.length; at += 1) frame[6 + extra + at] = body[at] ^ mask[at % 4];
    this.#stream.write(frame);
  }
}
