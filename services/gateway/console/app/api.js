// Requests to the gateway. Every failure is an ApiError whose texts a person can read.
import { session } from "./session.js";

/** Milliseconds that a request may take unless it says otherwise. */
const DEADLINE = 20_000;

/** What went wrong, in a few words, by the code of an error; `detail` and `remedy` come from the gateway. */
const TITLES = {
  unreachable: "The gateway does not answer",
  deadline_exceeded: "It took too long",
  unavailable: "Not available at present",
  no_responder: "Nothing answers",
  unauthorized: "The key was refused",
  forbidden: "Not allowed",
  not_found: "Not found",
  conflict: "Something else came first",
  invalid_request: "The request was refused",
  rate_limited: "Too many requests",
  disk_full: "The disk is full",
  database_invalid: "The database is damaged",
  corrupt_object: "A stored object is damaged",
  lease_lost: "The lease was lost",
  internal: "The gateway failed",
};

export class ApiError extends Error {
  constructor({ status = 0, code, detail = "", remedy = "", field = null, requestId = "" }) {
    super(detail || TITLES[code] || code);
    Object.assign(this, { status, code, detail, remedy, field, requestId, title: TITLES[code] ?? "It failed" });
  }
}

/** Whether an error says that the gateway itself could not be reached. */
export const isUnreachable = (error) => error instanceof ApiError && error.code === "unreachable";

/** Whether an error says that what answers the gateway is away, a coordinator or a machine: it may be back any moment. */
export const isPassing = (error) =>
  error instanceof ApiError && ["unavailable", "no_responder", "deadline_exceeded", "rate_limited"].includes(error.code);

/** Return the address of a request with its query; empty values are left out. */
export function address(path, query = {}) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") asked.append(name, one);
    }
  }
  const text = asked.toString();
  return text ? `${path}?${text}` : path;
}

/** Send a request and return its JSON. `signal` ends it early. */
export async function call(method, path, { query, body, deadline = DEADLINE, signal, expect401 = false } = {}) {
  const ends = AbortSignal.timeout(deadline);
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  let text;
  try {
    response = await fetch(address(path, query), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      signal: signal ? AbortSignal.any([signal, ends]) : ends,
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (ends.aborted) {
      const seconds = Math.round(deadline / 1000);
      throw new ApiError({ code: "deadline_exceeded", detail: `No answer within ${seconds} s.` });
    }
    throw new ApiError({ code: "unreachable", detail: "The browser cannot reach it.", remedy: "membridge up" });
  }
  const requestId = response.headers.get("X-Request-Id") ?? "";
  if (response.ok) return text ? JSON.parse(text) : null;
  const said = parsed(text);
  if (response.status === 401 && !expect401) session.value = null;
  throw new ApiError({
    status: response.status,
    code: said.error ?? "internal",
    detail: said.detail ?? `The gateway answered ${response.status}.`,
    remedy: said.remedy,
    field: said.field,
    requestId,
  });
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

export const get = (path, query, options) => call("GET", path, { query, ...options });
export const post = (path, body = {}, options) => call("POST", path, { body, ...options });
export const remove = (path, options) => call("DELETE", path, options);

/** Ask who the caller is; null when it must log in. */
export async function whoAmI() {
  try {
    return await call("GET", "/api/v1/session", { expect401: true });
  } catch (error) {
    if (error.status === 401) return null;
    throw error;
  }
}

export const logIn = (key) => call("POST", "/api/v1/session", { body: { key }, expect401: true });
export const logOut = () => call("DELETE", "/api/v1/session", { expect401: true });

/** The address of a project's routes. */
export const ofProject = (cid, rest) => `/api/projects/${encodeURIComponent(cid)}/${rest}`;
export const ofLeadership = (cid, rest) => `/api/membridge/projects/${encodeURIComponent(cid)}/${rest}`;
