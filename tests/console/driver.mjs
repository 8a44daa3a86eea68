// Runs pieces of JavaScript against a headless Chromium, for a test that sends them as lines of JSON on its input.
//
// A line is {"id", "code", "args"}; the answer {"id", "value"} or {"id", "error"}. `code` is the body of an async function
// with what is in `world` below. Everything that a page complains of is kept in `complaints`.
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [packages, program] = process.argv.slice(2);
const { chromium } = createRequire(`${packages}/`)(`${packages}/playwright-core`);
const axe = readFileSync(`${packages}/axe-core/axe.min.js`, "utf8");

const complaints = [];
const browser = await chromium.launch({
  executablePath: program,
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb"],
});
const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", timezoneId: "UTC" });
context.setDefaultTimeout(20_000);

async function newPage() {
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(`error: ${error.stack ?? error}`));
  page.on("console", (message) => {
    const text = message.text();
    // A request that fails is not a fault of the page; what the policy blocks and what throws is.
    if (["error", "warning"].includes(message.type()) && !/Failed to load resource/.test(text)) complaints.push(text);
  });
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) =>
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
  });
  return page;
}

const world = {
  browser,
  context,
  complaints,
  newPage,
  page: await newPage(),
  /** What axe finds in a page that is serious or worse. It runs in a world of its own, which no policy binds. */
  async audit(page) {
    const session = await context.newCDPSession(page);
    const { frameTree } = await session.send("Page.getFrameTree");
    const { executionContextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id });
    const expression = `${axe}; axe.run(document, { resultTypes: ["violations"] }).then((found) => JSON.stringify(
      found.violations.filter((one) => ["serious", "critical"].includes(one.impact)).map((one) => ({
        id: one.id, help: one.help, nodes: one.nodes.map((node) => node.html.slice(0, 300) + " " + node.failureSummary) }))))`;
    const { result, exceptionDetails } = await session.send("Runtime.evaluate", {
      expression, contextId: executionContextId, awaitPromise: true, returnByValue: true,
    });
    await session.detach();
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return JSON.parse(result.value);
  },
};

const AsyncFunction = (async () => {}).constructor;
process.stdout.write('{"id":0,"value":"ready"}\n');
for await (const line of createInterface({ input: process.stdin })) {
  const { id, code, args } = JSON.parse(line);
  let answer;
  try {
    const names = [...Object.keys(world), ...Object.keys(args)];
    const value = await new AsyncFunction(...names, code)(...Object.values(world), ...Object.values(args));
    answer = { id, value: value ?? null };
  } catch (error) {
    answer = { id, error: String(error.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
