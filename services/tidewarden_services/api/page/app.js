// The page's one state and who shows what of it. The server tells it everything; nothing is computed
// here that somebody could disagree with.
import { AlertList, AnomalyList, isActive, order } from "./alerts.js";
import { api } from "./api.js";
import { loadPlotly } from "./chart.js";
import { legend, severityFilters, tabs, themeButton } from "./controls.js";
import { fill, h, segments, text } from "./dom.js";
import { count, duration, rangeAround, seriesLink, seriesPath, time } from "./format.js";
import { Numbers, showHealth } from "./health.js";
import { HeatMap } from "./heatmap.js";
import { RejectedDialog } from "./rejected.js";
import { start as startRouter } from "./router.js";
import { SeriesView } from "./series.js";
import { LiveSocket } from "./socket.js";
import { drawVerdict, verdict } from "./verdict.js";

const KEPT_ANOMALIES = 500;
const KEPT_ALERTS = 300;
const TREE_EVERY_MS = 5000;
const WINDOWS = [["now", "now", "Colour by the present score"], ["1h", "1 h", "Colour by the highest anomaly of the last hour"], ["6h", "6 h", "Colour by the highest anomaly of the last six hours"], ["1d", "1 d", "Colour by the highest anomaly of the last day"]];
const WINDOW_MS = { "1h": 3600e3, "6h": 6 * 3600e3, "1d": 86400e3 };
// A replay runs so fast that an incident of ten minutes is over in a blink. The map then shows what has
// been within a window that takes an eye's ten seconds, unless a person chose another.
const FAST_FROM_SPEED = 30;
const GLANCE_MS = 10e3;
const SPEED_OVER_MS = 4000;

const $ = (id) => document.getElementById(id);

const state = {
  statistics: null, health: null, alerts: new Map(), anomalies: new Map(), loaded: false,
  connection: { state: "connecting" }, window: "now", needle: "", severities: new Set(["critical", "warning", "info"]), detector: "",
};

const paces = new Map(); // tenant → {now, at, speed}: where its time was a moment ago
let chooseWindow = null;
let loading = null;

const rejected = new RejectedDialog($("rejected"));
const showRejected = () => rejected.open();
const numbers = new Numbers($("numbers"), { onRejected: showRejected });
const map = new HeatMap($("heatmap"), { onOpen: openNode, tip: $("tip") });
const socket = new LiveSocket("/ws", { onMessage, onState });
const alertList = new AlertList($("panel-alerts"), { acknowledge, now: (tenant) => map.timeOf(tenant) });
const anomalyList = new AnomalyList($("panel-anomalies"));
const chart = new SeriesView($("series"), {
  socket,
  facts: {
    node: (key) => map.scopes.get([key.tenant, key.cluster, key.node].join("/")),
    threshold: (name) => state.statistics?.detectors?.find((d) => d.name === name)?.threshold ?? null,
  },
});

// --- what comes in -----------------------------------------------------------------------------------

function onMessage(type, data) {
  const many = Array.isArray(data) ? data : [data];
  if (type === "statistics" || type === "hello") state.statistics = data?.sources ? data : state.statistics;
  else if (type === "rollup" && !state.detector) map.update(data);
  else if (type === "readings") many.forEach((rows) => chart.append(rows));
  else if (type === "alert") many.forEach((alert) => keepAlert(alert));
  else if (type === "anomaly") {
    for (const anomaly of many) {
      keepAnomaly(anomaly);
      chart.found(anomaly);
    }
  }
  drawSoon();
}

function onState(connection) {
  const before = state.connection.state;
  state.connection = connection;
  if (connection.state === "open" && before !== "open") load();
  drawConnection();
}

function keepAnomaly(anomaly) {
  const known = state.anomalies.get(anomaly.id);
  if (known && known.revision > anomaly.revision) return;
  state.anomalies.set(anomaly.id, anomaly);
  trim(state.anomalies, KEPT_ANOMALIES, (a, b) => b.onset - a.onset);
}

/** A live alert says nothing of acknowledgements (they are no part of the stream): what is known stays. */
function keepAlert(alert) {
  const known = state.alerts.get(alert.id);
  if (known && known.revision > alert.revision) return;
  state.alerts.set(alert.id, { ...alert, acknowledged: alert.acknowledged ?? known?.acknowledged ?? null });
  trim(state.alerts, KEPT_ALERTS, order);
}

function trim(items, limit, compare) {
  if (items.size <= limit * 1.2) return;
  for (const item of [...items.values()].sort(compare).slice(limit)) items.delete(item.id);
}

/** Everything from the server; a call while one is under way joins it. */
function load() {
  loading ||= loadAll().finally(() => {
    loading = null;
  });
  return loading;
}

async function loadAll() {
  try {
    const [statistics, health, series, alerts, anomalies] = await Promise.all([
      api.statistics(), api.health(), api.series(), api.alerts({ limit: KEPT_ALERTS }), api.anomalies({ limit: KEPT_ANOMALIES }),
    ]);
    Object.assign(state, { statistics, health, loaded: true, failure: null });
    state.alerts.clear();
    state.anomalies.clear();
    alerts.forEach(keepAlert);
    anomalies.forEach(keepAnomaly);
    takeSeries(series);
    chart.refresh();
    await loadTree();
  } catch (error) {
    state.failure = error.message;
  }
  drawSoon();
}

function takeSeries(series) {
  const nodes = new Map();
  for (const s of series) {
    const path = [s.tenant, s.cluster, s.node].join("/");
    if (!nodes.has(path)) nodes.set(path, { tenant: s.tenant, cluster: s.cluster, node: s.node, metrics: [] });
    nodes.get(path).metrics.push(s.metric);
  }
  state.series = series.length;
  map.setNodes([...nodes.values()]);
}

/** The metrics behind each node: one tree a detector, or that of the chosen one. */
async function loadTree() {
  const chosen = state.detector;
  const names = chosen ? [chosen] : (state.statistics?.detectors || []).filter((d) => d.ready > 0 || d.learning === 0).map((d) => d.name);
  const trees = await Promise.all(names.map((detector) => api.rollup({ detector })));
  if (chosen !== state.detector) return;
  map.setTrees(trees);
  chart.refreshScores();
}

/** The metrics behind each node come with the tree; a big fleet asks for it less often. */
async function keepTree() {
  let wait = TREE_EVERY_MS;
  if (!document.hidden && state.connection.state === "open") {
    const begin = performance.now();
    try {
      await loadTree();
      if (!state.series || map.nodes.some((node) => !node.known)) takeSeries(await api.series());
      state.health = await api.health();
      drawSoon();
    } catch {
      // The connection's own state tells people; the next turn tries again.
    }
    wait = Math.max(wait, 20 * (performance.now() - begin));
  }
  setTimeout(keepTree, wait);
}

// --- what is done ------------------------------------------------------------------------------------

async function acknowledge(alert, by, note) {
  const put = (acknowledged) => {
    const known = state.alerts.get(alert.id) || alert;
    state.alerts.set(alert.id, { ...known, acknowledged });
    draw();
  };
  put({ by, at: Date.now(), note, sending: true });
  try {
    const answer = await api.acknowledge(alert.id, by, note);
    put(answer?.acknowledged ?? { by, at: answer?.at ?? Date.now(), note });
  } catch (error) {
    put(null);
    throw error;
  }
}

/** A node was chosen: the chart that explains its colour, which is that of its worst metric. */
async function openNode(node) {
  const where = { tenant: node.tenant, cluster: node.cluster, node: node.node };
  const known = [...state.anomalies.values()].filter((a) => Object.keys(where).every((name) => a[name] === where[name]));
  // Somebody was faster than the page: what it does not know yet is asked for.
  const anomalies = known.length || node.metrics ? known : await api.anomalies({ ...where, limit: 20 }).catch(() => []);
  const since = (map.timeOf(node.tenant) ?? Date.now()) - (WINDOW_MS[state.window] || 0);
  const worst = anomalies
    .filter((a) => a.state === "open" || (state.window !== "now" && a.end >= since))
    .sort((a, b) => b.peak_score - a.peak_score)[0];
  if (worst) {
    location.hash = seriesLink(seriesPath(worst), worst.state === "open" ? {} : rangeAround(worst.onset, worst.end));
    return;
  }
  const hottest = [...(node.metrics || [])].sort((a, b) => (b.score ?? 0) - (a.score ?? 0))[0];
  const metric = hottest?.metric ?? node.known?.[0] ?? (await api.series(where).catch(() => []))[0]?.metric;
  if (metric) location.hash = seriesLink(seriesPath({ ...where, metric }));
}

// --- what is shown -----------------------------------------------------------------------------------

let scheduled = false;
function drawSoon() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

const matches = (item) => !state.needle || haystack(item).includes(state.needle);
const haystack = (item) => [item.title, item.summary, item.explanation, item.tenant, item.cluster, item.node, item.metric, item.kind, ...(item.series || []), ...(item.kinds || [])].filter(Boolean).join(" ").toLowerCase();

function draw() {
  const alerts = [...state.alerts.values()];
  const anomalies = [...state.anomalies.values()].sort((a, b) => Number(b.state === "open") - Number(a.state === "open") || b.onset - a.onset);
  const visible = (item) => state.severities.has(item.severity) && matches(item);
  const shownAlerts = alerts.filter(visible);
  const shownAnomalies = anomalies.filter(visible);
  const filtered = state.needle || state.severities.size < 3;
  alertList.show(shownAlerts, { empty: emptyAlerts(filtered && alerts.length > shownAlerts.length) });
  anomalyList.show(shownAnomalies, { empty: !state.loaded ? "Loading…" : filtered && anomalies.length ? "No anomaly passes the filter." : "No anomaly has been found yet." });
  text($("count-alerts"), String(alerts.filter(isActive).length || ""));
  text($("count-anomalies"), String(anomalies.filter((a) => a.state === "open").length || ""));
  markMap(anomalies);
  if (state.statistics) {
    numbers.show(state.statistics);
    showHealth($("health-body"), state.statistics, { onRejected: showRejected });
    text($("health-uptime"), `up ${duration(1000 * state.statistics.uptime_s)}`);
    drawDetectors();
  }
  drawFleetHead();
  drawVerdict($("verdict"), verdict({ state, alerts, anomalies, nodes: map.nodes.length, scored: map.nodes.filter((node) => node.score !== null).length }));
  drawConnection();
}

function emptyAlerts(hidden) {
  if (!state.loaded) return "Loading…";
  if (hidden) return "No active alert passes the filter.";
  return "No alert is active. New ones appear here by themselves.";
}

function markMap(anomalies) {
  const open = new Map();
  const held = state.window === "now" ? null : new Map();
  for (const a of anomalies) {
    const path = [a.tenant, a.cluster, a.node].join("/");
    if (a.state === "open") open.set(path, (open.get(path) || 0) + 1);
    const since = (map.timeOf(a.tenant) ?? Date.now()) - (WINDOW_MS[state.window] || 0);
    if (held && (a.state === "open" || a.end >= since)) held.set(path, Math.max(held.get(path) || 0, a.peak_score));
  }
  map.mark(open);
  map.hold(held);
}

function drawFleetHead() {
  const speed = replaySpeed();
  if (speed >= FAST_FROM_SPEED && !state.windowChosen) {
    state.window = Object.keys(WINDOW_MS).find((id) => WINDOW_MS[id] >= speed * GLANCE_MS) ?? "1d";
    chooseWindow(state.window);
  }
  const size = map.nodes.length ? `${map.nodes.length} nodes, ${state.series ?? 0} series` : "";
  text($("fleet-asof"), speed >= FAST_FROM_SPEED ? `${size} · replay, ${count(Number(speed.toPrecision(2)))} × real time` : size);
  if (map.nodes.length === 0 && state.loaded) fill($("heatmap"), welcome());
}

/** How fast the slowest moving tenant's time runs against the clock; 0 while none moves. */
function replaySpeed() {
  const now = Date.now();
  let slowest = Infinity;
  for (const [tenant, at] of map.times) {
    const mark = paces.get(tenant);
    if (!mark) paces.set(tenant, { now, at, speed: 0 });
    else if (now - mark.now >= SPEED_OVER_MS) paces.set(tenant, { now, at, speed: (at - mark.at) / (now - mark.now) });
    const { speed } = paces.get(tenant);
    if (speed > 0 && speed < slowest) slowest = speed;
  }
  return Number.isFinite(slowest) ? slowest : 0;
}

function welcome() {
  const example = `curl ${location.origin}/api/v1/readings -H 'content-type: application/json' \\\n  -d '{"tenant":"shop","cluster":"eu","node":"n1","metrics":{"latency_ms":101.5}}'`;
  return h("div.welcome", null,
    h("h3", null, "No reading has arrived yet"),
    h("p", null, "Tidewarden is running and waits for its sources. Sources and what they last said are listed below. To send a first reading yourself:"),
    h("pre", null, example),
    h("p", null, "or stop the server and start ", h("code", null, "tidewarden demo"), ". The API is described at ", h("a", { href: "/openapi.json" }, "/openapi.json"), "."));
}

function drawDetectors() {
  const names = (state.statistics.detectors || []).map((d) => d.name);
  const select = $("fleet-detector");
  select.hidden = names.length < 2;
  if (select.options.length === names.length + 1) return;
  fill(select, h("option", { value: "" }, "all detectors"), names.map((name) => h("option", { value: name }, name)));
  select.value = state.detector;
}

function drawConnection() {
  const { state: now, retryAt } = state.connection;
  const box = $("connection");
  box.dataset.state = now;
  text(box.lastElementChild, { open: "live", connecting: "connecting", waiting: "offline" }[now]);
  const banner = $("banner");
  const lost = now !== "open" && state.everOpen;
  if (now === "open") state.everOpen = true;
  const failed = now === "waiting" && !state.everOpen;
  if (banner.hidden === (lost || failed)) banner.hidden = !(lost || failed);
  document.body.classList.toggle("stale", lost);
  if (lost || failed) {
    if (!banner.firstChild) {
      // The countdown is for eyes: read aloud each second it would drown everything else.
      fill(banner, h("span"), h("span", { "aria-hidden": "true" }), h("button.small", { type: "button", onclick: () => socket.retryNow() }, "Try now"));
    }
    const seconds = Math.max(0, Math.ceil(((retryAt ?? Date.now()) - Date.now()) / 1000));
    const since = state.lostAt ? `What you see is from ${time(state.lostAt)}. ` : "";
    text(banner.firstChild, `The connection to the server is lost. ${since}`);
    text(banner.children[1], now === "connecting" ? "Trying again…" : `Next try in ${seconds} s.`);
  } else state.lostAt = Date.now();
}

// --- controls ----------------------------------------------------------------------------------------

function onRoute(route, { first }) {
  const series = route.view === "series";
  $("fleet").hidden = series;
  $("health").hidden = series;
  document.body.dataset.view = route.view;
  const from = chart.key; // the series that was shown before
  const lostFocus = document.activeElement === document.body || !document.activeElement?.offsetParent;
  if (series) {
    chart.open(route);
    const top = $("series").getBoundingClientRect().top;
    if (top < 0 || top > innerHeight / 2) $("series").scrollIntoView();
    if (lostFocus && !first) $("back").focus({ preventScroll: true });
  } else {
    chart.close();
    if (from && document.activeElement === document.body) map.focus(from);
  }
}

function start() {
  tabs([$("tab-alerts"), $("tab-anomalies")]);
  severityFilters($("severities"), state.severities, draw);
  themeButton($("theme"));
  legend($("legend"));
  chooseWindow = segments($("fleet-window"), WINDOWS, state.window, (id) => {
    state.window = id;
    state.windowChosen = true;
    draw();
  });
  $("filter").addEventListener("input", (event) => {
    state.needle = event.target.value.trim().toLowerCase();
    map.filter(state.needle);
    draw();
  });
  $("fleet-detector").addEventListener("change", (event) => {
    state.detector = event.target.value;
    map.clear();
    loadTree().catch((error) => { state.failure = error.message; });
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing) {
      event.preventDefault();
      $("filter").focus();
    } else if (event.key === "Escape" && !typing && !$("rejected").open && location.hash.startsWith("#/series")) location.hash = "#/";
  });
  startRouter(onRoute);
  socket.connect();
  load();
  keepTree();
  setInterval(drawConnection, 1000);
  const idle = window.requestIdleCallback || ((work) => setTimeout(work, 3000));
  idle(() => loadPlotly().catch(() => {}), { timeout: 8000 });
}

start();
