// One series: its chart, the other metrics of its node, and every anomaly in view, explained.
import { anomalyItem, remembered } from "./alerts.js";
import { api } from "./api.js";
import { draw, lowerBound, purge } from "./chart.js";
import { fill, h, keyed, segments, text } from "./dom.js";
import { band, count, pill, seriesLink, seriesPath, timeElement, value } from "./format.js";

const HOUR = 3600e3;
const RANGES = [["1h", HOUR], ["6h", 6 * HOUR], ["1d", 24 * HOUR], ["1w", 7 * 24 * HOUR], ["all", null]];
const DEFAULT_RANGE = "6h";
const POINTS = 1500; // per screen; twice the pixels of a wide chart is more than an eye can use
const LIVE_ROWS_MAX = 6000;
const DRAW_EVERY_MS = 1000;
const COLUMNS = ["timestamp", "value", "anomaly_score", "p_value", "expected", "lower", "upper", "kind"];

const emptyColumns = () => Object.fromEntries(COLUMNS.map((name) => [name, []]));

export class SeriesView {
  /** socket: for live readings; facts(): {node, threshold(detector)}; onChange(): the address should follow. */
  constructor(container, { socket, facts }) {
    this.container = container;
    this.socket = socket;
    this.facts = facts;
    this.key = null;
    window.addEventListener("themechange", () => this.key && this.#draw());
  }

  /** Show a series; a range in the address wins over "the last hours, live". */
  open({ key, from, to, detector }) {
    const path = seriesPath(key);
    if (this.path !== path) this.#build(key, path);
    this.detector = detector;
    this.container.hidden = false;
    const fixed = from !== undefined && to !== undefined && to > from;
    if (fixed && this.view && this.view.from === from && this.view.to === to && !this.following) return undefined;
    this.following = fixed ? null : this.range || DEFAULT_RANGE;
    this.base = this.following ? null : { from, to };
    this.chooseRange(this.following);
    return this.following ? this.#follow(this.following) : this.#load(from, to);
  }

  close() {
    if (!this.key) return;
    this.abort?.abort();
    this.socket.subscribe(null);
    purge(this.plot);
    this.key = null;
    this.path = null;
    this.view = null;
    this.container.hidden = true;
    this.container.replaceChildren();
  }

  #build(key, path) {
    this.abort?.abort();
    if (this.plot) purge(this.plot);
    this.key = key;
    this.path = path;
    this.columns = emptyColumns();
    this.anomalies = [];
    this.said = new Map(); // anomaly id → the newest word on it
    this.view = null;
    const rangeBar = h("div.segments", { role: "radiogroup", "aria-label": "Range" });
    this.plot = h("div.plot", { id: "plot" });
    this.message = h("p.plot-message", { role: "status" }, "Loading readings…");
    this.facts_line = h("p.facts-line");
    this.siblings = h("nav.siblings", { "aria-label": `Metrics of ${key.node}` });
    this.list = h("ul.list.found", { id: "series-anomalies" });
    this.listHead = h("h3", null, "Anomalies in view");
    this.liveMark = h("span.live", { hidden: true, title: "The chart moves on as readings arrive" }, "live");
    const step = (label, title, act) => h("button.small", { type: "button", "aria-label": title, title, onclick: act }, label);
    fill(this.container,
      h("div.head", null,
        h("nav.crumbs", { "aria-label": "Where" }, h("a", { href: "#/", id: "back" }, "← Fleet"),
          [key.tenant, key.cluster, key.node].map((name) => h("span", null, name))),
        h("span.grow"), this.liveMark),
      h("div.head.series-head", null,
        h("h2", { id: "series-title" }, key.metric), this.facts_line, h("span.grow"),
        h("div.controls", null,
          step("◀", "Earlier", () => this.#shift(-0.5)), step("▶", "Later", () => this.#shift(0.5)),
          step("+", "Zoom in", () => this.#zoom(0.5)), step("−", "Zoom out", () => this.#zoom(2)), rangeBar)),
      this.siblings,
      h("figure.chart", { id: "chart", role: "group", "aria-label": `Chart of ${path}` }, this.plot, this.message),
      h("div.key", { "aria-hidden": "true" },
        h("span.k-value", null, "value"), h("span.k-expected", null, "expected"), h("span.k-band", null, "expected band"),
        h("span.k-anomaly", null, "anomaly"), h("span.k-missing", null, "missing reading"),
        h("span.grow"), h("span.muted.wide", null, "drag to zoom, double-click for all of the range; local time")),
      this.listHead, this.list);
    this.chooseRange = segments(rangeBar, RANGES.map(([id]) => [id, id]), null, (id) => {
      this.range = id;
      this.following = id;
      this.base = null;
      history.replaceState(null, "", seriesLink(path, { detector: this.detector }));
      this.#follow(id);
    });
    this.#showSiblings();
  }

  /** The metrics of the node side by side, with their present scores. */
  async #showSiblings() {
    const { tenant, cluster, node } = this.key;
    const path = this.path;
    let rows;
    try {
      rows = await api.series({ tenant, cluster, node });
    } catch {
      return; // the chart's own request says what is wrong
    }
    if (this.path !== path) return;
    this.names = rows.filter((r) => r.tenant === tenant && r.cluster === cluster && r.node === node).map((r) => r.metric).sort();
    this.refreshScores();
  }

  /** Called when the rollup moved on: present scores on the metric tabs. */
  refreshScores() {
    if (!this.key || !this.names) return;
    const scores = new Map((this.facts.node(this.key)?.metrics || []).map((m) => [m.metric, m.score]));
    const own = this.columns.anomaly_score.findLast((s) => s !== null && s !== undefined);
    if (own !== undefined && this.following) scores.set(this.key.metric, own); // fresher than the tree's
    const items = [...new Set(this.names)].map((name) => ({ id: name, name, score: scores.get(name) ?? null, version: `${scores.get(name)}|${name === this.key.metric}` }));
    keyed(this.siblings, items, ({ name, score }) =>
      h("a", { href: seriesLink(seriesPath({ ...this.key, metric: name })), "aria-current": name === this.key.metric ? "page" : null }, name, pill(score)));
  }

  /** The last `id` of the series, and on from there as readings come. */
  async #follow(id) {
    const span = RANGES.find(([name]) => name === id)[1];
    const rows = await this.#guard(() => api.series(this.key));
    if (!rows) return;
    const own = rows.filter((r) => seriesPath(r) === this.path);
    if (own.length === 0) {
      this.#say(`There is no reading of ${this.path} yet. The chart starts with the first one.`);
      return;
    }
    const last = Math.max(...own.map((r) => r.last));
    const first = Math.min(...own.map((r) => r.first));
    const reach = span ?? Math.max(last - first, HOUR);
    await this.#load(Math.max(last - reach, span ? -Infinity : first), last, reach);
  }

  async #load(from, to, reach = to - from) {
    this.reach = reach;
    this.view = { from, to };
    this.abort?.abort();
    this.abort = new AbortController();
    const signal = this.abort.signal;
    // Half a screen more on both sides, so that panning shows something at once.
    const margin = Math.round(reach / 2);
    const since = Math.round(from - margin);
    const until = Math.round(to + margin) + 1;
    const results = await this.#guard(() => Promise.all([
      api.readings({ ...this.key, detector: this.detector, since, until, points: POINTS, limit: 20000 }, signal),
      api.anomalies({ ...this.key, since: since, until, limit: 200 }),
      api.feedback({ ...this.key, limit: 1000 }),
    ]), signal);
    if (!results || signal.aborted) return;
    const [readings, anomalies, words] = results;
    // Oldest first, so that the newest word on an anomaly stays; one that was just given may not be in the store yet.
    for (const word of words.reverse()) if (!(this.said.get(word.anomaly_id)?.at_ms > word.at_ms)) this.said.set(word.anomaly_id, word);
    this.columns = { ...emptyColumns(), ...readings.columns };
    if (this.following) this.socket.subscribe(this.path, readings.detector);
    else this.socket.subscribe(null);
    this.detector_shown = readings.detector;
    this.anomalies = anomalies.filter((a) => !readings.detector || a.detector === readings.detector);
    this.#draw();
  }

  async #guard(work, signal) {
    this.underWay = (this.underWay || 0) + 1;
    try {
      return await work();
    } catch (error) {
      if (signal?.aborted || error.name === "AbortError") return null;
      this.#say(`The readings could not be loaded: ${error.message}`);
      return null;
    } finally {
      this.underWay -= 1;
    }
  }

  #say(message) {
    text(this.message, message);
    this.message.hidden = !message;
  }

  #shift(share) {
    if (!this.view) return;
    const span = this.view.to - this.view.from;
    this.#look(this.view.from + share * span, this.view.to + share * span);
  }

  #zoom(factor) {
    if (!this.view) return;
    const middle = (this.view.from + this.view.to) / 2;
    const half = Math.max(30e3, ((this.view.to - this.view.from) / 2) * factor);
    this.#look(middle - half, middle + half);
  }

  /** A person chose this range: it stays put, and the address names it. */
  #look(from, to) {
    this.base ||= this.following ? { range: this.following } : { ...this.view };
    this.following = null;
    this.chooseRange(null);
    history.replaceState(null, "", seriesLink(this.path, { from, to, detector: this.detector }));
    this.view = { from: Math.round(from), to: Math.round(to) };
    clearTimeout(this.settle);
    this.#draw();
    this.settle = setTimeout(() => this.#load(this.view.from, this.view.to), 150);
  }

  #reset() {
    const base = this.base;
    if (!base) return;
    this.base = null;
    if (base.range) {
      this.following = base.range;
      this.chooseRange(base.range);
      history.replaceState(null, "", seriesLink(this.path, { detector: this.detector }));
      this.#follow(base.range);
    } else this.#look(base.from, base.to);
  }

  /** Live rows of the subscribed series: {series, columns} as in GET /api/readings. */
  append(data) {
    // A range that a person chose stays as it is; so does a chart whose first load is still under way.
    if (!this.key || !data || !this.following || !this.columns.timestamp.length) return;
    const columns = data.columns || data;
    const where = typeof data.series === "string" ? data.series : data.series && seriesPath(data.series);
    if ((where && where !== this.path) || !columns.timestamp?.length) return;
    if (this.detector_shown && data.detector && data.detector !== this.detector_shown) return;
    // A row may come again, with the score that it lacked before: the newer word holds.
    const overlap = lowerBound(this.columns.timestamp, columns.timestamp[0]);
    for (const name of COLUMNS) this.columns[name].splice(overlap, Infinity, ...columns[name]);
    const over = this.columns.timestamp.length - LIVE_ROWS_MAX;
    if (over > 0) for (const name of COLUMNS) this.columns[name].splice(0, over);
    const last = this.columns.timestamp.at(-1);
    if (this.view && last > this.view.to) this.view = { from: this.following === "all" ? this.view.from : last - this.reach, to: last };
    this.#drawSoon();
  }

  /** A live anomaly, new or grown. */
  found(anomaly) {
    if (!this.key || seriesPath(anomaly) !== this.path) return;
    if (this.detector_shown && anomaly.detector !== this.detector_shown) return;
    this.anomalies = [anomaly, ...this.anomalies.filter((a) => a.id !== anomaly.id)];
    this.#drawSoon();
  }

  /** Load again what is in view, as after a lost connection. */
  refresh() {
    if (!this.key || this.underWay) return;
    if (this.following) this.#follow(this.following);
    else if (this.view) this.#load(this.view.from, this.view.to);
  }

  #drawSoon() {
    this.drawing ||= setTimeout(() => {
      this.drawing = null;
      // Drawing takes the hover label away: a chart that somebody points at waits until they are done.
      if (this.key && this.plot.matches(":hover") && matchMedia("(hover: hover)").matches) this.#drawSoon();
      else if (this.key) this.#draw();
    }, DRAW_EVERY_MS);
  }

  async #draw() {
    const { columns, view } = this;
    if (!view) return;
    this.liveMark.hidden = !this.following;
    const inView = this.anomalies.filter((a) => a.end >= view.from && a.onset <= view.to).sort((a, b) => b.onset - a.onset);
    const fresh = columns.timestamp.length > 0;
    if (!fresh) this.#say("There is no reading in this range. Choose “all” to see when the series had some.");
    this.#describe(inView);
    this.refreshScores();
    if (!fresh) return;
    const path = this.path;
    try {
      await draw(this.plot, {
        columns, anomalies: this.anomalies, range: [view.from, view.to], metric: this.key.metric,
        threshold: this.facts.threshold(this.detector_shown),
        revision: `${view.from}-${view.to}`,
      }, { onZoom: (from, to) => this.#look(from, to), onReset: () => this.#reset() });
      if (path === this.path) this.#say("");
    } catch (error) {
      this.#say(error.message);
    }
  }

  /** Say that an anomaly was right or wrong; shown at once, taken back where the server does not take it. */
  async #give(anomaly, verdict) {
    const before = this.said.get(anomaly.id);
    const by = remembered() || "page";
    this.said.set(anomaly.id, { verdict, by, at_ms: Infinity });
    this.#draw();
    try {
      this.said.set(anomaly.id, await api.say(anomaly.id, verdict, by));
    } catch (error) {
      this.said.set(anomaly.id, { ...before, error: `Not kept: ${error.message}` });
      this.#draw();
    }
  }

  /** In words what the chart shows; also what a screen reader gets instead of it. */
  #describe(inView) {
    const { columns } = this;
    let i = columns.timestamp.length - 1;
    while (i >= 0 && columns.value[i] === null) i--;
    const parts = [];
    if (i >= 0) {
      const range = band(columns.lower[i], columns.upper[i]);
      parts.push("last ", h("b", null, value(columns.value[i])), range ? ` expected ${range}` : " still learning", " · ", timeElement(columns.timestamp[i]));
    }
    fill(this.facts_line, parts);
    text(this.listHead, inView.length ? `Anomalies in view (${inView.length})` : "No anomaly in view");
    keyed(this.list, inView.slice(0, 50).map((a) => ({ id: a.id, version: `${a.revision}|${JSON.stringify(this.said.get(a.id) ?? "")}`, a })), 
      (item) => anomalyItem(item.a, { where: false, said: this.said.get(item.a.id), say: (verdict) => this.#give(item.a, verdict) }));
    this.plot.parentElement.setAttribute("aria-label",
      `Chart of ${this.path}: ${count(columns.timestamp.length)} points, ${this.facts_line.textContent}, ${inView.length} anomalies in view, listed below`);
  }
}
