// A remote worker: connects to an ant, offers methods, does tasks. Runs in browsers and in Node, without dependencies.
// What is said over the connection is in docs/executors/websocket.md. count-words.mjs shows how a worker is made.

// Codes with which an ant closes a connection that it will not take either the next time.
const REFUSED = new Set([4400, 4401]);
// Pauses between attempts to connect, in milliseconds: doubled from the first to the last.
const FIRST_PAUSE_MS = 500;
const LAST_PAUSE_MS = 30_000;

/** Thrown by a method: the task ends FAILED with this exit code. */
export class TaskFailed extends Error {
  constructor(message, exitCode = 1, outputs = {}) {
    super(message);
    Object.assign(this, { exitCode, outputs });
  }
}

/** One attempt of a task. `id` is unique for ever: a key under which what is done twice is done once. */
class Task {
  #socket;
  #controller = new AbortController();
  #uploads = new Map();

  constructor(message, socket) {
    Object.assign(this, { id: message.task, jobId: message.job_id, attempt: message.attempt, payload: message.payload });
    /** Artifacts of earlier tasks, by name. */
    this.inputs = new Map((message.inputs ?? []).map((input) => [input.name, input]));
    this.#socket = socket;
  }

  /** Gets an artifact of an earlier task as bytes, from the artifact store itself, and checks it. */
  async fetch(name) {
    const input = this.inputs.get(name);
    if (!input?.url) throw new TaskFailed(input ? `${name} has no URL` : `there is no ${name}`);
    const answer = await fetch(input.url, { signal: this.signal });
    if (!answer.ok) throw new Error(`${name} cannot be had: ${answer.status}`);
    const bytes = new Uint8Array(await answer.arrayBuffer());
    if ((await sha256(bytes)) !== input.sha256) throw new Error(`${name} arrived damaged`);
    return bytes;
  }

  /** Leaves bytes as an artifact of the task: puts them into the artifact store itself. */
  async deliver(name, bytes, isExecutable = false) {
    const digest = await sha256(bytes);
    const asked = new Promise((resolve) => this.#uploads.set(name, resolve));
    const about = { name, sha256: digest, size_bytes: bytes.length, is_executable: isExecutable };
    this.#socket.send(JSON.stringify({ type: "artifact", task: this.id, ...about }));
    const { url, headers, refusal } = await asked;
    if (refusal) throw new TaskFailed(refusal);
    if (!url) return; // the store has it already
    const answer = await fetch(url, { method: "PUT", headers, body: bytes, signal: this.signal });
    if (!answer.ok) throw new Error(`${name} is not taken: ${answer.status}`);
  }

  /** Passes on where an artifact belongs. */
  upload(message) {
    this.#uploads.get(message.name)?.(message);
    this.#uploads.delete(message.name);
  }

  /** Aborted when the task is cancelled or the connection is lost; give it to fetch, timers and the like. */
  get signal() {
    return this.#controller.signal;
  }

  /** Adds lines to the task's log. */
  log(text, stream = "stdout") {
    this.#socket.send(JSON.stringify({ type: "log", task: this.id, stream, text }));
  }

  cancel() {
    this.#controller.abort(new Error("cancelled"));
  }
}

/**
 * Serves one ant until it is drained; connects again when the connection is lost.
 *
 * `methods` are functions by name: they take a task and return its outputs. `WebSocket` is the class that connects.
 */
export class Worker {
  #options;
  #running = new Map();
  #socket = null;
  #isDraining = false;
  #pauseMs = FIRST_PAUSE_MS;

  constructor({ url, methods, name = "worker", token = null, tags = [], slots = 1, say = console.log, WebSocket }) {
    this.#options = { url, methods, name, token, tags, slots, say, WebSocket: WebSocket ?? globalThis.WebSocket };
  }

  /** Resolves when the worker was drained; rejects when the ant does not want it. */
  async run() {
    while (!this.#isDraining) {
      const { code, reason } = await this.#serve();
      if (REFUSED.has(code)) throw new Error(`the ant refuses this worker: ${reason}`);
      if (this.#isDraining) return;
      this.#options.say(`the connection is lost (${code}); trying again in ${this.#pauseMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, this.#pauseMs));
      this.#pauseMs = Math.min(this.#pauseMs * 2, LAST_PAUSE_MS);
    }
  }

  /** Takes no more tasks, finishes those it has, and disconnects. */
  drain() {
    this.#isDraining = true;
    this.#send({ type: "drain" });
    if (this.#running.size === 0) this.#socket?.close();
  }

  /** Resolves when the connection has ended, with the code and reason of the close. */
  #serve() {
    const { url, WebSocket, methods, name, token, tags, slots } = this.#options;
    const socket = new WebSocket(url);
    this.#socket = socket;
    return new Promise((resolve) => {
      socket.onopen = () => {
        this.#send({ type: "register", protocol: 1, name, token, methods: Object.keys(methods), tags, slots });
      };
      socket.onmessage = (event) => this.#take(JSON.parse(event.data), socket);
      socket.onerror = () => {}; // a close follows
      socket.onclose = (event) => {
        for (const task of this.#running.values()) task.cancel(); // these attempts are lost
        this.#running.clear();
        resolve(event);
      };
    });
  }

  #take(message, socket) {
    switch (message.type) {
      case "registered":
        this.#pauseMs = FIRST_PAUSE_MS;
        this.#options.say("registered");
        break;
      case "task":
        this.#do(new Task(message, socket), this.#options.methods[message.method]);
        break;
      case "upload":
        this.#running.get(message.task)?.upload(message);
        break;
      case "cancel":
        this.#running.get(message.task)?.cancel();
        break;
      case "error":
        this.#options.say(`${message.code}: ${message.message}`);
    }
  }

  async #do(task, method) {
    this.#running.set(task.id, task);
    const verdict = await verdictOf(task, method);
    if (this.#running.get(task.id) !== task) return; // its connection is gone
    this.#running.delete(task.id);
    this.#send({ type: "result", task: task.id, ...verdict });
    if (this.#isDraining && this.#running.size === 0) this.#socket.close();
  }

  #send(message) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }
}

async function sha256(bytes) {
  const { subtle } = globalThis.crypto ?? (await import("node:crypto")).webcrypto; // Node 18 has it there only
  return [...new Uint8Array(await subtle.digest("SHA-256", bytes))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function verdictOf(task, method) {
  try {
    return { status: "COMPLETED", outputs: (await method(task)) ?? {} };
  } catch (error) {
    const { exitCode = 1, outputs = {} } = error;
    return { status: "FAILED", exit_code: exitCode, outputs, message: `${error.message ?? error}` };
  }
}
