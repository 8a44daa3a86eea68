// Where the daemon is reached, as the hooks of a marketplace find it: by the defaults in session_start.sh.
// `membridge install hooks` writes this machine's paths here instead.
/** @type {null | { python: string, socket: string, heartbeat: string, waitSeconds: number, project: string }} */
export const paths = null
