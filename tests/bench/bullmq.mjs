// BullMQ's client and its worker, each a process of its own. Arguments: `worker` and Redis' port, or `client`, the port
// and seconds. 64 jobs in flight, each added with a prompt of 500 bytes, taken by a worker that does nothing, and known
// to be completed before its place is given to the next; the client prints lifecycles a second.
import { createRequire } from "node:module";
const require = createRequire(process.cwd() + "/");
const { Queue, Worker, QueueEvents } = require("bullmq");
const [role, port, seconds] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };

async function work() {
  const worker = new Worker("bench", async () => "ok", { connection, concurrency: 64 });
  await worker.waitUntilReady();
  console.log("ready");
}

async function submit() {
  const queue = new Queue("bench", { connection });
  // From the beginning of the stream: with the default an event may come before the first reading.
  const events = new QueueEvents("bench", { connection, lastEventId: "0-0" });
  await Promise.all([queue.waitUntilReady(), events.waitUntilReady()]);
  const waiting = new Map();
  events.on("completed", ({ jobId }) => { waiting.get(jobId)?.(); waiting.delete(jobId); });
  const prompt = "p".repeat(500);
  let done = 0, number = 0;
  const began = performance.now(), end = began + Number(seconds) * 1000;
  const place = async () => {
    while (performance.now() < end) {
      const jobId = `j-${number++}`;
      const finished = new Promise((resolve) => waiting.set(jobId, resolve));
      await queue.add("task", { prompt }, { jobId });
      await finished;
      done++;
    }
  };
  await Promise.all(Array.from({ length: 64 }, place));
  console.log(done / ((performance.now() - began) / 1000));
  process.exit(0);
}

await (role === "worker" ? work() : submit());
