// Asks Membridge's daemon for fresh memory before any command hook of a session start runs, so that claude-mem's own
// hook, which reads the memory, finds what the other machines wrote. Claude Code starts the command hooks of all plugins
// at the same moment; only what a module does before `next` comes first.
//
// A child process asks, not `$.http.fetch`: a fetch that a hung daemon never answers cannot be given up, and `claude -p`
// would end only after its 30 seconds. The child is killed in time.
import { paths } from './paths.js'

/** Milliseconds until the child is killed where no setting says so: the longest setting, and a start of a process. */
const LONGEST = 10_000

/**
 * @param {import('claude-code').EngineInterface} $
 * @returns {string[]} the command that asks; it prints what a SessionStart hook answers
 */
const command = $ =>
  paths === null
    ? ['/bin/sh', `${$.plugin.root}/session_start.sh`]
    : [
        paths.python, '-I', '-S', `${$.plugin.root}/session_start.py`,
        paths.socket, paths.heartbeat, String(paths.waitSeconds), paths.project,
      ]

/**
 * @param {string} printed
 * @returns {string[]} what the daemon wants the model to know: one text, or none
 */
const contextIn = printed => {
  if (printed === '') return []
  const text = JSON.parse(printed).hookSpecificOutput?.additionalContext
  return typeof text === 'string' && text !== '' ? [text] : []
}

/** @type {import('claude-code').Register} */
export const register = on => {
  on('classic.SessionStart', async ($, e, next) => {
    const timeoutMs = paths === null ? LONGEST : Math.ceil(paths.waitSeconds * 1000)
    const [found] = await Promise.all([
      $.process
        .run(command($), { stdin: JSON.stringify(e), timeoutMs, env: { MEMBRIDGE_SESSION_START: 'ask' } })
        .then(child => contextIn(child.stdout))
        .catch(() => []),
      // The command hook of this plugin asks in older versions of Claude Code; here it shall not ask a second time.
      $.env.set('MEMBRIDGE_SESSION_START', e.session_id).catch(() => undefined),
    ])
    const out = await next(e)
    if (found.length === 0) return out
    const others = (out.additionalContext ?? []).filter(text => text !== found[0])
    return { ...out, additionalContext: [...found, ...others] }
  }).catch(($, e, next) => next(e))
}
