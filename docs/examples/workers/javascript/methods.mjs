// What the example workers can do, in Node and in a web page alike.

import { TaskFailed } from "./worker.mjs";

/** Counts the words of payload.text and finds the longest. */
async function countWords(task) {
  const words = String(task.payload.text).split(/\s+/).filter(Boolean);
  if (words.length === 0) throw new TaskFailed("there are no words", 3);
  const longest = words.reduce((best, word) => (word.length > best.length ? word : best));
  task.log(`${words.length} words, the longest is ${longest}`);
  return { count: words.length, longest };
}

/** Counts down from payload.from, one a second: something to cancel. */
async function countDown(task) {
  for (let number = Number(task.payload.from); number > 0; number -= 1) {
    task.log(`${number}`);
    await second(task.signal);
  }
}

function second(signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** Sorts the lines of the artifact payload.file, and leaves them as the artifact payload.to. */
async function sortLines(task) {
  const text = new TextDecoder().decode(await task.fetch(task.payload.file));
  const lines = text.split("\n").filter(Boolean).sort();
  await task.deliver(task.payload.to, new TextEncoder().encode(lines.map((line) => `${line}\n`).join("")));
  return { count: lines.length };
}

export const methods = { "count-words": countWords, "count-down": countDown, "sort-lines": sortLines };
