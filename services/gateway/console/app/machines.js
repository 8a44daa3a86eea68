// Machines as the pages show them: present, silent or away, and how each has its projects.
import { get } from "./api.js";
import { staleSince } from "./events.js";
import { now, useResource } from "./store.js";

/** Milliseconds without a sign of life after which a machine counts as away: it sends one every ten seconds. */
const SILENT = 26_000;

/** By machine: the time of its last sign of life there, and here. */
const heard = new Map();

/** Ask for every machine, and again at each sign of life. */
export function useMachines() {
  return useResource(
    async (signal) => {
      const { nodes, away } = await get("/api/nodes", {}, { signal });
      for (const one of nodes) {
        if (heard.get(one.node)?.updated !== one.updated_at) heard.set(one.node, { updated: one.updated_at, at: Date.now() });
      }
      return [...nodes.map((one) => ({ ...one, isThere: true })), ...away.map((one) => ({ ...one, isThere: false }))].sort(
        (one, other) => one.node.localeCompare(other.node),
      );
    },
    [],
    { events: ["node"] },
  );
}

/** Whether a machine is present. While the browser itself is cut off, it counts as it did before. */
export function isPresent(machine) {
  const at = heard.get(machine.node)?.at ?? 0;
  return machine.isThere && (staleSince.value ?? now.value) - at < SILENT;
}

/** When a machine was heard of last. */
export const lastSeen = (machine) => (machine.isThere ? (heard.get(machine.node)?.at ?? machine.updated_at) : machine.updated_at);

/** The machines that serve a project, each with how it has it: `{machine, project}`. */
export const serving = (machines, cid) =>
  machines.flatMap((machine) =>
    machine.projects.filter((one) => one.project === cid).map((project) => ({ machine, project })),
  );
