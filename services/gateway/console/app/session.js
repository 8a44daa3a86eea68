// Who uses the console: nobody yet (undefined), a caller that must log in (null), or the session.
import { computed, signal } from "./html.js";

/** `{key_id, name, role, scopes}`; null when a key is needed. */
export const session = signal(undefined);

const ROLES = ["reader", "operator", "admin"];

/** Whether the caller has a role in a scope: `memory`, `tasks` or `keys`. What it may not do is not drawn. */
export function may(scope, role = "operator") {
  const who = session.value;
  if (!who || ROLES.indexOf(who.role) < ROLES.indexOf(role)) return false;
  return who.scopes.includes("*") || who.scopes.includes(scope);
}

/** Whether there is something to log out of: without a key the gateway lets everyone of this machine in. */
export const isLoggedIn = computed(() => Boolean(session.value && !["open", "dev"].includes(session.value.key_id)));
