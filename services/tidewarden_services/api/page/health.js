// How the product itself is doing: the line of numbers, sources, detectors, simulations, services.
import { fill, h } from "./dom.js";
import { count, duration, kind, score } from "./format.js";

const SPARK_POINTS = 60;
const sum = (items, field) => (items || []).reduce((total, item) => total + (item[field] || 0), 0);

export class Numbers {
  /** The strip of figures under the header; onRejected() opens the list of refused readings. */
  constructor(container, { onRejected }) {
    this.rates = [];
    this.figures = {};
    const figure = (id, label, title, extra) => {
      const number = h("b", { id: `number-${id}` }, "–");
      this.figures[id] = number;
      return h("div.figure", { title }, h("span.label", null, label), h("span.value", null, number, extra));
    };
    this.spark = svg("svg", { class: "spark", viewBox: `0 0 ${SPARK_POINTS} 20`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.line = svg("polyline", { fill: "none", points: "" });
    this.spark.append(this.line);
    this.rejected = h("button.figure", { type: "button", id: "show-rejected", title: "Show the readings that were refused, with reasons", onclick: onRejected },
      h("span.label", null, "rejected"), h("span.value", null, (this.figures.rejected = h("b", { id: "number-rejected" }, "–"))));
    fill(container,
      figure("rate", "readings / s", "Readings accepted a second, over the last seconds", this.spark),
      figure("readings", "readings", "Readings accepted since the start"),
      this.rejected,
      figure("late", "late", "Readings older than the newest one of their series: scored, not learned from"),
      figure("gaps", "gaps", "Stretches in which an expected reading did not come"),
      figure("lag", "backlog", "Records on the bus that a service has not yet read"),
      figure("latency", "latency p99", "From a reading's arrival to its score: 99 % are faster"),
      figure("anomalies", "anomalies", "Anomalies found since the start; open ones in brackets"));
  }

  show(s) {
    const set = (id, value) => {
      if (this.figures[id].textContent !== value) this.figures[id].textContent = value;
    };
    set("rate", count(s.readings_per_second));
    set("readings", count(s.readings));
    set("rejected", count(s.rejected));
    this.rejected.dataset.some = s.rejected > 0;
    set("late", count(s.late));
    set("gaps", count(sum(s.sources, "gaps")));
    set("lag", count(s.lag_records));
    const p99 = s.latency_ms?.p99;
    set("latency", p99 === null || p99 === undefined ? "–" : p99 < 10 ? `${p99.toFixed(1)} ms` : p99 < 2000 ? `${Math.round(p99)} ms` : `${(p99 / 1000).toFixed(1)} s`);
    set("anomalies", `${count(s.anomalies)} (${count(s.anomalies_open)})`);
    this.rates.push(s.readings_per_second || 0);
    this.rates = this.rates.slice(-SPARK_POINTS);
    const top = Math.max(...this.rates, 1);
    const first = SPARK_POINTS - this.rates.length;
    this.line.setAttribute("points", this.rates.map((rate, i) => `${first + i},${(19 - (18 * rate) / top).toFixed(1)}`).join(" "));
  }
}

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const GOOD = new Set(["ok", "running", "ready", "done", "finished", "connected", "idle", "complete", "completed"]);
const BAD = new Set(["failed", "error", "down", "stopped"]);

function stateBadge(state) {
  const word = state || "unknown";
  const tone = GOOD.has(word) ? "good" : BAD.has(word) ? "bad" : "plain";
  return h("span.badge", { dataset: { tone } }, word);
}

const cell = (name, ...content) => h("td", { dataset: { label: name } }, ...content);
const number = (name, ...content) => h("td.number", { dataset: { label: name } }, ...content);

function table(caption, heads, rows) {
  return h("table.facts", null,
    h("caption", null, caption),
    h("thead", null, h("tr", null, heads.map(([label, css, title]) => h(`th${css ? `.${css}` : ""}`, { scope: "col", title }, label)))),
    h("tbody", null, rows));
}

function sources(list, onRejected) {
  return table("Sources",
    [["source"], ["state"], ["accepted", "number"], ["rejected", "number"], ["late", "number"], ["behind", "number", "Now minus the newest timestamp that the source delivered"]],
    list.map((s) => h("tr", null,
      h("th", { scope: "row" }, s.name, h("span.muted", null, ` ${[s.stream, s.kind].filter(Boolean).join(" · ")}`)),
      cell("state", stateBadge(s.state)),
      number("accepted", count(s.accepted), s.success_rate !== undefined && s.success_rate !== null && s.rejected ? h("span.muted", null, ` ${(100 * s.success_rate).toFixed(s.success_rate > 0.99 ? 2 : 1)} %`) : null),
      number("rejected", s.rejected
        ? h("button.link", { type: "button", onclick: () => onRejected(), title: reasons(s.rejected_by_reason) }, count(s.rejected))
        : "0"),
      number("late", count(s.late)),
      number("behind", behind(s)))));
}

function behind({ lag_s, kind: source }) {
  if (lag_s === null || lag_s === undefined) return "–";
  // Old data is played on purpose; its distance from the clock says nothing about health.
  if (source === "simulation" || source === "file" || Math.abs(lag_s) > 86400) return h("span.muted", { title: `newest timestamp is ${duration(1000 * lag_s)} old` }, "replay");
  return duration(1000 * lag_s);
}

const reasons = (counts) => Object.entries(counts || {}).map(([reason, n]) => `${kind(reason)}: ${n}`).join("\n");

/** "learning 34 of 120", with a bar; "ready" once every series is. */
function progress(d) {
  const total = (d.ready || 0) + (d.learning || 0) || d.series || 0;
  if (!total) return h("span.muted", null, "waiting for the first reading");
  if (!d.learning) return h("span.badge", { dataset: { tone: "good" } }, "ready");
  const seen = /(\d+) of (\d+)/.exec(d.message || "");
  const share = d.ready ? d.ready / total : seen ? Number(seen[1]) / Number(seen[2]) : 0;
  return h("span.learning", { title: `Scores appear once a series has ${d.warmup} readings` },
    h("progress", { max: 1, value: share, "aria-label": `${d.name} learning` }),
    d.message || `learning, ${d.learning} of ${total} series`);
}

function detectors(list) {
  return table("Detectors",
    [["detector"], ["model"], ["state"], ["series", "number"], ["threshold", "number"], ["memory", "number"]],
    list.map((d) => h("tr", null,
      h("th", { scope: "row" }, d.name, h("span.muted", null, ` ${d.stream || ""}`)),
      cell("model", d.model || "–"),
      cell("state", progress(d)),
      number("series", count(d.series)),
      number("threshold", threshold(d)),
      number("memory", bytes(d.state_bytes)))));
}

/** A fixed threshold, or the budget of false alarms from which the detector finds its own. */
function threshold(d) {
  if (d.threshold !== null && d.threshold !== undefined) return score(d.threshold);
  return d.budget_per_day ? h("span", { title: "Budget of false alarms; the threshold follows from it" }, `${Number(d.budget_per_day.toPrecision(2))} / day`) : "–";
}

function bytes(n) {
  if (n === null || n === undefined) return "–";
  if (n >= 1048576) return `${(n / 1048576).toFixed(1)} MiB`;
  return `${Math.ceil(n / 1024)} KiB`;
}

const ratio = (x) => (x === null || x === undefined ? "–" : x.toFixed(2));

function simulations(list) {
  return table("Simulations, scored against their own labels",
    [["simulation"], ["played"], ["detector"], ["precision", "number"], ["recall", "number"], ["F1", "number"], ["delay", "number", "Median from onset to detection"], ["false / day", "number", "False alarms a day"]],
    list.flatMap((s) => {
      const rows = s.evaluation?.length ? s.evaluation : [null];
      return rows.map((e, i) => h("tr", null,
        h("th", { scope: "row" }, i ? "" : s.name),
        cell("played", i ? "" : played(s)),
        cell("detector", e ? e.detector : h("span.muted", null, "not yet evaluated")),
        number("precision", ratio(e?.precision)), number("recall", ratio(e?.recall)), number("F1", ratio(e?.f1)),
        number("delay", e?.delay_median_s === null || e?.delay_median_s === undefined ? "–" : duration(1000 * e.delay_median_s)),
        number("false / day", ratio(e?.false_alarms_per_day))));
    }));
}

function played(s) {
  if (!s.total) return count(s.played);
  const share = Math.min(1, (s.played || 0) / s.total);
  return h("span.learning", { title: `${count(s.played)} of ${count(s.total)} readings` }, h("progress", { max: 1, value: share, "aria-label": `${s.name} played` }), `${Math.floor(100 * share)} %`);
}

/** The card "Ingest and detectors"; redrawn only where something in it changed. */
export function showHealth(container, s, { onRejected }) {
  const facts = JSON.stringify([s.sources, s.detectors, s.simulations]);
  if (container.facts === facts || container.contains(document.activeElement)) return;
  container.facts = facts;
  const blocks = [
    s.sources?.length ? sources(s.sources, onRejected) : h("p.empty", null, "No source has reported yet."),
    s.detectors?.length ? detectors(s.detectors) : h("p.empty", null, "No detector is running: readings are kept, nothing is scored. Add an AnomalyDetector resource."),
    s.simulations?.length ? simulations(s.simulations) : null,
  ];
  fill(container, blocks);
}
