// Lifecycles of BullMQ: 64 jobs in flight, each added with a prompt of 500 bytes, taken by a worker that does nothing,
// and known to be completed before its place is given to the next. Arguments: Redis' port, and seconds.
import { createRequire } from "node:module";
const require = createRequire(process.cwd() + "/");
const { Queue, Worker, QueueEvents } = require("bullmq");
const [port, seconds] = process.argv.slice(2).map(Number);
const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
const queue = new Queue("bench", { connection });
const events = new QueueEvents("bench", { connection });
const worker = new Worker("bench", async () => "ok", { connection, concurrency: 64 });
await Promise.all([queue.waitUntilReady(), events.waitUntilReady(), worker.waitUntilReady()]);
const waiting = new Map();
events.on("completed", ({ jobId }) => { waiting.get(jobId)?.(); waiting.delete(jobId); });
const prompt = "p".repeat(500);
let done = 0, number = 0;
const end = performance.now() + seconds * 1000;
const one = async () => {
  while (performance.now() < end) {
    const jobId = `j-${number++}`;
    const finished = new Promise((resolve) => waiting.set(jobId, resolve));
    await queue.add("task", { prompt }, { jobId });
    await finished;
    done++;
  }
};
const began = performance.now();
await Promise.all(Array.from({ length: 64 }, one));
console.log(done / ((performance.now() - began) / 1000));
process.exit(0);
