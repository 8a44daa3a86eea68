// Where the daemon is asked, as the hooks of a marketplace find it: by the defaults in register.js.
// `membridge install hooks` writes this machine's paths here instead.
/** @type {null | { run: string, waitSeconds: number, project: string }} */
export const paths = null
