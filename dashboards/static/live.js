/* What the browser does: puts pushed fragments in their places, judges by its own clock whether the page is alive,
 * recovers when the server came back, and sends back what the user chose. The server's part is pages/page.py. */
"use strict"

const AMBER_S = 5      // no heartbeat for longer than this: the page may be behind
const RED_S = 30       // ... than this: what is shown is old
const PROBE_MS = 2000  // how often a silent server is asked whether it is back

const stored = (key, value) => {  // storage may be forbidden; then nothing is remembered
  try { return value === undefined ? localStorage.getItem(key) : localStorage.setItem(key, value) } catch { return null }
}
const root = document.documentElement
if (["dark", "light"].includes(stored("qlstream-theme"))) root.dataset.theme = stored("qlstream-theme")

const page = {
  fragments: null,   // Bokeh source with the HTML
  choices: null,     // Bokeh source that carries choices to the server
  shown: new Map(),  // key -> HTML in its place
  pulse: null,       // last heartbeat
  beat: Date.now(),  // when it came, by this browser's clock
  offset: 0,         // server's clock less ours [ms]
  probing: false,
  loaded: Date.now(),
}
const $ = id => document.getElementById(id)

/* ---- fragments */

function update() {
  const {key, html} = page.fragments.data
  for (let i = 0; i < key.length; i++) {
    if (page.shown.get(key[i]) === html[i]) continue
    const first = !page.shown.has(key[i])
    page.shown.set(key[i], html[i])
    if (key[i] === "@pulse") feel(JSON.parse(html[i]))
    else if (key[i].startsWith("list/")) placeInList(key[i], html[i], first)
    else place($(key[i]), html[i])
  }
  tick()
}

function place(element, html) {  // keeps what the user opened, focused and scrolled to
  if (!element) return
  const open = [...element.querySelectorAll("details[open][data-key]")].map(d => d.dataset.key)
  const scrolled = [...element.querySelectorAll(".log")].map(d => d.scrollTop)
  const active = element.contains(document.activeElement) ? describe(document.activeElement) : null
  element.innerHTML = html
  for (const d of element.querySelectorAll("details[data-key]")) d.open = open.includes(d.dataset.key)
  element.querySelectorAll(".log").forEach((d, i) => { d.scrollTop = scrolled[i] || 0 })
  if (active) element.querySelector(active)?.focus({preventScroll: true})
}

function describe(el) {
  if (el.dataset.choice) return `${el.tagName}[data-choice="${el.dataset.choice}"]${el.type ? `[type="${el.type}"]` : ""}${el.tagName === "BUTTON" ? `[value="${CSS.escape(el.value)}"]` : ""}`
  if (el.dataset.step) return `[data-step="${el.dataset.step}"]`
  return el.getAttribute("href") ? `a[href="${CSS.escape(el.getAttribute("href"))}"]` : null
}

function placeInList(key, html, first) {
  const [, list, sort] = key.split("/")
  const holder = document.querySelector(`[data-list="${list}"]`)
  if (!holder) return
  let child = holder.querySelector(`:scope > [data-sort="${sort}"]`)
  if (!html) { child?.remove(); return }
  if (!child) {
    child = document.createElement("div")
    child.dataset.sort = sort
    const after = [...holder.children].find(other => other.dataset.sort < sort)
    holder.insertBefore(child, after || null)
  }
  place(child, html)
  if (first && Date.now() - page.loaded > 4000) child.classList.add("new")
}

/* ---- is this page alive? */

/* Another boot id: another life of the server. A beat that is missing: what came with it is missing too. */

function feel(pulse) {
  if (page.pulse && (pulse.boot !== page.pulse.boot || pulse.beat > page.pulse.beat + 1)) reload()
  page.pulse = pulse
  page.beat = Date.now()
  page.offset = 1000 * pulse.time - page.beat
}

function age() {  // seconds since something was heard, however the clock was set meanwhile
  const now = Date.now()
  if (now < page.beat) page.beat = now
  const silent = (now - page.beat) / 1000
  const blind = page.pulse?.trouble && page.pulse.read ? page.pulse.time - page.pulse.read : 0
  return silent + blind
}

function judge() {
  const badge = $("badge"), outage = $("outage")
  if (!badge) return
  const pulse = page.pulse, old = age()
  let state = "live", word = "live", detail = ""
  if (!pulse) { state = old > RED_S ? "dead" : "wait"; word = state === "dead" ? "no connection" : "connecting" }
  else if (old > RED_S) { state = "dead"; word = "not live" }
  else if (old > AMBER_S) { state = "late"; word = "no news" }
  else if (pulse.trouble) { state = "late"; word = "trouble" }
  if (pulse && old > AMBER_S) detail = `for ${old < 120 ? Math.round(old) + " s" : Math.round(old / 60) + " min"}`
  if (badge.dataset.state !== state) { badge.className = `badge ${state}`; badge.dataset.state = state }
  write(badge.querySelector("b"), word)
  write(badge.querySelector("span"), detail)
  root.classList.toggle("stale", state === "dead" && !!pulse)
  const dead = state === "dead" || (state === "late" && pulse?.trouble)
  outage.hidden = !dead
  if (dead) write(outage, pulse?.trouble
    ? `The server cannot follow the night: ${pulse.trouble}`
    : "This page has lost its server. What you see is old. It recovers by itself when the server is back.")
  if (old > AMBER_S - 1) probe()
}

async function probe() {  // the server may be back with another life; then this page's session is gone for good
  if (page.probing) return
  page.probing = true
  try {
    const answer = await fetch("/healthz", {cache: "no-store", signal: AbortSignal.timeout(PROBE_MS)})
    const health = await answer.json()
    const other = page.pulse && health.boot && health.boot !== page.pulse.boot
    const orphaned = health.boot && (Date.now() - page.beat) / 1000 > 2 * AMBER_S  // it lives, but not for us
    if (other || orphaned) reload()
  } catch { /* still away */ }
  setTimeout(() => { page.probing = false }, PROBE_MS)
}

function reload() {
  const last = Number(sessionStorage.getItem("qlstream-reload") || 0)
  if (Date.now() - last < 3000) return
  sessionStorage.setItem("qlstream-reload", Date.now())
  location.reload()
}

/* ---- clocks */

const two = n => String(n).padStart(2, "0")
const write = (element, text) => { if (element && element.textContent !== text) element.textContent = text }

function tick() {
  const now = new Date(Date.now() + page.offset)
  write($("utc"), `${two(now.getUTCHours())}:${two(now.getUTCMinutes())}:${two(now.getUTCSeconds())}`)
  write($("local"), `${two(now.getHours())}:${two(now.getMinutes())} local`)
  for (const time of document.querySelectorAll("time[data-since]")) {
    const s = Math.max(0, now / 1000 - Number(time.dataset.since))
    const text = s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`
    write(time, `${text} ago`)
    const limit = time.closest("[data-late]")  // what stays silent too long
    if (limit) { limit.classList.toggle("late", s > Number(limit.dataset.late)); write(time, text) }
  }
  judge()
}

/* ---- choices: controls with data-choice change the URL and go to the server */

let waiting = null
function choose(name, value) {
  const url = new URL(location.href)
  url.searchParams.set(name, value)
  history.replaceState(null, "", url)
  for (const twin of document.querySelectorAll(`input[data-choice="${name}"]:not([type=checkbox])`))
    if (twin.value !== String(value)) twin.value = value
  clearTimeout(waiting)
  waiting = setTimeout(() => {
    const now = [...new URL(location.href).searchParams]
    if (page.choices) page.choices.data = {name: now.map(p => p[0]), value: now.map(p => p[1])}
  }, 60)
}

function step(by) {
  const field = document.querySelector('input[type=number][data-choice="fiber"]')
  if (!field) return
  const value = Math.min(Number(field.max), Math.max(Number(field.min), Number(field.value) + by))
  choose("fiber", value)
}

document.addEventListener("input", event => {
  const el = event.target
  if (el.dataset.choice && el.type === "range") choose(el.dataset.choice, el.value)
})
document.addEventListener("change", event => {
  const el = event.target
  if ("go" in el.dataset) { if (el.value) location.href = el.value; return }
  if (!el.dataset.choice) return
  if (el.type === "number" && !(el.value >= Number(el.min) && el.value <= Number(el.max))) return
  choose(el.dataset.choice, el.type === "checkbox" ? (el.checked ? "1" : "0") : el.value)
})
document.addEventListener("click", event => {
  const button = event.target.closest("button")
  if (button?.dataset.choice) choose(button.dataset.choice, button.value)
  else if (button?.dataset.step) step(Number(button.dataset.step))
  else if (button?.id === "theme") theme()
  else if (button?.id === "help") $("keys").showModal()
  const inside = event.target.closest("details.help")
  for (const other of document.querySelectorAll("details.help[open]")) if (other !== inside) other.open = false
})

/* ---- theme and keys */

function theme() {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches
  root.dataset.theme = dark ? "light" : "dark"
  stored("qlstream-theme", root.dataset.theme)
  repaint()
}
function repaint() {  // figures take their colors from the style sheet when they are painted
  for (const view of Object.values(window.Bokeh?.index ?? {})) view.invalidate_render?.() ?? view.resize_layout?.()
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint)

const go = selector => { const link = document.querySelector(selector); if (link?.href) location.href = link.href; return !!link }
function row(by) {  // on the night's page j and k walk through the rows
  const rows = [...document.querySelectorAll("[data-row]")]
  const at = rows.indexOf(document.activeElement)
  rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus()
}
const KEYS = {
  j: () => go("a[rel=prev]") || row(1),
  k: () => go("a[rel=next]") || row(-1),
  "[": () => step(-1),
  "]": () => step(1),
  ",": () => go('a[data-nav="left"]'),
  ".": () => go('a[data-nav="right"]'),
  f: () => document.querySelector('input[type=number][data-choice="fiber"]')?.select(),
  l: () => go('a[data-nav="live"]'),
  n: () => go('a[data-nav="night"]'),
  e: () => go('a[data-nav="exposure"]'),
  t: theme,
  "?": () => $("keys").showModal(),
}
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys")?.open) return
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range" && event.target.type !== "checkbox") return
  if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key]() }
})

/* ---- begin: Bokeh brings the document after the page */

function begin() {
  const doc = window.Bokeh?.documents?.[0]
  const fragments = doc?.get_model_by_name("fragments")
  if (!fragments) { setTimeout(begin, 30); return }
  page.fragments = fragments
  page.choices = doc.get_model_by_name("choices")
  for (const signal of [fragments.streaming, fragments.patching, fragments.properties.data.change]) signal.connect(update)
  page.loaded = Date.now()
  update()
}
document.addEventListener("DOMContentLoaded", () => { begin(); tick(); setInterval(tick, 1000) })
