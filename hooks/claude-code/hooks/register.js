// Asks Membridge's daemon for fresh memory before any command hook of a session start runs, so that claude-mem's own
// hook, which reads the memory, finds what the other machines wrote. Claude Code starts the command hooks of all plugins
// at the same moment; only what a module does before `next` comes first.
//
// It asks by a file and is answered by one. A request over a socket cannot be given up: if the daemon hangs, `claude -p`
// ends only after 30 seconds. A child process can, but takes three times as long to start as the daemon to answer.
//
// Each call of `$` holds up Claude Code's own start by a millisecond, a pause by 10, a second file by 7.

/**
 * Where the daemon is: by the defaults if null. `membridge install hooks` writes the line of this machine.
 * @type {null | { run: string, waitSeconds: number, project: string }}
 */
const paths = null

/** Milliseconds: the age of the heartbeat of a daemon that hangs or is gone, and a pause between two looks. */
const STALE = 6000
const PAUSE = 20
/** Looks without a pause: an answer that waits for nothing is there within them. */
const QUICK = 15

/**
 * @param {import('claude-code').EngineInterface} $
 * @returns {Promise<{ run: string, waitSeconds: number, project: string }>} where the daemon is by the defaults
 */
const defaults = async $ => {
  const [own, states, home] = await Promise.all([
    $.env.get('MEMBRIDGE_STATE_DIR'),
    $.env.get('XDG_STATE_HOME'),
    $.env.get('HOME'),
  ])
  return { run: `${own || `${states || `${home}/.local/state`}/membridge`}/run`, waitSeconds: 5, project: '' }
}

/**
 * @param {import('claude-code').EngineInterface} $
 * @param {{ session_id: string, cwd: string, source?: string }} e
 * @returns {Promise<string>} what the daemon wants a hook to print; nothing if it does not answer in time
 */
const asked = async ($, e) => {
  const { run, waitSeconds, project } = paths ?? (await defaults($))
  const now = Date.now()
  const [heartbeat, chosen] = await Promise.all([$.fs.stat(`${run}/hooks.heartbeat`), $.env.get('CLAUDE_PROJECT_ID')])
  if (now - heartbeat.mtimeMs > STALE) return ''
  const name = `${e.session_id.replace(/[^\w-]/g, '')}-${now}`
  const named = chosen || project
  const line = `membridge 1 SessionStart ${/^[^\p{Cc}]+$/u.test(named) ? named : '-'}`
  const facts = JSON.stringify({ session_id: e.session_id, cwd: e.cwd, source: e.source })
  await $.fs.write(`${run}/questions/${name}`, `${line}\n${facts}\n`)

  // The clock may be set meanwhile: the looks are counted too.
  const most = QUICK + (waitSeconds * 1000) / PAUSE
  for (let looks = 0; looks < most && Date.now() - now < waitSeconds * 1000; looks++) {
    if (looks > QUICK) await $.clock.sleep(PAUSE)
    const found = await $.fs.read(`${run}/answers/${name}`).catch(() => undefined)
    if (found !== undefined) return found
  }
  return ''
}

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
    const [found] = await Promise.all([
      asked($, e).then(contextIn).catch(() => []),
      // The command hook of this plugin asks in older versions of Claude Code; here it shall not ask a second time.
      $.env.set('MEMBRIDGE_SESSION_START', e.session_id).catch(() => undefined),
    ])
    const out = await next(e)
    if (found.length === 0) return out
    const others = (out.additionalContext ?? []).filter(text => text !== found[0])
    return { ...out, additionalContext: [...found, ...others] }
  }).catch(($, e, next) => next(e))
}
